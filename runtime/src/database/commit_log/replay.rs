//! Replaying a commit log.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::record::{Kind, Record, read_record, read_segment_head, segment_head};

/// What the names of segments end in.
pub(super) const SEGMENT: &str = "log";

/// What the names of files end in that hold what was kept of a segment.
const KEPT: &str = "kept";

/// WALs that are open at once.
const OPEN_MAX: usize = 128;

/// What was replayed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replayed {
    pub records: u64,
    pub wals: usize,
}

/// Makes the writes that the log holds, in their order: all of them, or those of one WAL. They are not synced.
pub(super) fn replay(folder: &Path, root: &Path, only: Option<&str>) -> io::Result<Replayed> {
    let parts = parts(folder)?;
    let mut on_disk: HashMap<String, u64> = HashMap::new();
    for part in &parts {
        each_record(part, |record| {
            if record.kind == Kind::OnDisk {
                on_disk.insert(record.name, record.number);
            }
            Ok(())
        })?;
    }
    let mut wals = Files { root, open: HashMap::new() };
    let mut replayed = Replayed::default();
    let mut written = HashSet::new();
    for part in &parts {
        each_record(part, |record| {
            let is_void = on_disk.get(&record.name).is_some_and(|number| record.number <= *number);
            let is_meant = only.is_none_or(|name| name == record.name);
            let name_it =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", record.name));
            if is_meant && !is_void && wals.write(&record).map_err(name_it)? {
                replayed.records += 1;
                written.insert(record.name);
            }
            Ok(())
        })?;
    }
    replayed.wals = written.len();
    Ok(replayed)
}

/// Copies what the segment that begins with this record says of some WALs, each to a file of its own.
pub(super) fn keep(folder: &Path, segment: u64, names: &[&str]) -> io::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut kept: HashMap<&str, Vec<u8>> = names.iter().map(|name| (*name, Vec::new())).collect();
    for part in parts(folder)?.iter().filter(|part| part.first == segment && !part.is_kept) {
        each_record(part, |record| {
            if let Some(records) = kept.get_mut(record.name.as_str()) {
                record.encode(records);
            }
            Ok(())
        })?;
    }
    for (index, records) in kept.values().enumerate() {
        let unfinished = folder.join("unfinished");
        let mut file = File::create(&unfinished)?;
        file.write_all(&segment_head(segment))?;
        file.write_all(records)?;
        file.sync_all()?;
        std::fs::rename(unfinished, folder.join(format!("{segment}-{index}.{KEPT}")))?;
    }
    File::open(folder)?.sync_all()
}

/// Removes the log's files, of which everything has been replayed and synced: the oldest first, so that what is left
/// never lacks a later part.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    remove_kept(folder, None)?;
    let held = parts(folder)?.into_iter().map(|part| part.path);
    for path in held.collect::<Vec<_>>().into_iter().chain(files(folder, SEGMENT)?) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => {
                removed?;
                File::open(folder)?.sync_all()?;
            }
        }
    }
    Ok(())
}

/// Removes what was kept of all WALs, or of one.
pub(super) fn remove_kept(folder: &Path, only: Option<&str>) -> io::Result<()> {
    for part in parts(folder)?.iter().filter(|part| part.is_kept) {
        let mut is_meant = only.is_none();
        each_record(part, |record| {
            is_meant |= only.is_some_and(|name| name == record.name);
            Ok(())
        })?;
        if is_meant {
            std::fs::remove_file(&part.path)?;
            File::open(folder)?.sync_all()?;
        }
    }
    Ok(())
}

fn files(folder: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match folder.read_dir() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let is_meant = |path: &PathBuf| path.extension().is_some_and(|end| end == suffix);
    paths.filter(|path| path.as_ref().map_or(true, is_meant)).collect()
}

/// A file of the log that holds something.
struct Part {
    path: PathBuf,
    /// The number of its first record.
    first: u64,
    /// It was written once and holds records of some WALs only.
    is_kept: bool,
}

/// The parts of the log, oldest first. What was kept of a segment has its number.
fn parts(folder: &Path) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    for (suffix, is_kept) in [(KEPT, true), (SEGMENT, false)] {
        for path in files(folder, suffix)? {
            if let Some(first) = read_segment_head(&mut File::open(&path)?)? {
                parts.push(Part { path, first, is_kept });
            }
        }
    }
    parts.sort_by_key(|part| part.first);
    Ok(parts)
}

fn each_record(part: &Part, mut each: impl FnMut(Record) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufReader::with_capacity(256 << 10, File::open(&part.path)?);
    read_segment_head(&mut file)?;
    let mut next = (!part.is_kept).then_some(part.first);
    while let Some(record) = read_record(&mut file, next)? {
        next = next.map(|number| number + 1);
        each(record)?;
    }
    Ok(())
}

/// The WALs that are written to.
struct Files<'a> {
    root: &'a Path,
    open: HashMap<String, Option<File>>,
}

impl Files<'_> {
    /// Makes the writes of a record; not when its WAL is gone, with its tenant.
    fn write(&mut self, record: &Record) -> io::Result<bool> {
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        if !self.open.contains_key(&record.name) {
            let file = match OpenOptions::new().write(true).open(self.root.join(&record.name)) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                opened => Some(opened?),
            };
            self.open.insert(record.name.clone(), file);
        }
        let Some(Some(file)) = self.open.get(&record.name) else { return Ok(false) };
        match record.kind {
            Kind::Writes => {
                record.writes().try_for_each(|(offset, bytes)| file.write_all_at(bytes, offset))?
            }
            Kind::Emptied => file.set_len(0)?,
            Kind::OnDisk | Kind::Void => return Ok(false),
        }
        Ok(true)
    }
}
