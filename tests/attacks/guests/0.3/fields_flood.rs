//! Makes header fields and keeps them all.
//! expect: handle-limit
//! limit: handles_max

use wasip3::http::types::Fields;

use crate::wire::Answer;

pub(crate) async fn attack() -> Answer {
    loop {
        std::mem::forget(Fields::new());
    }
}
