//! Subscribes to a day's end again and again.
//! expect: handle-limit
//! limit: handles_max

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(_: ResponseOutparam) {
    loop {
        std::mem::forget(subscribe_duration(u64::MAX / 2));
    }
}
