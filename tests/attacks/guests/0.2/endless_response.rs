//! Writes a response without end.
//! expect: cut
//! limit: response_bytes_max
//! manifest: {"limits": {"response_bytes_max": 1000000}}

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(out: ResponseOutparam) {
    if let Some(sending) = crate::wire::Sending::head(out, 200, "text/plain") {
        while sending.write(&[b'x'; 4 << 10]) {}
    }
}
