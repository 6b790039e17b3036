//! The host of a component: `wasi:http` 0.2, `spin:sqlite` and `fermyon:spin/variables`.
//!
//! This is the only place that calls an imported function. An import is linked only into the components that use it,
//! so a function without a database asks its host for none.

mod bindings;
mod head;
mod incoming;
mod outgoing;
mod serve;
mod sqlite;
mod variables;
mod write;

#[cfg(feature = "async")]
pub(crate) use head::content_length;
pub(crate) use incoming::Incoming;
pub(crate) use outgoing::send;
pub use serve::{respond, serve};
pub(crate) use sqlite::{Connection, Found};
pub(crate) use variables::variable;

/// Writes one line of the log.
pub(crate) fn log(line: &str) {
    // As one piece, so that it costs one call. There is nowhere to report a failure to.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
