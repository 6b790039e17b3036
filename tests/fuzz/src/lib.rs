//! The rooms that the fuzz targets call, and the targets.
//!
//! The rooms are compiled from the server's source, without wasmtime, which would have to be instrumented and built
//! anew. Under the name `dormouse` the targets find here what `tests/properties` finds in the server's library.

extern crate self as dormouse;

#[path = "../../../runtime/src/database/mod.rs"]
pub mod database;
#[path = "../../../runtime/src/fair.rs"]
pub mod fair;
#[path = "../../../runtime/src/limits.rs"]
pub mod limits;
#[path = "../../../runtime/src/manifest/mod.rs"]
pub mod manifest;
#[path = "../../../runtime/src/memory.rs"]
pub mod memory;
#[path = "../../../runtime/src/name.rs"]
pub mod name;
#[path = "../../../runtime/src/network.rs"]
pub mod network;
#[path = "../../../runtime/src/problem.rs"]
pub mod problem;
#[path = "../../../runtime/src/process_sandbox/mod.rs"]
pub mod process_sandbox;
#[path = "../../../runtime/src/routing.rs"]
pub mod routing;
#[path = "../../../runtime/src/spelling.rs"]
pub mod spelling;
#[path = "../../../runtime/src/thread.rs"]
pub mod thread;

pub mod control;
mod coverage;
pub mod outbound;
pub mod targets;

/// Ends the process, as the fuzzer wants it, when a target has found something.
pub fn check(outcome: anyhow::Result<()>) {
    assert!(outcome.is_ok(), "{outcome:?}");
}
