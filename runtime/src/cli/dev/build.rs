//! One build that can be given up: whatever it has started ends with it.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Output;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use crate::toolchain::Recipe;

/// Follows a recipe. Dropping the future ends the compiler.
pub(super) async fn follow(recipe: &Recipe) -> anyhow::Result<PathBuf> {
    let Some(mut command) = recipe.command() else { return Ok(recipe.component(None)?) };
    command.process_group(0);
    let mut command = Command::from(command);
    let child = command.kill_on_drop(true).spawn().context("cannot start the build")?;
    let group = Group::of(child.id());
    let ended: Output = child.wait_with_output().await.context("cannot wait for the build")?;
    group.has_ended();
    Ok(recipe.component(Some(&ended))?)
}

/// The processes of a build. They are told to end when this value drops.
struct Group(Option<Pid>);

impl Group {
    /// The group that a process leads, which has not been waited for.
    fn of(leader: Option<u32>) -> Self {
        Self(leader.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It fails only when there is none left.
            let _ = kill_process_group(leader, Signal::TERM);
        }
    }
}
