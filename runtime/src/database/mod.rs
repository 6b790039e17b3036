//! The database room: the one SQLite of the process, for tenants' and for control data.
//!
//! It owns every SQLite connection and the threads they run on. The outside sees sessions by number and sends
//! [`Command`]s, which are plain data, so that the threads could live in another process. It knows nothing of
//! tenants, permits or requests: [`crate::tenant`] decides who may write and when a session is closed.
//!
//! `libsql::Database` is never made: the room calls `libsql::ffi` through [`sqlite`] and its [`callbacks`], because
//! the crate's own connections block async workers, swallow bind errors and cut text at NUL.

mod cached;
mod callbacks;
mod caps;
mod compiled;
mod explain;
mod file;
mod functions;
mod guard;
mod import;
mod memory;
mod message;
mod queue;
mod quota;
mod session;
mod sqlite;
mod statement;
mod stream;
#[cfg(test)]
mod surface;
mod worker;

pub use cached::forget_cached;
pub use message::{
    Change, Command, DatabaseError, Executed, Extent, FilePart, Profile, Reply, Rows, SessionId, Value,
};
pub use quota::file_bytes_max;
pub use sqlite::start;
pub use stream::{FileStream, Hold, Holds, Still};
pub use worker::Database;
