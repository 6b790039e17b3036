//! The parking lot: handles that wait a moment for their tenant's next request.
//!
//! The lot is bounded in memory and in time. Whoever parks a session closes those that have rested longest until what
//! is left fits; a small WAL stays as it is then, for [`super::deferred`]. The evictor closes what has rested for the
//! park time, after its checkpoint. One entry for each tenant stands in a queue, oldest first; a tenant that was used
//! since goes to the back when its turn comes.

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
    /// Those who wait for a handle of the node.
    waiting: AtomicU64,
    /// Sessions that are being closed, each of which frees one.
    leaving: AtomicU64,
    closing: AtomicBool,
    wake: Notify,
}

struct Entry {
    tenant: Arc<Tenant>,
    since: Instant,
}

/// The tenant in the lot that has rested longest.
enum Oldest {
    /// For long enough: it is not in the lot any more.
    Due(Arc<Tenant>),
    /// Not for long enough: when it was used.
    UsedAt(Instant),
    Nobody,
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
            leaving: AtomicU64::new(0),
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

    pub(super) fn enter(&self, session: &Session) {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(session.memory_bytes, Ordering::Relaxed);
    }

    pub(super) fn leave(&self, session: &Session) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(session.memory_bytes, Ordering::Relaxed);
    }

    /// Queues a tenant that has a parked session.
    fn queue(&self, tenant: &Arc<Tenant>, since: Instant) {
        if tenant.is_in_lot.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queue = lock(&self.queue);
        queue.push_back(Entry { tenant: tenant.clone(), since });
        if queue.len() == 1 || self.is_closing() {
            self.wake.notify_one();
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn is_crowded(&self) -> bool {
        self.time_max.is_zero()
            || self.bytes.load(Ordering::Relaxed) > self.memory_bytes_max
            || self.waiting.load(Ordering::Acquire) > self.leaving.load(Ordering::Acquire)
    }

    /// The oldest, when it has rested for the park time.
    fn rested(&self, now: Instant) -> Oldest {
        self.oldest(|used, _| self.is_closing() || used + self.time_max <= now)
    }

    /// The oldest, when there are more than fit.
    fn in_the_way(&self) -> Option<Arc<Tenant>> {
        if !self.is_crowded() {
            return None;
        }
        match self.oldest(|used, since| used <= since) {
            Oldest::Due(tenant) => Some(tenant),
            Oldest::UsedAt(_) | Oldest::Nobody => None,
        }
    }

    /// Looks for the oldest, who is due when `is_due` says so of its last use and of the use that it is queued with.
    fn oldest(&self, is_due: impl Fn(Instant, Instant) -> bool) -> Oldest {
        let mut queue = lock(&self.queue);
        // One that was used since it was queued goes to the back, so that each is looked at twice at most, unless it is
        // used meanwhile.
        while let Some(Entry { tenant, since }) = queue.pop_front() {
            // Before the look: who parks after it queues the tenant.
            tenant.is_in_lot.store(false, Ordering::Release);
            let Some(used) = lock(&tenant.idle).last_use() else { continue };
            if is_due(used, since) {
                return Oldest::Due(tenant);
            }
            if tenant.is_in_lot.swap(true, Ordering::AcqRel) {
                // Somebody else is about to queue it.
                continue;
            }
            if used <= since {
                queue.push_front(Entry { tenant, since });
                return Oldest::UsedAt(used);
            }
            queue.push_back(Entry { tenant, since: used });
        }
        Oldest::Nobody
    }
}

/// Puts a session that is as good as new into the lot, or gives it to a request of its tenant that waits for one.
pub(super) fn park(tenant: &Arc<Tenant>, mut session: Session) {
    let now = Instant::now();
    session.used = now;
    if !tenant.keep(session) {
        return;
    }
    tenant.shared.lot.queue(tenant, now);
    make_room(&tenant.shared);
    // A quarantine that has begun meanwhile may have looked before the session was here.
    if tenant.check().is_err() {
        let tenant = tenant.clone();
        tokio::spawn(async move { close_idle(&tenant).await });
    }
}

/// Takes one of the node's handles; when all are in use, parked ones are closed for it.
pub(super) async fn take_handle(shared: &Arc<Shared>) -> Result<OwnedSemaphorePermit, DatabaseError> {
    if let Ok(handle) = shared.handles.clone().try_acquire_owned() {
        return Ok(handle);
    }
    let _waiting = Counted::new(shared, |lot| &lot.waiting);
    make_room(shared);
    shared.handles.clone().acquire_owned().await.map_err(|_| DatabaseError::Closed)
}

/// One more of what the lot counts, for as long as this is there.
struct Counted {
    shared: Arc<Shared>,
    counter: fn(&ParkingLot) -> &AtomicU64,
}

impl Counted {
    fn new(shared: &Arc<Shared>, counter: fn(&ParkingLot) -> &AtomicU64) -> Self {
        counter(&shared.lot).fetch_add(1, Ordering::AcqRel);
        Self { shared: shared.clone(), counter }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.counter)(&self.shared.lot).fetch_sub(1, Ordering::AcqRel);
    }
}

/// Starts the task that closes what has been parked for the park time.
pub(super) fn start_evictor(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let at_once = Arc::new(Semaphore::new(limits::EVICTIONS_AT_ONCE));
        loop {
            match shared.lot.rested(Instant::now()) {
                Oldest::Due(tenant) => {
                    let permit = at_once.clone().acquire_owned().await;
                    tokio::spawn(async move {
                        close_idle(&tenant).await;
                        drop(permit);
                    });
                }
                Oldest::UsedAt(used) => {
                    let due = used + shared.lot.time_max;
                    let _ = tokio::time::timeout_at(due.into(), shared.lot.wake.notified()).await;
                }
                Oldest::Nobody => shared.lot.wake.notified().await,
            }
        }
    });
}

/// Closes those that have rested longest until what is left fits. A WAL that can be copied later is left.
fn make_room(shared: &Arc<Shared>) {
    while let Some(tenant) = shared.lot.in_the_way() {
        while let Some(session) = tenant.take_idle() {
            let leaving = Counted::new(shared, |lot| &lot.leaving);
            if tenant.must_copy() && !shared.deferred.takes(&tenant) {
                let tenant = tenant.clone();
                tokio::spawn(async move {
                    copy_and_close(&tenant, session).await;
                    drop(leaving);
                });
                continue;
            }
            let (id, owner) = (session.id, tenant.clone());
            shared.database.send_with(id, Command::Close, move |_| {
                owner.end(session);
                drop(leaving);
                deferred::closed(&owner);
            });
        }
    }
}

/// Closes the parked sessions of a tenant. Its WAL is copied into the database first; in quarantine it is not.
pub(super) async fn close_idle(tenant: &Arc<Tenant>) {
    while let Some(session) = tenant.take_idle() {
        copy_and_close(tenant, session).await;
    }
    // Sessions whose process has ended went without a copy.
    deferred::closed(tenant);
}

async fn copy_and_close(tenant: &Arc<Tenant>, session: Session) {
    let copied = if tenant.must_copy() { tenant.checkpoint(session.id).await } else { Ok(()) };
    let _ = tenant.shared.database.call(session.id, Command::Close).await;
    tenant.end(session);
    match copied {
        Ok(()) => deferred::closed(tenant),
        Err(error) => log_uncopied(tenant, &error),
    }
}

/// Tells of a WAL that stays, unless it was told why: its database is in quarantine or suspended, or a process ended.
pub(super) fn log_uncopied(tenant: &Tenant, error: &DatabaseError) {
    if matches!(error, DatabaseError::Quarantined(_) | DatabaseError::Ended | DatabaseError::Suspended(_)) {
        return;
    }
    tracing::error!(database = ?tenant.key, %error, "a tenant's write-ahead log cannot be copied");
}
