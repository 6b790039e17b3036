//! Ends its response before the length that it has sent.
//! expect: cut | guest-trap

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(out: ResponseOutparam) {
    let fields = [("content-length".to_owned(), b"400".to_vec())];
    if let Some(sending) = crate::wire::Sending::head_of(out, 200, &fields) {
        sending.write(b"short");
        sending.finish();
    }
}
