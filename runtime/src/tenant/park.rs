//! The parking lot: handles that wait a moment for their tenant's next request, and the evictor that closes them.
//!
//! The lot is bounded in time and in memory. One entry for each tenant stands in a queue, oldest first; a tenant
//! that was used since goes to the back when its turn comes. Checkpoints and closes run off the path of requests; a
//! close that only makes room leaves a small checkpoint to [`super::deferred`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{Session, Shared, Tenant, deferred, lock};
use crate::database::{Command, DatabaseError};
use crate::limits;

pub(super) struct ParkingLot {
    time_max: Duration,
    memory_bytes_max: u64,
    queue: Mutex<VecDeque<Entry>>,
    sessions: AtomicU64,
    bytes: AtomicU64,
    /// Leases that wait for a handle of the node.
    waiting: AtomicU64,
    closing: AtomicBool,
    wake: Notify,
}

struct Entry {
    tenant: Arc<Tenant>,
    since: Instant,
}

/// Why the parked sessions of a tenant are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// It has rested, or must not come back: the WAL is copied.
    Rested,
    /// Others need the room, and it may be back soon: the WAL can wait.
    Crowded,
}

enum Next {
    Evict(Arc<Tenant>, Closing),
    LookAgainAt(Instant),
    Nothing,
}

impl ParkingLot {
    pub(super) fn new(time_max: Duration, memory_bytes_max: u64) -> Self {
        Self {
            time_max,
            memory_bytes_max,
            queue: Mutex::default(),
            sessions: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Sessions in the lot and their memory in bytes.
    pub(super) fn figures(&self) -> (u64, u64) {
        (self.sessions.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// From now on nothing stays in the lot.
    pub(super) fn close_all(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(super) fn leave(&self, session: &Session) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(session.memory_bytes, Ordering::Relaxed);
    }

    fn enter(&self, session: &Session) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(session.memory_bytes, Ordering::Relaxed);
    }

    fn is_crowded(&self) -> bool {
        self.time_max.is_zero()
            || self.closing.load(Ordering::Acquire)
            || self.waiting.load(Ordering::Acquire) > 0
            || self.bytes.load(Ordering::Relaxed) > self.memory_bytes_max
    }

    fn next(&self, now: Instant) -> Next {
        let mut queue = lock(&self.queue);
        for _ in 0..queue.len() {
            let Some(Entry { tenant, since }) = queue.pop_front() else { break };
            let used = lock(&tenant.idle).iter().map(|session| session.used).max();
            let Some(used) = used else {
                // Leased again, or evicted: the next parking puts it back.
                tenant.is_in_lot.store(false, Ordering::Release);
                if !lock(&tenant.idle).is_empty() && !tenant.is_in_lot.swap(true, Ordering::AcqRel) {
                    queue.push_back(Entry { tenant, since: now });
                }
                continue;
            };
            let has_rested = used + self.time_max <= now || self.closing.load(Ordering::Acquire);
            if has_rested || (self.is_crowded() && used <= since) {
                tenant.is_in_lot.store(false, Ordering::Release);
                let why = if has_rested { Closing::Rested } else { Closing::Crowded };
                return Next::Evict(tenant, why);
            }
            if used > since {
                queue.push_back(Entry { tenant, since: used });
                continue;
            }
            queue.push_front(Entry { tenant, since });
            return Next::LookAgainAt(used + self.time_max);
        }
        // Every entry has been used since it was queued; they stand in order of use now.
        match queue.pop_front() {
            Some(Entry { tenant, .. }) if self.is_crowded() => {
                tenant.is_in_lot.store(false, Ordering::Release);
                Next::Evict(tenant, Closing::Crowded)
            }
            Some(entry) => {
                let time = entry.since + self.time_max;
                queue.push_front(entry);
                Next::LookAgainAt(time)
            }
            None => Next::Nothing,
        }
    }
}

/// Puts a session that is as good as new into the lot.
pub(super) fn park(tenant: &Arc<Tenant>, mut session: Session) {
    let lot = &tenant.shared.lot;
    session.used = Instant::now();
    let since = session.used;
    lot.enter(&session);
    lock(&tenant.idle).push(session);
    tenant.parked.notify_one();
    let is_first = if tenant.is_in_lot.swap(true, Ordering::AcqRel) {
        false
    } else {
        let mut queue = lock(&lot.queue);
        queue.push_back(Entry { tenant: tenant.clone(), since });
        queue.len() == 1
    };
    if is_first || lot.is_crowded() {
        lot.wake.notify_one();
    }
    // A quarantine that has begun meanwhile may have looked before the session was here.
    if tenant.check().is_err() {
        let tenant = tenant.clone();
        tokio::spawn(async move { close_idle(&tenant, Closing::Rested).await });
    }
}

/// Takes one of the node's handles; when all are in use, parked ones are closed for it.
pub(super) async fn take_handle(shared: &Shared) -> Result<OwnedSemaphorePermit, DatabaseError> {
    if let Ok(handle) = shared.handles.clone().try_acquire_owned() {
        return Ok(handle);
    }
    let _waiting = Waiting::new(&shared.lot);
    shared.handles.clone().acquire_owned().await.map_err(|_| DatabaseError::Closed)
}

struct Waiting<'a>(&'a ParkingLot);

impl<'a> Waiting<'a> {
    fn new(lot: &'a ParkingLot) -> Self {
        lot.waiting.fetch_add(1, Ordering::AcqRel);
        lot.wake.notify_one();
        Self(lot)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Starts the task that closes what has been parked for too long or does not fit.
pub(super) fn start_evictor(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let at_once = Arc::new(Semaphore::new(limits::EVICTIONS_AT_ONCE));
        loop {
            match shared.lot.next(Instant::now()) {
                Next::Evict(tenant, why) => {
                    let permit = at_once.clone().acquire_owned().await;
                    tokio::spawn(async move {
                        close_idle(&tenant, why).await;
                        drop(permit);
                    });
                }
                Next::LookAgainAt(time) => {
                    let _ = tokio::time::timeout_at(time.into(), shared.lot.wake.notified()).await;
                }
                Next::Nothing => shared.lot.wake.notified().await,
            }
        }
    });
}

/// Closes the parked sessions of a tenant. Its WAL is copied into the database first, or soon; in quarantine it is not.
pub(super) async fn close_idle(tenant: &Arc<Tenant>, why: Closing) {
    let shared = &tenant.shared;
    while let Some(session) = tenant.take_idle() {
        // A tenant that is leased parks again soon, and the copy is made then.
        let must_copy = tenant.wal_is_dirty.load(Ordering::Acquire)
            && !tenant.is_leased()
            && (why == Closing::Rested || !shared.deferred.takes(tenant));
        let copied = if must_copy { tenant.checkpoint(session.id).await } else { Ok(()) };
        let _ = shared.database.call(session.id, Command::Close).await;
        match copied {
            Ok(()) => deferred::closed(tenant),
            Err(error) => log_uncopied(tenant, &error),
        }
    }
    // Sessions whose process has ended went without a copy.
    deferred::closed(tenant);
}

/// Tells of a WAL that stays, unless it was told why: its database is in quarantine or suspended, or a process ended.
pub(super) fn log_uncopied(tenant: &Tenant, error: &DatabaseError) {
    if matches!(error, DatabaseError::Quarantined(_) | DatabaseError::Ended | DatabaseError::Suspended(_)) {
        return;
    }
    tracing::error!(database = ?tenant.key, %error, "a tenant's write-ahead log cannot be copied");
}
