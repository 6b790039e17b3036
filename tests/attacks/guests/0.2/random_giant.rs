//! Asks for more random bytes at once than a call may.
//! expect: random-limit
//! limit: random_bytes_max

use wasip2::http::types::ResponseOutparam;
use wasip2::random::random::get_random_bytes;

pub(crate) fn attack(_: ResponseOutparam) {
    std::hint::black_box(get_random_bytes(u64::MAX));
}
