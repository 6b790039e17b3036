//! The folder of a backup: files that are written once, and the manifest that names those which count.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::manifest::{FileEntry, Manifest};
use super::{BackupError, at};
use crate::catalog;
use crate::name::hex;

const MANIFEST: &str = "backup.json";

const LOCK: &str = "lock";

/// The folders of a backup, itself included.
const FOLDERS: &[&str] = &["", "databases", "components", "keys"];

/// The start of the name of a file that is not whole.
const UNFINISHED: &str = ".unfinished-";

/// Digits of the hash in the name of a file.
const DIGITS: usize = 16;

/// What a fresh file system has in its root.
pub const LOST_AND_FOUND: &str = "lost+found";

/// A backup's folder, locked.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// A file that is being written, and hashed as it is.
pub struct Unfinished {
    file: NamedTempFile,
    hash: Sha256,
    bytes: u64,
}

impl Write for Unfinished {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let written = self.file.write(part)?;
        self.hash.update(part.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Folder {
    /// The folder at a path; it is made when it is missing.
    ///
    /// # Errors
    /// When it cannot be made, is in use, or holds something else than a backup.
    pub fn make(path: &Path) -> Result<Self, BackupError> {
        if !path.join(MANIFEST).is_file() {
            refuse_foreign(path)?;
        }
        for folder in FOLDERS {
            let folder = path.join(folder);
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(at(&folder))?;
        }
        Self::lock(path)
    }

    /// The folder of a backup that is there.
    ///
    /// # Errors
    /// When there is none, or it is in use.
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        if !path.join(MANIFEST).is_file() {
            return Err(BackupError::NoBackup(path.to_owned()));
        }
        Self::lock(path)
    }

    fn lock(path: &Path) -> Result<Self, BackupError> {
        let name = path.join(LOCK);
        let lock = File::create(&name).map_err(at(&name))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(BackupError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(at(&name)(error)),
        }
    }

    /// The path of a file of the backup.
    #[must_use]
    pub fn path_of(&self, entry: &FileEntry) -> PathBuf {
        self.path.join(&entry.file)
    }

    /// The manifest of the latest whole backup.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn manifest(&self) -> Result<Option<Manifest>, BackupError> {
        let path = self.path.join(MANIFEST);
        let json = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(at(&path))?,
        };
        Manifest::read(&json).map(Some).map_err(|reason| BackupError::Damaged { path, reason })
    }

    /// Whether a file is there, as far as its size tells.
    #[must_use]
    pub fn has(&self, entry: &FileEntry) -> bool {
        let metadata = self.path_of(entry).metadata();
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == entry.bytes)
    }

    /// A file to write.
    ///
    /// # Errors
    /// When none can be made.
    pub fn begin(&self) -> Result<Unfinished, BackupError> {
        let file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.path);
        Ok(Unfinished { file: file.map_err(at(&self.path))?, hash: Sha256::new(), bytes: 0 })
    }

    /// Gives a written file a name, for which it tells its hash. One that is there stays, unless it is
    /// damaged.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn keep(
        &self,
        written: Unfinished,
        name: impl FnOnce(&str) -> String,
    ) -> Result<FileEntry, BackupError> {
        let sha256 = hex(&written.hash.finalize());
        let entry = FileEntry { file: name(&sha256), sha256, bytes: written.bytes };
        if self.has(&entry) && self.read(&entry, &mut io::sink()).is_ok() {
            return Ok(entry);
        }
        let path = self.path_of(&entry);
        written.file.persist(&path).map_err(|error| at(&path)(error.error))?;
        Ok(entry)
    }

    /// Puts everything on disk, and then the manifest: from now on this is the backup.
    ///
    /// # Errors
    /// When something cannot be written; the backup before is the one that counts then.
    pub fn commit(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let path = self.path.join(MANIFEST);
        let write = || {
            let folder = File::open(&self.path)?;
            // For thousands of small files this costs less than a flush of each.
            rustix::fs::syncfs(&folder)?;
            let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.path)?;
            serde_json::to_writer_pretty(&mut file, manifest)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            folder.sync_all()
        };
        write().map_err(at(&path))
    }

    /// Removes what the manifest does not name, of all that backups write.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn prune(&self, manifest: Option<&Manifest>) -> Result<(), BackupError> {
        let files = manifest.into_iter().flat_map(Manifest::files);
        let named: HashSet<PathBuf> = files.map(|entry| self.path_of(entry)).collect();
        for name in FOLDERS {
            let folder = self.path.join(name);
            for entry in std::fs::read_dir(&folder).map_err(at(&folder))? {
                let path = entry.map_err(at(&folder))?.path();
                if is_own(name, &path) && path.is_file() && !named.contains(&path) {
                    std::fs::remove_file(&path).map_err(at(&path))?;
                }
            }
        }
        Ok(())
    }

    /// Reads a whole file of the backup to `target`.
    ///
    /// # Errors
    /// When it is not what the manifest says.
    pub fn read(&self, entry: &FileEntry, target: &mut impl Write) -> Result<(), BackupError> {
        let path = self.path_of(entry);
        let mut file = File::open(&path).map_err(at(&path))?;
        let (sha256, bytes) = copy(&mut file, target).map_err(at(&path))?;
        if sha256 != entry.sha256 || bytes != entry.bytes {
            let reason = "it is not the file that was written: its size or its SHA-256 is another".to_owned();
            return Err(BackupError::Damaged { path, reason });
        }
        Ok(())
    }
}

/// Refuses a folder in which there is something that no backup has put there, if only one that was interrupted.
fn refuse_foreign(path: &Path) -> Result<(), BackupError> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(at(path))?,
    };
    let expected = |name: &str| name == LOCK || name == LOST_AND_FOUND || FOLDERS.contains(&name);
    for entry in entries {
        let found = entry.map_err(at(path))?.path();
        let is_expected = found.file_name().and_then(OsStr::to_str).is_some_and(expected);
        if !is_expected && !is_own("", &found) {
            return Err(BackupError::Foreign { folder: path.to_owned(), found });
        }
    }
    Ok(())
}

/// Whether a file has a name that a backup gives, in one of its folders.
fn is_own(folder: &str, path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return false };
    match folder {
        "databases" => name.strip_suffix(".db").is_some_and(ends_in_digits),
        "components" => name.strip_suffix(".wasm").is_some_and(|name| catalog::Digest::parse(name).is_some()),
        "keys" => ends_in_digits(name),
        _ => {
            let control = name.strip_suffix(".db").filter(|name| name.starts_with("control-"));
            name.starts_with(UNFINISHED) || control.is_some_and(ends_in_digits)
        }
    }
}

fn ends_in_digits(name: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.rsplit_once('-').is_some_and(|(_, end)| end.len() == DIGITS && end.bytes().all(is_digit))
}

/// The part of a file's hash that stands in its name.
#[must_use]
pub fn short(sha256: &str) -> &str {
    sha256.get(..DIGITS).unwrap_or(sha256)
}

/// Copies all bytes, and tells their SHA-256 and their number.
///
/// # Errors
/// When they cannot be read or written.
pub fn copy(source: &mut impl Read, target: &mut impl Write) -> io::Result<(String, u64)> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = source.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            return Ok((hex(&hash.finalize()), bytes));
        };
        hash.update(part);
        target.write_all(part)?;
        bytes += read as u64;
    }
}
