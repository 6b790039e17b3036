//! Is made of more instances than its manifest allows: its own, and those of adapters.
//! expect: instance-limit
//! limit: core_instances_max
//! allowed: 1
//! manifest: {"limits": {"core_instances_max": 1}}

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(out: ResponseOutparam) {
    crate::wire::reply(out, 200, "text/plain", b"it runs");
}
