//! Deeds that never end well, and one that tells how often it was done.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicU32, Ordering};

/// Executes `unreachable`.
pub(crate) fn trap() -> ! {
    std::process::abort()
}

/// Burns the processor without ever calling the host.
pub(crate) fn spin() -> ! {
    loop {
        spin_loop();
    }
}

/// Takes memory, and touches it so that it is really taken, until the host has had enough.
pub(crate) fn allocate() -> ! {
    let mut taken = Vec::new();
    loop {
        taken.push(vec![0xd0_u8; 1024 * 1024]);
        black_box(&taken);
    }
}

/// Takes so much memory and touches it.
pub(crate) fn take(bytes: u64) -> Vec<u8> {
    black_box(vec![0xd0_u8; usize::try_from(bytes).unwrap_or(usize::MAX)])
}

/// Counts its calls in a memory that no other request should see.
pub(crate) fn count() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    (CALLS.fetch_add(1, Ordering::Relaxed) + 1).to_string()
}
