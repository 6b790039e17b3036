//! A tenant that is present: its sessions, the permits of those who use them, and what is known of its log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::idle::Idle;
use super::park::Counted;
use super::{DatabaseKey, Shared, deferred, lock, park, quarantine, suspension};
use crate::database::{Command, DatabaseError, Executed, Extent, Holds, Reply, SessionId};
use crate::limits;

/// A tenant that is not idle: some lease, parked session or eviction holds it.
pub(super) struct Tenant {
    pub(super) key: DatabaseKey,
    pub(super) shared: Arc<Shared>,
    /// One permit for each session that the tenant may have in use.
    pub(super) turns: Arc<Semaphore>,
    /// One permit for each session that is open or about to be; whoever holds all is alone with the files.
    pub(super) sessions: Arc<Semaphore>,
    pub(super) writer: Arc<Semaphore>,
    /// Held while the files are made, or removed for good.
    pub(super) making: Arc<tokio::sync::Mutex<()>>,
    pub(super) idle: Mutex<Idle>,
    /// Snapshots that read the database file, so that nothing is copied into it.
    pub(super) holds: Holds,
    /// Whether the WAL may hold something that the database file does not.
    pub(super) wal_is_dirty: AtomicBool,
    pub(super) wal_bytes: AtomicU64,
    pub(super) is_in_lot: AtomicBool,
    /// When its checkpoint was put off, as long as it is queued for it.
    pub(super) deferred_at: Mutex<Option<Instant>>,
}

/// An open session, its place among its tenant's and its share of the node's handles.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) memory_bytes: u64,
    pub(super) used: Instant,
    /// While it is closed for want of room. It ends before the handle is free: whoever looks in between closes one too
    /// many, and never one too few.
    pub(super) leaving: Option<Counted>,
    _place: OwnedSemaphorePermit,
    _handle: OwnedSemaphorePermit,
}

/// The right of one request to a session. Until it is given back, the tenant is leased.
pub(super) struct Turn {
    tenant: Arc<Tenant>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    pub(super) async fn take(tenant: &Arc<Tenant>) -> Result<Self, DatabaseError> {
        let permit = tenant.turns.clone().acquire_owned().await.map_err(|_| DatabaseError::Closed)?;
        Ok(Self { tenant: tenant.clone(), permit: Some(permit) })
    }

    /// Ends it for a session that is about to be parked.
    pub(super) fn give_back(mut self) {
        self.permit = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.permit.take().is_some() {
            // While the tenant was leased, whoever closed a session of it left the WAL alone.
            deferred::closed(&self.tenant);
        }
    }
}

impl Tenant {
    /// A tenant without a session.
    pub(super) fn new(key: &DatabaseKey, shared: &Arc<Shared>) -> Self {
        Self {
            key: key.clone(),
            shared: shared.clone(),
            turns: Arc::new(Semaphore::new(shared.policy.sessions_per_tenant as usize)),
            sessions: Arc::new(Semaphore::new(shared.policy.sessions_max as usize)),
            writer: Arc::new(Semaphore::new(1)),
            making: Arc::default(),
            idle: Mutex::default(),
            holds: Holds::default(),
            wal_is_dirty: AtomicBool::new(false),
            wal_bytes: AtomicU64::new(0),
            is_in_lot: AtomicBool::new(false),
            deferred_at: Mutex::default(),
        }
    }

    /// A session that is not open yet. Waits while all handles of the node are in use.
    pub(super) async fn new_session(&self) -> Result<Session, DatabaseError> {
        let place = self.sessions.clone().acquire_owned().await.map_err(|_| DatabaseError::Closed)?;
        self.check()?;
        let handle = park::take_handle(&self.shared).await?;
        let id = self.shared.database.new_session(self.key.owner());
        Ok(Session {
            id,
            memory_bytes: 0,
            used: Instant::now(),
            _place: place,
            _handle: handle,
            leaving: None,
        })
    }

    /// Refuses what would touch the database while it is in quarantine or suspended.
    pub(super) fn check(&self) -> Result<(), DatabaseError> {
        self.shared.check(&self.key)
    }

    /// Sends a command to one of the tenant's sessions and waits for its answer.
    pub(super) async fn call(
        self: &Arc<Self>,
        session: SessionId,
        command: Command,
    ) -> Result<Reply, DatabaseError> {
        self.examine(session, self.shared.database.call(session, command).await)
    }

    /// Takes note of an answer that says that the storage has failed, or what runs the session.
    pub(super) fn examine(
        self: &Arc<Self>,
        session: SessionId,
        answer: Result<Reply, DatabaseError>,
    ) -> Result<Reply, DatabaseError> {
        match answer {
            Err(DatabaseError::Storage(reason)) => Err(quarantine::begin(self, reason)),
            Err(error @ DatabaseError::Ended) => {
                // Its last command may have committed.
                self.mark_wal_dirty();
                Err(error)
            }
            Err(error @ DatabaseError::Stuck) => {
                suspension::begin(self, session);
                Err(error)
            }
            answer => answer,
        }
    }

    pub(super) fn has_sessions(&self) -> bool {
        self.sessions.available_permits() < self.shared.policy.sessions_max as usize
    }

    pub(super) fn is_leased(&self) -> bool {
        self.turns.available_permits() < self.shared.policy.sessions_per_tenant as usize
    }

    /// Whether there is a WAL to copy and no session whose close will do that: a snapshot has one.
    pub(super) fn has_leftover(&self) -> bool {
        self.wal_is_dirty.load(Ordering::Acquire)
            && !self.is_leased()
            && !self.holds.are_any()
            && !self.has_idle()
    }

    /// Whether the WAL is to be copied when a session is closed. A tenant that is leased parks again soon, and the copy is
    /// made then.
    pub(super) fn must_copy(&self) -> bool {
        self.wal_is_dirty.load(Ordering::Acquire) && !self.is_leased()
    }

    /// Notes that the WAL may hold something. As nobody knows how much, it is too large to be left.
    pub(super) fn mark_wal_dirty(&self) {
        self.wal_bytes.fetch_max(limits::WAL_LEFT_BYTES_MAX + 1, Ordering::Relaxed);
        self.wal_is_dirty.store(true, Ordering::Release);
    }

    pub(super) fn note_wal(&self, bytes: u64) {
        self.wal_bytes.store(bytes, Ordering::Relaxed);
        self.wal_is_dirty.store(true, Ordering::Release);
    }

    pub(super) fn checkpoint_is_due(&self) -> bool {
        self.wal_bytes.load(Ordering::Relaxed) > limits::WAL_BYTES_MAX && !self.holds.are_any()
    }

    pub(super) fn checkpoint_is_overdue(&self, executed: &Executed) -> bool {
        let is_large = self.wal_bytes.load(Ordering::Relaxed) > limits::WAL_BYTES_MAX * 4;
        (is_large || executed.wal_is_tight) && !self.holds.are_any()
    }

    pub(super) fn note_checkpoint(&self, answer: &Result<Reply, DatabaseError>) {
        if *answer == Ok(Reply::Checkpointed { extent: Extent::Emptied }) {
            self.wal_is_dirty.store(false, Ordering::Release);
            self.wal_bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Copies the WAL into the database while no other session writes, unless a snapshot reads it: the close of its
    /// session does that later. Must not be dropped in the middle: the permit would be free before SQLite is done.
    pub(super) async fn checkpoint(self: &Arc<Self>, session: SessionId) -> Result<(), DatabaseError> {
        let _permit = self.writer.acquire().await;
        self.checkpoint_as_writer(session).await
    }

    /// The same for who has the writer permit.
    pub(super) async fn checkpoint_as_writer(
        self: &Arc<Self>,
        session: SessionId,
    ) -> Result<(), DatabaseError> {
        self.check()?;
        if self.holds.are_any() {
            return Ok(());
        }
        let answer = self.call(session, Command::Checkpoint).await;
        self.note_checkpoint(&answer);
        answer.map(|_| ())
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        let mut present = lock(&self.shared.present);
        // A lease may have put a new entry in this one's place since its last owner let go.
        if present.get(&self.key).is_some_and(|entry| entry.strong_count() == 0) {
            present.remove(&self.key);
        }
    }
}
