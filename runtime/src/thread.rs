//! Threads: what they have used, and what becomes of those that do what takes long.

use std::time::Duration;

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::Pid;
use rustix::time::{ClockId, clock_gettime};

use crate::limits;

/// CPU time of the current thread.
#[must_use]
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Lowers the priority of a thread of this process, for good: only root could raise it again. Others pass it soon, and it
/// still gets on.
pub fn lower_priority(thread: Pid, slice: Duration) {
    let nice = getpriority_process(Some(thread)).unwrap_or(0).max(limits::LOW_PRIORITY);
    if !lower_with_slice(thread, nice, slice) {
        // Where the system does not let it, the kernel shares the cores evenly among all threads.
        let _ = setpriority_process(Some(thread), nice);
    }
}

/// A thread that becomes ready passes one whose slice is longer at once, since Linux 6.12, and waits for the end of
/// another's, which is some milliseconds: `sched_setattr(2)`. One that has just had more than its share is looked at again
/// at the kernel's next tick, or when the other yields. An older kernel takes the priority alone.
#[expect(unsafe_code, reason = "there is no safe function for this call")]
fn lower_with_slice(thread: Pid, nice: i32, slice: Duration) -> bool {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>().try_into().unwrap_or(0),
        sched_policy: libc::SCHED_OTHER.unsigned_abs(),
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: slice.as_nanos().try_into().unwrap_or(0),
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the call reads the attributes, whose size they hold, and keeps nothing of them.
    let done =
        unsafe { libc::syscall(libc::SYS_sched_setattr, thread.as_raw_pid(), &raw const attributes, 0) };
    done == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::gettid;

    #[test]
    fn a_thread_is_lowered_alone() -> Result<(), Box<dyn std::error::Error>> {
        let before = getpriority_process(None)?;
        let lowered = std::thread::spawn(|| {
            let slice = Duration::from_millis(1);
            lower_priority(gettid(), slice);
            let nice = getpriority_process(None)?;
            Ok::<_, rustix::io::Errno>((nice, lower_with_slice(gettid(), nice, slice)))
        });
        let expected = (before.max(limits::LOW_PRIORITY), true);
        assert_eq!(lowered.join().map_err(|_| "it panicked")??, expected);
        assert_eq!(getpriority_process(None)?, before);
        Ok(())
    }
}
