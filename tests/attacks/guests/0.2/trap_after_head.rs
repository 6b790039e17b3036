//! Traps when a part of its response is out.
//! expect: cut

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(out: ResponseOutparam) {
    let _unfinished = crate::wire::start(out);
    crate::wire::sleep(20);
    std::process::abort()
}
