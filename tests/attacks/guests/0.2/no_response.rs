//! Returns without a response.
//! expect: no-response

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(_: ResponseOutparam) {}
