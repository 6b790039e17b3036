//! What a failure of SQLite's is to whoever asked: the result code decides which kind of error, the text is SQLite's.

use std::path::Path;
use std::time::Duration;

use libsql::ffi;

use super::callbacks::Stopped;
use super::caps;
use super::memory;
use super::message::DatabaseError;
use super::session::SESSION_MEMORY_BYTES_MAX;
use super::sqlite::SqliteError;
use crate::limits;

/// A statement or a command that failed.
pub(super) fn failed(
    error: SqliteError,
    stopped: Stopped,
    denied: Option<String>,
    time_max: Duration,
) -> DatabaseError {
    match error.primary() {
        ffi::SQLITE_INTERRUPT if stopped == Stopped::Cancelled => DatabaseError::Cancelled,
        ffi::SQLITE_INTERRUPT | ffi::SQLITE_CONSTRAINT | ffi::SQLITE_FULL if stopped == Stopped::Quota => {
            DatabaseError::Full(over_quota().message)
        }
        ffi::SQLITE_INTERRUPT => DatabaseError::TimedOut(format!(
            "the statement ran longer than {} ms and was stopped",
            time_max.as_millis()
        )),
        ffi::SQLITE_AUTH => DatabaseError::Statement(
            denied.map_or(error.message, |reason| format!("not authorized: {reason}")),
        ),
        ffi::SQLITE_FULL => DatabaseError::Full(error.message),
        ffi::SQLITE_NOMEM if memory::node_was_short() => DatabaseError::NodeMemory,
        ffi::SQLITE_NOMEM => DatabaseError::Statement(format!(
            "out of memory: one connection may take {} MiB for its statements and temporary tables, and a statement \
             may have {} instructions; make it smaller",
            SESSION_MEMORY_BYTES_MAX >> 20,
            caps::INSTRUCTIONS_MAX
        )),
        _ if error.code == ffi::SQLITE_BUSY_SNAPSHOT => DatabaseError::Statement(
            "database is locked: another request wrote after this transaction had read; \
             begin a transaction that will write with BEGIN IMMEDIATE"
                .to_owned(),
        ),
        _ if is_storage(error.primary()) => storage(&error),
        _ => DatabaseError::Statement(caps::with_figure(error.message)),
    }
}

/// A log that has become as large as the quota allows.
pub(super) fn over_quota() -> SqliteError {
    let message = "its write-ahead log has no more room in the quota; change fewer rows in one transaction";
    SqliteError { code: ffi::SQLITE_FULL, message: message.to_owned() }
}

/// Whether a result code says that the files failed.
pub(super) fn is_storage(primary: i32) -> bool {
    matches!(
        primary,
        ffi::SQLITE_IOERR
            | ffi::SQLITE_CORRUPT
            | ffi::SQLITE_NOTADB
            | ffi::SQLITE_CANTOPEN
            | ffi::SQLITE_PROTOCOL
            | ffi::SQLITE_READONLY
            | ffi::SQLITE_PERM
            | ffi::SQLITE_NOLFS
            | ffi::SQLITE_INTERNAL
    )
}

/// A failure of the files.
pub(super) fn storage(error: &SqliteError) -> DatabaseError {
    DatabaseError::Storage(format!("{} (SQLite result code {})", error.message, error.code))
}

/// A failure with the file that it is about.
fn at(path: &Path, error: &SqliteError) -> String {
    format!("{}: {} (SQLite result code {})", path.display(), error.message, error.code)
}

/// A database that cannot be opened.
pub(super) fn on_open(path: &Path, error: &SqliteError) -> DatabaseError {
    match error.primary() {
        ffi::SQLITE_NOMEM if memory::node_was_short() => DatabaseError::NodeMemory,
        ffi::SQLITE_FULL => DatabaseError::Full(at(path, error)),
        primary if is_storage(primary) => DatabaseError::Storage(at(path, error)),
        _ => DatabaseError::Statement(at(path, error)),
    }
}

/// A file beside SQLite's own work on it.
pub(super) fn on_file(path: &Path, error: &std::io::Error) -> DatabaseError {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        std::io::ErrorKind::StorageFull => DatabaseError::Full(text),
        _ => DatabaseError::Storage(text),
    }
}

/// Rows that are on an account without room for them.
pub(super) fn out_of_memory() -> SqliteError {
    SqliteError { code: ffi::SQLITE_NOMEM, message: "out of memory".to_owned() }
}

/// Rows that take more than they may.
pub(super) fn too_large(bytes_max: usize) -> SqliteError {
    let whole = limits::RESULT_BYTES_MAX;
    let message = if bytes_max == whole {
        format!(
            "the result is larger than {} MiB ({whole} bytes); ask for fewer rows or columns, or use LIMIT",
            whole >> 20
        )
    } else {
        format!(
            "the result is larger than the {bytes_max} bytes that are left of this request's {} MiB for rows; \
             read or drop the rows of its other statements first",
            whole >> 20
        )
    };
    SqliteError { code: ffi::SQLITE_TOOBIG, message }
}
