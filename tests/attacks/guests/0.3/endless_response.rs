//! Writes a response without end.
//! expect: cut
//! limit: response_bytes_max
//! manifest: {"limits": {"response_bytes_max": 1000000}}

use crate::wire::{Answer, stream};

pub(crate) async fn attack() -> Answer {
    stream("text/plain", |mut sending| async move { while sending.write(&[b'x'; 4 << 10]).await {} })
}
