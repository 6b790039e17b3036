//! A node of one's own: this program's `serve` as a child process, in a folder of its own.
//!
//! `demo` and `dev` use one. They are clients of it like any other, so that what they show is what production does.

mod folder;
mod server;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) use folder::{Contents, Folder, shown_from_here};
pub(super) use server::{BASE_DOMAIN, Doors, PUBLIC_PREFERRED, Server, free_or_any};

/// Ctrl-C, or a request to end from whoever started this process.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// From here on, neither ends this process by itself.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for either.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
