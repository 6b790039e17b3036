//! The writer permit of a tenant, while one lease holds it, and the clock that ends a transaction held too long.
//!
//! ```text
//!         hold                 release (autocommit, COMMIT, end of the lease)
//!  Free ────────▶ Held ────────────────────────────────────────────────────────▶ Free
//!                  │ transaction_held_max passes
//!                  ▼
//!               Expired ── rolled back by the clock, then the permit is free ──▶ Free
//! ```

use std::sync::{Arc, Mutex};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::{Tenant, lock};
use crate::database::{Command, DatabaseError, Reply, SessionId};

enum Holding {
    Held(OwnedSemaphorePermit),
    Expired,
    Released,
}

impl Holding {
    /// Takes the permit, unless the next writer has been let in.
    fn expire(&mut self) -> Option<OwnedSemaphorePermit> {
        match std::mem::replace(self, Self::Expired) {
            Self::Held(permit) => Some(permit),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Lets the next writer in, unless the clock is at it.
    fn release(&mut self) {
        if matches!(self, Self::Held(_)) {
            *self = Self::Released;
        }
    }
}

/// The permit, held by one lease.
pub(super) struct Writer {
    holding: Arc<Mutex<Holding>>,
    clock: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        Self { holding: Arc::new(Mutex::new(Holding::Held(permit))), clock: None }
    }

    /// Starts the clock, once: from now the transaction may stay open for `transaction_held_max`.
    pub(super) fn start_clock(&mut self, tenant: &Arc<Tenant>, session: SessionId) {
        if self.clock.is_some() {
            return;
        }
        let (holding, tenant) = (self.holding.clone(), tenant.clone());
        self.clock = Some(tokio::spawn(async move {
            tokio::time::sleep(tenant.shared.policy.transaction_held_max).await;
            let Some(permit) = lock(&holding).expire() else { return };
            tenant.shared.database.cancel(session);
            // A session that cannot be rolled back is closed by its thread, and that rolls back as well.
            let _ = tenant.call(session, Command::Rollback).await;
            drop(permit);
        }));
    }

    /// What lets the next writer in on the database thread, when a statement that leaves no transaction open has ended:
    /// the next need not wait until this one's task is awake.
    pub(super) fn release_after(
        &self,
        tenant: &Arc<Tenant>,
    ) -> impl FnOnce(&Result<Reply, DatabaseError>) + Send + use<> {
        let (holding, tenant) = (self.holding.clone(), tenant.clone());
        move |answer| {
            let Ok(Reply::Executed(executed)) = answer else { return };
            if executed.in_transaction {
                return;
            }
            tenant.note_wal(executed.wal_bytes);
            if !tenant.checkpoint_is_overdue(executed) {
                lock(&holding).release();
            }
        }
    }

    /// Whether the next writer has been let in.
    pub(super) fn is_released(&self) -> bool {
        matches!(*lock(&self.holding), Holding::Released)
    }

    /// Stops the clock and hands out the permit; whoever drops that lets the next writer in. `Err` when the clock was
    /// faster: the caller must wait for it before it uses the session again.
    pub(super) fn into_permit(self) -> Result<Option<OwnedSemaphorePermit>, Expired> {
        let permit = match std::mem::replace(&mut *lock(&self.holding), Holding::Released) {
            Holding::Expired => return Err(Expired(self.clock)),
            Holding::Released => None,
            Holding::Held(permit) => Some(permit),
        };
        if let Some(clock) = self.clock {
            clock.abort();
        }
        Ok(permit)
    }

    /// Whether the clock has ended the transaction.
    pub(super) fn is_expired(&self) -> bool {
        matches!(*lock(&self.holding), Holding::Expired)
    }
}

/// A transaction that its clock is rolling back, or has.
pub(super) struct Expired(Option<JoinHandle<()>>);

impl Expired {
    /// Waits until the transaction is rolled back.
    pub(super) async fn rolled_back(&mut self) {
        if let Some(clock) = &mut self.0 {
            // The clock neither panics nor is aborted once it has expired.
            let _ = clock.await;
            self.0 = None;
        }
    }
}
