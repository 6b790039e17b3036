//! What the compiler's process takes away from itself before it looks at a component.
#![expect(unsafe_code, reason = "descriptors that nobody in this process owns are closed by their numbers")]

use std::io;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use crate::limits;

/// Keeps the three standard streams and no other descriptor, bounds address space, CPU time and files, leaves no core
/// dump, and ends with whoever started the process.
pub(super) fn bind(bytes_max: u64, cpu_time_max: Duration) -> io::Result<()> {
    close_inherited()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let bounds = [
        (Resource::As, bytes_max),
        (Resource::Cpu, cpu_time_max.as_secs().max(1)),
        (Resource::Core, 0),
        (Resource::Fsize, limits::COMPILED_BYTES_MAX),
    ];
    for (resource, limit) in bounds {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

/// What the server opens is closed by `exec`; this is for what its own starter has left open.
fn close_inherited() -> io::Result<()> {
    // SAFETY: the process has just begun and has opened nothing yet, so that nothing owns a descriptor above 2.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
