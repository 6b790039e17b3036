//! The harness of the black-box tests.
//!
//! A [`TestNode`] is the real binary, built from this source, started on ports of its own over a temporary data
//! folder. A test speaks HTTP to it with a client that can also misbehave ([`client`]), and reads what it logged
//! ([`logs`]). Nothing of the server is called in-process and nothing is replaced by a stand-in.
//!
//! A test never waits for a time, it waits for a state: [`eventually`].

mod build;
pub mod client;
pub mod durability;
pub mod faults;
pub mod group;
pub mod http2;
pub mod logs;
mod node;
pub mod sqlite;
mod tenant;
pub mod tools;
pub mod upstream;

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub use build::{binary, guest, root};
pub use node::{Builder, Shared, SharedNode, Stop, TestNode};
pub use tenant::{Tenant, problem_of};

/// How long a state may take to come. Far more than any takes: it ends a test that would hang.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks again and again until there is something to see.
///
/// # Errors
/// When looking fails, or when [`PATIENCE`] is over.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        if started.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} in vain: {what}");
        }
        thread::sleep(Duration::from_millis(3));
    }
}
