//! A disk that keeps what it was told to keep, and of the rest what chance lets it keep.
//!
//! The model is what POSIX promises and no more. A file holds what was written to it before its last sync began; each
//! later write and truncation may be there or not, independently of the others, and a write may be torn at any sector. A
//! name holds once its folder was synced; of later changes in one folder those up to some moment are there. Syncing a
//! file does not sync its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::trace::Change;

/// What is written whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A disk with a folder on it, at a moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    files: Vec<File>,
    /// The names as the process sees them.
    seen: Names,
    /// The names that are sure to be there.
    kept: Names,
    pending: Vec<(usize, NameChange)>,
    changes: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    files: BTreeMap<PathBuf, usize>,
    folders: BTreeSet<PathBuf>,
}

#[derive(Debug, Clone)]
struct File {
    kept: Vec<u8>,
    pending: Vec<(usize, Edit)>,
}

#[derive(Debug, Clone)]
enum Edit {
    Cut(u64),
    Write(u64, Vec<u8>),
}

#[derive(Debug, Clone)]
enum NameChange {
    Add(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    AddFolder(PathBuf),
    RemoveFolder(PathBuf),
}

/// How much of what was not synced is there after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    Everything,
    Some,
    SomeTorn,
}

impl Disk {
    /// A folder as it is, all of it synced.
    pub(super) fn holding(folder: &Path) -> Result<Self> {
        let mut disk = Self::default();
        disk.take_in(folder, Path::new(""))?;
        disk.seen = disk.kept.clone();
        Ok(disk)
    }

    fn take_in(&mut self, root: &Path, below: &Path) -> Result<()> {
        for entry in fs::read_dir(root.join(below))? {
            let entry = entry?;
            let name = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.kept.folders.insert(name.clone());
                self.take_in(root, &name)?;
            } else {
                self.kept.files.insert(name, self.files.len());
                self.files.push(File { kept: fs::read(entry.path())?, pending: Vec::new() });
            }
        }
        Ok(())
    }

    /// Makes a change. Unless `heeds_syncs`, the disk lies: it says that it has synced and has not.
    pub(super) fn make(&mut self, change: &Change, heeds_syncs: bool) -> Result<()> {
        let number = self.changes;
        self.changes += 1;
        let names = match change {
            Change::Write(path, offset, data) => return self.edit(path, Edit::Write(*offset, data.clone())),
            Change::Cut(path, length) => return self.edit(path, Edit::Cut(*length)),
            Change::Sync(path, before) => {
                if heeds_syncs {
                    self.sync(path, *before);
                }
                return Ok(());
            }
            Change::SyncAll(before) => {
                if heeds_syncs {
                    self.sync_all(*before);
                }
                return Ok(());
            }
            Change::Create(path) => {
                self.files.push(File { kept: Vec::new(), pending: Vec::new() });
                NameChange::Add(path.clone(), self.files.len() - 1)
            }
            Change::Rename(from, to) => NameChange::Rename(from.clone(), to.clone()),
            Change::Unlink(path) => NameChange::Remove(path.clone()),
            Change::MakeFolder(path) => NameChange::AddFolder(path.clone()),
            Change::RemoveFolder(path) => NameChange::RemoveFolder(path.clone()),
        };
        self.seen.change(&names);
        self.pending.push((number, names));
        Ok(())
    }

    fn edit(&mut self, path: &Path, edit: Edit) -> Result<()> {
        // A file that was unlinked while it was open.
        let Some(number) = self.seen.files.get(path) else { return Ok(()) };
        let file = self.files.get_mut(*number).context("no such file")?;
        file.pending.push((self.changes - 1, edit));
        Ok(())
    }

    fn sync(&mut self, path: &Path, before: usize) {
        if let Some(file) = self.seen.files.get(path).and_then(|number| self.files.get_mut(*number)) {
            return file.sync(before);
        }
        let Self { pending, kept, .. } = self;
        let is_kept =
            |(number, change): &mut (usize, NameChange)| *number < before && change.folder() == Some(path);
        pending.extract_if(.., is_kept).for_each(|(_, change)| kept.change(&change));
    }

    fn sync_all(&mut self, before: usize) {
        self.files.iter_mut().for_each(|file| file.sync(before));
        let Self { pending, kept, .. } = self;
        pending.extract_if(.., |(number, _)| *number < before).for_each(|(_, change)| kept.change(&change));
    }

    /// The disk after a power cut: what chance leaves of it.
    pub(super) fn after_power_loss(&self, random: &mut fastrand::Rng) -> Contents {
        let how = match random.u8(0..8) {
            0 => Kept::Nothing,
            1 => Kept::Everything,
            2..=4 => Kept::Some,
            _ => Kept::SomeTorn,
        };
        let mut names = self.kept.clone();
        let folders: BTreeSet<_> = self.pending.iter().filter_map(|(_, change)| change.folder()).collect();
        for folder in folders {
            let here = self.pending.iter().filter(|(_, change)| change.folder() == Some(folder));
            let count = match how {
                Kept::Nothing => 0,
                Kept::Everything => usize::MAX,
                Kept::Some | Kept::SomeTorn => random.usize(0..=here.clone().count()),
            };
            here.take(count).for_each(|(_, change)| names.change(change));
        }
        self.contents(names, &mut |edit, bytes| match how {
            Kept::Nothing => {}
            Kept::Everything => edit.apply(bytes, &mut |_| true),
            Kept::Some if random.bool() => edit.apply(bytes, &mut |_| true),
            Kept::SomeTorn => match random.u8(0..3) {
                0 => {}
                1 => edit.apply(bytes, &mut |_| true),
                _ => edit.apply(bytes, &mut |_| random.bool()),
            },
            Kept::Some => {}
        })
    }

    /// Everything as the process saw it.
    pub(super) fn as_seen(&self) -> Contents {
        self.contents(self.seen.clone(), &mut |edit, bytes| edit.apply(bytes, &mut |_| true))
    }

    fn contents(&self, mut names: Names, apply: &mut dyn FnMut(&Edit, &mut Vec<u8>)) -> Contents {
        names.forget_unreachable();
        let file = |(path, number): (PathBuf, usize)| {
            let file = self.files.get(number)?;
            let mut bytes = file.kept.clone();
            file.pending.iter().for_each(|(_, edit)| apply(edit, &mut bytes));
            Some((path, bytes))
        };
        Contents { files: names.files.into_iter().filter_map(file).collect(), folders: names.folders }
    }
}

impl File {
    /// Keeps what was done to it before a change.
    fn sync(&mut self, before: usize) {
        let done: Vec<_> = self.pending.extract_if(.., |(number, _)| *number < before).collect();
        done.iter().for_each(|(_, edit)| edit.apply(&mut self.kept, &mut |_| true));
    }
}

impl Names {
    fn change(&mut self, change: &NameChange) {
        match change {
            NameChange::Add(path, file) => {
                self.files.insert(path.clone(), *file);
            }
            NameChange::Rename(from, to) => {
                if let Some(file) = self.files.remove(from) {
                    self.files.insert(to.clone(), file);
                }
            }
            NameChange::Remove(path) => {
                self.files.remove(path);
            }
            NameChange::AddFolder(path) => {
                self.folders.insert(path.clone());
            }
            NameChange::RemoveFolder(path) => {
                self.folders.remove(path);
            }
        }
    }

    /// Forgets what lies in a folder that is not there.
    fn forget_unreachable(&mut self) {
        let folders = self.folders.clone();
        let is_there = |path: &Path| {
            path.ancestors().skip(1).all(|folder| folder.as_os_str().is_empty() || folders.contains(folder))
        };
        self.folders.retain(|path| is_there(path));
        self.files.retain(|path, _| is_there(path));
    }
}

impl NameChange {
    /// The folder whose sync keeps it.
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Add(path, _)
            | Self::Rename(_, path)
            | Self::Remove(path)
            | Self::AddFolder(path)
            | Self::RemoveFolder(path) => path.parent(),
        }
    }
}

impl Edit {
    /// Applies it, a write only in the sectors that `keeps` says.
    fn apply(&self, bytes: &mut Vec<u8>, keeps: &mut dyn FnMut(usize) -> bool) {
        match self {
            Self::Cut(length) => bytes.resize(usize::try_from(*length).unwrap_or(usize::MAX), 0),
            Self::Write(offset, data) => {
                let start = usize::try_from(*offset).unwrap_or(usize::MAX);
                let mut from = 0;
                while from < data.len() {
                    let sector = (start + from) / SECTOR_BYTES;
                    let to = ((sector + 1) * SECTOR_BYTES - start).min(data.len());
                    if keeps(sector) {
                        if bytes.len() < start + to {
                            bytes.resize(start + to, 0);
                        }
                        if let (Some(place), Some(part)) =
                            (bytes.get_mut(start + from..start + to), data.get(from..to))
                        {
                            place.copy_from_slice(part);
                        }
                    }
                    from = to;
                }
            }
        }
    }
}

/// What is in a folder.
#[derive(Debug)]
pub(super) struct Contents {
    files: BTreeMap<PathBuf, Vec<u8>>,
    folders: BTreeSet<PathBuf>,
}

impl Contents {
    /// Writes it to a folder that is made for it.
    pub(super) fn write_to(&self, folder: &Path) -> Result<()> {
        fs::create_dir(folder)?;
        self.folders.iter().try_for_each(|path| fs::create_dir(folder.join(path)))?;
        for (path, bytes) in &self.files {
            // Keys are for their owner only.
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(path))?;
            file.write_all(bytes)?;
        }
        Ok(())
    }

    /// Whether a folder holds just this: that the trace has missed nothing. The kill may have come between a change and its
    /// record, so that one call may be missing, of which nobody has heard: it is of one name, or of the two of a rename.
    pub(super) fn ensure_same(&self, folder: &Path) -> Result<()> {
        const NAMES_OF_A_CALL: usize = 2;
        let there = Disk::holding(folder)?.as_seen();
        let folders = self.folders.symmetric_difference(&there.folders);
        let names = self.files.keys().chain(there.files.keys()).collect::<BTreeSet<_>>();
        let files = names.into_iter().filter(|name| self.files.get(*name) != there.files.get(*name));
        let others = folders.chain(files).collect::<Vec<_>>();
        ensure!(others.len() <= NAMES_OF_A_CALL, "these are other than the trace has them: {others:?}");
        Ok(())
    }
}
