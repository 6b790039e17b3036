//! The toolchain room: what a machine needs to compile functions, found or set up on first use.
//!
//! A function is compiled for `wasm32-wasip2`, and that needs a standard library for exactly the `rustc` that
//! compiles it. [`ensure_wasm_target`] looks for one in this order and stops at the first that is there:
//!
//! 1. `rustc`'s own sysroot, where `rustup target add` or a distribution put it;
//! 2. a private sysroot that Dormouse made earlier, in the user's cache folder;
//! 3. `rustup target add wasm32-wasip2`, where rustup's server answers;
//! 4. a rebuild from Debian's source packages into that private sysroot ([`sysroot`]).
//!
//! A [`Recipe`] then is how one function becomes a component, by cargo or by a command of its project;
//! [`build_many`] compiles several packages of a workspace at once.
//!
//! This room owns the cache folder and the lock in it. It changes nothing else on the machine, never compiles
//! for the host, and is no part of a request's life: only the command line and the tests call it.

mod build;
mod error;
mod process;
mod recipe;
mod sysroot;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub use build::{Built, build_many};
pub use error::ToolchainError;
pub use recipe::Recipe;

/// The only target that functions are compiled for.
pub const WASM_TARGET: &str = "wasm32-wasip2";

/// How long `rustup target add` may take, in all. A good connection needs under 20 seconds.
const RUSTUP_TIME_MAX: Duration = Duration::from_secs(120);

/// Where a step tells the user what it is about to do.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// Proof that functions can be compiled, and how: get one from [`ensure_wasm_target`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WasmTarget {
    library: Library,
}

/// Where the standard library for [`WASM_TARGET`] lies.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Library {
    /// In `rustc`'s own sysroot, or in one that the user's environment already names.
    Installed,
    /// In a sysroot of Dormouse's own, which cargo has to be told of.
    Private(PathBuf),
}

impl WasmTarget {
    /// A `cargo` command for `folder` that finds the standard library.
    ///
    /// What an outer `cargo run` or `cargo test` left in the environment is taken out; `RUSTUP_TOOLCHAIN` and
    /// the user's own settings (`CARGO_HOME`, registries, `CARGO_TARGET_DIR`) stay.
    #[must_use]
    pub fn cargo(&self, folder: &Path) -> Command {
        let mut command = process::clean_command("cargo", folder);
        if let Library::Private(sysroot) = &self.library {
            // An argument, not `CARGO_TARGET_…_RUSTFLAGS`: that is split at spaces, which a path may contain.
            let flags = serde_json::json!([format!("--sysroot={}", sysroot.display())]);
            command.arg("--config").arg(format!("target.{WASM_TARGET}.rustflags={flags}"));
        }
        command
    }

    /// The sysroot that Dormouse made, or `None` where `rustc` needs no telling.
    #[must_use]
    pub fn private_sysroot(&self) -> Option<&Path> {
        match &self.library {
            Library::Installed => None,
            Library::Private(sysroot) => Some(sysroot),
        }
    }
}

/// Finds or makes a standard library for [`WASM_TARGET`], for the `rustc` that is active in `folder`.
///
/// The first call on a machine may download and compile for about a minute; later ones take milliseconds.
/// Several processes may call it at once: one works, the others wait for it.
///
/// # Errors
///
/// When there is no `rustc`, or when neither rustup nor the rebuild could provide the library; the error then
/// tells why for both.
pub fn ensure_wasm_target(folder: &Path, progress: Progress<'_>) -> Result<WasmTarget, ToolchainError> {
    if !folder.is_dir() {
        return Err(ToolchainError::NoManifest(folder.to_owned()));
    }
    let rustc = Rustc::active_in(folder)?;
    if rustc.has_wasm_library() || environment_names_sysroot() {
        return Ok(WasmTarget { library: Library::Installed });
    }
    let cache = cache_folder()?;
    let private = cache.join(rustc.cache_name());
    if sysroot::is_complete(&private, &rustc) {
        return Ok(WasmTarget { library: Library::Private(private) });
    }
    fs::create_dir_all(&cache).map_err(|e| ToolchainError::io("make the folder", &cache, e))?;
    let _held = lock(&cache.join("lock"), progress)?;
    // Another process may have finished while this one waited.
    if rustc.has_wasm_library() {
        return Ok(WasmTarget { library: Library::Installed });
    }
    if sysroot::is_complete(&private, &rustc) {
        return Ok(WasmTarget { library: Library::Private(private) });
    }
    let Err(rustup) = rustup_target_add(folder, &rustc, progress) else {
        return Ok(WasmTarget { library: Library::Installed });
    };
    progress("rustup could not add it; rebuilding the standard library from Debian's sources");
    sysroot::make(&cache, &private, &rustc, progress)
        .map_err(|rebuild| ToolchainError::NoTarget { rustup, rebuild: Box::new(rebuild) })?;
    Ok(WasmTarget { library: Library::Private(private) })
}

/// The compiler that cargo will use in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rustc {
    release: String,
    commit: String,
    host: String,
    sysroot: PathBuf,
}

impl Rustc {
    fn active_in(folder: &Path) -> Result<Self, ToolchainError> {
        let version = process::output(process::clean_command("rustc", folder).arg("-vV"))?;
        let sysroot = process::output(process::clean_command("rustc", folder).args(["--print", "sysroot"]))?;
        Self::parse(&version, &sysroot)
    }

    fn parse(version: &str, sysroot: &str) -> Result<Self, ToolchainError> {
        let field = |name: &str| {
            let found = version.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.map(str::to_owned).ok_or_else(|| ToolchainError::Unreadable {
                command: "rustc -vV".to_owned(),
                missing: name.to_owned(),
            })
        };
        Ok(Self {
            release: field("release")?,
            commit: field("commit-hash")?,
            host: field("host")?,
            sysroot: PathBuf::from(sysroot.trim_end()),
        })
    }

    fn has_wasm_library(&self) -> bool {
        sysroot::has_library(&self.sysroot)
    }

    /// The release for people, the commit because two builds of one release do not share libraries.
    fn cache_name(&self) -> String {
        let short: String = self.commit.chars().take(9).collect();
        format!("{}-{short}", self.release)
    }
}

/// Whether the user's own rustflags for the target choose a sysroot; a second one would be refused.
fn environment_names_sysroot() -> bool {
    std::env::var("CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS").is_ok_and(|flags| flags.contains("--sysroot"))
}

/// `$XDG_CACHE_HOME/dormouse/wasm-sysroot`, or the same under `~/.cache`.
fn cache_folder() -> Result<PathBuf, ToolchainError> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("dormouse/wasm-sysroot")).ok_or(ToolchainError::NoCacheFolder)
}

/// Takes the lock for as long as the returned file is open.
fn lock(path: &Path, progress: Progress<'_>) -> Result<File, ToolchainError> {
    let failed = |e| ToolchainError::io("lock", path, e);
    let file = File::create(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            progress("waiting for another dormouse to set up the wasm32-wasip2 target")
        }
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    file.lock().map_err(failed)?;
    Ok(file)
}

fn rustup_target_add(
    folder: &Path,
    rustc: &Rustc,
    progress: Progress<'_>,
) -> Result<(), Box<ToolchainError>> {
    progress("adding the wasm32-wasip2 target with rustup");
    let mut command = process::clean_command("rustup", folder);
    // A backtrace would push rustup's own words out of the error.
    command.args(["target", "add", WASM_TARGET]).env("RUST_BACKTRACE", "0");
    process::run_within(&mut command, RUSTUP_TIME_MAX).map_err(Box::new)?;
    if rustc.has_wasm_library() {
        return Ok(());
    }
    Err(Box::new(ToolchainError::OtherToolchain { sysroot: rustc.sysroot.clone() }))
}

#[cfg(test)]
mod tests {
    use super::error::words_of;
    use super::*;

    const VERSION: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\ncommit-hash: \
        59807616e1a8ea6f3a6e0a0a9e0e0a1b2c3d4e5f\ncommit-date: 2026-04-14\nhost: x86_64-unknown-linux-gnu\n\
        release: 1.95.0\nLLVM version: 22.1.2\n";

    #[test]
    fn rustc_is_read_from_its_own_words() -> Result<(), ToolchainError> {
        let rustc = Rustc::parse(VERSION, "/opt/rust\n")?;
        assert_eq!(rustc.release, "1.95.0");
        assert_eq!(rustc.host, "x86_64-unknown-linux-gnu");
        assert_eq!(rustc.sysroot, Path::new("/opt/rust"));
        assert_eq!(rustc.cache_name(), "1.95.0-59807616e");
        Ok(())
    }

    #[test]
    fn a_rustc_that_says_too_little_is_named() {
        let error = words_of(Rustc::parse("rustc 1.95.0\n", "/opt/rust"));
        assert_eq!(error, "`rustc -vV` did not tell its `release`");
    }

    #[test]
    fn the_private_sysroot_is_one_argument_even_with_spaces() {
        let target = WasmTarget { library: Library::Private(PathBuf::from("/a b/\"c\"")) };
        let command = target.cargo(Path::new("/"));
        let arguments: Vec<_> = command.get_args().filter_map(|a| a.to_str()).collect();
        assert_eq!(arguments, ["--config", r#"target.wasm32-wasip2.rustflags=["--sysroot=/a b/\"c\""]"#]);
    }

    #[test]
    fn an_installed_target_needs_no_argument() {
        let target = WasmTarget { library: Library::Installed };
        assert_eq!(target.cargo(Path::new("/")).get_args().count(), 0);
        assert_eq!(target.private_sysroot(), None);
    }

    #[test]
    fn the_lock_is_held_until_the_file_closes() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("lock");
        let mut said = Vec::new();
        let held = lock(&path, &mut |line| said.push(line.to_owned()))?;
        let second = File::create(&path)?;
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        second.try_lock()?;
        assert!(said.is_empty());
        Ok(())
    }
}
