//! Watching files: a wait that ends when something has changed, by the kernel's inotify (`man 7 inotify`).
//!
//! What has changed is not told. The caller looks for itself, so that a lost or a doubled event does no harm.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

/// A change is over when nothing else has changed for so long: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(30);

/// Space for some hundred events at once.
const BUFFER_BYTES: usize = 16 << 10;

/// Watched folders and files.
pub(super) struct Watch {
    /// No pipe, but read like one.
    inotify: Receiver,
    known: BTreeSet<i32>,
}

impl Watch {
    /// Watches nothing yet.
    pub(super) fn new() -> anyhow::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC);
        let inotify = inotify.map_err(io::Error::from).and_then(Receiver::from_owned_fd_unchecked);
        Ok(Self { inotify: inotify.context("cannot watch files")?, known: BTreeSet::new() })
    }

    /// Watches a file, or what is directly in a folder. Tells whether it was not watched before; what is not there
    /// is passed over.
    pub(super) fn add(&mut self, path: &Path) -> anyhow::Result<bool> {
        let changes = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO;
        match inotify::add_watch(&self.inotify, path, changes) {
            Ok(number) => Ok(self.known.insert(number)),
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::NOSPC) => Err(anyhow::anyhow!(
                "cannot watch {}: too much is watched already; name less in `watch`, or raise \
                 fs.inotify.max_user_watches (sysctl)",
                path.display()
            )),
            Err(error) => Err(error).with_context(|| format!("cannot watch {}", path.display())),
        }
    }

    /// Waits for a change.
    pub(super) async fn changed(&self) -> anyhow::Result<()> {
        let mut events = [0; BUFFER_BYTES];
        loop {
            self.inotify.readable().await?;
            match self.inotify.try_read(&mut events) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop).context("cannot watch files"),
            }
        }
    }

    /// Waits for a change, and until it is over.
    pub(super) async fn settled(&self) -> anyhow::Result<()> {
        self.changed().await?;
        while let Ok(again) = timeout(QUIET, self.changed()).await {
            again?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_ends_the_wait_and_nothing_else_does() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut watch = Watch::new()?;
        assert!(watch.add(folder.path())?);
        assert!(!watch.add(folder.path())?, "it is watched already");
        assert!(!watch.add(&folder.path().join("nothing"))?);
        assert!(timeout(Duration::ZERO, watch.changed()).await.is_err());
        std::fs::write(folder.path().join("file"), "x")?;
        watch.settled().await?;
        assert!(timeout(Duration::ZERO, watch.changed()).await.is_err());
        Ok(())
    }
}
