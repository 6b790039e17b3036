//! Finding and building the programs and components that the benchmark runs.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::process::Command;

/// The folder of the checkout that this program was built from.
pub(crate) fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// A support file of the benchmark.
pub(crate) fn support(file: &str) -> PathBuf {
    repository().join("tests/bench").join(file)
}

/// A folder that vanishes at the end, on the file system of the target folder; all servers keep their data
/// in it.
pub(crate) fn scratch_folder() -> Result<TempDir> {
    let exe = env::current_exe()?;
    let target = exe.parent().and_then(Path::parent).context("the program lies in no target folder")?;
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(target)?)
}

/// Raises the soft limit on open files to the hard one: a run may hold thousands of connections.
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // What is missing then is told by the connection that fails.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The program named by the operator, or else the one on PATH.
pub(crate) fn find(named: Option<&Path>, name: &str) -> Option<PathBuf> {
    if let Some(path) = named {
        return path.is_file().then(|| path.to_owned());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The first line that `program --version` prints.
pub(crate) async fn version(program: &Path) -> String {
    first_line(program, ["--version"]).await.unwrap_or_else(|_| "version unknown".to_owned())
}

/// The first line that a command prints.
pub(crate) async fn first_line<I, S>(program: &Path, arguments: I) -> Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments).current_dir(repository()).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_owned()).context("it printed nothing")
}

/// The profile that this program was built with, by the folder that it lies in.
pub(crate) fn profile() -> Result<String> {
    let program = env::current_exe()?;
    let folder = program.parent().and_then(Path::file_name).and_then(OsStr::to_str);
    let optimised = folder.filter(|folder| *folder != "debug");
    optimised
        .map(str::to_owned)
        .context("this benchmark is not optimised: run it with cargo run --profile dist --bin bench")
}

/// The server beside this program. Under `cargo run` it is brought up to date first, by the same cargo, with the same
/// profile and with the features of the whole workspace, so that nothing is compiled twice and nothing stale is measured.
pub(crate) async fn dormouse() -> Result<PathBuf> {
    let program = env::current_exe()?.with_file_name("dormouse");
    let build = ["build", "--profile", &profile()?, "--bin", "dormouse"];
    if let Some(cargo) = env::var_os("CARGO") {
        let mut command = Command::new(cargo);
        command.args(build).current_dir(repository());
        if !command.kill_on_drop(true).status().await?.success() {
            bail!("cargo {} failed", build.join(" "));
        }
    }
    if !program.is_file() {
        bail!("there is no dormouse binary beside this program: cargo {}", build.join(" "));
    }
    Ok(program)
}

/// The component of a function's folder, built by `dormouse build`, which prints its path last.
pub(crate) async fn component(dormouse: &Path, folder: &str) -> Result<PathBuf> {
    let mut command = Command::new(dormouse);
    command.arg("build").arg(folder).current_dir(repository());
    command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("dormouse build {folder}: {}\n{text}", output.status);
    }
    let path = text.lines().last().map(|line| repository().join(line.trim()));
    path.filter(|path| path.is_file())
        .with_context(|| format!("dormouse build printed no component:\n{text}"))
}
