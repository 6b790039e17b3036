//! Burns the processor without ever calling the host.
//! expect: cpu-time-limit
//! limit: cpu_time_max_ms

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(_: ResponseOutparam) {
    loop {
        std::hint::spin_loop();
    }
}
