//! Fills a response's header with as much as the host takes.
//! expect: answered

use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};

pub(crate) fn attack(out: ResponseOutparam) {
    let fields = Fields::new();
    while fields.append("x-huge", &[b'x'; 4 << 10]).is_ok() {}
    let response = OutgoingResponse::new(fields);
    let body = response.body();
    ResponseOutparam::set(out, Ok(response));
    let _ = body.map(|body| OutgoingBody::finish(body, None));
}
