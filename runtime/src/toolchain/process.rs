//! Running other programs: a clean environment, captured output, a time limit.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::ToolchainError;

/// How many lines of a failed program's output an error repeats.
const LAST_LINES_MAX: usize = 15;

/// How much of a failed program's output is looked at for those lines.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// How often a running program is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Variables that cargo and clippy set for their children, and flags that would override a target's own.
const SCRUBBED: [&str; 22] = [
    "CARGO",
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_TMPDIR",
    "CLIPPY_ARGS",
    "DEBUG",
    "HOST",
    "MAKEFLAGS",
    "MFLAGS",
    "NUM_JOBS",
    "OPT_LEVEL",
    "OUT_DIR",
    "PROFILE",
    "RUSTC",
    "RUSTC_LINKER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "TARGET",
];

/// The families of such variables.
const SCRUBBED_PREFIXES: [&str; 6] =
    ["CARGO_BIN_EXE_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_MANIFEST_", "CARGO_PKG_", "RUST_RECURSION_"];

/// Whether a nested cargo must not see this variable. `RUSTUP_TOOLCHAIN` is kept on purpose: it makes the
/// nested cargo use the toolchain of the outer one.
fn is_scrubbed(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    SCRUBBED.contains(&name) || SCRUBBED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A command in `folder`, without input and without an outer cargo's variables.
pub(super) fn clean_command(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_scrubbed(name)) {
        command.env_remove(name);
    }
    command
}

/// The command line as an error shows it.
pub(super) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a short command and gives what it wrote to its standard output.
pub(super) fn output(command: &mut Command) -> Result<String, ToolchainError> {
    let made = command.output().map_err(|e| start_error(command, e))?;
    if made.status.success() {
        return Ok(String::from_utf8_lossy(&made.stdout).into_owned());
    }
    Err(failed(command, made.status, &String::from_utf8_lossy(&made.stderr)))
}

/// Runs a command whose standard output is piped, without a time limit.
pub(super) fn capture(command: &mut Command) -> Result<Output, ToolchainError> {
    let ran = command.spawn().and_then(Child::wait_with_output);
    ran.map_err(|e| start_error(command, e))
}

/// Runs a command to its end, or stops it after `limit`. What it writes is kept for the error only.
pub(super) fn run_within(command: &mut Command, limit: Duration) -> Result<(), ToolchainError> {
    let mut log = tempfile::tempfile().map_err(|e| start_error(command, e))?;
    let (out, err) = (log.try_clone(), log.try_clone());
    command.stdout(out.map_err(|e| start_error(command, e))?);
    command.stderr(err.map_err(|e| start_error(command, e))?);
    let mut child = command.spawn().map_err(|e| start_error(command, e))?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(|e| start_error(command, e))? {
            return if status.success() { Ok(()) } else { Err(failed(command, status, &tail(&mut log))) };
        }
        if started.elapsed() >= limit {
            // Both fail only for a child that is gone already.
            let _ = child.kill();
            let _ = child.wait();
            let last_lines = last_lines(&tail(&mut log));
            return Err(ToolchainError::TooLong {
                command: shown(command),
                seconds: limit.as_secs(),
                last_lines,
            });
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// An error for a program that could not be started.
pub(super) fn start_error(command: &Command, source: std::io::Error) -> ToolchainError {
    ToolchainError::Start { command: shown(command), source }
}

/// An error for a program that ended badly after it wrote `output`.
fn failed(command: &Command, status: ExitStatus, output: &str) -> ToolchainError {
    ToolchainError::Failed { command: shown(command), status, last_lines: last_lines(output) }
}

/// The end of a log. An unreadable log gives no lines: the failure it belongs to matters more.
fn tail(log: &mut File) -> String {
    let mut bytes = Vec::new();
    let length = log.metadata().map_or(0, |metadata| metadata.len());
    let from = std::io::SeekFrom::Start(length.saturating_sub(OUTPUT_BYTES_MAX));
    if log.seek(from).is_ok() {
        let _ = log.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.get(lines.len().saturating_sub(LAST_LINES_MAX)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::error::words_of;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn an_outer_cargos_variables_are_scrubbed() {
        for name in
            ["CARGO", "RUSTFLAGS", "CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "RUST_RECURSION_COUNT", "RUSTC"]
        {
            assert!(is_scrubbed(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_users_settings_are_kept() {
        for name in
            ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_REGISTRIES_OURS_TOKEN", "CARGO_NET_OFFLINE", "PATH"]
        {
            assert!(!is_scrubbed(OsStr::new(name)), "{name}");
        }
        for name in
            ["RUSTUP_TOOLCHAIN", "RUSTUP_HOME", "RUSTC_WRAPPER", "CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS"]
        {
            assert!(!is_scrubbed(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn a_command_leaves_out_what_this_test_got_from_cargo() {
        let command = clean_command("cargo", Path::new("/"));
        let removed = |name: &str| command.get_envs().any(|(n, v)| n == OsStr::new(name) && v.is_none());
        assert!(removed("CARGO_MANIFEST_DIR"));
        assert!(removed("CARGO_PKG_NAME"));
        assert!(!removed("PATH"));
    }

    #[test]
    fn an_error_repeats_the_last_lines_only() {
        let output: String = (0..40).map(|n| format!("line {n}\n\n")).collect();
        let shown = last_lines(&output);
        assert!(shown.starts_with("line 25\n") && shown.ends_with("line 39"), "{shown}");
    }

    #[test]
    fn a_failure_names_the_command_and_its_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo second >&2; exit 3"]);
        let error = words_of(run_within(&mut command, LIMIT));
        assert!(error.contains("`sh -c echo first"), "{error}");
        assert!(error.contains("exit status: 3") && error.ends_with("first\nsecond"), "{error}");
    }

    #[test]
    fn a_slow_program_is_stopped() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; exec sleep 60"]);
        let error = words_of(run_within(&mut command, Duration::from_millis(300)));
        assert!(error.contains("was stopped after") && error.ends_with("begun"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = words_of(run_within(&mut Command::new("no-such-program"), LIMIT));
        assert!(error.starts_with("cannot start `no-such-program`"), "{error}");
    }
}
