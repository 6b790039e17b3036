//! The WALs whose commits are in the log: what each has written since its latest sync, and which have failed.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::record::Writes;
use crate::database::worker::lock;

/// Writes of one commit that are more than this are not worth a copy: their WAL is synced.
const COMMIT_BYTES_MAX: usize = 64 << 10;

/// A WAL whose commits are in the log. All connections to it share it.
#[derive(Debug)]
pub(in crate::database) struct LoggedWal {
    /// Its path below the data folder.
    pub(super) name: String,
    pub(super) unsynced: Mutex<Unsynced>,
    /// The number of its latest record.
    pub(super) latest: AtomicU64,
    /// The segment that has it on its list.
    segment: AtomicU64,
    /// Whether its file was empty when it was last looked at or emptied, and nothing was written since.
    pub(super) is_empty: AtomicBool,
    /// Whether a checkpoint is under way.
    pub(super) in_checkpoint: AtomicBool,
    pub(super) failure: OnceLock<String>,
}

/// What was written since the latest sync.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    pub writes: Writes,
    pub is_too_much: bool,
}

/// The log could not be written: its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::database) struct Lost(pub String);

/// The WALs that are open.
#[derive(Debug, Default)]
pub(super) struct Wals {
    by_name: HashMap<String, Weak<LoggedWal>>,
    /// Why some have failed: until they are restored, whoever closes them.
    pub failed: HashMap<String, String>,
    /// How many there are when those that are closed are forgotten next.
    full_at: usize,
}

/// Why a WAL has failed.
pub(super) fn why_failed(error: &io::Error) -> String {
    format!("its log cannot be put on disk: {error}")
}

impl LoggedWal {
    fn new(name: &str, is_empty: bool) -> Self {
        Self {
            name: name.to_owned(),
            unsynced: Mutex::default(),
            latest: AtomicU64::new(0),
            segment: AtomicU64::new(0),
            is_empty: AtomicBool::new(is_empty),
            in_checkpoint: AtomicBool::new(false),
            failure: OnceLock::new(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Takes note of a write, in the order of writes.
    pub(in crate::database) fn note(&self, offset: u64, bytes: &[u8]) {
        let mut unsynced = lock(&self.unsynced);
        if unsynced.is_too_much {
            return;
        }
        if unsynced.writes.as_bytes().len() + bytes.len() > COMMIT_BYTES_MAX {
            *unsynced = Unsynced { writes: Writes::default(), is_too_much: true };
            return;
        }
        unsynced.writes.push(offset, bytes);
    }

    /// Gives back the memory of writes that no commit followed.
    pub(in crate::database) fn forget_unsynced(&self) {
        let mut unsynced = lock(&self.unsynced);
        if !unsynced.writes.is_empty() {
            *unsynced = Unsynced { writes: Writes::default(), is_too_much: true };
        }
    }

    /// Says whether what is synced from now on is copied into the database: it has to be on disk then, in its file as well.
    pub(in crate::database) fn set_in_checkpoint(&self, in_checkpoint: bool) {
        self.in_checkpoint.store(in_checkpoint, Ordering::Release);
    }

    /// Whether the segment that begins with this record does not have it on its list yet. It has from now on.
    pub(super) fn is_new_to(&self, segment: u64) -> bool {
        self.segment.swap(segment, Ordering::Relaxed) != segment
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    pub(super) fn check(&self) -> Result<(), Lost> {
        self.failure.get().map_or(Ok(()), |reason| Err(Lost(reason.clone())))
    }
}

impl Wals {
    pub(super) fn find(&self, name: &str) -> Option<Arc<LoggedWal>> {
        self.by_name.get(name).and_then(Weak::upgrade)
    }

    pub(super) fn add(&mut self, name: &str, is_empty: bool) -> Arc<LoggedWal> {
        if self.by_name.len() >= self.full_at {
            self.forget_closed();
        }
        let wal = LoggedWal::new(name, is_empty);
        if let Some(reason) = self.failed.get(name) {
            wal.failure.get_or_init(|| reason.clone());
        }
        let wal = Arc::new(wal);
        self.by_name.insert(name.to_owned(), Arc::downgrade(&wal));
        wal
    }

    /// A WAL whose file is sound, whatever became of it before.
    pub(super) fn begin_anew(&mut self, name: &str) -> Arc<LoggedWal> {
        let wal = Arc::new(LoggedWal::new(name, false));
        self.by_name.insert(name.to_owned(), Arc::downgrade(&wal));
        wal
    }

    pub(super) fn forget_closed(&mut self) {
        self.by_name.retain(|_, wal| wal.strong_count() > 0);
        self.by_name.shrink_to_fit();
        self.full_at = self.by_name.len() * 2 + 64;
    }

    pub(super) fn has_failed(&self, name: &str) -> bool {
        self.failed.contains_key(name)
    }

    pub(super) fn fail(&mut self, name: &str, reason: &str) {
        self.failed.entry(name.to_owned()).or_insert_with(|| reason.to_owned());
        if let Some(wal) = self.find(name) {
            wal.failure.get_or_init(|| reason.to_owned());
        }
    }
}
