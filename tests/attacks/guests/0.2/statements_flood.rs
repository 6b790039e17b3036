//! Runs statements without end.
//! expect: cpu-time-limit | wall-time-limit
//! manifest: {"limits": {"wall_time_max_ms": 1000}}

use wasip2::http::types::ResponseOutparam;

use crate::bindings::spin::sqlite::sqlite::Connection;

pub(crate) fn attack(_: ResponseOutparam) {
    if let Ok(connection) = Connection::open("default") {
        loop {
            let _ = connection.execute("SELECT 1", &[]);
        }
    }
}
