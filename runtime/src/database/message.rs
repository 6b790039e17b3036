//! What is said between a lease and its session: plain owned data, no pointers, no locks.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::memory::Exhausted;

/// A session: its number, unique in the life of the node, whose it is, and where it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId {
    pub(super) number: u64,
    pub(super) owner: Owner,
    pub(super) home: Home,
}

/// Whose a session is. All sessions of one owner live in the same process, because a database's locks do. Owners are
/// served in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner(pub u128);

impl Owner {
    /// The node itself, whose sessions live on threads of its own process.
    pub const NODE: Self = Self(0);
}

/// An id as it stands in paths and logs: 32 hexadecimal digits.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Where a session lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Home {
    /// On the database threads of this process.
    Node,
    /// In a database process, in one of its lives.
    Process { index: usize, life: u64 },
}

/// One SQL value. SQLite has no other types.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A 64-bit signed integer.
    Integer(i64),
    /// An IEEE 754 double.
    Real(f64),
    /// UTF-8 text; may hold NUL.
    Text(String),
    /// Bytes.
    Blob(#[serde(with = "bytes")] Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

/// A number that is too large for SQLite becomes its largest.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl Value {
    /// The text, when it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The integer, when it is one.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(number) = self { Some(*number) } else { None }
    }

    /// Bytes that a row takes beside its values.
    pub const ROW_BYTES: usize = size_of::<Vec<Self>>();

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let content = match self {
            Self::Null | Self::Integer(_) | Self::Real(_) => 0,
            Self::Text(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
        };
        size_of::<Self>() + content
    }

    /// Bytes that a row takes, or the parameters of a statement.
    #[must_use]
    pub fn row_bytes(values: &[Self]) -> usize {
        Self::ROW_BYTES + values.iter().map(Self::bytes).sum::<usize>()
    }
}

/// Bytes that are copied as a whole, and not one by one as a list of numbers.
mod bytes {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(Copied)
    }

    struct Copied;

    impl Visitor<'_> for Copied {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }
    }
}

/// Whose SQL a session runs, and so what is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// A tenant's: everything is refused but what is on the lists of the guard.
    Tenant,
    /// The node's own control data.
    Control,
}

/// Statements with their values: all of them are carried out, or none.
pub type Change = Vec<(String, Vec<Value>)>;

/// What a session is asked to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Make a database file, on disk with its name and its folders. One that is there stays as it is.
    Create {
        /// Where.
        path: PathBuf,
    },
    /// Make a new database file of an upload, which stays and is of no more use. It must not exist.
    Import {
        /// The upload.
        upload: PathBuf,
        /// Where the database goes.
        path: PathBuf,
        /// Largest size of both.
        bytes_max: u64,
        /// How long checking it may take.
        time_max: Duration,
    },
    /// Check all pages of a database file that nobody uses, and read from it. Nothing is written.
    Verify {
        /// Where.
        path: PathBuf,
        /// What to read.
        queries: Vec<String>,
        /// How long it may take.
        time_max: Duration,
    },
    /// Open an existing database file.
    Open {
        /// Where.
        path: PathBuf,
        /// Whose SQL will come.
        profile: Profile,
        /// Largest size of the file, with its WAL when it is a tenant's.
        bytes_max: u64,
    },
    /// Run the first statement of a text.
    Execute {
        /// The text.
        sql: String,
        /// Values for `?1`, `?2`, …
        parameters: Vec<Value>,
        /// Bytes that its rows may take.
        result_bytes_max: usize,
        /// Running time of the statement.
        time_max: Duration,
        /// Whether the sender holds the permit that a writing statement needs.
        may_write: bool,
        /// Whether it is the first of its lease: what an earlier lease left to read is forgotten before it.
        first_of_lease: bool,
        /// Whether the sender believes that a transaction is open. If none is, it was rolled back for being held too
        /// long, and the statement must not run outside of it.
        in_transaction: bool,
    },
    /// Make several changes in one transaction. One that fails is left out, and the others are made.
    Batch {
        /// The changes.
        changes: Vec<Change>,
    },
    /// Check all pages, with as many tables as there are. It lifts the session's limit on the size of a program, so the
    /// session is for the sender's own statements from then on.
    Check {
        /// How long it may take.
        time_max: Duration,
    },
    /// Roll back what is open, because the transaction was held for too long.
    Rollback,
    /// Make the session as good as new for its next lease.
    Reset,
    /// Copy the WAL into the database file, sync it and empty the WAL.
    Checkpoint,
    /// Read from the database file itself. The sender has made sure that no checkpoint changes it meanwhile.
    ReadFile {
        /// From which byte.
        offset: u64,
        /// How many bytes at most.
        bytes_max: usize,
    },
    /// Close the connection.
    Close,
}

/// How long a command may take that has no limit of its own: most of it is waiting for the disk.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);

impl Command {
    /// How long it may take before it is stopped from within, or should have come back.
    pub(super) fn time_max(&self) -> Duration {
        match self {
            Self::Execute { time_max, .. } | Self::Check { time_max } => *time_max,
            Self::Import { time_max, .. } | Self::Verify { time_max, .. } => *time_max + COMMAND_TIME_MAX,
            Self::Create { .. }
            | Self::Open { .. }
            | Self::Batch { .. }
            | Self::Rollback
            | Self::Reset
            | Self::Checkpoint
            | Self::ReadFile { .. }
            | Self::Close => COMMAND_TIME_MAX,
        }
    }

    /// Whether it waits for the disk more than it computes.
    pub(super) fn waits_for_disk(&self) -> bool {
        match self {
            Self::Create { .. }
            | Self::Import { .. }
            | Self::Verify { .. }
            | Self::Check { .. }
            | Self::Checkpoint
            | Self::ReadFile { .. } => true,
            Self::Execute { .. }
            | Self::Batch { .. }
            | Self::Open { .. }
            | Self::Rollback
            | Self::Reset
            | Self::Close => false,
        }
    }

    /// Whether it is the first of its session.
    pub(super) fn begins_session(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Import { .. } | Self::Verify { .. } | Self::Open { .. })
    }
}

/// The columns and rows of one statement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Column names, in order.
    pub columns: Vec<String>,
    /// Rows, each with a value per column.
    pub rows: Vec<Vec<Value>>,
}

/// What a statement did, and how it left the session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Executed {
    /// What it returned. When it failed, nothing of the statement was kept.
    pub outcome: Result<Rows, DatabaseError>,
    /// Rows that the latest INSERT, UPDATE or DELETE of the session changed.
    pub changes: u64,
    /// Row id of the session's latest INSERT.
    pub last_insert_rowid: i64,
    /// Whether a transaction is open.
    pub in_transaction: bool,
    /// Whether the session is different from a new one, so that it needs a reset before its next lease.
    pub needs_reset: bool,
    /// Bytes in the WAL after the latest commit of this session.
    pub wal_bytes: u64,
    /// Whether the WAL should be copied before more is written: the quota has little room left for it.
    pub wal_is_tight: bool,
    /// Memory that the session takes.
    pub memory_bytes: u64,
}

/// How far a checkpoint came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent {
    /// The WAL is empty.
    Emptied,
    /// Everything in the WAL is in the database file; somebody still reads the WAL.
    Copied,
    /// A reader holds a part of the WAL back.
    Partial,
}

/// A part of a database file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    /// The bytes; none behind the end of the file.
    #[serde(with = "bytes")]
    pub bytes: Vec<u8>,
    /// Size of the whole file.
    pub file_bytes: u64,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The command was carried out; there is nothing more to say.
    Done,
    /// A statement ran.
    Executed(Executed),
    /// The statement writes and the sender holds no permit; nothing ran. The statement comes back.
    NeedsWriter {
        /// Its text.
        sql: String,
        /// Its values.
        parameters: Vec<Value>,
    },
    /// The session is as good as new.
    Reset {
        /// Memory that it takes, in bytes.
        memory_bytes: u64,
    },
    /// The transaction of a batch is on disk.
    Batched {
        /// What became of each change.
        outcomes: Vec<Result<(), DatabaseError>>,
    },
    /// The WAL was copied into the database file.
    Checkpointed {
        /// How far it came.
        extent: Extent,
    },
    /// A part of the database file.
    FileRead(FilePart),
    /// The file is sound; these are the rows of each query.
    Verified(Vec<Vec<Vec<Value>>>),
}

impl Reply {
    /// How a statement ran, when one did.
    ///
    /// # Errors
    /// When it answers another command, or the statement would have written and its sender held no permit.
    pub fn into_executed(self) -> Result<Executed, DatabaseError> {
        if let Self::Executed(executed) = self { Ok(executed) } else { Err(DatabaseError::Closed) }
    }

    /// The part of the file, when it is one.
    ///
    /// # Errors
    /// When it answers another command.
    pub fn into_file_part(self) -> Result<FilePart, DatabaseError> {
        if let Self::FileRead(part) = self { Ok(part) } else { Err(DatabaseError::Closed) }
    }
}

/// Why a command was not carried out. Nothing of it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DatabaseError {
    /// The SQL is wrong, forbidden or over a limit; the session is fine.
    #[error("{0}")]
    Statement(String),
    /// The database has reached the largest size its tenant may have.
    #[error("the database is full: {0}")]
    Full(String),
    /// The statement or the transaction took too long and was rolled back.
    #[error("{0}")]
    TimedOut(String),
    /// The request that asked is gone, or its transaction was.
    #[error("the statement was cancelled")]
    Cancelled,
    /// The node has no memory for it now; the session is fine.
    #[error("the memory that the node has for requests is taken; try again")]
    NodeMemory,
    /// Reading or writing the files failed, or they are damaged; the session must be closed.
    #[error("storage failed: {0}")]
    Storage(String),
    /// Reading or writing the files failed before, and nobody touches them until they are recovered.
    #[error("the database is in quarantine: {0}")]
    Quarantined(String),
    /// The tenant was deleted, and the files are gone.
    #[error("the tenant was deleted")]
    Gone,
    /// Others use the database in a way that does not allow it now; it may work soon.
    #[error("{0}")]
    Busy(String),
    /// An uploaded file is no database that can be had here.
    #[error("the file cannot be taken over: {0}")]
    Rejected(String),
    /// The process that worked for the session has ended. What was under way may be on disk or not; what was
    /// acknowledged is.
    #[error("the process that runs the database's SQL has ended; send the request again")]
    Ended,
    /// The command did not come back at its time limit, and was given up.
    #[error(
        "the statement did not end at its time limit, and the database is suspended for a while; make it shorter"
    )]
    Stuck,
    /// Statements of the database did not come back, and it is not touched for a while.
    #[error("the database is suspended: {0}")]
    Suspended(String),
    /// The session is not there: closed, or never opened.
    #[error("the session is closed")]
    Closed,
}

impl DatabaseError {
    /// Whether the session can serve on.
    #[must_use]
    pub fn session_is_usable(&self) -> bool {
        match self {
            Self::Statement(_)
            | Self::Full(_)
            | Self::TimedOut(_)
            | Self::Busy(_)
            | Self::Rejected(_)
            | Self::Cancelled
            | Self::NodeMemory => true,
            Self::Storage(_)
            | Self::Quarantined(_)
            | Self::Gone
            | Self::Ended
            | Self::Stuck
            | Self::Suspended(_)
            | Self::Closed => false,
        }
    }
}

impl From<Exhausted> for DatabaseError {
    fn from(_: Exhausted) -> Self {
        Self::NodeMemory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_bytes() -> postcard::Result<()> {
        let commands = [
            Command::Create { path: "/data/a.db".into() },
            Command::Import {
                upload: "/data/a.upload".into(),
                path: "/data/a.db".into(),
                bytes_max: 1,
                time_max: Duration::from_secs(1),
            },
            Command::Verify {
                path: "/data/a.db".into(),
                queries: vec!["SELECT 1".into()],
                time_max: Duration::from_secs(1),
            },
            Command::Open { path: "/data/a.db".into(), profile: Profile::Tenant, bytes_max: 1 },
            Command::Execute {
                sql: "INSERT INTO t VALUES (?, ?, ?, ?, ?)".into(),
                parameters: vec![
                    Value::Null,
                    Value::Integer(i64::MIN),
                    Value::Real(0.1),
                    Value::Text("a\0b".into()),
                    Value::Blob(vec![0, 255]),
                ],
                result_bytes_max: 1 << 20,
                time_max: Duration::from_millis(5),
                may_write: true,
                first_of_lease: false,
                in_transaction: false,
            },
            Command::Batch { changes: vec![vec![("SELECT 1".into(), vec![])]] },
            Command::Check { time_max: Duration::from_secs(1) },
            Command::Rollback,
            Command::Reset,
            Command::Checkpoint,
            Command::ReadFile { offset: 1 << 40, bytes_max: 4_096 },
            Command::Close,
        ];
        for command in commands {
            assert_eq!(postcard::from_bytes::<Command>(&postcard::to_allocvec(&command)?)?, command);
        }
        let replies = [
            Ok(Reply::Done),
            Ok(Reply::Reset { memory_bytes: 58_000 }),
            Ok(Reply::NeedsWriter { sql: "DELETE FROM t".into(), parameters: vec![Value::Null] }),
            Ok(Reply::Checkpointed { extent: Extent::Copied }),
            Ok(Reply::Verified(vec![vec![vec![Value::Null]]])),
            Ok(Reply::FileRead(FilePart { bytes: vec![0, 255], file_bytes: 8_192 })),
            Ok(Reply::Executed(Executed {
                outcome: Ok(Rows { columns: vec!["a".into()], rows: vec![vec![Value::Integer(1)]] }),
                changes: 1,
                last_insert_rowid: -1,
                in_transaction: true,
                needs_reset: true,
                wal_bytes: 4096,
                wal_is_tight: false,
                memory_bytes: 61_000,
            })),
            Err(DatabaseError::Storage("disk I/O error".into())),
        ];
        for reply in replies {
            let bytes = postcard::to_allocvec(&reply)?;
            assert_eq!(postcard::from_bytes::<Result<Reply, DatabaseError>>(&bytes)?, reply);
        }
        Ok(())
    }
}
