//! The watch over the database threads: a command that takes long does not keep a thread from others.
//!
//! ```text
//!              a command               it is done
//!  Waiting ──────────────▶ At work ─────────────────▶ Waiting
//!     │                       │ after DATABASE_SLOW_AFTER
//!     │  one that is likely   ▼         it is done
//!     └──── to be slow ────▶ Slow ──────────────────▶ ended
//! ```
//!
//! Nobody knows beforehand which statement will be slow. So there is always the full number of threads for those that
//! are not: a thread whose command has become slow works on at a lower priority, another takes its seat at once, and
//! it ends with its command. One that is likely to be slow, because its owner's last ones were ([`super::slow`]), counts
//! as slow from its beginning. A session has one command at a time, so that there are never more slow threads than
//! requests; their statements take turns ([`super::turns`]).

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rustix::thread::{Pid, gettid, sched_yield};

use super::message::Owner;
use super::turns::{SlowCommand, Turns};
use super::worker::lock;
use crate::limits;
use crate::thread::lower_priority;

/// How often the watch looks while there is work.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks without work before the watch sleeps: waking it for each command would cost more than looking on.
const IDLE_LOOKS: u32 = 100;

/// The bit of a seat's state that says that its command is slow.
const SLOW: u64 = 1 << 63;

/// The watch. Its thread ends when it drops.
pub(super) struct Watch(Arc<Shared>);

struct Shared {
    started: Instant,
    seats: Mutex<Vec<Weak<Work>>>,
    busy: AtomicU64,
    /// Seats that commands which began as slow ones have given up since the last look.
    given_up: AtomicU32,
    turns: Turns,
    is_asleep: AtomicBool,
    is_over: AtomicBool,
    thread: OnceLock<Thread>,
}

/// What the watch sees of a thread.
#[derive(Default)]
struct Work {
    /// 0 without a command; otherwise when it began, in microseconds after the watch, and [`SLOW`].
    state: AtomicU64,
    /// Its command, once that takes turns.
    slow_command: Mutex<Option<Arc<SlowCommand>>>,
    thread: OnceLock<Pid>,
}

/// A thread's seat, among those for commands that are not slow.
pub(super) struct Seat {
    occupant: Occupant,
    owner: Cell<Owner>,
    /// When a slow command is to ask for a turn again.
    ask_at: Cell<Option<Instant>>,
}

/// Whoever sits there, as others see it.
#[derive(Clone)]
pub(super) struct Occupant {
    work: Arc<Work>,
    shared: Arc<Shared>,
}

thread_local! {
    /// The seat of the current thread, if it is a database thread.
    static SEAT: RefCell<Option<Rc<Seat>>> = const { RefCell::new(None) };
}

/// Between two steps of a statement: one that is slow waits here for its turn.
pub(super) fn between_steps() {
    SEAT.with_borrow(|seat| seat.iter().for_each(|seat| seat.keep_turn()));
}

impl Watch {
    /// Gives out seats for `threads` threads, each with `enlist`, and later one for each that a slow command gives up.
    /// Each look also makes the one at what waits.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        threads: u32,
        enlist: impl Fn(Seat) -> io::Result<()> + Send + 'static,
        look: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            seats: Mutex::default(),
            busy: AtomicU64::new(0),
            given_up: AtomicU32::new(0),
            turns: Turns::new(thread::available_parallelism()?.get()),
            is_asleep: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        (0..threads).try_for_each(|_| enlist(seat(&shared)))?;
        let watched = shared.clone();
        let watcher = thread::Builder::new()
            .name("database-watch".to_owned())
            .spawn(move || look_after(&watched, enlist, look))?;
        shared.thread.get_or_init(|| watcher.thread().clone());
        Ok(Self(shared))
    }

    /// Threads with a command.
    pub(super) fn busy(&self) -> u64 {
        self.0.busy.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
        self.0.wake();
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(SLOW)
    }

    /// Finds the commands that have become slow, and says how many.
    fn find_slow(&self) -> u32 {
        let slow_after = u64::try_from(limits::DATABASE_SLOW_AFTER.as_micros()).unwrap_or(SLOW);
        let began_before = self.now().saturating_sub(slow_after);
        let mut seats = lock(&self.seats);
        seats.retain(|work| work.strong_count() > 0);
        let slow = seats.iter().filter_map(Weak::upgrade).filter(|work| work.is_slow(began_before));
        slow.map(|_| 1).sum()
    }
}

impl Work {
    /// Whether its command has become slow. It is asked once.
    fn is_slow(&self, began_before: u64) -> bool {
        let began = self.state.load(Ordering::Acquire);
        let is_slow = (1..began_before).contains(&began)
            && self.state.compare_exchange(began, began | SLOW, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if let Some(thread) = self.thread.get().filter(|_| is_slow) {
            lower_priority(*thread, limits::SLOW_STATEMENT_SLICE);
        }
        is_slow
    }
}

impl Seat {
    /// Makes this the seat of the current thread.
    pub(super) fn sit(self) -> Rc<Self> {
        let seat = Rc::new(self);
        SEAT.set(Some(seat.clone()));
        seat
    }

    /// A command of an owner begins on the current thread, which is the seat's.
    pub(super) fn begin(&self, owner: Owner, is_slow: bool) {
        let Occupant { work, shared } = &self.occupant;
        let thread = *work.thread.get_or_init(gettid);
        let began = shared.now().max(1);
        self.owner.set(owner);
        work.state.store(if is_slow { began | SLOW } else { began }, Ordering::Release);
        shared.busy.fetch_add(1, Ordering::SeqCst);
        if is_slow {
            lower_priority(thread, limits::SLOW_STATEMENT_SLICE);
            shared.given_up.fetch_add(1, Ordering::SeqCst);
        }
        if is_slow || shared.is_asleep.load(Ordering::SeqCst) {
            shared.wake();
        }
    }

    /// The command is done. Says whether the seat is still the thread's; if not, the thread must end.
    pub(super) fn end(&self) -> bool {
        self.occupant.leave_turns();
        self.occupant.shared.busy.fetch_sub(1, Ordering::SeqCst);
        self.occupant.work.state.swap(0, Ordering::AcqRel) & SLOW == 0
    }

    /// Waits for a turn when the command is slow, and its last turn is over. The node's own take none: they hold what
    /// every tenant waits for.
    fn keep_turn(&self) {
        let Occupant { work, shared } = &self.occupant;
        let owner = self.owner.get();
        if work.state.load(Ordering::Relaxed) & SLOW == 0 || owner == Owner::NODE {
            return;
        }
        // A quick thread that the kernel has not let pass when it became ready, because of what it has used, need not wait
        // for the next tick.
        sched_yield();
        let now = Instant::now();
        if self.ask_at.get().is_some_and(|ask_at| now < ask_at) {
            return;
        }
        let command = lock(&work.slow_command).get_or_insert_with(|| SlowCommand::new(owner)).clone();
        let goes_on = shared.turns.next_turn(&command);
        self.ask_at.set(Some(Instant::now() + goes_on));
    }

    /// Who sits here, for the other threads.
    pub(super) fn occupant(&self) -> Occupant {
        self.occupant.clone()
    }
}

impl Occupant {
    /// The thread, once it has had a command.
    pub(super) fn thread(&self) -> Option<Pid> {
        self.work.thread.get().copied()
    }

    /// Its command takes no more turns.
    pub(super) fn leave_turns(&self) {
        if let Some(command) = lock(&self.work.slow_command).take() {
            self.shared.turns.leave(&command);
        }
    }
}

fn seat(shared: &Arc<Shared>) -> Seat {
    let work = Arc::new(Work::default());
    lock(&shared.seats).push(Arc::downgrade(&work));
    let occupant = Occupant { work, shared: shared.clone() };
    Seat { occupant, owner: Cell::new(Owner::NODE), ask_at: Cell::new(None) }
}

fn look_after(shared: &Arc<Shared>, enlist: impl Fn(Seat) -> io::Result<()>, look: impl Fn()) {
    let (mut idle_looks, mut missing) = (0, 0);
    while !shared.is_over.load(Ordering::SeqCst) {
        shared.turns.take_back(Instant::now());
        missing += shared.find_slow() + shared.given_up.swap(0, Ordering::SeqCst);
        // When the system has no thread for us now, the next look asks again.
        while missing > 0 && enlist(seat(shared)).is_ok() {
            missing -= 1;
        }
        look();
        thread::park_timeout(LOOK_EVERY);
        idle_looks = if shared.busy.load(Ordering::SeqCst) == 0 { idle_looks + 1 } else { 0 };
        if idle_looks >= IDLE_LOOKS {
            shared.is_asleep.store(true, Ordering::SeqCst);
            // A command that began before the flag was up has not woken this thread: look again.
            let has_work = missing > 0
                || shared.given_up.load(Ordering::SeqCst) > 0
                || shared.busy.load(Ordering::SeqCst) > 0
                || shared.is_over.load(Ordering::SeqCst);
            if !has_work {
                thread::park();
            }
            shared.is_asleep.store(false, Ordering::SeqCst);
            idle_looks = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, sync_channel};

    /// A watch over one seat, and the seats that it gives out.
    fn watched() -> io::Result<(Watch, Receiver<Seat>)> {
        let (given, seats) = sync_channel(8);
        let watch = Watch::start(
            1,
            move |seat| given.send(seat).map_err(|_| io::Error::other("the test is over")),
            || {},
        )?;
        Ok((watch, seats))
    }

    #[test]
    fn a_slow_command_gives_its_seat_to_another_thread() -> Result<(), Box<dyn std::error::Error>> {
        let (watch, seats) = watched()?;
        let slow = seats.recv()?;
        slow.begin(Owner(1), false);
        let next = seats.recv()?;
        next.begin(Owner(1), true);
        let third = seats.recv()?;
        assert_eq!(watch.busy(), 2);
        assert!(!slow.end() && !next.end(), "they have two seats");
        drop((third, next, slow, watch));
        // Ends when the watch's thread does.
        seats.iter().for_each(drop);
        Ok(())
    }

    #[test]
    fn a_seat_is_given_out_again_however_short_the_command_was() -> Result<(), Box<dyn std::error::Error>> {
        let (_watch, seats) = watched()?;
        for _ in 0..300 {
            let seat = seats.recv_timeout(Duration::from_secs(10))?;
            seat.begin(Owner(1), true);
            assert!(!seat.end());
        }
        Ok(())
    }

    #[test]
    fn slow_commands_take_turns_until_they_end_or_are_given_up() -> Result<(), Box<dyn std::error::Error>> {
        let (_watch, seats) = watched()?;
        let seat = seats.recv()?;
        let takes_turns = |seat: &Seat| lock(&seat.occupant.work.slow_command).is_some();
        for (owner, is_slow, expected) in
            [(Owner(1), false, false), (Owner::NODE, true, false), (Owner(1), true, true)]
        {
            seat.begin(owner, is_slow);
            seat.keep_turn();
            assert_eq!(takes_turns(&seat), expected, "{owner} {is_slow}");
            seat.end();
            assert!(!takes_turns(&seat));
        }
        seat.begin(Owner(1), true);
        seat.ask_at.set(None);
        seat.keep_turn();
        seat.occupant().leave_turns();
        assert!(!takes_turns(&seat));
        Ok(())
    }

    #[test]
    fn a_thread_keeps_its_seat_from_command_to_command() -> Result<(), Box<dyn std::error::Error>> {
        let (watch, seats) = watched()?;
        let seat = seats.recv()?;
        seat.begin(Owner(1), false);
        // Not yet slow, whatever the watch's thread does meanwhile.
        assert!(!seat.occupant.work.is_slow(0));
        seat.occupant.work.state.store(0, Ordering::Release);
        assert!(!seat.occupant.work.is_slow(u64::MAX), "a seat without a command is slow");
        assert!(seat.end());
        assert_eq!(watch.busy(), 0);
        Ok(())
    }
}
