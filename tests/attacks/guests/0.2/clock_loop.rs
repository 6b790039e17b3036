//! Asks for the time without end.
//! expect: cpu-time-limit
//! limit: cpu_time_max_ms

use wasip2::clocks::monotonic_clock::now;
use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(_: ResponseOutparam) {
    loop {
        std::hint::black_box(now());
    }
}
