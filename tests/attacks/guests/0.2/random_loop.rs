//! Asks for random bytes without end, as many as one call may.
//! expect: cpu-time-limit
//! limit: cpu_time_max_ms

use wasip2::http::types::ResponseOutparam;
use wasip2::random::random::get_random_bytes;

pub(crate) fn attack(_: ResponseOutparam) {
    loop {
        std::hint::black_box(get_random_bytes(1 << 20));
    }
}
