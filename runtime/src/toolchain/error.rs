//! What can go wrong in the toolchain room, each with what the user can do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use thiserror::Error;

/// Why a function could not be compiled.
#[derive(Debug, Error)]
pub enum ToolchainError {
    /// A program is missing or could not be started.
    #[error("cannot start `{command}`: {source} (is it installed, and in PATH?)")]
    Start {
        /// The command line.
        command: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("`{command}` failed ({status}):\n{last_lines}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        last_lines: String,
    },
    /// A program was stopped because it took too long.
    #[error("`{command}` was stopped after {seconds} seconds:\n{last_lines}")]
    TooLong {
        /// The command line.
        command: String,
        /// The time it was given.
        seconds: u64,
        /// The end of what it wrote.
        last_lines: String,
    },
    /// A program's answer lacks something it always has.
    #[error("`{command}` did not tell its `{missing}`")]
    Unreadable {
        /// The command line.
        command: String,
        /// The field that was looked for.
        missing: String,
    },
    /// A file or folder could not be used.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// A verb, such as `read`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Neither rustup nor the rebuild gave a standard library.
    #[error(
        "rustc cannot compile for wasm32-wasip2 yet, and neither way to change that worked.\n\
         With rustup: {rustup}\n\
         From Debian's sources: {rebuild}"
    )]
    NoTarget {
        /// Why rustup could not.
        rustup: Box<ToolchainError>,
        /// Why the rebuild could not.
        rebuild: Box<ToolchainError>,
    },
    /// rustup added the target to a toolchain that is not the active one.
    #[error(
        "rustup added the target, but not to the active rustc in {}: \
         install wasm32-wasip2 the way that rustc was installed", sysroot.display()
    )]
    OtherToolchain {
        /// The active compiler's sysroot.
        sysroot: PathBuf,
    },
    /// The rebuild has the sources of one release only.
    #[error(
        "the rebuild is for rustc {pinned} and this is {active}: \
         run `rustup target add wasm32-wasip2`, or use the toolchain {pinned}"
    )]
    OtherRelease {
        /// The release whose sources are known.
        pinned: &'static str,
        /// The active release.
        active: String,
    },
    /// The rebuild needs programs that are not there.
    #[error("the rebuild needs {missing}: install it, or run `rustup target add wasm32-wasip2`")]
    MissingTools {
        /// Their names.
        missing: String,
    },
    /// No Debian archive is configured on this machine.
    #[error(
        "no Debian archive is known here: set DEBIAN_MIRROR to one, or run `rustup target add wasm32-wasip2`"
    )]
    NoMirror,
    /// No copy of a source package could be had.
    #[error("cannot fetch the package {package}; the last try: {last}")]
    Fetch {
        /// Its name.
        package: &'static str,
        /// How the last try ended.
        last: Box<ToolchainError>,
    },
    /// A download is not the file it should be.
    #[error("{url} has the sha256 {found}, expected {expected}")]
    Digest {
        /// Where it came from.
        url: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// There is nowhere to keep the sysroot.
    #[error("neither XDG_CACHE_HOME nor HOME names a folder to keep the standard library in")]
    NoCacheFolder,
    /// A folder is not a Cargo package.
    #[error("{} is not a function project: it has neither a dormouse.toml that says how to build it nor a Cargo.toml", .0.display())]
    NoManifest(PathBuf),
    /// The compiler refused the project; it has already said why on the terminal.
    #[error("`{command}` failed ({status}); the compiler's messages are above")]
    Compile {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A project's own build command failed; it has already said why on the terminal.
    #[error("the build command `{command}` failed in {} ({status}); what it said is above", folder.display())]
    BuildCommand {
        /// The command.
        command: String,
        /// Where it ran.
        folder: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// There is no component where the manifest says.
    #[error("there is no component at {}, where the manifest says it is", .0.display())]
    NoComponent(PathBuf),
    /// A package compiles but makes no component.
    #[error(
        "{package} makes no component: its Cargo.toml needs a library with `crate-type = [\"cdylib\"]` \
         (in a workspace, name the package's own folder)"
    )]
    NotACdylib {
        /// The package or its folder.
        package: String,
    },
}

impl ToolchainError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }
}

/// What a test expects to have failed, in the words that the user would read.
#[cfg(test)]
pub(super) fn words_of<T>(result: Result<T, ToolchainError>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "it did not fail".to_owned())
}
