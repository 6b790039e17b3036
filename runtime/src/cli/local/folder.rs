//! The folder of a node: its data, and the log beside it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// How many lines of the node's log an error shows.
const LOG_LINES_SHOWN: usize = 10;

/// What becomes of what is in the folder already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Contents {
    /// It stays.
    Keep,
    /// It goes.
    Wipe,
}

/// A folder that no other node uses.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder when it is not there.
    pub(in crate::cli) fn prepare(path: &Path, contents: Contents) -> anyhow::Result<Self> {
        let path = std::path::absolute(path).with_context(|| format!("cannot use {}", path.display()))?;
        refuse_when_in_use(&path)?;
        if contents == Contents::Wipe && path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot wipe {}", path.display()))?;
        }
        // The log of a node is not for everyone on the machine.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self { path })
    }

    /// The folder.
    pub(in crate::cli) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder as the user would name it.
    pub(in crate::cli) fn shown(&self) -> String {
        shown_from_here(&self.path)
    }

    /// The node's admin token.
    pub(in crate::cli) fn token_file(&self) -> PathBuf {
        self.path.join("keys/admin.token")
    }

    /// The node's log.
    pub(in crate::cli) fn log(&self) -> PathBuf {
        self.path.join("node.log")
    }

    /// The end of the node's log, as the first lines of an error.
    pub(in crate::cli) fn last_log_lines(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default();
        if last.is_empty() {
            return format!("the node's log, {}, is empty", self.log().display());
        }
        let last: String = last.iter().map(|line| format!("\n  {line}")).collect();
        format!("the end of the node's log, {}:{last}\nthe cause", self.log().display())
    }
}

/// A path relative to the current directory when it lies below it.
pub(in crate::cli) fn shown_from_here(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| Some(path.strip_prefix(here).ok()?.to_owned()));
    below.map_or_else(|| path.display().to_string(), |below| format!("./{}", below.display()))
}

/// Wiping the folder of a running node would take its data away under it.
fn refuse_when_in_use(path: &Path) -> anyhow::Result<()> {
    let Ok(lock) = File::open(path.join("lock")) else { return Ok(()) };
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => {
            bail!("another node runs in {}: stop it first", path.display())
        }
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_kept_or_wiped() -> anyhow::Result<()> {
        let place = tempfile::tempdir()?;
        let own = Folder::prepare(&place.path().join("node"), Contents::Keep)?;
        let left = own.path().join("left");
        fs::write(&left, "")?;
        Folder::prepare(own.path(), Contents::Keep)?;
        assert!(left.exists());
        Folder::prepare(own.path(), Contents::Wipe)?;
        assert!(!left.exists() && own.path().is_dir());
        Ok(())
    }

    #[test]
    fn the_folder_of_a_running_node_is_left_alone() -> anyhow::Result<()> {
        let place = tempfile::tempdir()?;
        let folder = Folder::prepare(place.path(), Contents::Keep)?;
        let lock = File::create(folder.path().join("lock"))?;
        lock.lock()?;
        assert!(Folder::prepare(place.path(), Contents::Wipe).is_err());
        drop(lock);
        assert!(Folder::prepare(place.path(), Contents::Wipe).is_ok());
        Ok(())
    }

    #[test]
    fn an_error_ends_with_the_last_lines_of_the_log() -> anyhow::Result<()> {
        let place = tempfile::tempdir()?;
        let folder = Folder::prepare(place.path(), Contents::Keep)?;
        assert!(folder.last_log_lines().contains("is empty"));
        let log: String = (1..=12).map(|line| format!("line {line}\n")).collect();
        fs::write(folder.log(), log)?;
        let told = folder.last_log_lines();
        assert!(
            told.contains("line 3\n") && told.contains("line 12\n") && !told.contains("line 2\n"),
            "{told}"
        );
        Ok(())
    }
}
