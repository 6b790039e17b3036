//! The host of an async handler: `wasi:http` 0.3 and `spin:sqlite@3.1.0`.
//!
//! What is the same for every handler, variables and the log, is in [`crate::wasi`].

mod bindings;
mod head;
mod incoming;
mod outgoing;
mod send;
mod serve;
mod sqlite;

pub(crate) use incoming::Incoming;
pub(crate) use outgoing::send;
pub use serve::{respond, serve};
pub(crate) use sqlite::{Connection, Found};

/// Starts a task of this request.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    wasip3::spawn_local(task);
}
