//! The database threads of this process, and what becomes of commands that do not come back.
//!
//! ```text
//!                     over its time                    comes back
//!  Working ─────────────────────────────▶ given up ───────────────▶ its session is closed, the thread ends
//! ```
//!
//! A command that does not come back keeps its thread, which nothing can end but the process. Another one has had its
//! seat since the command became slow ([`super::watch`]), so that jobs go on. Whoever asked is told, and what is sent to
//! its session waits until it is back.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::getpid;

use super::memory::{give_back_unused, grant_from};
use super::message::{Command, DatabaseError, Owner, SessionId};
use super::overdue::Due;
use super::queue::Receiver;
use super::slow::SlowOwners;
use super::watch::{Occupant, Seat};
use super::worker::{Asker, IDLE_AFTER, Job, Slots, carry_out, lock};
use crate::limits;
use crate::memory::Budget;
use crate::thread::cpu_time;

/// The threads. They end when their queue is closed.
pub(super) struct Threads {
    jobs: Receiver<Job>,
    slots: Arc<Slots>,
    memory: Arc<Budget>,
    slow_owners: SlowOwners,
    desks: Mutex<Vec<Arc<Desk>>>,
    next: AtomicU64,
}

/// What one thread works on.
struct Desk {
    occupant: Occupant,
    work: Mutex<Option<Work>>,
}

struct Work {
    session: SessionId,
    due: Due,
    asker: Asker,
}

impl Threads {
    pub(super) fn new(jobs: Receiver<Job>, slots: Arc<Slots>, memory: &Arc<Budget>) -> Arc<Self> {
        let memory = memory.clone();
        let (slow_owners, desks, next) = Default::default();
        Arc::new(Self { jobs, slots, memory, slow_owners, desks, next })
    }

    /// Starts a thread for a seat.
    pub(super) fn add(self: &Arc<Self>, seat: Seat) -> io::Result<()> {
        let desk = Arc::new(Desk { occupant: seat.occupant(), work: Mutex::default() });
        let pool = self.clone();
        std::thread::Builder::new()
            .name(format!("database-{}", self.next.fetch_add(1, Ordering::Relaxed)))
            .stack_size(limits::DATABASE_STACK_BYTES)
            .spawn(move || {
                grant_from(pool.memory.clone());
                lock(&pool.desks).push(desk.clone());
                pool.work(&desk, &seat.sit());
                lock(&pool.desks).retain(|other| !Arc::ptr_eq(other, &desk));
                give_back_unused();
            })
            .map(drop)
    }

    fn work(&self, desk: &Desk, seat: &Seat) {
        // A thread that has no job for a moment gives its cached memory back before it waits on.
        while let Some(Job { session, command, asker }) = self.jobs.receive(IDLE_AFTER, give_back_unused) {
            let Some(asker) = self.slots.unless_given_up(session, asker) else { continue };
            let began = Instant::now();
            *lock(&desk.work) = Some(Work { session, due: Due::at(began + command.time_max()), asker });
            let is_statement = matches!(command, Command::Execute { .. });
            seat.begin(session.owner, is_statement && self.slow_owners.has(session.owner));
            // The node's own commits are not in the log.
            let waits_for_disk = command.waits_for_disk() || session.owner == Owner::NODE;
            let held_up = waits_for_disk.then(|| self.jobs.step_aside());
            let used_before = if is_statement { cpu_time() } else { Duration::ZERO };
            let carried_out = carry_out(&self.slots, session, command);
            drop(held_up);
            let goes_on = seat.end();
            if is_statement && (!goes_on || began.elapsed() > limits::DATABASE_HEAVY_AFTER) {
                let used = cpu_time().saturating_sub(used_before);
                self.slow_owners.note(session.owner, used > limits::DATABASE_HEAVY_AFTER);
            }
            let work = lock(&desk.work).take();
            match work {
                Some(work) => carried_out.tell(work.asker),
                None => self.slots.is_back(session),
            }
            if !goes_on {
                return;
            }
        }
    }

    /// Sees to jobs that nobody takes.
    pub(super) fn look(&self) {
        self.jobs.look();
    }

    /// Gives up the commands of tenants that [are stuck](Due::is_stuck).
    pub(super) fn watch(&self, now: Instant, grace: Duration) {
        let desks = lock(&self.desks).clone();
        for desk in desks {
            if let Some(asker) = self.give_up(&desk, now, grace) {
                asker.tell(Err(DatabaseError::Stuck));
            }
        }
    }

    fn give_up(&self, desk: &Desk, now: Instant, grace: Duration) -> Option<Asker> {
        let mut work = lock(&desk.work);
        let Work { session, due, .. } = work.as_mut().filter(|work| work.session.owner != Owner::NODE)?;
        let is_stuck = due.is_stuck(now, grace, getpid(), desk.occupant.thread()?);
        if !is_stuck || self.slots.is_held_up() {
            return None;
        }
        self.slots.give_up(*session);
        desk.occupant.leave_turns();
        Some(work.take()?.asker)
    }
}
