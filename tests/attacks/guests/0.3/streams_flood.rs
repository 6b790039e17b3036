//! Makes streams and keeps both ends of each.
//! expect: handle-limit
//! limit: handles_max

use wasip3::wit_stream;

use crate::wire::Answer;

pub(crate) async fn attack() -> Answer {
    loop {
        std::mem::forget(wit_stream::new::<u8>());
    }
}
