//! The database room: the one SQLite of the process, for tenants' and for control data.
//!
//! It owns every SQLite connection and the threads they run on. The outside sees sessions by number and sends
//! [`Command`]s, which are plain data: the threads can live in processes of their own ([`process`]), which are killed
//! without harm to what is acknowledged. It knows nothing of tenants, permits or requests: [`crate::tenant`] decides who
//! may write and when a session is closed.
//!
//! `libsql::Database` is never made: the room calls `libsql::ffi` through [`sqlite`] and its [`callbacks`], because
//! the crate's own connections block async workers, swallow bind errors and cut text at NUL.

mod cached;
mod callbacks;
mod caps;
mod child;
mod commit_log;
mod compiled;
mod explain;
mod file;
mod frame;
mod functions;
mod guard;
mod import;
mod json;
mod memory;
mod message;
mod overdue;
mod process;
mod queue;
mod quota;
mod session;
mod slow;
mod sqlite;
mod statement;
mod stream;
#[cfg(test)]
mod surface;
mod threads;
mod turns;
mod vfs;
mod wal_index;
mod watch;
mod worker;

pub use cached::forget_cached;
pub use child::{ProcessSize, serve_in_this_process};
pub use commit_log::{CommitLog, LogFigures, replay as replay_commit_log};
pub use memory::start_allocator_thread;
pub use message::{
    Change, Command, DatabaseError, Executed, Extent, FilePart, Owner, Profile, Reply, Rows, SessionId, Value,
};
pub use process::Recipe as ProcessRecipe;
pub use quota::file_bytes_max;
pub use sqlite::start;
pub use stream::{FileStream, Hold, Holds, Still};
pub use worker::{Database, Figures, ProcessFigures};
