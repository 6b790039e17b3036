//! The quota of a tenant's database: what its file and its write-ahead log may take of the disk together.
//!
//! The file is bounded by its number of pages, a little below the quota, so that a full database has a log to delete rows
//! with. The log may take what the file leaves, and [`LOG_BYTES_MIN`] in any case. Its size is looked up on disk: when a
//! statement that writes begins, every so many steps of it, and before a commit.

use std::path::{Path, PathBuf};

/// What a log may have in any case: room to delete some thousand rows at a time.
const LOG_BYTES_MIN: u64 = 8 << 20;

/// What a commit may still write: the changed pages in SQLite's cache, whose default size this is.
const CACHE_BYTES: u64 = 2 << 20;

/// Largest size of the file under a quota.
#[must_use]
pub fn file_bytes_max(quota_bytes: u64) -> u64 {
    quota_bytes - (quota_bytes / 8).min(LOG_BYTES_MIN)
}

/// The quota of one open database.
#[derive(Debug)]
pub(super) struct Quota {
    bytes_max: u64,
    file: PathBuf,
    log: PathBuf,
}

impl Quota {
    pub(super) fn new(file: &Path, log: PathBuf, bytes_max: u64) -> Self {
        Self { bytes_max, file: file.to_owned(), log }
    }

    /// Whether a commit could write more than the log may have.
    pub(super) fn is_used_up(&self) -> bool {
        !self.has_room_for(CACHE_BYTES)
    }

    /// Whether the log should be copied before more is written.
    pub(super) fn is_tight(&self) -> bool {
        !self.has_room_for(LOG_BYTES_MIN / 2)
    }

    /// Whether the log may grow by so much. What it may have in any case needs no look at the file.
    fn has_room_for(&self, bytes: u64) -> bool {
        let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
        let log = size(&self.log).saturating_add(bytes);
        log <= LOG_BYTES_MIN || log <= self.bytes_max.saturating_sub(size(&self.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(file_bytes: u64, log_bytes: u64) -> std::io::Result<(tempfile::TempDir, Quota)> {
        let folder = tempfile::tempdir()?;
        let (file, log) = (folder.path().join("a.db"), folder.path().join("a.db-wal"));
        for (path, bytes) in [(&file, file_bytes), (&log, log_bytes)] {
            std::fs::File::create(path)?.set_len(bytes)?;
        }
        let quota = Quota::new(&file, log, 100 << 20);
        Ok((folder, quota))
    }

    #[test]
    fn the_log_has_what_the_file_leaves() -> std::io::Result<()> {
        for (file, log, is_tight, is_used_up) in [
            (0, 90 << 20, false, false),
            (0, 97 << 20, true, false),
            (0, 99 << 20, true, true),
            (90 << 20, 0, false, false),
            (90 << 20, 9 << 20, true, true),
            (92 << 20, 3 << 20, false, false),
            (92 << 20, 5 << 20, true, false),
            (92 << 20, 7 << 20, true, true),
        ] {
            let (_folder, quota) = quota(file, log)?;
            assert_eq!((quota.is_tight(), quota.is_used_up()), (is_tight, is_used_up), "{file} {log}");
        }
        Ok(())
    }

    #[test]
    fn a_small_quota_leaves_an_eighth() {
        assert_eq!(file_bytes_max(1 << 30), (1 << 30) - (8 << 20));
        assert_eq!(file_bytes_max(256 << 10), 224 << 10);
    }
}
