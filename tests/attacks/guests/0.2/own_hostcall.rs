//! Gives the host a header value of 200 kB, of which its manifest allows half.
//! expect: hostcall-limit
//! limit: hostcall_bytes_max
//! allowed: 100000
//! manifest: {"limits": {"hostcall_bytes_max": 100000}}

use wasip2::http::types::{Fields, ResponseOutparam};

pub(crate) fn attack(_: ResponseOutparam) {
    let _ = Fields::new().append("x-giant", &vec![b'x'; 200_000]);
}
