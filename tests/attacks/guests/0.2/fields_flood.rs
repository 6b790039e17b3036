//! Makes header fields and keeps them all.
//! expect: handle-limit
//! limit: handles_max

use wasip2::http::types::{Fields, ResponseOutparam};

pub(crate) fn attack(_: ResponseOutparam) {
    loop {
        std::mem::forget(Fields::new());
    }
}
