//! The files of a commit log: one that is written to, and one that becomes free while everything its records speak of is
//! put on disk.
//!
//! ```text
//!         full, or failed              what it speaks of is on disk
//!  Current ───────────────▶ Releasing ──────────────────────────────▶ Spare ──▶ Current
//! ```
//!
//! A segment is voided before it is written to again: what an earlier use left of it must not look like a part of the log
//! of which another part is missing. What it says of a WAL that cannot be put on disk is kept in a file of its own.
#![expect(unsafe_code, reason = "this file calls syncfs")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::record::{SEGMENT_HEAD_BYTES, first_number, fitting, segment_head};
use super::{HELD_MAX, LoggedWal, Shared, replay, why_failed};
use crate::database::memory::give_back_unused;
use crate::database::worker::lock;

/// A file of the log.
struct Segment {
    file: File,
    /// The number of its first record; 0 while it has none.
    first: u64,
    /// Where the next record goes.
    position: u64,
    /// When it became the current one.
    since: Instant,
    /// The WALs that its records speak of.
    wals: Vec<Arc<LoggedWal>>,
}

/// The files, as the one thread that writes them has them.
pub(super) struct Segments {
    segment_bytes: u64,
    current: Option<Segment>,
    full: mpsc::SyncSender<Segment>,
    spare: mpsc::Receiver<Segment>,
}

/// The thread's part that makes full segments free.
pub(super) struct Releaser {
    folder: PathBuf,
    full: mpsc::Receiver<Segment>,
    spare: mpsc::SyncSender<Segment>,
}

/// Makes the two files of a log. They hold nothing: what they held before has been replayed.
pub(super) fn make(folder: &Path, bytes: u64) -> io::Result<(Segments, Releaser)> {
    let segment_bytes = bytes / FILES;
    let [(full, is_full), (spare, is_spare)] = [(); 2].map(|()| mpsc::sync_channel(FILES as usize));
    for number in 0..FILES {
        let made = make_file(folder, number, segment_bytes)?;
        // The receiver is in this function.
        let _ = spare.send(made);
    }
    File::open(folder)?.sync_all()?;
    let releaser = Releaser { folder: folder.to_owned(), full: is_full, spare };
    Ok((Segments { segment_bytes, current: None, full, spare: is_spare }, releaser))
}

/// One is written to while the other becomes free.
const FILES: u64 = 2;

fn make_file(folder: &Path, number: u64, bytes: u64) -> io::Result<Segment> {
    let path = folder.join(format!("{number}.{}", replay::SEGMENT));
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_len(bytes)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // A file system that cannot keep room free.
        Err(Errno::OPNOTSUPP) => fill(&file, bytes)?,
        allocated => allocated?,
    }
    file.write_all_at(&[0; SEGMENT_HEAD_BYTES], 0)?;
    file.sync_all()?;
    Ok(Segment::empty(file))
}

fn fill(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut position = 0;
    while position < bytes {
        file.write_all_at(&zeros, position)?;
        position += zeros.len() as u64;
    }
    Ok(())
}

impl Segments {
    /// Writes records and puts them on disk. After a failure some of them may be there.
    pub(super) fn write(&mut self, mut records: &[u8], wals: &[Arc<LoggedWal>]) -> io::Result<()> {
        while !records.is_empty() {
            let room = self
                .current
                .as_ref()
                .map_or(0, |current| self.segment_bytes.saturating_sub(current.position));
            let fitting = fitting(records, usize::try_from(room).unwrap_or(usize::MAX));
            if fitting == 0 {
                self.turn_over()?;
                continue;
            }
            let (now, later) = records.split_at(fitting);
            let Some(current) = &mut self.current else { continue };
            if let Err(error) = current.write(now, wals) {
                self.give_up_current();
                return Err(error);
            }
            records = later;
        }
        Ok(())
    }

    /// Takes the spare file, once there is one.
    fn turn_over(&mut self) -> io::Result<()> {
        self.give_up_current();
        let spare =
            self.spare.recv().map_err(|_| io::Error::other("the commit log has no file to write to"))?;
        self.current = Some(Segment { since: Instant::now(), ..spare });
        Ok(())
    }

    /// Lets a current file that has been written to for long become free, if there is another.
    pub(super) fn renew(&mut self) {
        if self.current.as_ref().is_some_and(|current| current.since.elapsed() > HELD_MAX)
            && let Ok(spare) = self.spare.try_recv()
        {
            self.give_up_current();
            self.current = Some(Segment { since: Instant::now(), ..spare });
        }
    }

    /// Lets the current file become free, as far as it has been written to.
    pub(super) fn give_up_current(&mut self) {
        if let Some(current) = self.current.take() {
            // The thread that takes it has ended when the log cannot be written to any more.
            let _ = self.full.send(current);
        }
    }
}

impl Segment {
    fn empty(file: File) -> Self {
        let position = SEGMENT_HEAD_BYTES as u64;
        Self { file, first: 0, position, since: Instant::now(), wals: Vec::new() }
    }

    fn write(&mut self, records: &[u8], wals: &[Arc<LoggedWal>]) -> io::Result<()> {
        if self.first == 0 {
            self.first = first_number(records).unwrap_or(0);
            self.file.write_all_at(&segment_head(self.first), 0)?;
        }
        self.wals.extend(wals.iter().filter(|wal| wal.is_new_to(self.first)).cloned());
        self.file.write_all_at(records, self.position)?;
        self.file.sync_data()?;
        self.position += records.len() as u64;
        Ok(())
    }
}

impl Releaser {
    /// Makes full segments free until the log ends.
    pub(super) fn run(self, shared: &Shared) {
        while let Ok(full) = self.full.recv() {
            while let Err(error) = self.release(&full, shared) {
                tracing::error!(%error, "a part of the commit log cannot be freed, and commits wait when the other is full; look at the disk: it is tried again");
                if shared.is_closed() {
                    return;
                }
                std::thread::sleep(RELEASE_PAUSE);
            }
            let Segment { file, wals, .. } = full;
            drop(wals);
            lock(&shared.wals).forget_closed();
            give_back_unused();
            // Nobody takes it when the log has ended.
            let _ = self.spare.send(Segment::empty(file));
        }
    }

    /// Puts on disk what a segment speaks of, or keeps its records where that fails, and voids it.
    fn release(&self, full: &Segment, shared: &Shared) -> io::Result<()> {
        if let Err(error) = sync_file_system(&full.file) {
            tracing::error!(%error, "the file system cannot be synced; the tenants' logs are, one by one");
            for wal in &full.wals {
                match shared.sync_file(wal.name()) {
                    // Says nothing of the file.
                    Err(error) if NONE_LEFT.iter().any(|none| error.raw_os_error() == Some(*none)) => {
                        return Err(error);
                    }
                    Err(error) => shared.fail(wal.name(), &why_failed(&error)),
                    Ok(()) => {}
                }
            }
        }
        let _reading = lock(&shared.reading);
        let names = {
            let wals = lock(&shared.wals);
            let names = full.wals.iter().map(|wal| wal.name());
            names.filter(|name| wals.has_failed(name)).collect::<Vec<_>>()
        };
        replay::keep(&self.folder, full.first, &names)?;
        full.file.write_all_at(&[0; SEGMENT_HEAD_BYTES], 0)?;
        full.file.sync_data()
    }
}

/// What a process has none left of.
const NONE_LEFT: [i32; 3] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM];

/// Until a part of the log that could not be freed is tried again.
const RELEASE_PAUSE: Duration = Duration::from_millis(500);

/// Puts on disk whatever was written to the file system that a file is on.
pub(super) fn sync_file_system(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open; the call takes nothing else.
    match unsafe { libc::syncfs(file.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
