//! Writes 4 MB of log lines. What is beyond the limit is dropped, and the request goes on.
//! expect: answered
//! limit: log_bytes_max

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(out: ResponseOutparam) {
    let line = "x".repeat(4_000);
    (0..1_000).for_each(|_| println!("{line}"));
    crate::wire::reply(out, 200, "text/plain", b"flooded");
}
