//! The database threads: they take commands from one queue and run each on its session. Tenants' sessions can live in
//! processes of their own instead ([`super::process`]); the sender sees no difference.
//!
//! SQLite blocks, recurses and waits for the disk, so it runs here and nowhere else. A session is used by one thread
//! at a time; its sender waits for each answer before the next command, so a thread seldom waits for a session.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::cached::forget_files;
use super::commit_log::{CommitLog, LogFigures, Lost};
use super::import::{self, Import};
use super::memory::{Account, on_account};
use super::message::{Command, DatabaseError, Executed, Home, Owner, Profile, Reply, SessionId};
use super::process::{Process, Recipe};
use super::queue::{self, Sender};
use super::session::{self, Opening, Request, Session};
use super::threads::Threads;
use super::vfs::{Logged, LoggedVfs};
use super::watch::Watch;
use crate::memory::Budget;

pub(super) type Answer = Result<Reply, DatabaseError>;

/// A thread without a job for this long is idle.
pub(super) const IDLE_AFTER: Duration = Duration::from_millis(500);

/// Commands that one session can have on their way: its lease's, and a rollback of its clock.
pub(super) const COMMANDS_PER_SESSION: usize = 2;

/// What a sender wants done when its command has ended, on the thread or task that knows it first, before it hears of it.
type Ended = Box<dyn FnOnce(&Answer) + Send>;

/// A command on its way to the thread that carries it out.
pub(super) struct Job {
    pub session: SessionId,
    pub command: Command,
    pub asker: Asker,
}

/// Who waits for the end of a command.
pub(super) struct Asker {
    ended: Option<Ended>,
    answer: oneshot::Sender<Answer>,
}

impl Asker {
    pub(super) fn tell(self, answer: Answer) {
        if let Some(ended) = self.ended {
            ended(&answer);
        }
        // The sender may be gone: a cancelled request. Its lease resets the session.
        let _ = self.answer.send(answer);
    }

    /// Tells of a command that has ended as soon as what it saw and wrote is on disk.
    fn tell_when(self, logged: &Logged, answer: Answer) {
        if let Some(ended) = self.ended {
            ended(&answer);
        }
        let sender = self.answer;
        logged.when_settled(move |settled| {
            let answer = settled.map_err(|Lost(reason)| DatabaseError::Storage(reason)).and(answer);
            let _ = sender.send(answer);
        });
    }
}

/// The end of a command.
pub(super) struct CarriedOut {
    pub answer: Answer,
    /// What has to be on disk before anybody hears of it.
    unsettled: Option<Logged>,
}

impl CarriedOut {
    pub(super) fn tell(self, asker: Asker) {
        match self.unsettled {
            Some(logged) => asker.tell_when(&logged, self.answer),
            None => asker.tell(self.answer),
        }
    }
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
    /// Who waits until a command that was given up is back.
    behind: Mutex<Option<Vec<Asker>>>,
}

/// The sessions that live in this process, by their numbers.
#[derive(Default)]
pub(super) struct Slots {
    slots: Mutex<HashMap<u64, Arc<Slot>>>,
    /// Sessions whose command was given up, so that a command of another takes no lock.
    given_up: AtomicUsize,
    /// Where tenants' commits are logged, if they are.
    log: Option<Arc<LoggedVfs>>,
}

impl Slots {
    /// Makes room for a session that is not open yet.
    pub(super) fn begin(&self, session: SessionId) {
        lock(&self.slots).entry(session.number).or_default();
    }

    fn find(&self, session: SessionId) -> Option<Arc<Slot>> {
        lock(&self.slots).get(&session.number).cloned()
    }

    /// From now on nobody waits for the command that a session runs.
    pub(super) fn give_up(&self, session: SessionId) {
        let Some(slot) = self.find(session) else { return };
        let mut behind = lock(&slot.behind);
        if behind.is_none() {
            *behind = Some(Vec::new());
            self.given_up.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Who asks, unless the session's command was given up: then it is told when that is back.
    pub(super) fn unless_given_up(&self, session: SessionId, asker: Asker) -> Option<Asker> {
        if self.given_up.load(Ordering::Acquire) == 0 {
            return Some(asker);
        }
        let Some(slot) = self.find(session) else { return Some(asker) };
        match &mut *lock(&slot.behind) {
            None => Some(asker),
            Some(behind) => {
                behind.push(asker);
                None
            }
        }
    }

    /// Closes a session whose command was given up and is back.
    pub(super) fn is_back(&self, session: SessionId) {
        let Some(slot) = lock(&self.slots).remove(&session.number) else { return };
        close(&mut lock(&slot.open));
        self.given_up.fetch_sub(1, Ordering::AcqRel);
        let behind = lock(&slot.behind).take().unwrap_or_default();
        behind.into_iter().for_each(|asker| asker.tell(Err(DatabaseError::Closed)));
    }

    /// Whether the disk keeps everybody waiting who commits.
    pub(super) fn is_held_up(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.log().is_held_up())
    }

    /// Stops the command that a session runs now or has waiting, soon; without one, the next.
    pub(super) fn cancel(&self, number: u64) {
        if let Some(slot) = lock(&self.slots).get(&number) {
            slot.cancelled.store(true, Ordering::Relaxed);
        }
    }
}

/// The database threads, the database processes, and the sessions on them. Clones share all; the threads end with the
/// last clone.
#[derive(Clone)]
pub struct Database {
    queue: Arc<Sender<Job>>,
    slots: Arc<Slots>,
    threads: Arc<Threads>,
    watch: Arc<Watch>,
    processes: Arc<[Process]>,
    next: Arc<AtomicU64>,
}

/// What the database threads have to do, those of database processes as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Commands that run.
    pub running: u64,
    /// Commands that wait for a thread.
    pub waiting: u64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Database {
    /// Starts `threads` database threads for `sessions_max` sessions, whose memory is granted by `memory`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(threads: u32, sessions_max: u32, memory: &Arc<Budget>) -> std::io::Result<Self> {
        Self::start_with(None, threads, sessions_max, memory)
    }

    /// The same with a log for the commits of tenants.
    ///
    /// # Errors
    /// As [`Database::start`].
    pub fn start_logged(
        log: CommitLog,
        threads: u32,
        sessions_max: u32,
        memory: &Arc<Budget>,
    ) -> std::io::Result<Self> {
        let log = LoggedVfs::register(log).map_err(std::io::Error::other)?;
        Self::start_with(Some(Arc::new(log)), threads, sessions_max, memory)
    }

    fn start_with(
        log: Option<Arc<LoggedVfs>>,
        threads: u32,
        sessions_max: u32,
        memory: &Arc<Budget>,
    ) -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        // Who flushes at each commit waits for the disk more than it computes.
        let reserve = if log.is_some() { (threads as usize).saturating_sub(cores) } else { 0 };
        let (queue, jobs) = queue::queue(sessions_max as usize * COMMANDS_PER_SESSION, reserve);
        let slots = Arc::new(Slots { log, ..Slots::default() });
        let pool = Threads::new(jobs, slots.clone(), memory);
        let (hands, waiting) = (pool.clone(), pool.clone());
        let watch = Watch::start(threads, move |seat| hands.add(seat), move || waiting.look())?;
        let watch = Arc::new(watch);
        let (queue, processes, next) = (Arc::new(queue), Arc::default(), Arc::default());
        Ok(Self { queue, slots, threads: pool, watch, processes, next })
    }

    /// Starts processes, in which all sessions live from now on but the node's own. On a tokio runtime.
    ///
    /// # Errors
    /// When one does not start.
    pub fn with_processes(mut self, recipe: Recipe) -> std::io::Result<Self> {
        let recipe = Arc::new(recipe);
        let start = |index| Process::start(index as usize, &recipe);
        self.processes = (0..recipe.processes).map(start).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// A number for a session that is not open yet. It is in use until the session is closed, also if it fails.
    #[must_use]
    pub fn new_session(&self, owner: Owner) -> SessionId {
        let session = SessionId {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            owner,
            home: self.process_of(owner).map_or(Home::Node, Process::home),
        };
        if session.home == Home::Node {
            self.slots.begin(session);
        }
        session
    }

    /// The process in which an owner's sessions live.
    fn process_of(&self, owner: Owner) -> Option<&Process> {
        let number = u128::try_from(self.processes.len()).ok().filter(|_| owner != Owner::NODE)?;
        let index = owner.0.checked_rem(number)?;
        self.processes.get(usize::try_from(index).ok()?)
    }

    /// The process that a session lives or lived in.
    fn home_of(&self, session: SessionId) -> Option<&Process> {
        match session.home {
            Home::Node => None,
            Home::Process { index, .. } => self.processes.get(index),
        }
    }

    /// Whether a session can be used as it was left: the process that it lives in has not ended.
    #[must_use]
    pub fn is_alive(&self, session: SessionId) -> bool {
        match session.home {
            Home::Node => true,
            Home::Process { life, .. } => self.home_of(session).is_some_and(|process| process.is_alive(life)),
        }
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
        let job = Job { session, command, asker: Asker { ended, answer } };
        // When more is sent than sessions can send, the job is dropped and the receiver says so.
        match self.home_of(session) {
            None => self.queue.send(session.owner, job),
            Some(process) => process.send(job),
        }
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
        match self.home_of(session) {
            None => self.slots.cancel(session.number),
            Some(process) => process.cancel(session),
        }
    }

    /// Ends what does not come back: whoever has waited for a command for `grace` beyond its time waits no longer, unless
    /// the machine holds it up. To be called every now and then.
    pub fn watch(&self, grace: Duration) {
        let now = Instant::now();
        self.threads.watch(now, grace);
        self.processes.iter().for_each(|process| process.watch(now, grace));
    }

    /// What the database threads have to do, those of database processes as well.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let in_processes = |count: fn(&Process) -> u64| self.processes.iter().map(count).sum::<u64>();
        Figures {
            running: self.watch.busy() + in_processes(Process::running),
            waiting: self.queue.len() as u64 + in_processes(Process::waiting),
        }
    }

    /// What the commit log has done; nothing without one.
    #[must_use]
    pub fn log_figures(&self) -> LogFigures {
        self.slots.log.as_ref().map(|log| log.log().figures()).unwrap_or_default()
    }

    /// What there is of the database processes.
    #[must_use]
    pub fn process_figures(&self) -> ProcessFigures {
        ProcessFigures {
            pids: self.processes.iter().filter_map(Process::pid).collect(),
            deaths: self.processes.iter().map(Process::deaths).sum(),
        }
    }

    /// Makes the kernel forget what it holds of a tenant's database that nobody has open.
    ///
    /// # Errors
    /// When its files cannot be flushed or read. What they hold is not to be believed then.
    pub async fn forget_cached(&self, database: PathBuf) -> std::io::Result<()> {
        let log = self.slots.log.clone();
        let forget = move || {
            forget_files(&database, |wal, error| {
                log.iter().for_each(|log| log.log().fail_file(wal, error));
            })
        };
        tokio::task::spawn_blocking(forget).await?
    }

    /// Puts what only the commit log holds of a database that nobody has open where it belongs.
    ///
    /// # Errors
    /// When that fails.
    pub async fn restore_logged(&self, database: PathBuf) -> std::io::Result<()> {
        let Some(log) = self.slots.log.clone() else { return Ok(()) };
        tokio::task::spawn_blocking(move || log.log().restore(&session::wal_of(&database))).await?
    }

    /// Waits until everything that has been committed to a database by now is on disk.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn settle(&self, database: PathBuf) -> Result<(), DatabaseError> {
        let Some(log) = self.slots.log.clone() else { return Ok(()) };
        let settle = move || match Logged::find(&log, &session::wal_of(&database)) {
            Ok(Some(logged)) => logged.settle().map_err(|Lost(reason)| DatabaseError::Storage(reason)),
            // Nobody has used it.
            Ok(None) | Err(_) => Ok(()),
        };
        tokio::task::spawn_blocking(settle).await.unwrap_or(Err(DatabaseError::Closed))
    }

    /// Ends the database processes and the commit log. All sessions of tenants are closed.
    pub async fn close(&self) {
        if let Some(log) = self.slots.log.clone() {
            match tokio::task::spawn_blocking(move || log.log().close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the commit log is left for the next start"),
                Err(error) => tracing::error!(%error, "the commit log could not be closed"),
            }
        }
        for process in &*self.processes {
            process.close().await;
        }
    }
}

/// What there is of the database processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessFigures {
    /// Those that run.
    pub pids: Vec<i32>,
    /// How often one has ended before its node.
    pub deaths: u64,
}

/// Carries a command out on its session.
pub(super) fn carry_out(slots: &Slots, session: SessionId, command: Command) -> CarriedOut {
    let Some(slot) = slots.find(session) else {
        return CarriedOut { answer: Err(DatabaseError::Closed), unsettled: None };
    };
    let closes = command == Command::Close;
    let mut open = lock(&slot.open);
    let answer = catch_unwind(AssertUnwindSafe(|| apply(slots, &slot, &mut open, command)))
        .unwrap_or_else(|_| Err(DatabaseError::Storage("the database thread panicked".to_owned())));
    if let Err(error) = &answer
        && !error.session_is_usable()
    {
        close(&mut open);
        slot.failure.get_or_init(|| error.clone());
    }
    if closes {
        lock(&slots.slots).remove(&session.number);
    }
    // Not before the command: one may be cancelled while it waits for a thread.
    slot.cancelled.store(false, Ordering::Relaxed);
    CarriedOut { answer, unsettled: open.as_ref().and_then(|open| open.session.unsettled()) }
}

fn apply(slots: &Slots, slot: &Slot, open: &mut Option<OpenSession>, command: Command) -> Answer {
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
            let log = slots.log.clone().filter(|_| profile == Profile::Tenant);
            let opening = Opening { path, profile, bytes_max, log };
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
            if let Ok(Reply::Executed(Executed { memory_bytes, .. }) | Reply::Reset { memory_bytes }) =
                &mut answer
            {
                *memory_bytes = u64::try_from(account.used).unwrap_or(0);
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
        Command::Reset => session.reset().map(|()| Reply::Reset { memory_bytes: 0 }),
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
        let (first, second) = (database.new_session(Owner::NODE), database.new_session(Owner::NODE));
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
