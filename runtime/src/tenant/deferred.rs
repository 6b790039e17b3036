//! Deferred checkpoints: tenants whose sessions were closed for want of room before their WAL was copied.
//!
//! A crowded lot closes sessions that are likely to be wanted again soon. Copying the WAL at each of these closes
//! would cost two flushes and a truncation, so a small one is left as it is, and copied once its tenant has rested
//! for the park time, or a fixed time where that is zero. Until then the tenant is an entry in this queue and nothing
//! else in memory. A process that ends first loses nothing: the next one sweeps what is left.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::{Shared, Tenant, lock, park};
use crate::database::{Command, DatabaseError};
use crate::limits;

pub(super) struct Deferred {
    rest_time: Duration,
    queue: Mutex<VecDeque<Entry>>,
    closing: AtomicBool,
    wake: Notify,
    at_once: Arc<Semaphore>,
}

struct Entry {
    tenant: Arc<Tenant>,
    due: Instant,
}

enum Next {
    Copy(Arc<Tenant>),
    LookAgainAt(Instant),
    Nothing,
}

impl Deferred {
    /// Checkpoints that wait until a tenant has rested for `rest_time`.
    pub(super) fn new(rest_time: Duration) -> Self {
        Self {
            rest_time,
            queue: Mutex::default(),
            closing: AtomicBool::new(false),
            wake: Notify::new(),
            at_once: Arc::new(Semaphore::new(limits::EVICTIONS_AT_ONCE)),
        }
    }

    /// Whether the WAL of a tenant that is being closed may be copied later.
    pub(super) fn takes(&self, tenant: &Tenant) -> bool {
        tenant.wal_bytes.load(Ordering::Relaxed) <= limits::WAL_LEFT_BYTES_MAX
            && lock(&self.queue).len() < limits::DEFERRED_CHECKPOINTS_MAX
    }

    /// Queues a tenant with a WAL to copy that nobody uses. One that is in use comes by again when it is closed.
    fn add_if_left(&self, tenant: &Arc<Tenant>) {
        let now = Instant::now();
        if !tenant.has_leftover() || lock(&tenant.deferred_at).replace(now).is_some() {
            return;
        }
        let mut queue = lock(&self.queue);
        queue.push_back(Entry { tenant: tenant.clone(), due: now + self.rest_time });
        if queue.len() == 1 {
            self.wake.notify_one();
        }
    }

    fn next(&self, now: Instant) -> Next {
        let mut queue = lock(&self.queue);
        let is_closing = self.closing.load(Ordering::Acquire);
        while let Some(Entry { tenant, due }) = queue.pop_front() {
            if due > now && !is_closing {
                queue.push_front(Entry { tenant, due });
                return Next::LookAgainAt(due);
            }
            let mut deferred_at = lock(&tenant.deferred_at);
            let due = deferred_at.map_or(now, |since| since + self.rest_time);
            if due <= now || is_closing {
                *deferred_at = None;
                drop(deferred_at);
                return Next::Copy(tenant);
            }
            // Closed again since it was queued.
            drop(deferred_at);
            queue.push_back(Entry { tenant, due });
        }
        Next::Nothing
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.at_once.clone().acquire_owned().await.ok()
    }
}

/// Tells of a session that is closed, or a turn that has ended without one.
pub(super) fn closed(tenant: &Arc<Tenant>) {
    tenant.shared.deferred.add_if_left(tenant);
}

/// Starts the task that copies WALs when they are due.
pub(super) fn start(shared: &Arc<Shared>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        loop {
            // Before the entry is taken, so that whoever waits for all permits has waited for every entry.
            let Some(permit) = shared.deferred.permit().await else { return };
            match shared.deferred.next(Instant::now()) {
                Next::Copy(tenant) => spawn_copy(tenant, permit),
                Next::LookAgainAt(time) => {
                    drop(permit);
                    let _ = tokio::time::timeout_at(time.into(), shared.deferred.wake.notified()).await;
                }
                Next::Nothing => {
                    drop(permit);
                    shared.deferred.wake.notified().await;
                }
            }
        }
    });
}

/// Copies everything that is queued, now, and what is queued meanwhile.
pub(super) async fn finish(shared: &Arc<Shared>) {
    let deferred = &shared.deferred;
    deferred.closing.store(true, Ordering::Release);
    loop {
        while let Some(permit) = deferred.permit().await
            && let Next::Copy(tenant) = deferred.next(Instant::now())
        {
            spawn_copy(tenant, permit);
        }
        // With all permits nobody copies any more, and nobody queues what was written meanwhile.
        let _all = deferred.at_once.acquire_many(limits::EVICTIONS_AT_ONCE as u32).await;
        if lock(&deferred.queue).is_empty() {
            return;
        }
    }
}

fn spawn_copy(tenant: Arc<Tenant>, permit: OwnedSemaphorePermit) {
    tokio::spawn(async move {
        match copy(&tenant).await {
            // Somebody may have written meanwhile, and been closed while this was in the way; or the process has ended,
            // for no fault of this database.
            Ok(()) | Err(DatabaseError::Ended) => closed(&tenant),
            Err(error) => park::log_uncopied(&tenant, &error),
        }
        drop(permit);
    });
}

async fn copy(tenant: &Arc<Tenant>) -> Result<(), DatabaseError> {
    if !tenant.has_leftover() {
        return Ok(());
    }
    let Ok(_turn) = tenant.turns.clone().try_acquire_owned() else { return Ok(()) };
    let session = tenant.new_session().await?;
    let copied = match tenant.call(session.id, tenant.shared.open_command(&tenant.key)).await {
        Ok(_) => tenant.checkpoint(session.id).await,
        Err(error) => Err(error),
    };
    let _ = tenant.call(session.id, Command::Close).await;
    tenant.end(session);
    copied
}
