//! Subscribes to a day's end more often than its manifest allows.
//! expect: handle-limit
//! limit: handles_max
//! allowed: 500
//! manifest: {"limits": {"handles_max": 500}}

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(_: ResponseOutparam) {
    loop {
        std::mem::forget(subscribe_duration(u64::MAX / 2));
    }
}
