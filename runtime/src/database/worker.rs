//! The database threads: they take commands from one queue and run each on its session.
//!
//! SQLite blocks, recurses and waits for the disk, so it runs here and nowhere else. A session is used by one thread
//! at a time; its sender waits for each answer before the next command, so a thread seldom waits for a session.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::import::{self, Import};
use super::memory::{Account, empty_thread_cache, grant_from, on_account};
use super::message::{Command, DatabaseError, Profile, Reply, SessionId};
use super::queue::{self, Receiver, Sender};
use super::session::{self, Opening, Request, Session};
use crate::limits;
use crate::memory::Budget;

type Answer = Result<Reply, DatabaseError>;

/// A thread without a job for this long is idle.
const IDLE_AFTER: Duration = Duration::from_millis(500);

/// Commands that one session can have on their way: its lease's, and a rollback of its clock.
const COMMANDS_PER_SESSION: usize = 2;

/// What a sender wants done on the database thread when its command has ended, before it hears of it.
type Ended = Box<dyn FnOnce(&Answer) + Send>;

struct Job {
    session: SessionId,
    command: Command,
    ended: Option<Ended>,
    answer: oneshot::Sender<Answer>,
}

struct OpenSession {
    session: Session,
    account: Account,
}

#[derive(Default)]
struct Slot {
    open: Mutex<Option<OpenSession>>,
    /// Why the session is no more, for whoever still sends to it.
    failure: OnceLock<DatabaseError>,
    cancelled: Arc<AtomicBool>,
}

#[derive(Default)]
struct Slots {
    slots: Mutex<HashMap<SessionId, Arc<Slot>>>,
    next: AtomicU64,
}

/// The database threads and the sessions on them. Clones share both; the threads end with the last clone.
#[derive(Clone)]
pub struct Database {
    queue: Arc<Sender<Job>>,
    slots: Arc<Slots>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Database {
    /// Starts `threads` database threads for `sessions_max` sessions, whose memory is granted by `memory`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(threads: u32, sessions_max: u32, memory: &Arc<Budget>) -> std::io::Result<Self> {
        let (queue, receivers) = queue::queue(sessions_max as usize * COMMANDS_PER_SESSION, threads);
        let slots = Arc::new(Slots::default());
        for (number, jobs) in receivers.into_iter().enumerate() {
            let (slots, memory) = (slots.clone(), memory.clone());
            std::thread::Builder::new()
                .name(format!("database-{number}"))
                .stack_size(limits::DATABASE_STACK_BYTES)
                .spawn(move || {
                    grant_from(memory);
                    work(&jobs, &slots);
                })?;
        }
        Ok(Self { queue: Arc::new(queue), slots })
    }

    /// A number for a session that is not open yet. It is in use until the session is closed, also if it fails.
    #[must_use]
    pub fn new_session(&self) -> SessionId {
        let id = SessionId(self.slots.next.fetch_add(1, Ordering::Relaxed));
        lock(&self.slots.slots).insert(id, Arc::default());
        id
    }

    /// Sends a command. The answer comes through the receiver; dropping it does not stop the command.
    pub fn send(&self, session: SessionId, command: Command) -> oneshot::Receiver<Answer> {
        self.enqueue(session, command, None)
    }

    /// Sends a command, and has `ended` run as soon as it has ended, which spares whoever waits for that the time until
    /// the sender is awake.
    pub fn send_with(
        &self,
        session: SessionId,
        command: Command,
        ended: impl FnOnce(&Result<Reply, DatabaseError>) + Send + 'static,
    ) -> oneshot::Receiver<Answer> {
        self.enqueue(session, command, Some(Box::new(ended)))
    }

    fn enqueue(
        &self,
        session: SessionId,
        command: Command,
        ended: Option<Ended>,
    ) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        // When more is sent than sessions can send, the job is dropped and the receiver says so.
        self.queue.send(Job { session, command, ended, answer });
        receiver
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// What the command failed with.
    pub async fn call(&self, session: SessionId, command: Command) -> Answer {
        self.send(session, command).await.unwrap_or(Err(DatabaseError::Closed))
    }

    /// Stops the command that a session runs now or has waiting, soon; without one, the next. Later ones run again.
    pub fn cancel(&self, session: SessionId) {
        if let Some(slot) = lock(&self.slots.slots).get(&session) {
            slot.cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Sessions that are open or about to be.
    #[must_use]
    pub fn sessions(&self) -> usize {
        lock(&self.slots.slots).len()
    }
}

fn work(jobs: &Receiver<Job>, slots: &Slots) {
    // A thread that has no job for a moment gives its cached memory back before it waits on.
    while let Some(job) = jobs.receive(IDLE_AFTER, empty_thread_cache) {
        let answer = carry_out(slots, job.session, job.command);
        if let Some(ended) = job.ended {
            ended(&answer);
        }
        // The sender may be gone: a cancelled request. Its lease resets the session.
        let _ = job.answer.send(answer);
    }
}

fn carry_out(slots: &Slots, id: SessionId, command: Command) -> Answer {
    let Some(slot) = lock(&slots.slots).get(&id).cloned() else { return Err(DatabaseError::Closed) };
    let closes = command == Command::Close;
    let mut open = lock(&slot.open);
    let answer = catch_unwind(AssertUnwindSafe(|| apply(&slot, &mut open, command)))
        .unwrap_or_else(|_| Err(DatabaseError::Storage("the database thread panicked".to_owned())));
    if let Err(error) = &answer
        && !error.session_is_usable()
    {
        close(&mut open);
        slot.failure.get_or_init(|| error.clone());
    }
    if closes {
        lock(&slots.slots).remove(&id);
    }
    // Not before the command: one may be cancelled while it waits for a thread.
    slot.cancelled.store(false, Ordering::Relaxed);
    answer
}

fn apply(slot: &Slot, open: &mut Option<OpenSession>, command: Command) -> Answer {
    match command {
        Command::Create { path } => session::create(&path).map(|()| Reply::Done),
        Command::Import { upload, path, bytes_max, time_max } => {
            let import = Import { upload, path, bytes_max, time_max };
            on_own_account(|| import.carry_out(&slot.cancelled)).map(|()| Reply::Done)
        }
        Command::Verify { path, queries, time_max } => {
            on_own_account(|| import::verify(&path, &queries, time_max, &slot.cancelled)).map(Reply::Verified)
        }
        Command::Open { path, profile, bytes_max } => {
            let opening = Opening { path, profile, bytes_max };
            let mut account = Session::account(profile);
            let session = on_account(&mut account, || Session::open(opening, slot.cancelled.clone()))?;
            *open = Some(OpenSession { session, account });
            Ok(Reply::Done)
        }
        Command::Close => {
            close(open);
            Ok(Reply::Done)
        }
        command => {
            let Some(OpenSession { session, account }) = open else {
                return Err(slot.failure.get().cloned().unwrap_or(DatabaseError::Closed));
            };
            let mut answer = on_account(account, || apply_open(session, command));
            if let Ok(Reply::Executed(executed)) = &mut answer {
                executed.memory_bytes = u64::try_from(account.used).unwrap_or(0);
            }
            answer
        }
    }
}

/// Closes a session on its account, so that nothing stays granted.
fn close(open: &mut Option<OpenSession>) {
    if let Some(OpenSession { session, mut account }) = open.take() {
        on_account(&mut account, || drop(session));
    }
}

/// Runs work on files that no session has open, within the memory of a tenant's session.
fn on_own_account<T>(work: impl FnOnce() -> T) -> T {
    on_account(&mut Session::account(Profile::Tenant), work)
}

fn apply_open(session: &mut Session, command: Command) -> Answer {
    match command {
        Command::Execute {
            sql,
            parameters,
            result_bytes_max,
            time_max,
            may_write,
            first_of_lease,
            in_transaction,
        } => {
            if first_of_lease {
                session.forget_earlier_lease();
            }
            let request = Request { sql, parameters, result_bytes_max, time_max, may_write, in_transaction };
            session.execute(request)
        }
        Command::Batch { changes } => session.batch(&changes),
        Command::Check { time_max } => session.check(time_max).map(|()| Reply::Done),
        Command::Rollback => session.rollback().map(|()| Reply::Done),
        Command::Reset => session.reset().map(|()| Reply::Done),
        Command::Checkpoint => session.checkpoint().map(|extent| Reply::Checkpointed { extent }),
        Command::ReadFile { offset, bytes_max } => session.read_file(offset, bytes_max).map(Reply::FileRead),
        Command::Create { .. }
        | Command::Import { .. }
        | Command::Verify { .. }
        | Command::Open { .. }
        | Command::Close => Err(DatabaseError::Closed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endless() -> Command {
        Command::Execute {
            sql: "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
                .to_owned(),
            parameters: Vec::new(),
            result_bytes_max: 1 << 20,
            time_max: Duration::from_secs(20),
            may_write: false,
            first_of_lease: true,
            in_transaction: false,
        }
    }

    #[tokio::test]
    async fn a_command_that_waits_for_a_thread_can_be_cancelled() -> Result<(), Box<dyn std::error::Error>> {
        super::super::start()?;
        let folder = tempfile::tempdir()?;
        let database = Database::start(1, 2, &Arc::new(Budget::unlimited()))?;
        let (first, second) = (database.new_session(), database.new_session());
        for (session, name) in [(first, "first.db"), (second, "second.db")] {
            let path = folder.path().join(name);
            database.call(session, Command::Create { path: path.clone() }).await?;
            let open = Command::Open { path, profile: Profile::Tenant, bytes_max: 1 << 20 };
            database.call(session, open).await?;
        }
        let answers = [first, second].map(|session| database.send(session, endless()));
        // The one thread is with the first, so that the second waits.
        database.cancel(second);
        database.cancel(first);
        for answer in answers {
            let Ok(Ok(Reply::Executed(executed))) = answer.await else { return Err("no answer".into()) };
            assert_eq!(executed.outcome, Err(DatabaseError::Cancelled));
        }
        Ok(())
    }
}
