//! Admission: how many requests run at the same time and how often they come, on the node and for each tenant.
//!
//! A request that finds all turns taken waits for a moment in its tenant's line. Free turns go round the tenants that
//! wait, so that one with a thousand in line delays another's only one by one turn. When its line is full or the moment
//! is over a request is told that the node, or its tenant, is busy. A tenant that has no request has no entry, unless it
//! had so many just now that its [rate](Rate) remembers.

mod load;
mod rate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::fair::Lines;
use crate::limits;
use crate::name::Id;
pub use load::Load;
use rate::Bucket;
pub use rate::{OverRate, Rate};

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// All turns of the node are taken.
    #[error("the node is busy")]
    NodeBusy,
    /// All turns of the tenant are taken.
    #[error("the tenant is busy")]
    TenantBusy,
    /// The tenant has had too many requests.
    #[error(transparent)]
    OverRate(#[from] OverRate),
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

/// How many requests are let in.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Requests that run at the same time.
    pub turns_max: u32,
    /// Those of one tenant.
    pub tenant_turns_max: u32,
    /// How long a request waits in line.
    pub wait_max: Duration,
    /// How often one tenant may have a request; nothing is no limit.
    pub tenant_rate: Option<Rate>,
}

/// What admission counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Requests that run.
    pub running: u64,
    /// Requests that wait in line.
    pub waiting: u64,
    /// Tenants with a request, or with tokens missing.
    pub tenants: u64,
}

/// The turns of the node and of its tenants.
pub struct Admission(Arc<Shared>);

struct Shared {
    policy: Policy,
    book: Mutex<Book>,
    /// Told when the last request has left.
    emptied: Notify,
}

/// Who runs and who waits. One lock for all of it: a request takes it twice, for a moment.
#[derive(Default)]
struct Book {
    running: HashMap<u64, InFlight>,
    waiting: Lines<Id, Waiting>,
    tenants: HashMap<Id, Tenant>,
    next: u64,
}

/// A tenant with a request that runs or waits, or with tokens missing.
struct Tenant {
    running: usize,
    bucket: Bucket,
    load: Arc<Load>,
}

/// What a request that arrives is given.
struct Place {
    number: u64,
    load: Arc<Load>,
    /// Tells when it has its turn, if it has to wait for it.
    turn: Option<oneshot::Receiver<()>>,
}

struct Waiting {
    number: u64,
    request: InFlight,
    turn: oneshot::Sender<()>,
}

/// One request's turn, or its place in line. Dropping it lets the next request in.
pub struct Ticket {
    shared: Arc<Shared>,
    number: u64,
    load: Arc<Load>,
}

impl Admission {
    /// Turns by a policy.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(Shared { policy, book: Mutex::default(), emptied: Notify::new() }))
    }

    /// Waits for a turn of the tenant and of the node.
    ///
    /// # Errors
    /// When one of them has none for too long, or the tenant has had too many.
    pub async fn enter(&self, tenant: &Id, request: InFlight) -> Result<Ticket, Refused> {
        let Place { number, load, turn } = self.0.book().arrive(&self.0.policy, tenant, request)?;
        let ticket = Ticket { shared: self.0.clone(), number, load };
        let Some(turn) = turn else { return Ok(ticket) };
        match tokio::time::timeout(self.0.policy.wait_max, turn).await {
            Ok(Ok(())) => Ok(ticket),
            Ok(Err(_)) | Err(_) => {
                let busy = self.0.book().busy(&self.0.policy, tenant);
                Err(busy)
            }
        }
    }

    /// What runs now.
    #[must_use]
    pub fn in_flight(&self) -> Vec<InFlight> {
        self.0.book().running.values().cloned().collect()
    }

    /// What is counted now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let book = self.0.book();
        Figures {
            running: book.running.len() as u64,
            waiting: book.waiting.len() as u64,
            tenants: book.tenants.len() as u64,
        }
    }

    /// Waits until nothing runs or waits.
    pub async fn idle(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            if self.0.book().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Forgets tenants whose buckets have filled up since their last request.
    pub fn release_idle(&self) {
        if self.0.policy.tenant_rate.is_some() {
            let (mut book, now) = (self.0.book(), Instant::now());
            let Book { tenants, waiting, .. } = &mut *book;
            tenants.retain(|id, tenant| !tenant.is_idle(now) || waiting.length_of(id) > 0);
        }
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenant {
    fn new(id: &Id) -> Self {
        Self { running: 0, bucket: Bucket::default(), load: Arc::new(Load::new(id.clone())) }
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.running == 0 && self.bucket.is_full(now)
    }
}

impl Book {
    /// Gives a request its turn, or a place in line.
    fn arrive(&mut self, policy: &Policy, id: &Id, request: InFlight) -> Result<Place, Refused> {
        let tenant = match self.tenants.get_mut(id) {
            Some(tenant) => tenant,
            None => self.tenants.entry(id.clone()).or_insert_with(|| Tenant::new(id)),
        };
        if let Some(rate) = policy.tenant_rate {
            tenant.bucket.take(rate, Instant::now())?;
        }
        let (number, load) = (self.next, tenant.load.clone());
        self.next += 1;
        // A turn that is free has been refused by everybody who waits: their tenants have all of theirs.
        if self.running.len() < policy.turns_max as usize && tenant.running < policy.tenant_turns_max as usize
        {
            tenant.running += 1;
            self.running.insert(number, request);
            return Ok(Place { number, load, turn: None });
        }
        let line_max = (policy.tenant_turns_max as usize).saturating_mul(limits::WAITERS_PER_TURN);
        if self.waiting.length_of(id) >= line_max {
            return Err(self.busy(policy, id));
        }
        let (turn, told) = oneshot::channel();
        self.waiting.push(id.clone(), Waiting { number, request, turn });
        Ok(Place { number, load, turn: Some(told) })
    }

    /// Who is to blame that a request of this tenant has no turn.
    fn busy(&self, policy: &Policy, id: &Id) -> Refused {
        let running = self.tenants.get(id).map_or(0, |tenant| tenant.running);
        if running >= policy.tenant_turns_max as usize { Refused::TenantBusy } else { Refused::NodeBusy }
    }

    /// A request that ends or gives up. Whoever is next has its turn.
    fn leave(&mut self, policy: &Policy, id: &Id, number: u64) {
        if self.running.remove(&number).is_some() {
            if let Some(tenant) = self.tenants.get_mut(id) {
                tenant.running -= 1;
            }
            self.hand_on(policy);
        } else {
            self.waiting.remove(id, |waiting| waiting.number == number);
        }
        let is_idle = self.tenants.get(id).is_some_and(|tenant| tenant.is_idle(Instant::now()));
        if is_idle && self.waiting.length_of(id) == 0 {
            self.tenants.remove(id);
        }
    }

    fn hand_on(&mut self, policy: &Policy) {
        while self.running.len() < policy.turns_max as usize {
            let Self { waiting, tenants, .. } = self;
            let may = |id: &Id| {
                tenants.get(id).is_none_or(|tenant| tenant.running < policy.tenant_turns_max as usize)
            };
            let Some((id, next)) = waiting.pop_of(may) else { return };
            // One that does not listen any more is about to leave.
            if next.turn.send(()).is_ok() {
                if let Some(tenant) = tenants.get_mut(&id) {
                    tenant.running += 1;
                }
                self.running.insert(next.number, next.request);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }
}

impl Ticket {
    /// What the tenant's requests take of the processor.
    #[must_use]
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut book = self.shared.book();
        book.leave(&self.shared.policy, self.load.tenant(), self.number);
        if book.is_empty() {
            self.shared.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    type Tested = Result<(), Box<dyn std::error::Error>>;

    fn policy(turns_max: u32, tenant_turns_max: u32) -> Policy {
        Policy { turns_max, tenant_turns_max, wait_max: Duration::from_millis(1), tenant_rate: None }
    }

    fn patient(turns_max: u32, tenant_turns_max: u32) -> Admission {
        let wait_max = Duration::from_secs(3600);
        Admission::new(Policy { wait_max, ..policy(turns_max, tenant_turns_max) })
    }

    fn request() -> InFlight {
        InFlight { request_id: "r".into(), address: "a".into(), since: Instant::now() }
    }

    /// A request that waits in line, and says so when it has its turn.
    async fn wait_in_line(
        admission: &Arc<Admission>,
        tenant: &Id,
        name: &'static str,
        served: &tokio::sync::mpsc::Sender<&'static str>,
    ) -> tokio::task::JoinHandle<()> {
        let before = admission.figures().waiting;
        let waits = tokio::spawn({
            let (admission, tenant, served) = (admission.clone(), tenant.clone(), served.clone());
            async move {
                if let Ok(ticket) = admission.enter(&tenant, request()).await {
                    served.send(name).await.ok();
                    drop(ticket);
                }
            }
        });
        while admission.figures().waiting == before {
            tokio::task::yield_now().await;
        }
        waits
    }

    #[tokio::test]
    async fn a_full_tenant_is_busy_and_others_are_not() -> Tested {
        let admission = Admission::new(policy(3, 1));
        let (one, other) = (Id::random()?, Id::random()?);
        let ticket = admission.enter(&one, request()).await?;
        assert_eq!(admission.enter(&one, request()).await.err(), Some(Refused::TenantBusy));
        let second = admission.enter(&other, request()).await?;
        drop(ticket);
        drop(admission.enter(&one, request()).await?);
        drop(second);
        assert_eq!(admission.figures().tenants, 0);
        Ok(())
    }

    #[tokio::test]
    async fn a_full_node_is_busy() -> Tested {
        let admission = Admission::new(policy(1, 1));
        let (one, other) = (Id::random()?, Id::random()?);
        let _ticket = admission.enter(&one, request()).await?;
        assert_eq!(admission.enter(&other, request()).await.err(), Some(Refused::NodeBusy));
        assert_eq!(admission.figures().tenants, 1);
        assert_eq!(admission.in_flight().len(), 1);
        Ok(())
    }

    #[tokio::test]
    async fn turns_go_round_the_tenants_that_wait() -> Tested {
        let admission = Arc::new(patient(1, 1));
        let (loud, quiet) = (Id::random()?, Id::random()?);
        let (served, mut order) = tokio::sync::mpsc::channel(8);
        let running = admission.enter(&Id::random()?, request()).await?;
        for (tenant, name) in [(&loud, "l1"), (&loud, "l2"), (&loud, "l3"), (&quiet, "q1"), (&quiet, "q2")] {
            wait_in_line(&admission, tenant, name, &served).await;
        }
        drop((running, served));
        let mut names = Vec::new();
        while let Some(name) = order.recv().await {
            names.push(name);
        }
        assert_eq!(names, ["l1", "q1", "l2", "q2", "l3"]);
        admission.idle().await;
        assert_eq!(admission.figures().tenants, 0);
        Ok(())
    }

    #[tokio::test]
    async fn a_tenant_with_all_its_turns_does_not_hold_up_the_others() -> Tested {
        let admission = Arc::new(patient(2, 1));
        let (loud, quiet) = (Id::random()?, Id::random()?);
        let (served, mut order) = tokio::sync::mpsc::channel(8);
        let held = admission.enter(&loud, request()).await?;
        let other = admission.enter(&Id::random()?, request()).await?;
        wait_in_line(&admission, &loud, "loud", &served).await;
        wait_in_line(&admission, &quiet, "quiet", &served).await;
        drop(other);
        assert_eq!(order.recv().await, Some("quiet"));
        drop(held);
        assert_eq!(order.recv().await, Some("loud"));
        Ok(())
    }

    #[tokio::test]
    async fn a_line_is_bounded_and_who_gives_up_leaves_nothing_behind() -> Tested {
        let admission = Arc::new(patient(1, 1));
        let (loud, quiet) = (Id::random()?, Id::random()?);
        let (served, _order) = tokio::sync::mpsc::channel(8);
        let running = admission.enter(&loud, request()).await?;
        let mut line = Vec::new();
        for _ in 0..limits::WAITERS_PER_TURN {
            line.push(wait_in_line(&admission, &loud, "loud", &served).await);
        }
        assert_eq!(admission.enter(&loud, request()).await.err(), Some(Refused::TenantBusy));
        line.push(wait_in_line(&admission, &quiet, "quiet", &served).await);
        for waits in &line {
            waits.abort();
        }
        for waits in line {
            assert!(waits.await.is_err());
        }
        assert_eq!(admission.figures().waiting, 0);
        assert_eq!(admission.figures().tenants, 1);
        drop(running);
        assert_eq!(admission.figures().tenants, 0);
        Ok(())
    }

    #[tokio::test]
    async fn a_tenant_over_its_rate_is_told_when_to_come_back() -> Tested {
        let (per_second, burst) = (NonZeroU32::MIN, NonZeroU32::MIN.saturating_add(1));
        let tenant_rate = Some(Rate { per_second, burst });
        let admission = Admission::new(Policy { tenant_rate, ..policy(8, 8) });
        let (one, other) = (Id::random()?, Id::random()?);
        drop(admission.enter(&one, request()).await?);
        drop(admission.enter(&one, request()).await?);
        let Err(Refused::OverRate(over)) = admission.enter(&one, request()).await else {
            return Err("it was let in".into());
        };
        assert!(over.wait <= Duration::from_secs(1));
        drop(admission.enter(&other, request()).await?);
        admission.release_idle();
        assert_eq!(admission.figures().tenants, 2, "what is missing of a bucket is remembered");
        Ok(())
    }
}
