//! Opens its standard output again and again.
//! expect: handle-limit
//! limit: handles_max

use wasip2::cli::stdout::get_stdout;
use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(_: ResponseOutparam) {
    loop {
        std::mem::forget(get_stdout());
    }
}
