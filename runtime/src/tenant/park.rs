//! The parking lot: handles that wait a moment for their tenant's next request.
//!
//! The lot is bounded in memory and in time. Whoever parks a session makes room for it first: those that have not been
//! used for longest are closed until it fits, and one that cannot fit is closed itself. A small WAL stays as it is then,
//! for [`super::deferred`]. The evictor closes what has rested for the park time, after its checkpoint, and what has no
//! room and a large WAL. One entry for each tenant stands in a queue, oldest first; a tenant that was used since goes to
//! the back when its turn comes.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{Session, Shared, Tenant, deferred, lock};
use crate::database::{Command, DatabaseError};
use crate::limits;

pub(super) struct ParkingLot {
    time_max: Duration,
    memory_bytes_max: u64,
    queue: Mutex<VecDeque<Entry>>,
    /// Sessions that have no room, and whose WAL is to be copied before they are closed.
    to_copy: Mutex<VecDeque<(Arc<Tenant>, Session)>>,
    sessions: AtomicU64,
    bytes: AtomicU64,
    /// Those who wait for a handle of the node.
    waiting: AtomicU64,
    /// Sessions that are closed for want of room, each of which gives its handle back soon.
    leaving: AtomicU64,
    closing: AtomicBool,
    wake: Notify,
}

struct Entry {
    tenant: Arc<Tenant>,
    since: Instant,
}

/// The tenant in the queue whose last use is the longest ago.
enum Oldest {
    /// It is due: its sessions, which are out of the lot.
    Out(Arc<Tenant>, Vec<Session>),
    /// It is not due yet: when it was used.
    UsedAt(Instant),
    Nobody,
}

/// What the evictor does next.
enum Next {
    Close(Arc<Tenant>, Vec<Session>),
    LookAgainAt(Instant),
    Nothing,
}

impl ParkingLot {
    pub(super) fn new(time_max: Duration, memory_bytes_max: u64) -> Self {
        Self {
            time_max,
            memory_bytes_max,
            queue: Mutex::default(),
            to_copy: Mutex::default(),
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

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether somebody waits for a handle of the node that none of those who leave will give back.
    fn is_short_of_handles(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > self.leaving.load(Ordering::Acquire)
    }

    /// Whether a session could be parked if there were no others.
    fn takes(&self, session: &Session) -> bool {
        !self.time_max.is_zero() && session.memory_bytes <= self.memory_bytes_max
    }

    /// Counts a session as parked, if there is room for it.
    fn enter(&self, session: &Session) -> bool {
        let fits = |bytes: u64| {
            let bytes = bytes + session.memory_bytes;
            (bytes <= self.memory_bytes_max).then_some(bytes)
        };
        let is_in = !self.is_short_of_handles()
            && self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok();
        if is_in {
            self.sessions.fetch_add(1, Ordering::Relaxed);
        }
        is_in
    }

    /// Counts a session of so many bytes as parked no longer.
    pub(super) fn leave(&self, bytes: u64) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
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

    /// Closes the sessions of the oldest, whoever it is; false when the lot is empty.
    fn put_oldest_out(&self) -> bool {
        let Oldest::Out(tenant, sessions) = self.oldest(|used, since| used <= since) else { return false };
        if sessions.is_empty() {
            // Their process has ended, and nobody closes them.
            deferred::closed(&tenant);
        }
        sessions.into_iter().for_each(|session| put_out(&tenant, session));
        true
    }

    /// Closes the oldest for those who wait for a handle.
    fn make_handles_free(&self) {
        while self.is_short_of_handles() && self.put_oldest_out() {}
    }

    /// Looks for the oldest, who is due when `is_due` says so of its last use and of the use that it is queued with.
    fn oldest(&self, is_due: impl Fn(Instant, Instant) -> bool) -> Oldest {
        let mut queue = lock(&self.queue);
        // One that was used since it was queued goes to the back, so that each is looked at twice at most, unless it is
        // used meanwhile.
        while let Some(Entry { tenant, since }) = queue.pop_front() {
            // Before the look: who parks after it queues the tenant.
            tenant.is_in_lot.store(false, Ordering::Release);
            let Some(used) = tenant.last_use() else { continue };
            if is_due(used, since) {
                let sessions = tenant.take_all_idle();
                return Oldest::Out(tenant, sessions);
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

    fn next(&self, now: Instant) -> Next {
        if let Some((tenant, session)) = lock(&self.to_copy).pop_front() {
            return Next::Close(tenant, vec![session]);
        }
        match self.oldest(|used, _| self.is_closing() || used + self.time_max <= now) {
            Oldest::Out(tenant, sessions) => Next::Close(tenant, sessions),
            Oldest::UsedAt(used) => Next::LookAgainAt(used + self.time_max),
            Oldest::Nobody => Next::Nothing,
        }
    }
}

/// Parks a session that is as good as new, or gives it to a request of its tenant that waits for one. One that does not
/// fit is closed.
pub(super) fn park(tenant: &Arc<Tenant>, mut session: Session) {
    let lot = &tenant.shared.lot;
    let now = Instant::now();
    session.used = now;
    // When handles are short, whoever waits for one has waited for longer than who waits for this session.
    if !lot.is_short_of_handles() {
        match tenant.hand_over(session) {
            Some(left) => session = left,
            None => return,
        }
    }
    if !lot.takes(&session) {
        return put_out(tenant, session);
    }
    while !lot.enter(&session) {
        if !lot.put_oldest_out() {
            return put_out(tenant, session);
        }
    }
    tenant.keep(session);
    lot.queue(tenant, now);
    // Somebody may have begun to wait for a handle, and not have found this one.
    lot.make_handles_free();
    // A quarantine that has begun meanwhile may have looked before the session was here.
    if tenant.check().is_err() {
        let tenant = tenant.clone();
        tokio::spawn(async move { close_idle(&tenant).await });
    }
}

/// Closes a session that has no room, soon. A WAL that can be copied later is left.
fn put_out(tenant: &Arc<Tenant>, mut session: Session) {
    let shared = &tenant.shared;
    session.leaving = Some(Counted::new(shared, |lot| &lot.leaving));
    if tenant.must_copy() && !shared.deferred.takes(tenant) {
        lock(&shared.lot.to_copy).push_back((tenant.clone(), session));
        shared.lot.wake.notify_one();
        return;
    }
    let (id, tenant) = (session.id, tenant.clone());
    shared.database.send_with(id, Command::Close, move |_| {
        // While the session counts as open, so that nobody believes that all is done.
        deferred::closed(&tenant);
        tenant.end(session);
    });
}

/// Takes one of the node's handles; when all are in use, parked ones are closed for it.
pub(super) async fn take_handle(shared: &Arc<Shared>) -> Result<OwnedSemaphorePermit, DatabaseError> {
    let mut handle = pin!(shared.handles.clone().acquire_owned());
    // In line before there is room, so that nobody else takes it.
    let at_once = poll_fn(|context| Poll::Ready(handle.as_mut().poll(context))).await;
    let handle = match at_once {
        Poll::Ready(handle) => handle,
        Poll::Pending => {
            let _waiting = Counted::new(shared, |lot| &lot.waiting);
            shared.lot.make_handles_free();
            handle.await
        }
    };
    handle.map_err(|_| DatabaseError::Closed)
}

/// One more of what the lot counts, for as long as this is there.
pub(super) struct Counted {
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

/// Starts the evictor.
pub(super) fn start_evictor(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let at_once = Arc::new(Semaphore::new(limits::EVICTIONS_AT_ONCE));
        // Before the sessions are taken out, which nobody else could close then.
        while let Ok(permit) = at_once.clone().acquire_owned().await {
            match shared.lot.next(Instant::now()) {
                Next::Close(tenant, sessions) => {
                    tokio::spawn(async move {
                        copy_and_close(&tenant, sessions).await;
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

/// Closes the parked sessions of a tenant. Its WAL is copied into the database first; in quarantine it is not.
pub(super) async fn close_idle(tenant: &Arc<Tenant>) {
    copy_and_close(tenant, tenant.take_all_idle()).await;
}

async fn copy_and_close(tenant: &Arc<Tenant>, sessions: Vec<Session>) {
    for session in sessions {
        let copied = match tenant.writer.try_acquire() {
            Ok(_permit) if tenant.must_copy() => tenant.checkpoint_as_writer(session.id).await,
            // Whoever has the permit leaves the WAL to the next close, or to those that are deferred.
            Ok(_) | Err(_) => Ok(()),
        };
        let _ = tenant.shared.database.call(session.id, Command::Close).await;
        if let Err(error) = copied {
            log_uncopied(tenant, &error);
        }
        deferred::closed(tenant);
        tenant.end(session);
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
