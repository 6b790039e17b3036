//! Snapshots: a database's file, read while requests go on to read and write the database.
//!
//! ```text
//!  hold ─▶ writer permit: checkpoint ─▶ free: commits go on into the WAL
//!                                    └─▶ the .db file is read, part by part ─▶ hold ends, session parked
//! ```
//!
//! The checkpoint copies every commit so far; the hold keeps all others off ([`Holds`](crate::database::Holds)). The
//! file is read through a session's own descriptor: closing another one of this process would drop SQLite's locks. The
//! session takes none of the tenant's turns. When the snapshot ends it is parked, and its close makes the
//! checkpoints that were kept off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::{Made, Revision, Session, Tenant, deferred, files, making, park};
use crate::database::{Command, DatabaseError, Extent, FilePart, FileStream, Hold, Reply, Still};
use crate::limits;

/// How long to wait before a checkpoint is tried again that a reader was in the way of.
const CHECKPOINT_RETRY: Duration = Duration::from_millis(5);

/// Begins a snapshot.
pub(super) async fn begin(tenant: &Arc<Tenant>) -> Result<(FileStream, Option<Revision>), DatabaseError> {
    tenant.check()?;
    let hold = tenant.holds.hold().await?;
    let reader = match Reader::open(tenant).await {
        Ok(reader) => reader,
        Err(error) => {
            drop(hold);
            // Whoever closed a session meanwhile left the WAL alone.
            deferred::closed(tenant);
            return Err(error);
        }
    };
    let mut snapshot = Snapshot { _hold: hold, reader };
    let permit = tenant.take_writer().await?;
    let revision = match snapshot.reader.copy_log().await? {
        Extent::Emptied => files::revision(&tenant.shared.path(&tenant.key)).await,
        Extent::Copied | Extent::Partial => None,
    };
    drop(permit);
    if let Some(revision) = &revision {
        // A later checkpoint must not leave the same time of change.
        revision.grow_old().await;
    }
    Ok((FileStream::start(snapshot, limits::SNAPSHOT_TIME_MAX).await?, revision))
}

/// A file that stands still, and the session that reads it. The hold ends before the session is parked.
struct Snapshot {
    _hold: Hold,
    reader: Reader,
}

impl Still for Snapshot {
    async fn read(&mut self, offset: u64, bytes_max: usize) -> Result<FilePart, DatabaseError> {
        self.reader.tenant.check()?;
        self.reader.call(Command::ReadFile { offset, bytes_max }).await?.into_file_part()
    }
}

/// A session beside those of requests.
struct Reader {
    tenant: Arc<Tenant>,
    session: Option<Session>,
    is_usable: bool,
}

impl Reader {
    async fn open(tenant: &Arc<Tenant>) -> Result<Self, DatabaseError> {
        if let Some(session) = tenant.take_idle() {
            return Ok(Self { tenant: tenant.clone(), session: Some(session), is_usable: true });
        }
        making::make_once(tenant, &Made::new(false)).await?;
        let session = tenant.new_session().await?;
        let mut reader = Self { tenant: tenant.clone(), session: Some(session), is_usable: false };
        reader.call(tenant.shared.open_command(&tenant.key)).await?;
        reader.is_usable = true;
        Ok(reader)
    }

    async fn call(&mut self, command: Command) -> Result<Reply, DatabaseError> {
        let session = self.session.as_ref().ok_or(DatabaseError::Closed)?;
        let answer = self.tenant.call(session.id, command).await;
        if let Err(error) = &answer {
            self.is_usable &= error.session_is_usable();
        }
        answer
    }

    /// Copies all of the WAL into the database file. Its sender holds the writer permit, so that only requests that
    /// have been reading for longer can be in the way.
    async fn copy_log(&mut self) -> Result<Extent, DatabaseError> {
        let started = Instant::now();
        loop {
            self.tenant.check()?;
            let answer = self.call(Command::Checkpoint).await;
            self.tenant.note_checkpoint(&answer);
            match answer? {
                Reply::Checkpointed { extent: extent @ (Extent::Emptied | Extent::Copied) } => {
                    return Ok(extent);
                }
                _ if started.elapsed() > limits::SNAPSHOT_WAIT_MAX => {
                    return Err(DatabaseError::Busy(format!(
                        "a request has been reading the database for more than {} s",
                        limits::SNAPSHOT_WAIT_MAX.as_secs()
                    )));
                }
                _ => tokio::time::sleep(CHECKPOINT_RETRY).await,
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if self.is_usable {
            park::park(&self.tenant, session);
            return;
        }
        let tenant = self.tenant.clone();
        // A session that failed has a number still, and its place until it is closed.
        tokio::spawn(async move {
            let _ = tenant.shared.database.call(session.id, Command::Close).await;
            deferred::closed(&tenant);
            tenant.end(session);
        });
    }
}

impl Tenant {
    /// The permit to write. Those who want it come in their order.
    pub(super) async fn take_writer(&self) -> Result<OwnedSemaphorePermit, DatabaseError> {
        let permit = self.writer.clone().acquire_owned();
        let permit = tokio::time::timeout(limits::WRITER_WAIT_MAX, permit).await.map_err(|_| {
            let seconds = limits::WRITER_WAIT_MAX.as_secs();
            DatabaseError::Busy(format!("database is locked: other requests wrote for {seconds} s"))
        })?;
        permit.map_err(|_| DatabaseError::Closed)
    }
}
