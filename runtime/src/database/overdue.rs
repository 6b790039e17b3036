//! Tells a command that does not come back from one that the machine holds up.

use std::time::{Duration, Instant};

use rustix::process::Pid;

/// When a command is to be done, and what was seen of its thread since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    at: Instant,
    /// What its thread had computed when it was first seen over its time.
    computed_before: Option<Duration>,
}

/// A thread as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    state: State,
    computed: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It computes, or waits for a processor.
    Runnable,
    /// It is in a call to the disk that nothing can end.
    Disk,
    /// It waits for something else, or was stopped.
    Waiting,
}

impl Due {
    pub(super) fn at(at: Instant) -> Self {
        Self { at, computed_before: None }
    }

    /// Whether the command of a thread is over its time by more than `grace`, and nothing but itself is to blame. One
    /// that waits for the disk or for a processor is slow, not stuck. To be asked every now and then.
    pub(super) fn is_stuck(&mut self, now: Instant, grace: Duration, process: Pid, thread: Pid) -> bool {
        if now < self.at {
            return false;
        }
        let is_over = self.at + grace <= now;
        // A thread that cannot be seen has nobody to speak for it.
        look(process, thread).map_or(is_over, |look| self.judge(look, grace) && is_over)
    }

    fn judge(&mut self, look: Look, grace: Duration) -> bool {
        let before = *self.computed_before.get_or_insert(look.computed);
        match look.state {
            State::Runnable => look.computed.saturating_sub(before) >= grace / 4,
            State::Disk => false,
            State::Waiting => true,
        }
    }
}

fn look(process: Pid, thread: Pid) -> Option<Look> {
    let path = format!("/proc/{}/task/{}/stat", process.as_raw_pid(), thread.as_raw_pid());
    parse(&std::fs::read_to_string(path).ok()?)
}

/// Reads a line of proc_pid_stat(5). The name in it may hold anything, a parenthesis as well.
fn parse(stat: &str) -> Option<Look> {
    /// Linux shows times in ticks of this length, whatever the kernel's own are.
    const TICK: Duration = Duration::from_millis(10);
    let (_, fields) = stat.rsplit_once(") ")?;
    let state = match fields.chars().next()? {
        'R' => State::Runnable,
        'D' => State::Disk,
        _ => State::Waiting,
    };
    // Fields 14 and 15 of the line, in which the state is field 3.
    let mut times = fields.split(' ').skip(11).map(|field| field.parse::<u32>().ok());
    let (user, system) = (times.next()??, times.next()??);
    Some(Look { state, computed: TICK * (user + system) })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use rustix::process::getpid;
    use rustix::thread::gettid;

    use super::*;

    const GRACE: Duration = Duration::from_millis(200);

    fn seen(state: State, milliseconds: u64) -> Look {
        Look { state, computed: Duration::from_millis(milliseconds) }
    }

    #[test]
    fn a_thread_without_a_processor_is_not_stuck_and_one_that_has_computed_is() {
        let mut due = Due::at(Instant::now());
        let judged =
            [seen(State::Runnable, 1_000), seen(State::Runnable, 1_040), seen(State::Runnable, 1_050)]
                .map(|look| due.judge(look, GRACE));
        assert_eq!(judged, [false, false, true]);
        assert!(!due.judge(seen(State::Disk, 2_000), GRACE));
        assert!(due.judge(seen(State::Waiting, 1_000), GRACE));
    }

    #[test]
    fn a_line_of_the_kernels_is_read_whatever_the_thread_is_called() {
        let line = "7 (a) D (b) R 1 1 1 0 -1 64 5 0 0 0 12 30 0 0 20 0 3 0 99 0 0\n";
        assert_eq!(parse(line), Some(seen(State::Runnable, 420)));
        assert_eq!(parse("7 (a) R 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_busy_thread_is_told_from_one_that_waits() -> Result<(), Box<dyn std::error::Error>> {
        static IS_OVER: AtomicBool = AtomicBool::new(false);
        let (tell, told) = mpsc::channel();
        let busy = std::thread::spawn(move || {
            let _ = tell.send(gettid());
            while !IS_OVER.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let thread = told.recv()?;
        let at = Instant::now();
        let mut due = Due::at(at);
        assert!(!due.is_stuck(at, GRACE, getpid(), thread));
        while !due.is_stuck(at + GRACE, GRACE, getpid(), thread) {
            std::thread::yield_now();
        }
        let computed = look(getpid(), thread).ok_or("it cannot be seen")?.computed;
        IS_OVER.store(true, Ordering::Relaxed);
        busy.join().map_err(|_| "it panicked")?;
        assert!(computed >= GRACE / 4, "{computed:?}");
        Ok(())
    }
}
