//! Streams of database files, and the holds that keep checkpoints off while one is read.
//!
//! In WAL mode only a checkpoint writes to the database file. After one that copied everything, and with the next ones
//! held off, the file stays as it is while commits go on into the WAL. Who makes checkpoints asks [`Holds`] under the
//! permit or lock that all of them are made under; so does the one checkpoint behind a hold's beginning.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::message::{DatabaseError, FilePart};
use crate::limits;

/// The snapshot of a database that is being read, if there is one. The next one needs a checkpoint, so it waits.
#[derive(Debug)]
pub struct Holds(Arc<Semaphore>);

/// Keeps checkpoints off as long as it lives.
#[derive(Debug)]
pub struct Hold {
    _permit: OwnedSemaphorePermit,
}

impl Default for Holds {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Holds {
    /// Keeps the checkpoints of others off from now on. One that has begun goes on to its end.
    ///
    /// # Errors
    /// When another snapshot is read for too long.
    pub async fn hold(&self) -> Result<Hold, DatabaseError> {
        let permit = tokio::time::timeout(limits::SNAPSHOT_WAIT_MAX, self.0.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| {
            DatabaseError::Busy("another copy of the database is being made; try again after it".to_owned())
        })?;
        Ok(Hold { _permit: permit.map_err(|_| DatabaseError::Closed)? })
    }

    /// Whether checkpoints are kept off.
    #[must_use]
    pub fn are_any(&self) -> bool {
        self.0.available_permits() == 0
    }
}

/// A database file that stands still.
pub trait Still: Send + 'static {
    /// Reads from the file.
    fn read(
        &mut self,
        offset: u64,
        bytes_max: usize,
    ) -> impl Future<Output = Result<FilePart, DatabaseError>> + Send;
}

/// The bytes of a database file, as they are read. The file is let go at its end, when the stream is dropped, or when
/// its taker is too slow.
#[derive(Debug)]
pub struct FileStream {
    /// Size of the file.
    pub bytes: u64,
    /// Its parts, in order. They end early only behind an error.
    pub parts: mpsc::Receiver<Result<Vec<u8>, DatabaseError>>,
}

impl FileStream {
    /// Reads `file` for at most `time_max`.
    ///
    /// # Errors
    /// When not even its beginning can be read.
    pub async fn start(mut file: impl Still, time_max: Duration) -> Result<Self, DatabaseError> {
        let deadline = Instant::now() + time_max;
        let first = file.read(0, limits::SNAPSHOT_PART_BYTES).await?;
        let bytes = first.file_bytes;
        let (sender, parts) = mpsc::channel(limits::SNAPSHOT_PARTS_AHEAD);
        tokio::spawn(async move {
            let sent = tokio::time::timeout_at(deadline, send(&mut file, first, &sender)).await;
            // Before the taker hears of the end.
            drop(file);
            if sent.is_err() {
                let seconds = time_max.as_secs();
                tracing::warn!(
                    "a database was not downloaded within {seconds} s, and its download is cut off"
                );
                let _ = sender.try_send(Err(DatabaseError::TimedOut(format!(
                    "the database was not downloaded within {seconds} s"
                ))));
            }
        });
        Ok(Self { bytes, parts })
    }
}

/// Sends the file until its end, an error, or the receiver's.
async fn send(
    file: &mut impl Still,
    mut part: FilePart,
    sender: &mpsc::Sender<Result<Vec<u8>, DatabaseError>>,
) {
    let mut offset = 0;
    while !part.bytes.is_empty() {
        offset += part.bytes.len() as u64;
        if sender.send(Ok(part.bytes)).await.is_err() {
            return;
        }
        part = match file.read(offset, limits::SNAPSHOT_PART_BYTES).await {
            Ok(part) => part,
            Err(error) => {
                let _ = sender.send(Err(error)).await;
                return;
            }
        };
    }
}
