//! Deeds that never end well.

use std::hint::{black_box, spin_loop};

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
