//! Suspension: databases with a statement that did not come back at its time limit. Nobody touches them for a while, so
//! that one tenant cannot take threads or processes from all others again and again.
//!
//! ```text
//!               a statement is given up            it is gone, and the pause is over
//!  Usable ────────────────────────────▶ Suspended ──────────────────────────────────▶ Usable
//!                                           └── an operator has it recovered ────────────▲
//! ```
//!
//! What is on the disk is whole, as after a kill. Each suspension lasts twice as long as the one before, until there has
//! been none for [`limits::SUSPENSION_FORGIVEN_AFTER`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{DatabaseKey, Tenant, deferred, lock, unix_seconds};
use crate::database::{Command, DatabaseError, SessionId};
use crate::limits;

/// Since when a database is suspended, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspension {
    /// When it began, in Unix seconds.
    pub since: u64,
    /// How long it lasts from when the statement is gone, in seconds.
    pub seconds: u64,
}

struct Entry {
    suspension: Suspension,
    /// Until when; not known before the statement is gone.
    until: Option<Instant>,
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// The databases that are suspended, and those that were not long ago.
#[derive(Default)]
pub(super) struct Suspensions {
    entries: Mutex<HashMap<DatabaseKey, Entry>>,
    /// As many as there are, so that a statement takes no lock when there is none.
    number: AtomicUsize,
}

impl Suspensions {
    pub(super) fn find(&self, key: &DatabaseKey) -> Option<Suspension> {
        if self.number.load(Ordering::Acquire) == 0 {
            return None;
        }
        let entries = lock(&self.entries);
        let entry = entries.get(key).filter(|entry| !entry.is_over(Instant::now()))?;
        Some(entry.suspension)
    }

    /// Databases that are suspended now.
    pub(super) fn number(&self) -> usize {
        let now = Instant::now();
        lock(&self.entries).values().filter(|entry| !entry.is_over(now)).count()
    }

    /// Refuses what would touch a suspended database.
    pub(super) fn check(&self, key: &DatabaseKey) -> Result<(), DatabaseError> {
        self.find(key).map_or(Ok(()), |_| {
            Err(DatabaseError::Suspended(
                "a statement did not end at its time limit; try again later".to_owned(),
            ))
        })
    }

    /// Suspends a database that is not suspended yet.
    fn put(&self, key: &DatabaseKey) -> Option<Duration> {
        let mut entries = lock(&self.entries);
        let before = entries.get(key);
        if before.is_some_and(|entry| !entry.is_over(Instant::now())) {
            return None;
        }
        let seconds = before.map_or(limits::SUSPENSION_TIME_MIN, |entry| {
            (Duration::from_secs(entry.suspension.seconds) * 2).min(limits::SUSPENSION_TIME_MAX)
        });
        let since = unix_seconds();
        let suspension = Suspension { since, seconds: seconds.as_secs() };
        entries.insert(key.clone(), Entry { suspension, until: None });
        self.number.store(entries.len(), Ordering::Release);
        Some(seconds)
    }

    /// The statement is gone: from now on it takes `time` until the database can be used.
    fn start_clock(&self, key: &DatabaseKey, time: Duration) {
        if let Some(entry) = lock(&self.entries).get_mut(key) {
            entry.until.get_or_insert(Instant::now() + time);
        }
    }

    /// Ends a suspension. How many there were is not forgotten.
    pub(super) fn lift(&self, key: &DatabaseKey) -> Option<Suspension> {
        let suspension = self.find(key)?;
        if let Some(entry) = lock(&self.entries).get_mut(key) {
            entry.until = Some(Instant::now());
        }
        Some(suspension)
    }

    /// Forgets a suspension, unless there has been another since.
    fn forget(&self, key: &DatabaseKey) {
        let mut entries = lock(&self.entries);
        let is_old = |entry: &Entry| {
            entry.until.is_some_and(|until| until.elapsed() >= limits::SUSPENSION_FORGIVEN_AFTER)
        };
        if entries.get(key).is_some_and(is_old) {
            entries.remove(key);
        }
        self.number.store(entries.len(), Ordering::Release);
    }
}

/// Suspends the database of a tenant with a session whose command was given up.
pub(super) fn begin(tenant: &Arc<Tenant>, session: SessionId) {
    let shared = tenant.shared.clone();
    tenant.mark_wal_dirty();
    let Some(time) = shared.suspensions.put(&tenant.key) else { return };
    tracing::error!(
        database = ?tenant.key,
        seconds = time.as_secs(),
        "a statement did not end at its time limit and was given up; its tenant's database is suspended"
    );
    let tenant = tenant.clone();
    tokio::spawn(async move {
        // Answered when whatever ran the statement is gone.
        let _ = shared.database.call(session, Command::Close).await;
        shared.suspensions.start_clock(&tenant.key, time);
        tokio::time::sleep(time).await;
        deferred::closed(&tenant);
        let key = tenant.key.clone();
        drop(tenant);
        tokio::time::sleep(limits::SUSPENSION_FORGIVEN_AFTER).await;
        shared.suspensions.forget(&key);
    });
}
