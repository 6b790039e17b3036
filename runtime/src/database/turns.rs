//! Turns of slow commands: as many run at once as there are cores, each for a moment, and the turns go round the owners.
//!
//! A slow command keeps its thread until it is done. Without turns the kernel would share the cores among the threads,
//! and so give most to who has most of them, and let each stand before quick ones for longer.
//!
//! A command asks for a turn between two steps of its statement, where it holds nothing that other tenants need. One
//! that waits for long goes on for a moment now and then, so that it finds out when its time is over, and stays in line
//! meanwhile. A turn that its holder does not pass on, because a step takes long, is taken back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::message::Owner;
use crate::fair::Lines;

/// How long a turn is when others wait.
const TURN: Duration = Duration::from_millis(10);

/// A turn that was not passed on for this long is taken back when others wait.
const TURN_MAX: Duration = Duration::from_millis(30);

/// How long a command waits for a turn before it goes on for a moment.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// How long it then goes on without one.
const WITHOUT_TURN: Duration = Duration::from_millis(1);

pub(super) struct Turns(Mutex<Turning>);

struct Turning {
    free: usize,
    holders: Vec<Holder>,
    line: Lines<Owner, Arc<Player>>,
}

struct Holder {
    player: Arc<Player>,
    since: Instant,
}

/// A slow command, which takes turns until it leaves.
pub(super) struct Player {
    owner: Owner,
    thread: Thread,
    has_turn: AtomicBool,
}

impl Player {
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
        Self(Mutex::new(Turning { free: number, holders: Vec::new(), line: Lines::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Turning> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes the turn of a command on when others wait, and waits for its next one. Says how long it may go on.
    pub(super) fn play(&self, player: &Arc<Player>) -> Duration {
        self.lock().ask(player);
        if player.wait() { TURN } else { WITHOUT_TURN }
    }

    /// Takes a command out, wherever it is.
    pub(super) fn leave(&self, player: &Arc<Player>) {
        let mut turning = self.lock();
        if !turning.give_back(player) {
            turning.line.remove(&player.owner, |other| Arc::ptr_eq(other, player));
        }
    }

    /// Takes turns back that were not passed on in time.
    pub(super) fn take_back(&self, now: Instant) {
        let mut turning = self.lock();
        if turning.line.is_empty() {
            return;
        }
        let is_over = |holder: &&Holder| holder.since + TURN_MAX <= now;
        let over: Vec<_> = turning.holders.iter().filter(is_over).map(|one| one.player.clone()).collect();
        over.iter().for_each(|player| {
            turning.give_back(player);
        });
    }
}

impl Turning {
    /// Puts a command in line, unless it is there, or gives it a turn at once.
    fn ask(&mut self, player: &Arc<Player>) {
        let is_it = |other: &Arc<Player>| Arc::ptr_eq(other, player);
        if self.line.is_empty()
            && let Some(holder) = self.holders.iter_mut().find(|holder| is_it(&holder.player))
        {
            holder.since = Instant::now();
        } else if self.free > 0 {
            self.free -= 1;
            self.give(player.clone());
        } else if !self.line.any(&player.owner, is_it) {
            self.line.push(player.owner, player.clone());
            self.give_back(player);
        }
    }

    fn give(&mut self, player: Arc<Player>) {
        player.has_turn.store(true, Ordering::Release);
        player.thread.unpark();
        self.holders.push(Holder { player, since: Instant::now() });
    }

    /// Gives the turn of a command to whoever is next. Says whether it had one.
    fn give_back(&mut self, player: &Arc<Player>) -> bool {
        let place = self.holders.iter().position(|holder| Arc::ptr_eq(&holder.player, player));
        let Some(place) = place else { return false };
        self.holders.swap_remove(place);
        player.has_turn.store(false, Ordering::Release);
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

    fn players(owners: &[u128]) -> Vec<Arc<Player>> {
        owners.iter().map(|owner| Player::new(Owner(*owner))).collect()
    }

    fn with_turn(players: &[Arc<Player>]) -> Vec<usize> {
        let has_turn = |player: &Arc<Player>| player.has_turn.load(Ordering::Acquire);
        players.iter().enumerate().filter(|(_, player)| has_turn(player)).map(|(number, _)| number).collect()
    }

    #[test]
    fn turns_go_round_the_owners() {
        let (turns, players) = (Turns::new(1), players(&[1, 1, 1, 2]));
        players.iter().for_each(|player| turns.lock().ask(player));
        let mut order: Vec<usize> = Vec::new();
        for _ in 0..6 {
            let has_turn = with_turn(&players);
            assert_eq!(has_turn.len(), 1);
            order.extend(&has_turn);
            has_turn
                .iter()
                .filter_map(|number| players.get(*number))
                .for_each(|player| turns.lock().ask(player));
        }
        assert_eq!(order, [0, 1, 3, 2, 3, 0]);
        players.iter().for_each(|player| turns.leave(player));
        let turning = turns.lock();
        assert_eq!((turning.free, turning.holders.len(), turning.line.len()), (1, 0, 0));
    }

    #[test]
    fn who_waits_for_long_goes_on_and_keeps_its_place() {
        let (turns, players) = (Turns::new(1), players(&[1, 2, 3]));
        let [holder, first, second] = players.as_slice() else { return };
        assert_eq!(turns.play(holder), TURN);
        assert_eq!(turns.play(first), WITHOUT_TURN);
        turns.lock().ask(second);
        assert_eq!(turns.play(first), WITHOUT_TURN);
        turns.leave(holder);
        assert_eq!(with_turn(&players), [1]);
    }

    #[test]
    fn a_turn_is_kept_while_nobody_waits_and_taken_back_when_it_is_not_passed_on() {
        let (turns, players) = (Turns::new(1), players(&[1, 2]));
        let [holder, other] = players.as_slice() else { return };
        assert_eq!((turns.play(holder), turns.play(holder)), (TURN, TURN));
        turns.take_back(Instant::now() + TURN_MAX);
        assert_eq!(with_turn(&players), [0]);
        turns.lock().ask(other);
        turns.take_back(Instant::now());
        assert_eq!(with_turn(&players), [0]);
        turns.take_back(Instant::now() + TURN_MAX);
        assert_eq!(with_turn(&players), [1]);
        turns.leave(holder);
        assert_eq!(with_turn(&players), [1], "who has no turn has given one back");
    }
}
