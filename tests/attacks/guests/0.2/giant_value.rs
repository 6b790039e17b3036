//! Gives the host a header value of 20 MB.
//! expect: hostcall-limit
//! limit: hostcall_bytes_max

use wasip2::http::types::{Fields, ResponseOutparam};

pub(crate) fn attack(_: ResponseOutparam) {
    let _ = Fields::new().append("x-giant", &vec![b'x'; 20 << 20]);
}
