//! The sandbox of the process itself: what the kernel refuses it, whatever has taken it over.
//!
//! Tenants are kept apart by WebAssembly and by SQLite's authorizer. This is for the day when one of them fails: landlock
//! leaves the process the files and ports that it works with, seccomp the system calls. Both hold for the thread that
//! applies them and for what it starts, so they are applied before there is a second thread; both outlive an `exec`, and
//! neither can be taken back.

mod calls;
mod files;

use std::path::Path;
use std::str::FromStr;

pub use files::Kept;

/// What a process is for, and so what it may do.
#[derive(Debug, Clone, Copy)]
pub enum Profile<'a> {
    /// The server: its data folder, its ports, and what it takes to look names up and to start itself again.
    Node {
        /// Where everything that it keeps lies.
        data: &'a Path,
        /// The TCP ports that it listens on.
        ports: &'a [u16],
    },
    /// The compiler: what it was given open, and nothing else.
    Compiler,
    /// A process that runs SQL: the databases, and no network.
    Database {
        /// Where the databases lie.
        folder: &'a Path,
    },
}

/// How much a process insists on its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insistence {
    /// No work without landlock's rules for files, and without seccomp.
    Required,
    /// What the kernel has of it.
    BestEffort,
    /// None.
    Off,
}

impl Insistence {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::BestEffort => "best-effort",
            Self::Off => "off",
        }
    }
}

impl FromStr for Insistence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Required, Self::BestEffort, Self::Off]
            .into_iter()
            .find(|insistence| insistence.as_str() == text)
            .ok_or_else(|| format!("{text:?} is none of required, best-effort, off"))
    }
}

/// Why a process has no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel does not have it, or does not let the process have it.
    #[error("{what}: {reason}; process_sandbox = \"best-effort\" does without")]
    Missing {
        /// Which part of it.
        what: &'static str,
        /// What the kernel said.
        reason: String,
    },
}

/// What is in force.
#[derive(Debug)]
pub struct InForce {
    /// What landlock keeps the process from, or why it does not.
    pub landlock: Result<Kept, String>,
    /// How many system calls are refused or left, or why none is.
    pub seccomp: Result<String, String>,
}

/// Puts the calling process into the sandbox of its profile. Nothing is in force where the answer is nothing.
///
/// # Errors
/// When it is required and cannot be had.
pub fn apply(profile: Profile<'_>, insistence: Insistence) -> Result<Option<InForce>, SandboxError> {
    if insistence == Insistence::Off {
        return Ok(None);
    }
    let (landlock, seccomp) = match only_thread() {
        Ok(()) => (files::restrict(profile), calls::restrict(profile)),
        Err(reason) => (Err(reason.clone()), Err(reason)),
    };
    if insistence == Insistence::Required {
        for (what, missing) in [("landlock", landlock.as_ref().err()), ("seccomp", seccomp.as_ref().err())] {
            if let Some(reason) = missing {
                return Err(SandboxError::Missing { what, reason: reason.clone() });
            }
        }
    }
    Ok(Some(InForce { landlock, seccomp }))
}

/// A sandbox with a hole is none: it would not hold for other threads.
fn only_thread() -> Result<(), String> {
    match std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count) {
        1 => Ok(()),
        threads => Err(format!("the process has {threads} threads already")),
    }
}
