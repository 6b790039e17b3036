//! Tells a command that does not come back from one that the machine holds up.

use std::time::{Duration, Instant};

use rustix::process::Pid;

/// A thread that is kept from a processor is given up after so many times the grace all the same.
const GRACES_MAX: u32 = 10;

/// When a command is to be done, and what was seen of its thread since.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    at: Instant,
    /// Its thread when it was first seen over its time, and when it was last looked at.
    seen: Option<(Look, Look)>,
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
        Self { at, seen: None }
    }

    /// Whether the command of a thread is over its time by more than `grace`, and the machine is not to blame: its thread
    /// has computed a quarter of the grace since then, or has been waiting for what is no disk. To be asked every now
    /// and then.
    pub(super) fn is_stuck(&mut self, now: Instant, grace: Duration, process: Pid, thread: Pid) -> bool {
        let Some(over) = now.checked_duration_since(self.at) else { return false };
        // One that cannot be seen has nothing to say for itself.
        let is_to_blame = look(process, thread).is_none_or(|look| self.is_to_blame(look, over, grace));
        is_to_blame && over >= grace
    }

    fn is_to_blame(&mut self, look: Look, over: Duration, grace: Duration) -> bool {
        let (first, last) = self.seen.unwrap_or((look, look));
        let is_first = self.seen.replace((first, look)).is_none();
        match look.state {
            State::Runnable => {
                look.computed.saturating_sub(first.computed) >= grace / 4 || over >= grace * GRACES_MAX
            }
            State::Disk => false,
            // A look may meet a thread that gets on in the moment that it waits for another.
            State::Waiting => look == last && !is_first,
        }
    }
}

fn look(process: Pid, thread: Pid) -> Option<Look> {
    let path = format!("/proc/{}/task/{}/stat", process.as_raw_pid(), thread.as_raw_pid());
    parse(&std::fs::read_to_string(path).ok()?)
}

/// Reads a line of proc_pid_stat(5). The name in it may hold anything, a parenthesis as well.
fn parse(stat: &str) -> Option<Look> {
    /// Linux shows times in ticks of so many milliseconds, whatever the kernel's own are.
    const TICK_MS: u64 = 10;
    let (_, fields) = stat.rsplit_once(") ")?;
    let state = match fields.chars().next()? {
        'R' => State::Runnable,
        'D' => State::Disk,
        _ => State::Waiting,
    };
    // Fields 14 and 15 of the line, in which the state is field 3.
    let mut times = fields.split(' ').skip(11).map(|field| field.parse::<u64>().ok());
    let (user, system) = (times.next()??, times.next()??);
    Some(Look { state, computed: Duration::from_millis(user.saturating_add(system).saturating_mul(TICK_MS)) })
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
                .map(|look| due.is_to_blame(look, GRACE, GRACE));
        assert_eq!(judged, [false, false, true]);
        let starved =
            [9, 10].map(|graces| due.is_to_blame(seen(State::Runnable, 1_040), GRACE * graces, GRACE));
        assert_eq!(starved, [false, true]);
        assert!(!due.is_to_blame(seen(State::Disk, 2_000), GRACE * 20, GRACE));
    }

    #[test]
    fn a_thread_that_waits_is_stuck_when_it_has_not_moved_between_two_looks() {
        let mut due = Due::at(Instant::now());
        let judged = [seen(State::Waiting, 1_000), seen(State::Waiting, 1_010), seen(State::Waiting, 1_010)]
            .map(|look| due.is_to_blame(look, GRACE, GRACE));
        assert_eq!(judged, [false, false, true]);
    }

    #[test]
    fn a_line_of_the_kernels_is_read_whatever_the_thread_is_called() {
        let line = "7 (a) D (b) R 1 1 1 0 -1 64 5 0 0 0 12 30 0 0 20 0 3 0 99 0 0\n";
        assert_eq!(parse(line), Some(seen(State::Runnable, 420)));
        assert_eq!(parse("7 (a) R 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn threads_that_compute_and_threads_that_wait_are_stuck_when_their_grace_is_over()
    -> Result<(), Box<dyn std::error::Error>> {
        static IS_OVER: AtomicBool = AtomicBool::new(false);
        let (tell, told) = mpsc::channel();
        let threads = [std::hint::spin_loop as fn(), std::thread::park].map(|pass_time| {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let _ = tell.send(gettid());
                while !IS_OVER.load(Ordering::Relaxed) {
                    pass_time();
                }
            })
        });
        let at = Instant::now();
        for thread in [told.recv()?, told.recv()?] {
            let mut due = Due::at(at);
            for _ in 0..3 {
                assert!(!due.is_stuck(at, GRACE, getpid(), thread));
            }
            while !due.is_stuck(at + GRACE, GRACE, getpid(), thread) {
                std::thread::yield_now();
            }
        }
        IS_OVER.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.thread().unpark();
            thread.join().map_err(|_| "it panicked")?;
        }
        Ok(())
    }

    #[test]
    fn a_thread_that_cannot_be_seen_is_stuck_after_its_grace() {
        let (at, nobody) = (Instant::now(), Pid::from_raw(i32::MAX));
        let is_stuck = |now| nobody.map(|nobody| Due::at(at).is_stuck(now, GRACE, getpid(), nobody));
        assert_eq!([at, at + GRACE].map(is_stuck), [Some(false), Some(true)]);
    }
}
