//! A lease: the right of one request to its tenant's database, and the session it uses.
//!
//! Everything a request does goes through its one session, so `last_insert_rowid()`, temporary objects and
//! transactions are its own. A lease that is dropped, at the end or in the middle, leaves nothing behind: what runs
//! is stopped, what is open is rolled back, and the session is parked or closed.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::present::Turn;
use super::writer::{Expired, Writer};
use super::{DatabaseKey, Made, Session, Shared, Size, Tenant, files, making, park};
use crate::database::{Command, DatabaseError, Executed, Reply, Rows, Value};
use crate::exceeded::{Exceeded, Limit};
use crate::limits;
use crate::telemetry::in_current_request;

type Answer = Result<Reply, DatabaseError>;

/// The right of one request to a database.
pub struct Lease {
    shared: Arc<Shared>,
    key: DatabaseKey,
    made: Made,
    held: Option<Held>,
    changes: u64,
    last_insert_rowid: i64,
    /// Whether the guest believes in a transaction that is no more.
    lost_transaction: bool,
    /// Whether the log knows that the database was full.
    is_full_told: bool,
}

/// What a lease holds once it has opened its database.
struct Held {
    tenant: Arc<Tenant>,
    session: Session,
    turn: Turn,
    writer: Option<Writer>,
    /// A transaction that its clock is rolling back.
    expired: Option<Expired>,
    /// The answer to the command under way, so that a lease dropped in the middle can wait for it.
    outstanding: Option<oneshot::Receiver<Answer>>,
    is_open: bool,
    is_fresh: bool,
    in_transaction: bool,
    needs_reset: bool,
}

impl Lease {
    pub(super) fn new(shared: Arc<Shared>, key: DatabaseKey, made: Made) -> Self {
        Self {
            shared,
            key,
            made,
            held: None,
            changes: 0,
            last_insert_rowid: 0,
            lost_transaction: false,
            is_full_told: false,
        }
    }

    /// Opens the database, which is made when it has never been opened, or joins the session that the lease has.
    ///
    /// # Errors
    /// When the file cannot be made or opened, is in quarantine, or suspended.
    pub async fn open(&mut self) -> Result<(), DatabaseError> {
        self.shared.check(&self.key)?;
        self.shared.generations.check_open(&self.key)?;
        if self.held.as_ref().is_some_and(|held| held.is_open) {
            return Ok(());
        }
        if let Some(failed) = self.held.take() {
            // A session that failed gives its turn back before another is taken.
            put_in_order(self.shared.clone(), failed).await;
        }
        let tenant = self.shared.tenant(&self.key);
        let turn = Turn::take(&tenant).await?;
        if let Some(session) = tenant.open_session().await {
            self.held = Some(Held::new(tenant, session, turn, true));
            return Ok(());
        }
        if !self.made.is_known() {
            self.shared.check_disk()?;
            making::make_once(&tenant, &self.made).await?;
        }
        let session = tenant.new_session().await?;
        let held = self.held.insert(Held::new(tenant, session, turn, false));
        held.call(&self.shared, self.shared.open_command(&self.key)).await?;
        held.is_open = true;
        Ok(())
    }

    /// Runs the first statement of `sql`.
    ///
    /// # Errors
    /// When the statement fails, is refused or takes too long; nothing of it is kept then.
    pub async fn execute(&mut self, sql: String, parameters: Vec<Value>) -> Result<Rows, DatabaseError> {
        self.execute_within(limits::RESULT_BYTES_MAX, sql, parameters).await
    }

    /// Runs the first statement of `sql`, whose rows must not take more than `result_bytes_max`.
    ///
    /// # Errors
    /// As [`Lease::execute`], and when the rows take more.
    pub async fn execute_within(
        &mut self,
        result_bytes_max: usize,
        sql: String,
        parameters: Vec<Value>,
    ) -> Result<Rows, DatabaseError> {
        let ends_transaction = starts_with_any(&sql, &["ROLLBACK"]);
        if std::mem::take(&mut self.lost_transaction) {
            if ends_transaction {
                return Ok(Rows::default());
            }
            self.lost_transaction = true;
            return Err(lost_transaction());
        }
        let was_in_transaction = self.held.as_ref().is_some_and(|held| held.in_transaction);
        let outcome = self.run(result_bytes_max, sql, parameters).await;
        if matches!(outcome, Err(DatabaseError::Full(_))) && !std::mem::replace(&mut self.is_full_told, true)
        {
            self.tell_full().await;
        }
        let is_in_transaction = self.held.as_ref().is_some_and(|held| held.is_open && held.in_transaction);
        // SQLite, the clock or a failed session has rolled it back, and the guest does not know yet: what it says next
        // must not be committed alone.
        self.lost_transaction =
            was_in_transaction && !is_in_transaction && !ends_transaction && outcome.is_err();
        outcome
    }

    /// Tells of a database that is full, once for each lease. A disk that is nearly full tells of itself.
    async fn tell_full(&self) {
        if self.shared.disk.is_low() {
            return;
        }
        let Size { bytes, wal_bytes } = files::size(&self.shared.path(&self.key)).await;
        let (used, allowed) = (bytes + wal_bytes, self.shared.policy.database_bytes_max);
        self.shared.metrics.exceeded(Exceeded::new(Limit::DatabaseBytes, used, allowed));
    }

    async fn run(
        &mut self,
        result_bytes_max: usize,
        sql: String,
        parameters: Vec<Value>,
    ) -> Result<Rows, DatabaseError> {
        self.open().await?;
        let held = self.held.as_mut().ok_or(DatabaseError::Closed)?;
        held.refuse_after_expiry(&self.shared).await?;
        if held.writer.is_none() && starts_with_any(&sql, WRITES) {
            held.take_writer(&self.shared).await?;
        }
        let mut reply = held.try_execute(&self.shared, result_bytes_max, sql, parameters).await?;
        if let Reply::NeedsWriter { sql, parameters } = reply {
            held.take_writer(&self.shared).await?;
            reply = held.try_execute(&self.shared, result_bytes_max, sql, parameters).await?;
        }
        let executed = reply.into_executed()?;
        self.changes = executed.changes;
        self.last_insert_rowid = executed.last_insert_rowid;
        held.settle(&self.shared, &executed).await;
        executed.outcome
    }

    /// Rows that the latest INSERT, UPDATE or DELETE of this lease changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Row id of the latest INSERT of this lease; 0 before the first.
    #[must_use]
    pub fn last_insert_rowid(&self) -> i64 {
        self.last_insert_rowid
    }

    /// Says that the WAL may hold something, so that it is copied when the lease ends.
    pub(super) fn wal_is_dirty(&mut self) {
        if let Some(held) = &self.held {
            held.tenant.mark_wal_dirty();
        }
    }
}

/// First words of statements that will want the writer permit. A wrong guess costs a message, nothing else.
const WRITES: &[&str] = &["INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER"];

fn starts_with_any(sql: &str, words: &[&str]) -> bool {
    let word = sql.trim_start().split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    words.iter().any(|candidate| word.eq_ignore_ascii_case(candidate))
}

fn lost_transaction() -> DatabaseError {
    DatabaseError::TimedOut(
        "the transaction was rolled back after an error or because it was open for too long; \
         ROLLBACK, then begin again"
            .to_owned(),
    )
}

impl Held {
    fn new(tenant: Arc<Tenant>, session: Session, turn: Turn, is_open: bool) -> Self {
        Self {
            tenant,
            session,
            turn,
            writer: None,
            expired: None,
            outstanding: None,
            is_open,
            is_fresh: true,
            in_transaction: false,
            needs_reset: false,
        }
    }

    async fn call(&mut self, shared: &Shared, command: Command) -> Answer {
        self.wait_for(shared.database.send(self.session.id, command)).await
    }

    async fn wait_for(&mut self, answer: oneshot::Receiver<Answer>) -> Answer {
        let answer = self.outstanding.insert(answer).await;
        self.outstanding = None;
        let answer = self.tenant.examine(self.session.id, answer.unwrap_or(Err(DatabaseError::Closed)));
        if let Err(error) = &answer {
            self.is_open &= error.session_is_usable();
            if *error == DatabaseError::Closed {
                tracing::error!(database = ?self.tenant.key, "a tenant's session was closed under its request");
            }
        }
        answer
    }

    async fn try_execute(
        &mut self,
        shared: &Shared,
        result_bytes_max: usize,
        sql: String,
        parameters: Vec<Value>,
    ) -> Answer {
        // After every wait: for the handle, the session, and the permit, whose last holder may have met the failure.
        self.tenant.check()?;
        let command = Command::Execute {
            sql,
            parameters,
            result_bytes_max,
            time_max: shared.policy.statement_time_max,
            may_write: self.writer.is_some(),
            first_of_lease: std::mem::take(&mut self.is_fresh),
            in_transaction: self.in_transaction,
        };
        let (database, id) = (&shared.database, self.session.id);
        let answer = match &self.writer {
            Some(writer) => database.send_with(id, command, writer.release_after(&self.tenant)),
            None => database.send(id, command),
        };
        self.wait_for(answer).await
    }

    fn park(self) {
        // The turn ends first: who closes leaves the WAL of a tenant alone while a turn is taken.
        self.turn.give_back();
        park::park(&self.tenant, self.session);
    }

    async fn take_writer(&mut self, shared: &Shared) -> Result<(), DatabaseError> {
        shared.check_disk()?;
        let permit = self.tenant.take_writer().await?;
        // The last holder may have met a failure, after which nothing may be copied.
        self.tenant.check()?;
        shared.generations.check_write(&self.tenant.key)?;
        self.writer = Some(Writer::new(permit));
        if self.tenant.checkpoint_is_due() && !self.in_transaction {
            // What held it back before may be gone, and the quota counts it.
            self.checkpoint(shared).await;
        }
        Ok(())
    }

    /// Takes over how a statement left the session.
    async fn settle(&mut self, shared: &Shared, executed: &Executed) {
        self.needs_reset = executed.needs_reset;
        self.in_transaction = executed.in_transaction;
        self.session.memory_bytes = executed.memory_bytes;
        let Some(writer) = self.writer.as_mut() else { return };
        if writer.is_released() {
            self.release_writer().await;
            return;
        }
        self.tenant.note_wal(executed.wal_bytes);
        if executed.in_transaction {
            writer.start_clock(&self.tenant, self.session.id);
            return;
        }
        if self.tenant.checkpoint_is_overdue(executed) {
            // One lease writes more than its end can wait for.
            self.checkpoint(shared).await;
        }
        self.release_writer().await;
    }

    /// Copies the WAL under the permit that is held. A lease that is dropped meanwhile waits for the answer before it
    /// lets go. A failure is told of by the next call.
    async fn checkpoint(&mut self, shared: &Shared) {
        let answer = self.call(shared, Command::Checkpoint).await;
        self.tenant.note_checkpoint(&answer);
    }

    /// Lets the next writer in. When the clock was faster, waits until it has rolled back.
    async fn release_writer(&mut self) {
        match self.writer.take().map(Writer::into_permit) {
            Some(Err(expired)) => self.expired.insert(expired).rolled_back().await,
            Some(Ok(_)) | None => return,
        }
        self.expired = None;
        self.in_transaction = false;
    }

    async fn refuse_after_expiry(&mut self, shared: &Shared) -> Result<(), DatabaseError> {
        if !self.writer.as_ref().is_some_and(Writer::is_expired) {
            return Ok(());
        }
        self.release_writer().await;
        Err(DatabaseError::TimedOut(format!(
            "the transaction was open for more than {} ms and was rolled back",
            shared.policy.transaction_held_max.as_millis()
        )))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        // A writer that is still here means an open transaction, or a request cancelled in the middle.
        let is_clean =
            held.is_open && held.outstanding.is_none() && !held.needs_reset && held.writer.is_none();
        if is_clean && !held.tenant.checkpoint_is_due() {
            held.park();
        } else {
            tokio::spawn(in_current_request(put_in_order(self.shared.clone(), held)));
        }
    }
}

/// Ends a lease that left something behind: waits for what runs, rolls back, resets, and parks the session.
async fn put_in_order(shared: Arc<Shared>, mut held: Held) {
    if let Some(outstanding) = held.outstanding.take() {
        shared.database.cancel(held.session.id);
        let answer =
            held.tenant.examine(held.session.id, outstanding.await.unwrap_or(Err(DatabaseError::Closed)));
        held.is_open = match &answer {
            Ok(_) => true,
            Err(error) => held.is_open && error.session_is_usable(),
        };
        held.needs_reset = true;
        held.tenant.mark_wal_dirty();
    }
    let permit = match held.writer.take().map(Writer::into_permit) {
        Some(Ok(permit)) => permit,
        Some(Err(expired)) => {
            held.expired = Some(expired);
            None
        }
        None => None,
    };
    if let Some(expired) = &mut held.expired {
        expired.rolled_back().await;
    }
    let id = held.session.id;
    if held.is_open && held.needs_reset {
        match held.tenant.call(id, Command::Reset).await {
            Ok(Reply::Reset { memory_bytes }) => held.session.memory_bytes = memory_bytes,
            Ok(_) | Err(_) => held.is_open = false,
        }
    }
    drop(permit);
    if held.is_open && held.tenant.checkpoint_is_due() {
        held.is_open = held.tenant.checkpoint(id).await.is_ok();
    }
    if held.is_open {
        held.park();
    } else {
        // A session that failed, or never opened, has a number still.
        let _ = shared.database.call(id, Command::Close).await;
        // Its process may have ended, and left a log that nobody comes by to copy.
        drop(held.turn);
        held.tenant.end(held.session);
    }
}
