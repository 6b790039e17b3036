//! What the kernel holds of a database's files in memory. After a flush that failed it may show pages that never reached
//! the disk, and call them clean.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use super::session::wal_of;

/// Makes the kernel forget what it holds of a database and its log, as [`forget_cached_file`] does.
///
/// # Errors
/// As there.
pub async fn forget_cached(database: PathBuf) -> std::io::Result<()> {
    let forget = move || {
        let wal = forget_cached_file(&wal_of(&database));
        forget_cached_file(&database).and(wal)
    };
    tokio::task::spawn_blocking(forget).await?
}

/// Makes the kernel forget what it holds of a database's file, so that the next reader sees what the disk holds. Nobody has
/// it open: closing it here would take the locks of whoever has.
///
/// # Errors
/// When it cannot be flushed or read. What it holds is not to be believed then.
pub(super) fn forget_cached_file(path: &Path) -> std::io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // Only clean pages are forgotten. Those that cannot be flushed are called clean after the attempt.
    let synced = file.sync_all();
    fadvise(&file, 0, None, Advice::DontNeed)?;
    synced
}
