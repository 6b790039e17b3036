//! Quarantine: databases whose storage has failed. Nothing reads or writes them until an operator has them recovered.
//!
//! After a flush that failed, the kernel may show pages that never reached the disk, and may call them clean. Nothing
//! may be built on those: no commit, and no copy of the write-ahead log. So a quarantined database has no sessions, and
//! what the kernel remembers of its files is dropped. A quarantine is kept in memory only: a new process tries anew.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{AcquireError, SemaphorePermit};

use super::generations::Generations;
use super::{DatabaseKey, Tenant, files, lock, park, unix_seconds};
use crate::database::{Command, DatabaseError, Extent, Reply, SessionId};
use crate::limits;
use crate::name::Id;

/// Why and since when a database is not touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// What failed, with SQLite's result code and the system's error.
    pub reason: String,
    /// When it failed first, in Unix seconds.
    pub since: u64,
}

/// How a recovery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// The database is whole and can be written; it was in this quarantine.
    Recovered(Quarantine),
    /// It was in none, and was not touched.
    NotNeeded,
}

/// The databases in quarantine.
#[derive(Default)]
pub(super) struct Quarantines {
    kept: Mutex<HashMap<DatabaseKey, Quarantine>>,
    /// As many as are kept, so that a statement of a sound database takes no lock.
    number: AtomicUsize,
}

impl Quarantines {
    pub(super) fn number(&self) -> usize {
        self.number.load(Ordering::Acquire)
    }

    pub(super) fn find(&self, key: &DatabaseKey) -> Option<Quarantine> {
        if self.number() == 0 { None } else { lock(&self.kept).get(key).cloned() }
    }

    /// The tenants of those that are in use.
    pub(super) fn tenants(&self, generations: &Generations) -> HashSet<Id> {
        if self.number() == 0 {
            return HashSet::new();
        }
        let kept = lock(&self.kept);
        kept.keys().filter(|key| generations.is_current(key)).map(|key| key.tenant.clone()).collect()
    }

    /// Refuses what would touch a quarantined database.
    pub(super) fn check(&self, key: &DatabaseKey) -> Result<(), DatabaseError> {
        self.find(key).map_or(Ok(()), |found| Err(DatabaseError::Quarantined(found.reason)))
    }

    /// Whether the database was not in quarantine before. The first reason is the one that is kept.
    fn put(&self, key: &DatabaseKey, reason: &str) -> bool {
        let mut kept = lock(&self.kept);
        if kept.contains_key(key) {
            return false;
        }
        let since = unix_seconds();
        kept.insert(key.clone(), Quarantine { reason: reason.to_owned(), since });
        self.number.store(kept.len(), Ordering::Release);
        true
    }

    /// Says why the database could not leave its quarantine.
    fn keep(&self, key: &DatabaseKey, reason: &str) {
        if let Some(quarantine) = lock(&self.kept).get_mut(key) {
            reason.clone_into(&mut quarantine.reason);
        }
    }

    pub(super) fn lift(&self, key: &DatabaseKey) {
        let mut kept = lock(&self.kept);
        kept.remove(key);
        self.number.store(kept.len(), Ordering::Release);
    }
}

/// Puts the database of a tenant whose storage has failed in quarantine, and gives the error for who was using it.
pub(super) fn begin(tenant: &Arc<Tenant>, reason: String) -> DatabaseError {
    let shared = &tenant.shared;
    let is_deleted = files::are_removed(&shared.folder, &tenant.key);
    if is_deleted || shared.generations.is_removed(&tenant.key) {
        tracing::info!(database = ?tenant.key, reason, "a request had to do without a database that was removed");
        if is_deleted {
            return DatabaseError::Gone;
        }
    } else if shared.quarantines.put(&tenant.key, &reason) {
        tracing::error!(database = ?tenant.key, reason, "a tenant's database failed and is in quarantine");
        tokio::spawn(seal(tenant.clone()));
    }
    DatabaseError::Quarantined(reason)
}

/// Closes what is open of a quarantined database, so that a process that follows does not see what only the kernel's
/// memory holds.
async fn seal(tenant: Arc<Tenant>) {
    if let Ok(_alone) = alone(&tenant).await
        && let Err(error) = tenant.shared.database.forget_cached(tenant.shared.path(&tenant.key)).await
    {
        tracing::debug!(database = ?tenant.key, %error, "the files of a quarantined database cannot be synced");
    }
}

/// Waits until the tenant has no session, and lets none begin.
async fn alone(tenant: &Arc<Tenant>) -> Result<SemaphorePermit<'_>, AcquireError> {
    park::close_idle(tenant).await;
    tenant.sessions.acquire_many(tenant.shared.policy.sessions_max).await
}

/// Reads a quarantined database anew from the disk, checks the whole of it, writes to it, and lifts the quarantine
/// when all of that went well.
pub(super) async fn recover(tenant: &Arc<Tenant>) -> Result<Recovery, DatabaseError> {
    let quarantines = &tenant.shared.quarantines;
    if quarantines.find(&tenant.key).is_none() {
        return Ok(Recovery::NotNeeded);
    }
    let _alone = alone(tenant).await.map_err(|_| DatabaseError::Closed)?;
    // Another recovery may have been faster.
    let Some(quarantine) = quarantines.find(&tenant.key) else { return Ok(Recovery::NotNeeded) };
    if let Err(error) = read_anew(tenant).await {
        let reason = match error {
            DatabaseError::Storage(reason) => reason,
            other => other.to_string(),
        };
        quarantines.keep(&tenant.key, &reason);
        return Err(DatabaseError::Quarantined(reason));
    }
    quarantines.lift(&tenant.key);
    tracing::info!(database = ?tenant.key, "a tenant's database is out of quarantine");
    Ok(Recovery::Recovered(quarantine))
}

async fn read_anew(tenant: &Arc<Tenant>) -> Result<(), DatabaseError> {
    let shared = &tenant.shared;
    let path = shared.path(&tenant.key);
    let on_file = |error: std::io::Error| DatabaseError::Storage(format!("{}: {error}", path.display()));
    shared.database.forget_cached(path.clone()).await.map_err(on_file)?;
    shared.database.restore_logged(path.clone()).await.map_err(on_file)?;
    let _handle = park::take_handle(shared).await?;
    let session = shared.database.new_session(tenant.key.owner());
    let checked = check_and_write(tenant, session).await;
    let _ = shared.database.call(session, Command::Close).await;
    checked
}

/// Checks all pages, then makes a commit and a checkpoint, so that every kind of write was seen to work.
async fn check_and_write(tenant: &Arc<Tenant>, session: SessionId) -> Result<(), DatabaseError> {
    let database = &tenant.shared.database;
    let run = async |sql: String| {
        let command = Command::Execute {
            sql,
            parameters: Vec::new(),
            result_bytes_max: limits::RESULT_BYTES_MAX,
            time_max: limits::RECOVERY_STATEMENT_TIME_MAX,
            may_write: true,
            first_of_lease: true,
            in_transaction: false,
        };
        let rows = database.call(session, command).await?.into_executed()?.outcome?.rows;
        Ok::<_, DatabaseError>(rows.into_iter().flatten().next())
    };
    database.call(session, tenant.shared.open_command(&tenant.key)).await?;
    database.call(session, Command::Check { time_max: limits::RECOVERY_STATEMENT_TIME_MAX }).await?;
    let version = run("PRAGMA user_version".to_owned()).await?.and_then(|value| value.as_integer());
    run(format!("PRAGMA user_version = {}", version.unwrap_or(0))).await?;
    let copied = database.call(session, Command::Checkpoint).await;
    tenant.note_checkpoint(&copied);
    match copied? {
        Reply::Checkpointed { extent: Extent::Emptied } => Ok(()),
        _ => Err(DatabaseError::Storage("its write-ahead log cannot be copied".to_owned())),
    }
}
