//! Turns of slow commands: as many run at once as there are cores, each for a moment, and the turns go round the owners.
//!
//! A slow command keeps its thread until it is done. Without turns the kernel would share the cores among the threads,
//! and so give most to who has most of them, and let each stand before quick ones for longer.
//!
//! A command asks for a turn between two steps of its statement, where it holds nothing that others need. It is a
//! courtesy: one that gets none goes on for a moment now and then, so that it finds out when its time is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::message::Owner;
use crate::fair::Lines;

/// How long a turn is when others wait.
pub(super) const TURN: Duration = Duration::from_millis(10);

/// How long a command waits for a turn before it goes on without one.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// How long it then goes on.
pub(super) const WITHOUT_TURN: Duration = Duration::from_millis(1);

pub(super) struct Turns(Mutex<Waiting>);

struct Waiting {
    free: usize,
    line: Lines<Owner, Arc<Waiter>>,
}

struct Waiter {
    thread: Thread,
    has_turn: AtomicBool,
}

impl Turns {
    pub(super) fn new(number: usize) -> Self {
        Self(Mutex::new(Waiting { free: number, line: Lines::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits for a turn.
    pub(super) fn are_wanted(&self) -> bool {
        !self.lock().line.is_empty()
    }

    /// Waits for a turn, and says whether there is one.
    pub(super) fn take(&self, owner: Owner) -> bool {
        let waiter = {
            let mut waiting = self.lock();
            if waiting.free > 0 {
                waiting.free -= 1;
                return true;
            }
            let waiter = Arc::new(Waiter { thread: thread::current(), has_turn: AtomicBool::new(false) });
            waiting.line.push(owner, waiter.clone());
            waiter
        };
        let until = Instant::now() + WAIT_MAX;
        while !waiter.has_turn.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Whoever is no longer in line has just been given one.
                return self.lock().line.remove(&owner, |other| Arc::ptr_eq(other, &waiter)).is_none();
            }
            thread::park_timeout(left);
        }
        true
    }

    /// Gives a turn to whoever is next.
    pub(super) fn give_back(&self) {
        let mut waiting = self.lock();
        match waiting.line.pop() {
            Some((_, next)) => {
                next.has_turn.store(true, Ordering::Release);
                next.thread.unpark();
            }
            None => waiting.free += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn turns_go_round_the_owners() -> Result<(), Box<dyn std::error::Error>> {
        let (turns, loud, quiet) = (Arc::new(Turns::new(1)), Owner(1), Owner(2));
        assert!(turns.take(loud));
        let (served, order) = channel();
        let mut waiters = Vec::new();
        for (owner, name) in [(loud, "l1"), (loud, "l2"), (quiet, "q1")] {
            let before = turns.lock().line.len();
            let (turns_of_it, served) = (turns.clone(), served.clone());
            waiters.push(thread::spawn(move || {
                while !turns_of_it.take(owner) {}
                served.send(name).ok();
                turns_of_it.give_back();
            }));
            while turns.lock().line.len() == before {
                thread::yield_now();
            }
        }
        turns.give_back();
        drop(served);
        let names: Vec<_> = order.iter().collect();
        assert_eq!(names, ["l1", "q1", "l2"]);
        for waiter in waiters {
            waiter.join().map_err(|_| "it panicked")?;
        }
        assert_eq!(turns.lock().free, 1);
        Ok(())
    }

    #[test]
    fn a_turn_that_does_not_come_back_is_not_waited_for() {
        let turns = Turns::new(1);
        assert!(turns.take(Owner(1)));
        assert!(!turns.take(Owner(2)));
        assert!(!turns.are_wanted(), "who has given up still waits");
    }
}
