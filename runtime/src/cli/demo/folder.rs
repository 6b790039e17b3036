//! The folder of a demo's node: its data, and the log beside it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Where the demo keeps its node, from the root of the checkout.
const DEFAULT: &str = ".dormouse/demo";

/// How many lines of the node's log a failed demo shows.
const LOG_LINES_SHOWN: usize = 10;

/// A folder that no other node uses, for one demo.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder that the user named, as it is; without one the demo's own, wiped.
    pub(super) fn prepare(named: Option<&Path>, checkout: &Path) -> anyhow::Result<Self> {
        let path = match named {
            Some(path) => {
                std::path::absolute(path).with_context(|| format!("cannot use {}", path.display()))?
            }
            None => checkout.join(DEFAULT),
        };
        refuse_when_in_use(&path)?;
        if named.is_none() && path.exists() {
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
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder as the user would name it.
    pub(super) fn shown(&self) -> String {
        shown_from_here(&self.path)
    }

    /// The node's admin token.
    pub(super) fn token_file(&self) -> PathBuf {
        self.path.join("keys/admin.token")
    }

    /// The node's log.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("demo.log")
    }

    /// The end of the node's log, as the first lines of an error.
    pub(super) fn last_log_lines(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default();
        if last.is_empty() {
            return format!("the demo failed; the node's log, {}, is empty", self.log().display());
        }
        let last: String = last.iter().map(|line| format!("\n  {line}")).collect();
        format!("the demo failed; the end of the node's log, {}:{last}\nthe cause", self.log().display())
    }
}

/// A path relative to the current directory when it lies below it.
pub(super) fn shown_from_here(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| Some(path.strip_prefix(here).ok()?.to_owned()));
    below.map_or_else(|| path.display().to_string(), |below| format!("./{}", below.display()))
}

/// Wiping the folder of a running node would take its data away under it.
fn refuse_when_in_use(path: &Path) -> anyhow::Result<()> {
    let Ok(lock) = File::open(path.join("lock")) else { return Ok(()) };
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => {
            bail!("another node runs in {}: stop it, or give this demo a folder with --data", path.display())
        }
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_folder_is_wiped_and_a_named_one_is_kept() -> anyhow::Result<()> {
        let checkout = tempfile::tempdir()?;
        let own = Folder::prepare(None, checkout.path())?;
        let left = own.path().join("left");
        fs::write(&left, "")?;
        Folder::prepare(Some(own.path()), checkout.path())?;
        assert!(left.exists());
        Folder::prepare(None, checkout.path())?;
        assert!(!left.exists() && own.path().is_dir());
        Ok(())
    }

    #[test]
    fn the_folder_of_a_running_node_is_left_alone() -> anyhow::Result<()> {
        let checkout = tempfile::tempdir()?;
        let folder = Folder::prepare(None, checkout.path())?;
        let lock = File::create(folder.path().join("lock"))?;
        lock.lock()?;
        assert!(Folder::prepare(None, checkout.path()).is_err());
        drop(lock);
        assert!(Folder::prepare(None, checkout.path()).is_ok());
        Ok(())
    }

    #[test]
    fn an_error_ends_with_the_last_lines_of_the_log() -> anyhow::Result<()> {
        let checkout = tempfile::tempdir()?;
        let folder = Folder::prepare(None, checkout.path())?;
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
