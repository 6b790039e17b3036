//! Takes memory, and touches it, until there is none.
//! expect: memory-limit
//! limit: memory_bytes_max

use wasip2::http::types::ResponseOutparam;

pub(crate) fn attack(_: ResponseOutparam) {
    let mut taken = Vec::new();
    loop {
        taken.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&taken);
    }
}
