//! Programs of Debian's that tests attack a node with.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::geteuid;

/// Where a program is. One that is missing is installed, if this is root on Debian; otherwise the test that needs it says
/// that it was skipped, and there is none.
///
/// # Errors
/// When `PATH` is not set.
pub fn program(name: &str, package: &str) -> Result<Option<PathBuf>> {
    if let Some(found) = find(name)? {
        return Ok(Some(found));
    }
    if geteuid().is_root() && find("apt-get")?.is_some() {
        let install = "apt-get -qq update && apt-get -qq install -y --no-install-recommends \"$0\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", install, package]).env("DEBIAN_FRONTEND", "noninteractive");
        // Whatever it says: what counts is whether the program is there.
        let _ = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
    let found = find(name)?;
    if found.is_none() {
        println!("skipped: a test that needs {name}, of Debian's package {package}");
    }
    Ok(found)
}

fn find(name: &str) -> Result<Option<PathBuf>> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    Ok(std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| Path::is_file(file)))
}
