//! Backups: a folder that holds a whole node as it was, and the checks that it can be had back from it.
//!
//! ```text
//! backup.json                              what the backup is made of; written last, so that it is whole or not there
//! control-<digits>.db                      the control data
//! databases/<tenant>-<digits>.db           a database, as one file
//! components/<sha256>.wasm                 a component; compiled again where it is restored
//! keys/<name>-<digits>                     a key
//! ```
//!
//! The digits are of the content's SHA-256: a file is never changed, and one that the next backup shares with this one
//! is not written again. What of such files the latest `backup.json` does not name is removed after it is there.
//!
//! The room knows files and what must be in them. Who fetches them from a node is its caller.

mod check;
mod folder;
mod manifest;

use std::path::{Path, PathBuf};

pub use check::Checker;
pub use folder::{Folder, LOST_AND_FOUND, Unfinished, copy, short};
pub use manifest::{DatabaseEntry, FileEntry, KeyEntry, Manifest};

use crate::control::StoreError;
pub use crate::control::{Inventory, NamedDatabase};
use crate::database::DatabaseError;
pub use crate::tenant::DatabaseKey;

/// Why a backup cannot be written, or is not good.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or a folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no backup in the folder.
    #[error("{} holds no whole backup: there is no backup.json", .0.display())]
    NoBackup(PathBuf),
    /// A folder is not a backup's alone.
    #[error("{} holds no backup, and {} is there: give the backup a folder of its own", folder.display(), found.display())]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// What is in it.
        found: PathBuf,
    },
    /// Another program works in the folder.
    #[error("{} is in use by another backup or restore", .0.display())]
    InUse(PathBuf),
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// The control data and what lies beside it do not belong together.
    #[error("the control data and the files do not belong together: {0}")]
    Mismatch(String),
    /// The control data cannot be read.
    #[error(transparent)]
    Control(#[from] StoreError),
    /// No database can be checked.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Puts the path of a file before what went wrong with it.
pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, source }
}
