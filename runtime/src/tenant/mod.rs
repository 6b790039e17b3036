//! The tenant room: each tenant's database, open while requests use it and gone soon after.
//!
//! ```text
//!            lease opens                    last lease ends
//!  Closed ───────────────▶ Leased ◀──────────────────────────▶ Parked
//!    ▲                      ▲                next lease           │
//!    │                      │ lease opens                         │ park time over, or memory short
//!    │  checkpointed        │             closed, small WAL left  ▼
//!    ├───────────── CheckpointPending ◀──────────────────────── Closing
//!    │                     checkpointed, closed                   │
//!    └────────────────────────────────────────────────────────────┘
//!    ▲  recovered                        storage fails
//!    └───────── Quarantined, Suspended ◀──────────────── any other
//! ```
//!
//! A database is made when it is first opened ([`making`]). Until then there is no file.
//!
//! The states are where a tenant's sessions are: nowhere ([`State::Closed`]), with leases, in the parking lot, or
//! on their way out of it. A session that is closed because memory is short leaves a small WAL as it is; it is copied
//! when the tenant has rested. A [`Lease`] owns one session; dropping it rolls back what is open and parks the session.
//! One writer permit per tenant, taken in order, stands before every statement that writes; checkpoints take it too.
//!
//! A database whose storage has failed is in quarantine: its sessions are closed without a checkpoint, and none is
//! opened before it has been recovered ([`quarantine`]). One whose statements do not come back is suspended for a while
//! ([`suspension`]).
//!
//! A [`snapshot`] reads a database's file while requests go on: no checkpoint writes to the file meanwhile. A file is
//! never replaced: what comes in its place is another [generation](generations).
//!
//! Nothing outside this room knows that a database is a file.

mod deferred;
mod files;
mod generations;
mod idle;
mod lease;
mod making;
mod park;
mod present;
mod quarantine;
mod snapshot;
mod suspension;
mod writer;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc};

pub use files::{Revision, database_file};
pub use generations::{Incoming, Switch};
pub use lease::Lease;
pub use making::{Asking, Made, Register, RegisterError};
pub use quarantine::{Quarantine, Recovery};
pub use suspension::Suspension;

use crate::database::{self, Command, Database, DatabaseError, FileStream, Owner, Profile};
use crate::disk::Disk;
use crate::limits;
use crate::name::Id;
use crate::telemetry::Metrics;
use deferred::Deferred;
use generations::Generations;
use park::ParkingLot;
use present::{Session, Tenant};
use quarantine::Quarantines;
use suspension::Suspensions;

/// Which database: one generation of one environment of one tenant. Ids are never reused, so neither is this.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DatabaseKey {
    /// The tenant.
    pub tenant: Id,
    /// Its environment.
    pub environment: Id,
    /// The current file of the environment; a restore or an import writes a new one.
    pub generation: u64,
}

impl DatabaseKey {
    /// Whose sessions of it are, and in whose line their commands stand.
    fn owner(&self) -> Owner {
        Owner(self.tenant.number())
    }
}

/// What an operator can set about tenants' databases.
#[derive(Debug, Clone)]
pub struct TenantPolicy {
    /// How long a handle stays open after its last request; zero closes it at once.
    pub park_time_max: Duration,
    /// Memory of all parked handles, in bytes.
    pub park_memory_bytes_max: u64,
    /// Connections of one tenant's database.
    pub sessions_per_tenant: u32,
    /// Connections of the node.
    pub sessions_max: u32,
    /// Running time of one statement.
    pub statement_time_max: Duration,
    /// How long a write transaction may be held open.
    pub transaction_held_max: Duration,
    /// Size of one database, its log included.
    pub database_bytes_max: u64,
}

/// What is looked after beside the databases.
#[derive(Clone)]
pub struct Watched {
    /// The disk that they are on.
    pub disk: Arc<Disk>,
    /// Where a full one is counted.
    pub metrics: Arc<Metrics>,
}

impl TenantPolicy {
    /// How long a tenant rests before a checkpoint that was put off is made.
    fn rest_time(&self) -> Duration {
        if self.park_time_max.is_zero() { limits::CHECKPOINT_REST_TIME } else { self.park_time_max }
    }
}

/// Where a tenant's sessions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nowhere: the tenant is a file and nothing in memory.
    Closed,
    /// With at least one request.
    Leased,
    /// In the parking lot, or on their way out of it.
    Parked,
    /// Nowhere, but the WAL has not been copied yet.
    CheckpointPending,
    /// Nowhere, or with requests that are refused: its storage has failed.
    Quarantined,
    /// The same, for a while: a statement did not come back.
    Suspended,
}

/// The databases of all tenants.
#[derive(Clone)]
pub struct Tenants(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    database: Database,
    policy: TenantPolicy,
    disk: Arc<Disk>,
    metrics: Arc<Metrics>,
    present: Mutex<HashMap<DatabaseKey, Weak<Tenant>>>,
    lot: ParkingLot,
    deferred: Deferred,
    quarantines: Quarantines,
    suspensions: Suspensions,
    register: Arc<dyn Register>,
    generations: Generations,
    /// One permit for each upload that is checked.
    imports: Semaphore,
    /// One permit for each session that may be open on the node.
    handles: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

impl Tenants {
    /// The tenants whose files lie under `folder`. Starts the evictor on the current tokio runtime.
    #[must_use]
    pub fn new(
        folder: PathBuf,
        database: Database,
        policy: TenantPolicy,
        register: Arc<dyn Register>,
        Watched { disk, metrics }: Watched,
    ) -> Self {
        let handles = Arc::new(Semaphore::new(policy.sessions_max as usize));
        let lot = ParkingLot::new(policy.park_time_max, policy.park_memory_bytes_max);
        let deferred = Deferred::new(policy.rest_time());
        let shared = Arc::new(Shared {
            folder,
            database,
            policy,
            disk,
            metrics,
            present: Mutex::default(),
            lot,
            deferred,
            quarantines: Quarantines::default(),
            suspensions: Suspensions::default(),
            register,
            generations: Generations::default(),
            imports: Semaphore::new(limits::IMPORT_CHECKS_MAX),
            handles,
        });
        park::start_evictor(&shared);
        deferred::start(&shared);
        Self(shared)
    }

    /// The right to use a database for one request. Nothing is made or opened until it is used.
    #[must_use]
    pub fn lease(&self, key: DatabaseKey, made: Made) -> Lease {
        Lease::new(self.0.clone(), key, made)
    }

    /// Closes what is parked of a tenant and removes its files. The caller has made sure that no new lease comes.
    ///
    /// # Errors
    /// When the files cannot be removed.
    pub async fn remove(&self, keys: &[DatabaseKey]) -> std::io::Result<()> {
        let mut alone = Vec::with_capacity(keys.len());
        for key in keys {
            alone.extend(self.let_go(key).await);
        }
        if let Some(key) = keys.first() {
            files::remove_tenant(&self.0.folder, &key.tenant).await?;
        }
        for key in keys {
            self.0.quarantines.lift(key);
            self.0.generations.forget(key);
        }
        Ok(())
    }

    /// Closes what is parked of a database whose files are about to go. Nobody makes it anew while the answer is held.
    async fn let_go(&self, key: &DatabaseKey) -> Option<OwnedMutexGuard<()>> {
        let tenant = lock(&self.0.present).get(key).and_then(Weak::upgrade)?;
        park::close_idle(&tenant).await;
        // What waits for its copy has no file to be copied to any more.
        tenant.wal_is_dirty.store(false, Ordering::Release);
        Some(tenant.making.clone().lock_owned().await)
    }

    /// Takes a database out of quarantine, once its files can be read from the disk, pass SQLite's integrity check,
    /// and can be written. Waits for requests that still have it.
    ///
    /// # Errors
    /// When it stays in quarantine, with the reason.
    pub async fn recover(&self, key: &DatabaseKey) -> Result<Recovery, DatabaseError> {
        quarantine::recover(&self.0.tenant(key)).await
    }

    /// Why and since when a database is in quarantine, if it is.
    #[must_use]
    pub fn quarantine(&self, key: &DatabaseKey) -> Option<Quarantine> {
        self.0.quarantines.find(key)
    }

    /// Since when and for how long a database is suspended, if it is.
    #[must_use]
    pub fn suspension(&self, key: &DatabaseKey) -> Option<Suspension> {
        self.0.suspensions.find(key)
    }

    /// Ends the suspension of a database before its time; tells what it was, if there was one.
    pub fn resume(&self, key: &DatabaseKey) -> Option<Suspension> {
        self.0.suspensions.lift(key)
    }

    /// Copies WALs that an earlier process left behind into their databases, off the path of requests.
    pub async fn sweep_leftovers(&self) {
        let folder = self.0.folder.clone();
        let (found, mut leftovers) = mpsc::channel(limits::EVICTIONS_AT_ONCE);
        // The walk goes no faster than databases are opened, so that no list of what is left is ever in memory.
        tokio::task::spawn_blocking(move || {
            files::leftover_wals(&folder).try_for_each(|key| found.blocking_send(key))
        });
        while let Some(key) = leftovers.recv().await {
            let made = match self.0.register.is_made(&key).await {
                Ok(made) => made,
                // The way back of a switch.
                Err(RegisterError::Replaced) => true,
                // A process ended before all files of a deleted tenant were gone.
                Err(RegisterError::Gone) => continue,
                // Opening asks again, and tells of the failure.
                Err(RegisterError::Failed(_)) => false,
            };
            let mut lease = self.lease(key, Made::new(made));
            if lease.open().await.is_ok() {
                lease.wal_is_dirty();
            }
        }
    }

    /// A consistent copy of a database as a stream, while requests go on to read and write it. Must be carried out to
    /// its end, as a checkpoint.
    ///
    /// # Errors
    /// When the files cannot be read, are in quarantine, or a reader keeps the log from being copied.
    pub async fn snapshot(&self, key: &DatabaseKey) -> Result<(FileStream, Option<Revision>), DatabaseError> {
        snapshot::begin(&self.0.tenant(key)).await
    }

    /// What a database's file holds, in short; nothing while there is more in its log, or when it cannot be told.
    pub async fn revision(&self, key: &DatabaseKey) -> Option<Revision> {
        files::revision(&self.0.path(key)).await
    }

    /// The tenants whose database in use is in quarantine.
    #[must_use]
    pub fn quarantined(&self) -> HashSet<Id> {
        self.0.quarantines.tenants(&self.0.generations)
    }

    /// Closes everything that is parked, and waits until nothing is open. Requests have ended before.
    pub async fn close(&self) {
        self.0.lot.close_all();
        let _ = self.0.handles.acquire_many(self.0.policy.sessions_max).await;
        deferred::finish(&self.0).await;
    }

    /// Open sessions, and how many of them are parked, and the memory of those in bytes.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (parked, parked_bytes) = self.0.lot.figures();
        let open = self.0.policy.sessions_max as usize - self.0.handles.available_permits();
        Figures {
            open: open as u64,
            parked,
            parked_bytes,
            present: lock(&self.0.present).len() as u64,
            quarantined: self.0.quarantines.number() as u64,
            suspended: self.0.suspensions.number() as u64,
            commands: self.0.database.figures(),
        }
    }

    /// Size of a database's files.
    pub async fn size(&self, key: &DatabaseKey) -> Size {
        files::size(&self.0.path(key)).await
    }

    /// Where a tenant's sessions are.
    #[must_use]
    pub fn state(&self, key: &DatabaseKey) -> State {
        if self.quarantine(key).is_some() {
            return State::Quarantined;
        }
        if self.suspension(key).is_some() {
            return State::Suspended;
        }
        // Not in the scrutinee: the last owner of a tenant takes this lock when it lets go.
        let tenant = lock(&self.0.present).get(key).and_then(Weak::upgrade);
        match tenant {
            None => State::Closed,
            Some(tenant) if tenant.is_leased() => State::Leased,
            Some(tenant) if tenant.has_leftover() && lock(&tenant.deferred_at).is_some() => {
                State::CheckpointPending
            }
            Some(_) => State::Parked,
        }
    }
}

/// Size of a database on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The database file, in bytes.
    pub bytes: u64,
    /// Its write-ahead log, in bytes.
    pub wal_bytes: u64,
}

/// What of the tenants is in memory now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Open sessions.
    pub open: u64,
    /// Parked sessions.
    pub parked: u64,
    /// Memory of the parked sessions, in bytes.
    pub parked_bytes: u64,
    /// Tenants with a lease, a parked session, or an eviction or a checkpoint to come.
    pub present: u64,
    /// Databases in quarantine.
    pub quarantined: u64,
    /// Databases that are suspended.
    pub suspended: u64,
    /// What the database threads have to do, for the node itself as well.
    pub commands: database::Figures,
}

impl Shared {
    fn path(&self, key: &DatabaseKey) -> PathBuf {
        files::path(&self.folder, key)
    }

    fn tenant(self: &Arc<Self>, key: &DatabaseKey) -> Arc<Tenant> {
        let mut present = lock(&self.present);
        if let Some(tenant) = present.get(key).and_then(Weak::upgrade) {
            return tenant;
        }
        let tenant = Arc::new(Tenant::new(key, self));
        present.insert(key.clone(), Arc::downgrade(&tenant));
        tenant
    }

    /// Nothing is written while the disk is nearly full.
    fn check_disk(&self) -> Result<(), DatabaseError> {
        if self.disk.is_low() {
            return Err(DatabaseError::Full(
                "the node's disk is nearly full and takes no writes; try again when its operator has made room".to_owned(),
            ));
        }
        Ok(())
    }

    /// Refuses what would touch a database that is in quarantine or suspended.
    fn check(&self, key: &DatabaseKey) -> Result<(), DatabaseError> {
        self.quarantines.check(key)?;
        self.suspensions.check(key)
    }

    fn open_command(&self, key: &DatabaseKey) -> Command {
        Command::Open {
            path: self.path(key),
            profile: Profile::Tenant,
            bytes_max: self.policy.database_bytes_max,
        }
    }
}
