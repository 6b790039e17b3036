//! What the kernel holds of a database's files in memory. After a flush that failed it may show pages that never reached
//! the disk, and call them clean.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

use super::session::wal_of;

/// Makes the kernel forget what it holds of a database's files, so that the next reader sees what the disk holds.
/// Nobody has them open: closing one here would take the locks of whoever has.
///
/// # Errors
/// When one of them cannot be flushed or read. What it holds is not to be believed then.
pub async fn forget_cached(database: PathBuf) -> std::io::Result<()> {
    tokio::task::spawn_blocking(move || forget_files(&database, |_, _| {})).await?
}

/// The same. `on_wal_error` hears when it is the WAL that fails.
pub(super) fn forget_files(
    database: &Path,
    on_wal_error: impl FnOnce(&Path, &std::io::Error),
) -> std::io::Result<()> {
    let wal = wal_of(database);
    let forgotten = forget_cached_file(&wal).inspect_err(|error| on_wal_error(&wal, error));
    forget_cached_file(database).and(forgotten)
}

fn forget_cached_file(path: &Path) -> std::io::Result<()> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    // Only clean pages are forgotten. Those that cannot be flushed are called clean after the attempt.
    let synced = file.sync_all();
    fadvise(&file, 0, None, Advice::DontNeed)?;
    synced
}
