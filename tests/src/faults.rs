//! Faults of the disk: system calls of a node that fail for some of its files, for as long as a test wants.
//!
//! A small C library is preloaded into the node and stands before the calls that SQLite and the node make. What fails
//! is said in a file that the library reads at each call, so that it can change while the node runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::node::Builder;
use crate::{TestNode, root};

/// Calls that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Flushing to the disk.
    Sync,
    /// The same, and flushing the whole file system.
    SyncAll,
    /// Cutting off, as a checkpoint does with the log.
    Truncate,
}

/// The faults of one node.
#[derive(Debug)]
pub struct Faults {
    folder: TempDir,
}

impl Faults {
    /// No faults yet.
    ///
    /// # Errors
    /// When the library does not compile.
    pub fn new() -> Result<Self> {
        let faults = Self { folder: tempfile::Builder::new().prefix("dormouse-faults-").tempdir()? };
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(faults.library());
        let compiled = compiler.arg(root().join("tests/preload/fault.c")).status()?;
        ensure!(compiled.success(), "the library does not compile: {compiled}");
        Ok(faults)
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("fault.so")
    }

    fn control(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    /// A node that has these faults. The library's file lies where the sandbox of a node does not reach.
    #[must_use]
    pub fn node(&self) -> Builder {
        TestNode::builder()
            .flag("--process-sandbox", "off")
            .env("LD_PRELOAD", self.library().display())
            .env("FAULT_FILE", self.control().display())
    }

    /// From now on, and instead of what was said before, the call fails for files whose path holds one text and ends
    /// in another.
    ///
    /// # Errors
    /// When it cannot be said.
    pub fn begin(&self, call: Call, error: Errno, path_holds: &str, path_ends: &str) -> Result<()> {
        self.say(call, "", error, path_holds, path_ends)
    }

    /// The same for the next such call alone.
    ///
    /// # Errors
    /// When it cannot be said.
    pub fn once(&self, call: Call, error: Errno, path_holds: &str, path_ends: &str) -> Result<()> {
        self.say(call, "!", error, path_holds, path_ends)
    }

    /// From now on, and instead of what was said before, the call does not come back for such files.
    ///
    /// # Errors
    /// When it cannot be said.
    pub fn hang(&self, call: Call, path_holds: &str, path_ends: &str) -> Result<()> {
        self.write(call, "", -1, path_holds, path_ends)
    }

    fn say(&self, call: Call, once: &str, error: Errno, path_holds: &str, path_ends: &str) -> Result<()> {
        self.write(call, once, error.raw_os_error(), path_holds, path_ends)
    }

    fn write(&self, call: Call, once: &str, error: i32, path_holds: &str, path_ends: &str) -> Result<()> {
        let call = match call {
            Call::Read => "r",
            Call::Write => "w",
            Call::Sync => "s",
            Call::SyncAll => "sy",
            Call::Truncate => "t",
        };
        let next = self.folder.path().join("next");
        fs::write(&next, format!("{call}{once} {error} {path_holds} {path_ends}\n"))?;
        Ok(fs::rename(next, self.control())?)
    }

    /// Nothing fails any more.
    ///
    /// # Errors
    /// When nothing did.
    pub fn end(&self) -> Result<()> {
        Ok(fs::remove_file(self.control())?)
    }
}
