//! Admission: how many requests run at the same time, on the node and for each tenant.
//!
//! A request that finds all turns taken waits in line for a moment, in order of arrival. When the line is full or
//! the moment is over it is told that the node, or its tenant, is busy. A tenant that has no request has no entry.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;
use crate::name::Id;

/// Who is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// All turns of the node are taken.
    #[error("the node is busy")]
    Node,
    /// All turns of the tenant are taken.
    #[error("the tenant is busy")]
    Tenant,
}

/// What runs, for whoever asks what holds up a shutdown.
#[derive(Debug, Clone)]
pub struct InFlight {
    /// The request's id.
    pub request_id: Arc<str>,
    /// Its address: tenant and function.
    pub address: Arc<str>,
    /// When it came.
    pub since: Instant,
}

/// The turns of the node and of its tenants.
pub struct Admission {
    node: Arc<Gate>,
    tenant_turns_max: u32,
    turns_max: u32,
    wait_max: Duration,
    tenants: Arc<Tenants>,
    running: Arc<Running>,
}

#[derive(Default)]
struct Running {
    requests: Mutex<HashMap<u64, InFlight>>,
    next: AtomicU64,
}

/// One entry of the list of what runs.
struct Entry {
    number: u64,
    running: Arc<Running>,
}

type Tenants = Mutex<HashMap<Id, Weak<Gate>>>;

/// Turns, and the line before them.
struct Gate {
    turns: Arc<Semaphore>,
    line: Semaphore,
}

/// One request's turn. Dropping it lets the next request in.
pub struct Ticket {
    _entry: Entry,
    _tenant: TenantTurn,
    _node: OwnedSemaphorePermit,
}

struct TenantTurn {
    turn: Option<OwnedSemaphorePermit>,
    tenant: Id,
    gate: Option<Arc<Gate>>,
    tenants: Arc<Tenants>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    fn new(turns: u32) -> Arc<Self> {
        let turns = turns as usize;
        Arc::new(Self {
            turns: Arc::new(Semaphore::new(turns)),
            line: Semaphore::new(turns.saturating_mul(limits::WAITERS_PER_TURN)),
        })
    }

    async fn turn(&self, wait_max: Duration) -> Option<OwnedSemaphorePermit> {
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Some(turn);
        }
        let _place = self.line.try_acquire().ok()?;
        tokio::time::timeout(wait_max, self.turns.clone().acquire_owned()).await.ok()?.ok()
    }
}

impl Admission {
    /// Turns for `turns_max` requests of the node, of which one tenant may have `tenant_turns_max`. A request waits
    /// in line for `wait_max` at most.
    #[must_use]
    pub fn new(turns_max: u32, tenant_turns_max: u32, wait_max: Duration) -> Self {
        let node = Gate::new(turns_max);
        Self { node, tenant_turns_max, turns_max, wait_max, tenants: Arc::default(), running: Arc::default() }
    }

    /// Waits for a turn of the tenant and of the node.
    ///
    /// # Errors
    /// When one of them has none for too long.
    pub async fn enter(&self, tenant: &Id, request: InFlight) -> Result<Ticket, Busy> {
        let gate = self.gate(tenant);
        // Made before the wait, so that a request that gives up clears away its tenant's gate too.
        let mut turn = TenantTurn {
            turn: None,
            tenant: tenant.clone(),
            gate: Some(gate),
            tenants: self.tenants.clone(),
        };
        turn.take(self.wait_max).await?;
        let node = self.node.turn(self.wait_max).await.ok_or(Busy::Node)?;
        Ok(Ticket { _entry: Entry::new(&self.running, request), _tenant: turn, _node: node })
    }

    fn gate(&self, tenant: &Id) -> Arc<Gate> {
        let mut tenants = lock(&self.tenants);
        if let Some(gate) = tenants.get(tenant).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Gate::new(self.tenant_turns_max);
        tenants.insert(tenant.clone(), Arc::downgrade(&gate));
        gate
    }

    /// What runs now.
    #[must_use]
    pub fn in_flight(&self) -> Vec<InFlight> {
        lock(&self.running.requests).values().cloned().collect()
    }

    /// Waits until nothing runs. What comes meanwhile runs first.
    pub async fn idle(&self) {
        let _ = self.node.turns.acquire_many(self.turns_max).await;
    }

    /// Tenants with a request.
    #[must_use]
    pub fn tenants(&self) -> u64 {
        lock(&self.tenants).len() as u64
    }
}

impl TenantTurn {
    async fn take(&mut self, wait_max: Duration) -> Result<(), Busy> {
        let turn = match &self.gate {
            Some(gate) => gate.turn(wait_max).await,
            None => None,
        };
        self.turn = Some(turn.ok_or(Busy::Tenant)?);
        Ok(())
    }
}

impl Entry {
    fn new(running: &Arc<Running>, request: InFlight) -> Self {
        let number = running.next.fetch_add(1, Ordering::Relaxed);
        lock(&running.requests).insert(number, request);
        Self { number, running: running.clone() }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.running.requests).remove(&self.number);
    }
}

impl Drop for TenantTurn {
    fn drop(&mut self) {
        let mut tenants = lock(&self.tenants);
        self.gate = None;
        if tenants.get(&self.tenant).is_some_and(|gate| gate.strong_count() == 0) {
            tenants.remove(&self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> InFlight {
        InFlight { request_id: "r".into(), address: "a".into(), since: Instant::now() }
    }

    #[tokio::test]
    async fn a_full_tenant_is_busy_and_others_are_not() -> Result<(), Box<dyn std::error::Error>> {
        let admission = Admission::new(3, 1, Duration::from_millis(1));
        let (one, other) = (Id::random()?, Id::random()?);
        let ticket = admission.enter(&one, request()).await?;
        assert_eq!(admission.enter(&one, request()).await.err(), Some(Busy::Tenant));
        let second = admission.enter(&other, request()).await?;
        drop(ticket);
        drop(admission.enter(&one, request()).await?);
        drop(second);
        assert_eq!(admission.tenants(), 0);
        Ok(())
    }

    #[tokio::test]
    async fn a_full_node_is_busy() -> Result<(), Box<dyn std::error::Error>> {
        let admission = Admission::new(1, 1, Duration::from_millis(1));
        let (one, other) = (Id::random()?, Id::random()?);
        let _ticket = admission.enter(&one, request()).await?;
        assert_eq!(admission.enter(&other, request()).await.err(), Some(Busy::Node));
        assert_eq!(admission.tenants(), 1);
        assert_eq!(admission.in_flight().len(), 1);
        Ok(())
    }
}
