//! The directory: what an address stands for now, remembered while it is in use.
//!
//! A change of the control data forgets everything that concerns its tenant. What was being read at that moment is
//! not remembered, so that an old answer cannot come back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::store::{Store, StoreError};
use super::variables::{FunctionVariables, VariableError, Variables};
use crate::catalog::Digest;
use crate::manifest::{Limits, OutboundHosts};
use crate::name::{TenantName, VariableName};
use crate::routing::Address;
use crate::tenant::{DatabaseKey, Made};

/// What an address stands for.
#[derive(Debug)]
pub struct Target {
    /// The database of the tenant's environment.
    pub database: DatabaseKey,
    /// Whether that is known to have been made.
    pub made: Made,
    /// The component to run.
    pub component: Digest,
    /// What the operator has set for the function.
    pub variables: FunctionVariables,
    /// What a request may take, as far as the function's manifest says.
    pub limits: Limits,
    /// Where the function may send requests.
    pub outbound_hosts: Arc<OutboundHosts>,
}

/// Why an address stands for nothing.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No such tenant, or no such environment of it.
    #[error("there is no such tenant")]
    NoTenant,
    /// The tenant has no such function.
    #[error("the tenant has no such function")]
    NoFunction,
    /// The control data failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Addresses and what they stand for.
pub struct Directory {
    store: Arc<Store>,
    variables: Arc<Variables>,
    remembered: Mutex<HashMap<Address, Remembered>>,
    changes: AtomicU64,
    remembered_max: usize,
}

struct Remembered {
    target: Arc<Target>,
    used: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Directory {
    /// A directory over the control data that remembers so many addresses.
    #[must_use]
    pub fn new(store: Arc<Store>, variables: Arc<Variables>, remembered_max: usize) -> Self {
        Self { store, variables, remembered: Mutex::default(), changes: AtomicU64::new(0), remembered_max }
    }

    /// What `address` stands for.
    ///
    /// # Errors
    /// When it stands for nothing, or the control data cannot be read.
    pub async fn resolve(&self, address: &Address) -> Result<Arc<Target>, ResolveError> {
        if let Some(remembered) = lock(&self.remembered).get_mut(address) {
            remembered.used = Instant::now();
            return Ok(remembered.target.clone());
        }
        let changes = self.changes.load(Ordering::SeqCst);
        let found = self.store.resolve(address).await?;
        let target = Arc::new(found.ok_or(ResolveError::NoTenant)?.ok_or(ResolveError::NoFunction)?);
        let mut remembered = lock(&self.remembered);
        if self.changes.load(Ordering::SeqCst) == changes && remembered.len() < self.remembered_max {
            remembered.insert(address.clone(), Remembered { target: target.clone(), used: Instant::now() });
        }
        Ok(target)
    }

    /// The value of a function's variable; nothing when it is not set.
    ///
    /// All of them are read when the first is asked for, and remembered as long as the target is.
    ///
    /// # Errors
    /// When the control data cannot be read, or a value not unsealed.
    pub async fn variable(
        &self,
        target: &Target,
        name: &VariableName,
    ) -> Result<Option<String>, VariableError> {
        target.variables.get(&self.variables, &target.database, name).await
    }

    /// Forgets what is remembered of a tenant, because the control data about it has changed.
    pub(super) fn forget(&self, tenant: &TenantName) {
        let mut remembered = lock(&self.remembered);
        self.changes.fetch_add(1, Ordering::SeqCst);
        remembered.retain(|address, _| address.tenant != *tenant);
    }

    /// Forgets what nobody has asked for in `idle_max`.
    pub fn release_idle(&self, idle_max: Duration) {
        let now = Instant::now();
        let mut remembered = lock(&self.remembered);
        remembered.retain(|_, entry| now.duration_since(entry.used) < idle_max);
        if remembered.len() < remembered.capacity() / 4 {
            remembered.shrink_to_fit();
        }
    }

    /// Remembered addresses.
    #[must_use]
    pub fn remembered(&self) -> u64 {
        lock(&self.remembered).len() as u64
    }
}
