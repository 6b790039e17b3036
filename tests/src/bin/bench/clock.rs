//! The CPU time of another process, as exactly as the kernel knows it.
//!
//! Of the ways to ask, `/proc/<pid>/stat` counts in ticks of 10 ms, and summing
//! `/proc/<pid>/task/*/schedstat` loses the threads that have ended. The process's CPU clock counts
//! nanoseconds of all its threads, ended ones too. rustix offers no such clock, so this file calls libc; it
//! is the benchmark's only unsafe code.

use std::{io, time::Duration};

/// CPU time that all threads of process `pid` have used so far, user and system together.
///
/// # Errors
/// ESRCH when there is no such process.
#[expect(unsafe_code, reason = "the clock of another process is reached through libc only")]
pub(crate) fn cpu_time(pid: i32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a valid place for one clockid_t for as long as the call lasts; the call keeps no
    // pointer.
    let code = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec for as long as the call lasts; the call keeps no
    // pointer.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Ok(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::cpu_time;

    #[test]
    fn an_ended_thread_still_counts() -> anyhow::Result<()> {
        let own = i32::try_from(std::process::id())?;
        let before = cpu_time(own)?;
        let spin =
            std::thread::spawn(|| (0..20_000_000_u64).fold(0_u64, |sum, n| std::hint::black_box(sum ^ n)));
        spin.join().map_err(|_| anyhow::anyhow!("the thread failed"))?;
        assert!(cpu_time(own)? > before);
        Ok(())
    }
}
