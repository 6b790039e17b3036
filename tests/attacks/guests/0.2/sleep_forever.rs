//! Waits for a day.
//! expect: wall-time-limit
//! limit: wall_time_max_ms
//! manifest: {"limits": {"wall_time_max_ms": 300}}

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(_: ResponseOutparam) {
    crate::wire::sleep(24 * 60 * 60 * 1_000);
}
