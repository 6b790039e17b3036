//! Writes 20 kB of log lines, of which its manifest allows a tenth. What is beyond is dropped, and the request goes on.
//! expect: answered
//! limit: log_bytes_max
//! allowed: 2000
//! manifest: {"limits": {"log_bytes_max": 2000}}

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(out: ResponseOutparam) {
    let line = "x".repeat(1_000);
    (0..20).for_each(|_| println!("{line}"));
    crate::wire::reply(out, 200, "text/plain", b"logged");
}
