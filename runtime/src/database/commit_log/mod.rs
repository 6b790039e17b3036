//! The commit log: what tenants' commits wrote, put on disk for many of them at once.
//!
//! ```text
//!  commit ─▶ WAL (the kernel's memory) ──────────────────────────▶ on disk at some time
//!       └──▶ record ─▶ batch ─▶ segment, flushed ─▶ answer           └─▶ the segment is free again
//! ```
//!
//! A commit is what SQLite writes into the tenant's write-ahead log before it asks for a sync. Instead of a flush for each
//! WAL the writes go, in the order in which they happened, into one file that is flushed for all who wait. Whoever
//! opens the data folder next replays the log ([`replay`]) before anything reads a database: each WAL is then
//! as it was after its latest sync, as if it had been flushed itself. A segment is used again when what it speaks of is on
//! disk.
//!
//! What a commit wrote can be seen by other sessions of its tenant before it is on disk, so nothing of that tenant is
//! answered until then ([`CommitLog::when_settled`]), and no checkpoint copies it into the database
//! ([`CommitLog::sync`] waits). When a flush fails, the WALs it was for fail: nothing more is committed to them until
//! they have been read anew.

mod record;
mod replay;
mod segment;
mod wal;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use record::Kind;
use segment::Segments;
pub(super) use wal::{LoggedWal, Lost};
use wal::{Unsynced, Wals, why_failed};

use super::memory::give_back_unused;
use super::worker::lock;

/// Where the log lies in the data folder.
const FOLDER: &str = "commits";

/// A commit with more than this keeps its tenant's next writer waiting until it is on disk, so that one tenant does not
/// fill a batch.
const UNSETTLED_BYTES_MAX: usize = 16 << 10;

/// A batch that takes longer is held up by the disk.
const BATCH_TIME_MAX: Duration = Duration::from_millis(500);

/// What may wait to be written; who adds to it waits when it is more.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// The time from one flush to the next, for each commit of the first beyond one: the more come together, the more may
/// share the next.
const FLUSH_INTERVAL_STEP: Duration = Duration::from_micros(100);

/// It is no longer than this.
const FLUSH_INTERVAL_MAX: Duration = Duration::from_millis(1);

/// For so long after a batch that was held up, those who waited for it may not be awake.
const AWAKE_AFTER: Duration = Duration::from_secs(5);

/// When nothing has come for so long, or a file of the log has been written to for so long, what it speaks of is put on
/// disk: an idle log holds nothing, and what the disk does not take is noticed soon.
const HELD_MAX: Duration = Duration::from_secs(5);

/// How a WAL is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Synced {
    /// It is in the log: whoever answers waits for it.
    Logged,
    /// Nothing was written since the last time, and what was is on disk, in the log. Before it is copied into the database,
    /// the file itself has to be synced: the kernel may have failed to write it, and forgotten.
    Settled,
    /// The file itself has to be synced, then [`CommitLog::note_synced`] called.
    TooLarge,
}

/// What a log has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogFigures {
    /// Records that were written.
    pub records: u64,
    /// How often they were flushed.
    pub flushes: u64,
}

/// The log of a data folder. It ends when it is dropped, after what waits has been written.
#[derive(Debug)]
pub struct CommitLog {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// The data folder as it was named, and where that is.
    roots: [PathBuf; 2],
    /// The file system that the log is on. Only what lies there is put on disk with it.
    device: u64,
    state: Mutex<State>,
    /// Something waits to be written, or the log ends.
    has_work: Condvar,
    /// A batch was written, or could not be.
    has_settled: Condvar,
    /// Records up to this number are on disk, or their WALs have failed.
    settled: AtomicU64,
    flushes: AtomicU64,
    wals: Mutex<Wals>,
    /// Held by who reads the segments, and by who voids one.
    reading: Mutex<()>,
    /// A descriptor that sees what failed since the start.
    folder: File,
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    /// The number of the latest record.
    number: u64,
    waiting: Vec<Waiting>,
    /// Since when a batch is being written.
    writing_since: Option<Instant>,
    /// When the latest batch was over that was held up.
    held_up_at: Option<Instant>,
    /// Nothing has come for a while.
    is_idle: bool,
    /// Nothing more is taken.
    is_closed: bool,
}

/// What the thread that writes does next.
enum Next {
    /// Write this, up to the record of this number.
    Batch(Batch, u64),
    /// Let go of what the log holds: nothing has come for a while.
    Idle,
    End,
}

#[derive(Debug, Default)]
struct Batch {
    records: Vec<u8>,
    wals: Vec<Arc<LoggedWal>>,
}

/// Who is told when a record is on disk.
struct Waiting {
    number: u64,
    wal: Arc<LoggedWal>,
    then: Box<dyn FnOnce(Result<(), Lost>) + Send>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Replays the log of a data folder, so that it holds nothing. Nobody has any of its databases open.
///
/// # Errors
/// When a file cannot be read, written or synced. The log is as it was.
pub fn replay(data: &Path) -> io::Result<()> {
    let folder = data.join(FOLDER);
    let replayed = replay::replay(&folder, data, None)?;
    if replayed.records > 0 {
        tracing::info!(
            records = replayed.records,
            logs = replayed.wals,
            "what the last server's commit log held has been written to the tenants' logs"
        );
    }
    // Also what the kernel may still have in memory of a server that was killed.
    segment::sync_file_system(&File::open(data)?)?;
    replay::remove(&folder)
}

impl CommitLog {
    /// Starts the log of a data folder, in files of `bytes` together. [`replay()`] comes first.
    ///
    /// # Errors
    /// When its files or threads cannot be made.
    pub fn start(data: &Path, bytes: u64) -> io::Result<Self> {
        let folder = data.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let (segments, releaser) = segment::make(&folder, bytes)?;
        File::open(data)?.sync_all()?;
        let shared = Arc::new(Shared {
            roots: [data.to_owned(), data.canonicalize()?],
            device: folder.metadata()?.dev(),
            state: Mutex::default(),
            has_work: Condvar::new(),
            has_settled: Condvar::new(),
            settled: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            wals: Mutex::default(),
            reading: Mutex::default(),
            folder: File::open(&folder)?,
        });
        let (writer, keeper) = (shared.clone(), shared.clone());
        let threads = vec![
            named("commit-log").spawn(move || writer.write_batches(segments))?,
            named("commit-files").spawn(move || releaser.run(&keeper))?,
        ];
        Ok(Self { shared, threads })
    }

    /// The state of a WAL, which all of its connections share; none when it does not lie in the data folder, on the
    /// file system of the log.
    ///
    /// # Errors
    /// When its file cannot be looked at.
    pub(super) fn wal(&self, path: &Path) -> io::Result<Option<Arc<LoggedWal>>> {
        let Some(name) = self.shared.name_of(path) else { return Ok(None) };
        let mut wals = lock(&self.shared.wals);
        if let Some(wal) = wals.find(name) {
            return Ok(Some(wal));
        }
        // Under the lock: nobody writes to the file before it has a state. Whoever asks has just looked for it.
        let file = path.metadata()?;
        Ok((file.dev() == self.shared.device).then(|| wals.add(name, file.len() == 0)))
    }

    /// Syncs a WAL.
    ///
    /// # Errors
    /// When the WAL has failed.
    pub(super) fn sync(&self, wal: &Arc<LoggedWal>) -> Result<Synced, Lost> {
        let mut unsynced = lock(&wal.unsynced);
        if unsynced.is_too_much {
            // Nobody else writes to it meanwhile: whoever syncs has the right to write.
            return wal.check().map(|()| Synced::TooLarge);
        }
        let writes = std::mem::take(&mut unsynced.writes);
        if writes.is_empty() {
            drop(unsynced);
            return self.shared.wait_for(wal).map(|()| Synced::Settled);
        }
        // The lock of the WAL is held: its records have the order of its writes.
        self.shared.append(wal, Kind::Writes, writes.as_bytes())?;
        drop(unsynced);
        // Frames of the WAL before may be where those of a new one come, and the kernel may write these first. Until it is
        // sure that the file is read as a new WAL, or as an empty one, they must not come.
        let was_empty = wal.is_empty.swap(false, Ordering::AcqRel);
        let begins_over_another = writes.begin_wal() && !was_empty;
        let in_checkpoint = wal.in_checkpoint.load(Ordering::Acquire);
        if begins_over_another || in_checkpoint || writes.as_bytes().len() > UNSETTLED_BYTES_MAX {
            self.shared.wait_for(wal)?;
        }
        Ok(if in_checkpoint { Synced::Settled } else { Synced::Logged })
    }

    /// Takes note that a WAL has been emptied, and waits until that is on disk.
    ///
    /// # Errors
    /// When the WAL has failed.
    pub(super) fn note_emptied(&self, wal: &Arc<LoggedWal>) -> Result<(), Lost> {
        let mut unsynced = lock(&wal.unsynced);
        *unsynced = Unsynced::default();
        self.shared.append(wal, Kind::Emptied, &[])?;
        drop(unsynced);
        self.shared.wait_for(wal)?;
        wal.is_empty.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes note that a WAL has been synced itself, with all that was written to it, and waits until that is on disk.
    ///
    /// # Errors
    /// When the WAL has failed.
    pub(super) fn note_synced(&self, wal: &Arc<LoggedWal>) -> Result<(), Lost> {
        let mut unsynced = lock(&wal.unsynced);
        *unsynced = Unsynced::default();
        self.shared.append(wal, Kind::OnDisk, &[])?;
        drop(unsynced);
        wal.is_empty.store(false, Ordering::Release);
        self.shared.wait_for(wal)
    }

    /// Tells when everything that has been committed to a WAL by now is on disk: at once, if it is.
    pub(super) fn when_settled(
        &self,
        wal: &Arc<LoggedWal>,
        then: impl FnOnce(Result<(), Lost>) + Send + 'static,
    ) {
        let number = wal.latest.load(Ordering::Acquire);
        let mut state = lock(&self.shared.state);
        if number > self.shared.settled.load(Ordering::Acquire) {
            return state.waiting.push(Waiting { number, wal: wal.clone(), then: Box::new(then) });
        }
        drop(state);
        then(wal.check());
    }

    /// Whether everything that has been committed to a WAL by now is on disk.
    pub(super) fn is_settled(&self, wal: &LoggedWal) -> bool {
        wal.latest.load(Ordering::Acquire) <= self.shared.settled.load(Ordering::Acquire) && !wal.has_failed()
    }

    /// Says that a WAL's file may not hold what was written to it: only the log does, until it is restored.
    pub(super) fn fail(&self, wal: &LoggedWal, error: &io::Error) {
        self.shared.fail(&wal.name, &why_failed(error));
    }

    /// The same, by its path.
    pub(super) fn fail_file(&self, path: &Path, error: &io::Error) {
        if let Some(name) = self.shared.name_of(path) {
            self.shared.fail(name, &why_failed(error));
        }
    }

    /// Makes the log hold nothing of a WAL that nobody has open, whose file holds what was written to it unless the WAL has
    /// failed. What was lost of one that has is written into it first; one that was removed is left so.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn restore(&self, path: &Path) -> io::Result<()> {
        let Shared { roots: [root, _], reading, wals, .. } = &*self.shared;
        let Some(name) = self.shared.name_of(path) else { return Ok(()) };
        let folder = root.join(FOLDER);
        {
            let _reading = lock(reading);
            if lock(wals).has_failed(name) {
                replay::replay(&folder, root, Some(name))?;
            }
            self.shared.sync_file(name).inspect_err(|error| self.shared.fail(name, &why_failed(error)))?;
        }
        // As long as it is among the failed ones, what a segment says of it is kept.
        let wal = lock(wals).begin_anew(name);
        self.note_synced(&wal).map_err(|Lost(reason)| io::Error::other(reason))?;
        let _reading = lock(reading);
        replay::remove_kept(&folder, Some(name))?;
        lock(wals).failed.remove(name);
        Ok(())
    }

    /// Waits until everything that has been committed to a WAL by now is on disk.
    ///
    /// # Errors
    /// When the WAL has failed.
    pub(super) fn settle(&self, wal: &LoggedWal) -> Result<(), Lost> {
        self.shared.wait_for(wal)
    }

    pub(super) fn figures(&self) -> LogFigures {
        let Shared { settled, flushes, .. } = &*self.shared;
        LogFigures { records: settled.load(Ordering::Relaxed), flushes: flushes.load(Ordering::Relaxed) }
    }

    /// Whether the disk keeps everybody waiting who commits.
    pub(super) fn is_held_up(&self) -> bool {
        let state = lock(&self.shared.state);
        state.writing_since.is_some_and(|since| since.elapsed() > BATCH_TIME_MAX)
            || state.held_up_at.is_some_and(|at| at.elapsed() < AWAKE_AFTER)
    }

    /// Takes nothing more, puts on disk what it speaks of, and removes its files, so that a start has nothing to do.
    ///
    /// # Errors
    /// When that fails. Its files hold what they held.
    pub(super) fn close(&self) -> io::Result<()> {
        self.shared.close();
        let last = lock(&self.shared.state).number;
        self.shared.wait_until_settled(last);
        let Shared { roots: [root, _], reading, folder, wals, .. } = &*self.shared;
        let _reading = lock(reading);
        segment::sync_file_system(folder)?;
        if lock(wals).failed.is_empty() {
            replay::remove(&root.join(FOLDER))?;
        }
        Ok(())
    }
}

impl Drop for CommitLog {
    fn drop(&mut self) {
        self.shared.close();
        // A thread that has panicked has told of it.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn named(name: &str) -> std::thread::Builder {
    std::thread::Builder::new().name(name.to_owned())
}

impl Shared {
    fn name_of<'a>(&self, path: &'a Path) -> Option<&'a str> {
        self.roots.iter().find_map(|root| path.strip_prefix(root).ok())?.to_str()
    }

    fn fail(&self, name: &str, reason: &str) {
        lock(&self.wals).fail(name, reason);
    }

    fn sync_file(&self, name: &str) -> io::Result<()> {
        let [root, _] = &self.roots;
        match File::open(root.join(name)) {
            // Its tenant is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            opened => opened?.sync_data(),
        }
    }

    fn append(&self, wal: &Arc<LoggedWal>, kind: Kind, writes: &[u8]) -> Result<(), Lost> {
        let mut state = lock(&self.state);
        while state.batch.records.len() > BATCH_BYTES_MAX {
            state = self.has_settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // A batch that fails marks its WALs under the same lock.
        wal.check()?;
        if state.is_closed {
            return Err(Lost("the commit log is closed".to_owned()));
        }
        state.number += 1;
        let number = state.number;
        let is_first = state.batch.records.is_empty();
        record::encode(number, kind, &wal.name, writes, &mut state.batch.records);
        state.batch.wals.push(wal.clone());
        wal.latest.store(number, Ordering::Release);
        drop(state);
        if is_first {
            self.has_work.notify_one();
        }
        Ok(())
    }

    fn wait_for(&self, wal: &LoggedWal) -> Result<(), Lost> {
        self.wait_until_settled(wal.latest.load(Ordering::Acquire));
        wal.check()
    }

    fn wait_until_settled(&self, number: u64) {
        if number <= self.settled.load(Ordering::Acquire) {
            return;
        }
        let mut state = lock(&self.state);
        while number > self.settled.load(Ordering::Acquire) {
            state = self.has_settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_closed(&self) -> bool {
        lock(&self.state).is_closed
    }

    fn close(&self) {
        lock(&self.state).is_closed = true;
        self.has_work.notify_all();
    }

    /// Writes what comes, until the log ends.
    fn write_batches(&self, mut segments: Segments) {
        let mut pause_until = Instant::now();
        loop {
            let pause = pause_until.saturating_duration_since(Instant::now());
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
            match self.next_batch() {
                Next::Batch(batch, last) => {
                    let began = Instant::now();
                    segments.renew();
                    let written = segments.write(&batch.records, &batch.wals);
                    let together = u32::try_from(batch.wals.len()).unwrap_or(u32::MAX).saturating_sub(1);
                    let interval = FLUSH_INTERVAL_STEP.saturating_mul(together).min(FLUSH_INTERVAL_MAX);
                    pause_until = began + interval;
                    self.settle(&batch, last, written);
                }
                Next::Idle => {
                    segments.give_up_current();
                    give_back_unused();
                }
                Next::End => return,
            }
        }
    }

    /// Waits for what is to be written.
    fn next_batch(&self) -> Next {
        let mut state = lock(&self.state);
        let mut idle_after = HELD_MAX;
        while state.batch.records.is_empty() {
            if state.is_closed {
                return Next::End;
            }
            let (woken, wait) =
                self.has_work.wait_timeout(state, idle_after).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if wait.timed_out() && state.batch.records.is_empty() && !state.is_idle {
                state.is_idle = true;
                return Next::Idle;
            }
            idle_after = if state.is_idle { Duration::MAX } else { HELD_MAX };
        }
        state.is_idle = false;
        state.writing_since = Some(Instant::now());
        let batch = std::mem::take(&mut state.batch);
        if batch.records.len() > BATCH_BYTES_MAX {
            // There is room again.
            self.has_settled.notify_all();
        }
        Next::Batch(batch, state.number)
    }

    fn settle(&self, batch: &Batch, last: u64, written: io::Result<()>) {
        let mut state = lock(&self.state);
        if let Err(error) = written {
            let reason = format!("the commit log cannot be written: {error}");
            tracing::error!(
                commits = batch.wals.len(),
                reason,
                "commits have failed; look at the disk, then recover the tenants that are in quarantine"
            );
            let mut wals = lock(&self.wals);
            for wal in &batch.wals {
                wal.failure.get_or_init(|| reason.clone());
                wals.fail(&wal.name, &reason);
            }
            drop(wals);
            // What has come since builds on what is lost.
            let Batch { records, wals } = &mut state.batch;
            *records = record::without(records, wals.iter().map(|wal| wal.has_failed()));
        }
        if state.writing_since.take().is_some_and(|since| since.elapsed() > BATCH_TIME_MAX) {
            state.held_up_at = Some(Instant::now());
        }
        self.settled.store(last, Ordering::Release);
        self.flushes.fetch_add(1, Ordering::Relaxed);
        let told: Vec<Waiting> = state.waiting.extract_if(.., |waiting| waiting.number <= last).collect();
        drop(state);
        self.has_settled.notify_all();
        told.into_iter().for_each(|Waiting { wal, then, .. }| then(wal.check()));
    }
}
