//! Says that its response has a terabyte.
//! expect: response-too-large
//! limit: response_bytes_max

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(out: ResponseOutparam) {
    let fields = [("content-length".to_owned(), b"1000000000000".to_vec())];
    if let Some(sending) = crate::wire::Sending::head_of(out, 200, &fields) {
        while sending.write(&[b'x'; 4 << 10]) {}
    }
}
