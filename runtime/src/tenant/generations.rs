//! Generations: a database is replaced by writing another file and naming that, never by changing a file's content.
//!
//! ```text
//!            upload                 checked, rebuilt, synced          one commit of the control data
//!  nothing ────────▶ <n>.upload ──────────────────────────▶ <n>.db ────────────────────────────────▶ current
//!                                                                                                      │ the next switch
//!                                                       removed ◀── the switch after that ── kept ◀───┘
//! ```
//!
//! A switch holds the writer permit of the generation that it ends. A request that still has that generation can read
//! it afterwards, and its writes are refused: nothing is acknowledged into a file that nobody will read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::{DatabaseKey, Made, Shared, Tenant, Tenants, files, lock};
use crate::database::{self, Command, DatabaseError};
use crate::limits;
use crate::name::Id;

/// The generations of an environment that this process has switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    current: u64,
    /// Its file is there too.
    kept: Option<u64>,
}

/// What this process has switched. Whatever it has not is as the control data says.
#[derive(Default)]
pub(super) struct Generations {
    known: Mutex<HashMap<(Id, Id), Known>>,
    /// As many as are known, so that a statement of a database that never was switched takes no lock.
    number: AtomicUsize,
}

fn environment(key: &DatabaseKey) -> (Id, Id) {
    (key.tenant.clone(), key.environment.clone())
}

impl Generations {
    fn find(&self, key: &DatabaseKey) -> Option<Known> {
        if self.number.load(Ordering::Acquire) == 0 {
            return None;
        }
        lock(&self.known).get(&environment(key)).copied()
    }

    fn set(&self, key: &DatabaseKey, what: Option<Known>) -> Option<Known> {
        let mut known = lock(&self.known);
        let before = match what {
            Some(what) => known.insert(environment(key), what),
            None => known.remove(&environment(key)),
        };
        self.number.store(known.len(), Ordering::Release);
        before
    }

    /// Whether the files of this generation are gone, or going.
    pub(super) fn is_removed(&self, key: &DatabaseKey) -> bool {
        let is_there = |known: Known| known.current == key.generation || known.kept == Some(key.generation);
        !self.find(key).is_none_or(is_there)
    }

    /// Refuses to open what is not there any more.
    pub(super) fn check_open(&self, key: &DatabaseKey) -> Result<(), DatabaseError> {
        if self.is_removed(key) { Err(replaced()) } else { Ok(()) }
    }

    /// Refuses to write to what nobody will read. The caller holds the writer permit.
    pub(super) fn check_write(&self, key: &DatabaseKey) -> Result<(), DatabaseError> {
        if self.is_current(key) { Ok(()) } else { Err(replaced()) }
    }

    /// Whether no switch has ended this generation.
    pub(super) fn is_current(&self, key: &DatabaseKey) -> bool {
        self.find(key).is_none_or(|known| known.current == key.generation)
    }

    pub(super) fn forget(&self, key: &DatabaseKey) {
        self.set(key, None);
    }
}

pub(super) fn replaced() -> DatabaseError {
    DatabaseError::Busy(
        "the database was replaced while the request ran; nothing was written: send the request again"
            .to_owned(),
    )
}

/// A database that is arriving: a generation that nothing names yet.
pub struct Incoming {
    shared: Arc<Shared>,
    key: DatabaseKey,
    file: tokio::fs::File,
}

impl Incoming {
    /// Writes more of the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes).await
    }

    /// Makes a database of what has arrived, when its turn has come.
    ///
    /// # Errors
    /// When it is none, or none that a tenant may have, or when the files cannot be written.
    pub async fn finish(mut self) -> Result<(), DatabaseError> {
        let upload = files::upload(&self.shared.folder, &self.key);
        let flushed = self.file.flush().await;
        drop(self.file);
        flushed.map_err(|error| DatabaseError::Storage(format!("{}: {error}", upload.display())))?;
        let database = &self.shared.database;
        let import = Command::Import {
            upload,
            path: self.shared.path(&self.key),
            bytes_max: database::file_bytes_max(self.shared.policy.database_bytes_max),
            time_max: limits::IMPORT_CHECK_TIME_MAX,
        };
        let _permit = self.shared.imports.acquire().await;
        let session = database.new_session(self.key.owner());
        let answer = database.call(session, import).await;
        // Closing a session that made a file frees its number, nothing else.
        let _ = database.call(session, Command::Close).await;
        files::remove_upload(&self.shared.folder, &self.key).await;
        answer.map(|_| ())
    }
}

/// The moment of a switch: nobody writes to the generation that it ends, nor after it, unless the switch is undone.
pub struct Switch {
    shared: Arc<Shared>,
    from: DatabaseKey,
    before: Option<Known>,
    _writer: OwnedSemaphorePermit,
    /// While it is here, nobody gets another with a permit of its own.
    _tenant: Arc<Tenant>,
}

impl Switch {
    /// The control data still names the old one.
    pub fn is_undone(self) {
        self.shared.generations.set(&self.from, self.before);
    }
}

impl Tenants {
    /// Takes in a database as a generation that has no file yet.
    ///
    /// # Errors
    /// When nothing can be written.
    pub async fn receive(&self, key: DatabaseKey) -> std::io::Result<Incoming> {
        let file = files::make_upload(&self.0.folder, &key).await?;
        Ok(Incoming { shared: self.0.clone(), key, file })
    }

    /// Largest size of a database file, in bytes.
    #[must_use]
    pub fn database_bytes_max(&self) -> u64 {
        database::file_bytes_max(self.0.policy.database_bytes_max)
    }

    /// Ends the writes to a generation, for the commit that names the next. The files of `from` and of `to` stay.
    ///
    /// # Errors
    /// When a request writes for too long, or what was committed does not get to the disk.
    pub async fn switch(&self, from: &DatabaseKey, to: u64) -> Result<Switch, DatabaseError> {
        let tenant = self.0.tenant(from);
        let writer = tenant.take_writer().await?;
        // Who has committed hears of it before the switch is told of.
        self.0.database.settle(self.0.path(from)).await?;
        let known = Known { current: to, kept: Some(from.generation) };
        let before = self.0.generations.set(from, Some(known));
        Ok(Switch { shared: self.0.clone(), from: from.clone(), before, _writer: writer, _tenant: tenant })
    }

    /// Makes sure that a generation can be opened.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn can_open(&self, key: &DatabaseKey) -> Result<(), DatabaseError> {
        self.lease(key.clone(), Made::new(true)).open().await
    }

    /// Removes the files of a generation that nothing names, whatever there is of them.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub async fn remove_generation(&self, key: &DatabaseKey) -> std::io::Result<()> {
        let _alone = self.let_go(key).await;
        files::remove_generation(&self.0.folder, key).await?;
        self.0.quarantines.lift(key);
        Ok(())
    }
}
