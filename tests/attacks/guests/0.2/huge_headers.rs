//! Fills the fields of a response with as much as the host takes.
//! expect: fields-limit
//! limit: field_bytes_max

use wasip2::http::types::{Fields, ResponseOutparam};

pub(crate) fn attack(_: ResponseOutparam) {
    let fields = Fields::new();
    while fields.append("x-huge", &[b'x'; 4 << 10]).is_ok() {}
}
