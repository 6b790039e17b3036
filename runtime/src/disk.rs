//! The free space of the disk that holds the data, and the mark below which nothing more is written.
//!
//! ```text
//!           less than the mark is free
//!   Roomy ─────────────────────────────▶ Low
//!     ▲   a quarter more than that is     │
//!     └───────────────────────────────────┘
//! ```
//!
//! Writes are turned away while there is still room for what has begun: commits, checkpoints, the control data. Whoever
//! writes asks [`Disk::is_low`], which is a look at a flag; the housekeeping looks at the disk.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The disk of a data folder.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    free_bytes_min: u64,
    free_bytes: AtomicU64,
    is_low: AtomicBool,
}

impl Disk {
    /// The disk of a folder, of which `free_bytes_min` stay free; 0: it may become full.
    #[must_use]
    pub fn of(folder: PathBuf, free_bytes_min: u64) -> Self {
        let disk =
            Self { folder, free_bytes_min, free_bytes: AtomicU64::new(0), is_low: AtomicBool::new(false) };
        disk.look();
        disk
    }

    /// Looks how much is free, and says so when that changes what may be written.
    pub fn look(&self) {
        let free = match rustix::fs::statvfs(&self.folder) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
            Err(error) => return tracing::debug!(%error, "the disk does not tell what is free"),
        };
        self.free_bytes.store(free, Ordering::Relaxed);
        let (was_low, free_bytes_min) = (self.is_low(), self.free_bytes_min);
        let mark = if was_low { free_bytes_min.saturating_add(free_bytes_min / 4) } else { free_bytes_min };
        let is_low = free < mark;
        self.is_low.store(is_low, Ordering::Relaxed);
        match (was_low, is_low) {
            (false, true) => {
                tracing::warn!(
                    free,
                    free_bytes_min,
                    "the disk is nearly full; writes are turned away until some of it is freed, or disk_free_bytes_min lowered"
                );
            }
            (true, false) => tracing::info!(free, free_bytes_min, "the disk has room again"),
            (true, true) | (false, false) => {}
        }
    }

    /// Whether nothing more may be written.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.is_low.load(Ordering::Relaxed)
    }

    /// Free bytes, as of the latest look.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }
}
