//! Makes more streams than its manifest allows, and keeps both ends of each.
//! expect: handle-limit
//! limit: handles_max
//! allowed: 500
//! manifest: {"limits": {"handles_max": 500}}

use wasip3::wit_stream;

use crate::wire::Answer;

pub(crate) async fn attack() -> Answer {
    loop {
        std::mem::forget(wit_stream::new::<u8>());
    }
}
