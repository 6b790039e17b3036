//! Writes more than the length that it has sent.
//! expect: cut | answered | guest-trap

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(out: ResponseOutparam) {
    let fields = [("content-length".to_owned(), b"4".to_vec())];
    if let Some(sending) = crate::wire::Sending::head_of(out, 200, &fields) {
        sending.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        sending.finish();
    }
}
