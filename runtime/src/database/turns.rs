//! Turns of slow commands: as many run at once as there are cores, each for a moment, and the turns go round the owners.
//!
//! A slow command keeps its thread until it is done. Without turns the kernel would share the cores among the threads,
//! and so give most to who has most of them, and let each stand before quick ones for longer.
//!
//! A command asks for a turn between two steps of its statement, where it holds nothing that other tenants need. One
//! that waits for long goes on for a moment now and then, so that it finds out when its time is over, and stays in line
//! meanwhile. A turn that its holder does not pass on, because a step takes long, is taken back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::message::Owner;
use super::worker::lock;
use crate::fair::Lines;

/// How long a turn is when others wait.
const TURN: Duration = Duration::from_millis(10);

/// A turn that was not passed on for this long is taken back when others wait.
const TURN_MAX: Duration = Duration::from_millis(30);

/// How long a command waits for a turn before it goes on for a moment.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// How long it then goes on without one.
const WITHOUT_TURN: Duration = Duration::from_millis(1);

pub(super) struct Turns(Mutex<State>);

struct State {
    free: usize,
    holders: Vec<Holder>,
    line: Lines<Owner, Arc<SlowCommand>>,
}

struct Holder {
    command: Arc<SlowCommand>,
    since: Instant,
}

/// A command that is slow, which takes turns until it leaves.
pub(super) struct SlowCommand {
    owner: Owner,
    thread: Thread,
    has_turn: AtomicBool,
}

impl SlowCommand {
    /// A command of an owner on the current thread.
    pub(super) fn new(owner: Owner) -> Arc<Self> {
        Arc::new(Self { owner, thread: thread::current(), has_turn: AtomicBool::new(false) })
    }

    /// Waits for a turn, and says whether there is one.
    fn wait(&self) -> bool {
        let until = Instant::now() + WAIT_MAX;
        while !self.has_turn.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left);
        }
        true
    }
}

impl Turns {
    pub(super) fn new(number: usize) -> Self {
        Self(Mutex::new(State { free: number, holders: Vec::new(), line: Lines::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Passes the turn of a command on when others wait, and waits for its next one. Says how long it may go on.
    pub(super) fn next_turn(&self, command: &Arc<SlowCommand>) -> Duration {
        self.lock().ask(command);
        if command.wait() { TURN } else { WITHOUT_TURN }
    }

    /// Takes a command out, wherever it is.
    pub(super) fn leave(&self, command: &Arc<SlowCommand>) {
        let mut state = self.lock();
        if !state.give_back(command) {
            state.line.remove(&command.owner, |other| Arc::ptr_eq(other, command));
        }
    }

    /// Takes turns back that were not passed on in time.
    pub(super) fn take_back(&self, now: Instant) {
        let mut state = self.lock();
        if state.line.is_empty() {
            return;
        }
        let is_over = |holder: &&Holder| holder.since + TURN_MAX <= now;
        let over: Vec<_> = state.holders.iter().filter(is_over).map(|one| one.command.clone()).collect();
        over.iter().for_each(|command| {
            state.give_back(command);
        });
    }
}

impl State {
    /// Puts a command in line, unless it is there, or gives it a turn at once.
    fn ask(&mut self, command: &Arc<SlowCommand>) {
        let is_it = |other: &Arc<SlowCommand>| Arc::ptr_eq(other, command);
        if self.line.is_empty()
            && let Some(holder) = self.holders.iter_mut().find(|holder| is_it(&holder.command))
        {
            holder.since = Instant::now();
        } else if self.free > 0 {
            self.free -= 1;
            self.give(command.clone());
        } else if !self.line.any(&command.owner, is_it) {
            self.line.push(command.owner, command.clone());
            self.give_back(command);
        }
    }

    fn give(&mut self, command: Arc<SlowCommand>) {
        command.has_turn.store(true, Ordering::Release);
        command.thread.unpark();
        self.holders.push(Holder { command, since: Instant::now() });
    }

    /// Gives the turn of a command to whoever is next. Says whether it had one.
    fn give_back(&mut self, command: &Arc<SlowCommand>) -> bool {
        let place = self.holders.iter().position(|holder| Arc::ptr_eq(&holder.command, command));
        let Some(place) = place else { return false };
        self.holders.swap_remove(place);
        command.has_turn.store(false, Ordering::Release);
        match self.line.pop() {
            Some((_, next)) => self.give(next),
            None => self.free += 1,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands<const N: usize>(owners: [u128; N]) -> [Arc<SlowCommand>; N] {
        owners.map(|owner| SlowCommand::new(Owner(owner)))
    }

    fn with_turn(commands: &[Arc<SlowCommand>]) -> Vec<usize> {
        let has_turn = |command: &Arc<SlowCommand>| command.has_turn.load(Ordering::Acquire);
        commands
            .iter()
            .enumerate()
            .filter(|(_, command)| has_turn(command))
            .map(|(number, _)| number)
            .collect()
    }

    #[test]
    fn turns_go_round_the_owners() {
        let (turns, commands) = (Turns::new(1), commands([1, 1, 1, 2]));
        commands.iter().for_each(|command| turns.lock().ask(command));
        let mut order: Vec<usize> = Vec::new();
        for _ in 0..6 {
            let has_turn = with_turn(&commands);
            assert_eq!(has_turn.len(), 1);
            order.extend(&has_turn);
            has_turn
                .iter()
                .filter_map(|number| commands.get(*number))
                .for_each(|command| turns.lock().ask(command));
        }
        assert_eq!(order, [0, 1, 3, 2, 3, 0]);
        commands.iter().for_each(|command| turns.leave(command));
        let state = turns.lock();
        assert_eq!((state.free, state.holders.len(), state.line.len()), (1, 0, 0));
    }

    #[test]
    fn who_waits_for_long_goes_on_and_keeps_its_place() {
        let (turns, commands) = (Turns::new(1), commands([1, 2, 3]));
        let [holder, first, second] = &commands;
        assert_eq!(turns.next_turn(holder), TURN);
        assert_eq!(turns.next_turn(first), WITHOUT_TURN);
        turns.lock().ask(second);
        assert_eq!(turns.next_turn(first), WITHOUT_TURN);
        turns.leave(holder);
        assert_eq!(with_turn(&commands), [1]);
    }

    #[test]
    fn a_turn_is_kept_while_nobody_waits_and_taken_back_when_it_is_not_passed_on() {
        let (turns, commands) = (Turns::new(1), commands([1, 2]));
        let [holder, other] = &commands;
        assert_eq!((turns.next_turn(holder), turns.next_turn(holder)), (TURN, TURN));
        turns.take_back(Instant::now() + TURN_MAX);
        assert_eq!(with_turn(&commands), [0]);
        turns.lock().ask(other);
        turns.take_back(Instant::now());
        assert_eq!(with_turn(&commands), [0]);
        turns.take_back(Instant::now() + TURN_MAX);
        assert_eq!(with_turn(&commands), [1]);
        turns.leave(holder);
        assert_eq!(with_turn(&commands), [1], "who has no turn has given one back");
    }
}
