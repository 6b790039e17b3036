//! Opens its database a thousand times, and keeps every connection.
//! expect: answered

use wasip2::http::types::ResponseOutparam;

use crate::bindings::spin::sqlite::sqlite::Connection;

pub(crate) fn attack(out: ResponseOutparam) {
    let opened: Vec<_> = (0..1_000).map(|_| Connection::open("default")).collect();
    let refused = opened.iter().filter(|connection| connection.is_err()).count();
    assert!(refused >= 744, "{refused} were refused");
    crate::wire::reply(out, 200, "text/plain", b"opened");
}
