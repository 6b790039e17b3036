//! A private sysroot for `wasm32-wasip2`, rebuilt from Debian's packages where rustup's server cannot be reached.
//!
//! The standard library's sources are in Debian's `rust-src`, the C library it links is in `wasi-libc`; both are
//! checked by sha256 and unpacked, nothing is installed. Cargo compiles the library with the flags of rustc's own
//! build. The finished sysroot holds the libraries, the C start-up objects and a link to the host's own part,
//! which has the linker:
//!
//! ```text
//! <cache>/lock                                  one set-up at a time
//! <cache>/.build-…/                             a set-up in progress
//! <cache>/<release>-<commit>/complete           the recipe it was made by, written last
//! <cache>/<release>-<commit>/lib/rustlib/wasm32-wasip2/lib/*.rlib, self-contained/*.o, libc.a
//! <cache>/<release>-<commit>/lib/rustlib/<host> → the toolchain's
//! ```

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Progress, Rustc, ToolchainError, WASM_TARGET, process};

/// The release whose sources [`RUST_SRC`] names: the library must match its compiler exactly.
const RELEASE: &str = "1.95.0";

/// What the marker file says. A change to how the sysroot is made changes this, so that old ones are made anew.
const RECIPE: &str = "rust-src 1.95.0, wasi-libc 20260129 or later, recipe 1\n";

/// The marker file's name.
const MARKER: &str = "complete";

/// How long one step may take. The longest, compiling, takes half a minute on two cores.
const STEP_TIME_MAX: Duration = Duration::from_secs(20 * 60);

/// One file in Debian's archive.
struct Deb {
    sha256: &'static str,
    path: &'static str,
}

/// The same sources as published for two of Debian's suites: an archive drops one sooner than the other.
const RUST_SRC: [Deb; 2] = [
    Deb {
        sha256: "7b76db5b880a77f9e52975d2baa6209d2f76d2c9c2789515c3088cb960e2c83b",
        path: "pool/main/r/rustc/rust-src_1.95.0+dfsg1-2~bpo13+1_all.deb",
    },
    Deb {
        sha256: "8e39f55364384322c334f8453c1914b49de94c5a7eca02b427861a624d95854a",
        path: "pool/main/r/rustc/rust-src_1.95.0+dfsg1-2_all.deb",
    },
];

/// Not version 20241209: that one has no `pthread_join`, so whatever joins a thread fails to link.
const WASI_LIBC: [Deb; 3] = [
    Deb {
        sha256: "45eb80a2d4dcf7fe54c8e5c5d6a3cd165a3682fccc124c46f7abc6255c9b1bce",
        path: "pool/main/w/wasi-libc/wasi-libc_0.0~git20260129.ec0effd-3~bpo13+1_all.deb",
    },
    Deb {
        sha256: "f9b71329d05dc8ce58ebd101c09e63ed194f51ce1e32bd43dee81626041113fd",
        path: "pool/main/w/wasi-libc/wasi-libc_0.0~git20260129.ec0effd-3_all.deb",
    },
    Deb {
        sha256: "1051dbb0a5e6d3f709de83b6afb423e07a8ab19a9e9f12ef20ff902131e7b8bc",
        path: "pool/main/w/wasi-libc/wasi-libc_0.0~git20260423.161b319-2_all.deb",
    },
];

/// The C library and the start-up objects that rustc looks for beside its own libraries.
const SELF_CONTAINED: [&str; 3] = ["crt1-command.o", "crt1-reactor.o", "libc.a"];

/// Whether a sysroot has a standard library for the target.
pub(super) fn has_library(sysroot: &Path) -> bool {
    let Ok(entries) = fs::read_dir(library_folder(sysroot)) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with("libstd-") && name.ends_with(".rlib"))
    })
}

/// Whether `private` was finished by this recipe and its link still leads to a toolchain.
pub(super) fn is_complete(private: &Path, rustc: &Rustc) -> bool {
    fs::read_to_string(private.join(MARKER)).is_ok_and(|recipe| recipe == RECIPE)
        && has_library(private)
        && private.join("lib/rustlib").join(&rustc.host).is_dir()
}

/// Makes the sysroot `private` inside `cache`. The caller holds the cache's lock.
pub(super) fn make(
    cache: &Path,
    private: &Path,
    rustc: &Rustc,
    progress: Progress<'_>,
) -> Result<(), ToolchainError> {
    if rustc.release != RELEASE {
        return Err(ToolchainError::OtherRelease { pinned: RELEASE, active: rustc.release.clone() });
    }
    need_tools(&["curl", "dpkg-deb", "tar", "cargo"])?;
    let mirrors = debian_mirrors()?;
    remove_abandoned_builds(cache);
    let work = tempfile::Builder::new().prefix(".build-").tempdir_in(cache);
    let work = work.map_err(|e| ToolchainError::io("make a folder in", cache, e))?;

    progress("downloading Debian's rust-src (45 MB) and wasi-libc (1 MB)");
    let rust_src = work.path().join("rust-src.deb");
    let wasi_libc = work.path().join("wasi-libc.deb");
    fetch("rust-src", &RUST_SRC, &mirrors, &rust_src)?;
    fetch("wasi-libc", &WASI_LIBC, &mirrors, &wasi_libc)?;
    let sources = work.path().join("sources");
    make_folder(&sources)?;
    let library = format!("usr/src/rustc-{RELEASE}/library");
    unpack(&rust_src, &library, &sources)?;
    unpack(&wasi_libc, &format!("usr/lib/{WASM_TARGET}"), &sources)?;

    progress("compiling the standard library for wasm32-wasip2, once (about half a minute)");
    let built = compile(&sources.join(library), &work.path().join("target"), rustc)?;
    let fresh = work.path().join("sysroot");
    assemble(&fresh, &built, &sources.join("usr/lib").join(WASM_TARGET), rustc)?;
    if private.exists() {
        fs::remove_dir_all(private).map_err(|e| ToolchainError::io("remove", private, e))?;
    }
    fs::rename(&fresh, private).map_err(|e| ToolchainError::io("move the new sysroot to", private, e))
}

fn library_folder(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib").join(WASM_TARGET).join("lib")
}

fn need_tools(tools: &[&str]) -> Result<(), ToolchainError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let is_there = |tool: &str| folders.iter().any(|folder| folder.join(tool).is_file());
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| !is_there(tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(ToolchainError::MissingTools { missing: missing.join(" and ") })
}

/// The archives to ask: the user's choice, else those that this machine's apt uses.
fn debian_mirrors() -> Result<Vec<String>, ToolchainError> {
    if let Ok(mirror) = std::env::var("DEBIAN_MIRROR") {
        return Ok(vec![mirror]);
    }
    let mut apt = Command::new("apt-get");
    // Without `--no-release-info` it tells only of archives whose lists a first `apt-get update` has fetched.
    let sites = process::output(
        apt.args(["indextargets", "--no-release-info", "--format", "$(SITE)"]).stdin(Stdio::null()),
    );
    let mirrors = mirrors_among(&sites.unwrap_or_default());
    if mirrors.is_empty() { Err(ToolchainError::NoMirror) } else { Ok(mirrors) }
}

/// The Debian archives among apt's sites. Security updates live in an archive of their own, without our files.
fn mirrors_among(sites: &str) -> Vec<String> {
    let mut mirrors: Vec<String> = Vec::new();
    for site in sites.lines().map(|line| line.trim().trim_end_matches('/')) {
        if site.ends_with("/debian") && !mirrors.iter().any(|known| known == site) {
            mirrors.push(site.to_owned());
        }
    }
    mirrors
}

/// Downloads the first of `debs` that an archive has, and that is what it should be.
fn fetch(package: &'static str, debs: &[Deb], mirrors: &[String], to: &Path) -> Result<(), ToolchainError> {
    let mut last = ToolchainError::NoMirror;
    for mirror in mirrors {
        for deb in debs {
            let url = format!("{}/{}", mirror.trim_end_matches('/'), deb.path);
            match download(&url, to).and_then(|()| check(to, deb.sha256, &url)) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
    }
    Err(ToolchainError::Fetch { package, last: Box::new(last) })
}

fn download(url: &str, to: &Path) -> Result<(), ToolchainError> {
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--silent", "--show-error", "--location", "--retry", "3"]);
    curl.args(["--connect-timeout", "20", "--max-time", "600", "--output"]).arg(to).arg(url);
    process::run_within(curl.stdin(Stdio::null()), STEP_TIME_MAX)
}

fn check(file: &Path, expected: &'static str, url: &str) -> Result<(), ToolchainError> {
    let found = sha256(file)?;
    if found == expected {
        return Ok(());
    }
    Err(ToolchainError::Digest { url: url.to_owned(), expected, found })
}

fn sha256(file: &Path) -> Result<String, ToolchainError> {
    let failed = |e| ToolchainError::io("read", file, e);
    let mut reader = File::open(file).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = reader.read(&mut buffer).map_err(failed)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Unpacks one folder of a package; `rust-src` holds much more than the library.
fn unpack(deb: &Path, folder: &str, to: &Path) -> Result<(), ToolchainError> {
    let mut reader = Command::new("dpkg-deb");
    reader.arg("--fsys-tarfile").arg(deb).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut reading = reader.spawn().map_err(|e| process::start_error(&reader, e))?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "-C"]).arg(to).arg(format!("./{folder}"));
    if let Some(archive) = reading.stdout.take() {
        tar.stdin(archive);
    }
    let unpacked = process::run_within(&mut tar, STEP_TIME_MAX);
    // A package that dpkg-deb cannot read ends tar too, which then says that the folder is not there.
    reading.wait().map_err(|e| process::start_error(&reader, e))?;
    unpacked
}

/// Compiles the library as rustc's own bootstrap does, and gives the folder of the finished `.rlib` files.
fn compile(library: &Path, target: &Path, rustc: &Rustc) -> Result<PathBuf, ToolchainError> {
    // The toolchain's own programs: a `rust-toolchain.toml` in the user's folder does not reach this one.
    let own = |name: &str| rustc.sysroot.join("bin").join(name);
    let cargo = Some(own("cargo")).filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("cargo"));
    let mut command = process::clean_command(cargo, library);
    if own("rustc").is_file() {
        command.env("RUSTC", own("rustc"));
    }
    command
        .args(["build", "--locked", "--release", "--manifest-path", "sysroot/Cargo.toml", "--target"])
        .args([WASM_TARGET, "--features", "panic-unwind,backtrace"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_DEFAULT_LIB_METADATA", "wasm-sysroot")
        .env("CARGO_ENCODED_RUSTFLAGS", library_flags(library, rustc))
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_TARGET_DIR", target)
        .env_remove("CARGO_BUILD_TARGET_DIR")
        .env_remove("CARGO_BUILD_BUILD_DIR")
        .env_remove("RUSTC_WRAPPER");
    process::run_within(&mut command, STEP_TIME_MAX)?;
    Ok(target.join(WASM_TARGET).join("release/deps"))
}

/// One crate graph that only the compiler may use, bitcode so that guests can use LTO, and the paths in panic
/// messages that rustup's library has.
fn library_flags(library: &Path, rustc: &Rustc) -> String {
    let remap = format!("--remap-path-prefix={}=/rustc/{}/library", library.display(), rustc.commit);
    ["-Zforce-unstable-if-unmarked", "-Cembed-bitcode=yes", &remap].join("\u{1f}")
}

fn assemble(fresh: &Path, rlibs: &Path, libc: &Path, rustc: &Rustc) -> Result<(), ToolchainError> {
    let libraries = library_folder(fresh);
    let self_contained = libraries.join("self-contained");
    make_folder(&self_contained)?;
    let entries = fs::read_dir(rlibs).map_err(|e| ToolchainError::io("read", rlibs, e))?;
    for entry in entries.flatten().filter(|entry| entry.path().extension() == Some(OsStr::new("rlib"))) {
        copy(&entry.path(), &libraries.join(entry.file_name()))?;
    }
    for name in SELF_CONTAINED {
        copy(&libc.join(name), &self_contained.join(name))?;
    }
    let host = Path::new("lib/rustlib").join(&rustc.host);
    let link = fresh.join(&host);
    symlink(rustc.sysroot.join(&host), &link).map_err(|e| ToolchainError::io("link", &link, e))?;
    let marker = fresh.join(MARKER);
    fs::write(&marker, RECIPE).map_err(|e| ToolchainError::io("write", &marker, e))
}

/// What a set-up that was killed left behind. It is only clutter, so a failure here is no one's concern.
fn remove_abandoned_builds(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(".build-")) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn make_folder(path: &Path) -> Result<(), ToolchainError> {
    fs::create_dir_all(path).map_err(|e| ToolchainError::io("make the folder", path, e))
}

fn copy(from: &Path, to: &Path) -> Result<(), ToolchainError> {
    fs::copy(from, to).map(drop).map_err(|e| ToolchainError::io("copy", from, e))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::error::words_of;
    use super::*;

    fn rustc(sysroot: &Path) -> Rustc {
        Rustc {
            release: RELEASE.to_owned(),
            commit: "59807616e".to_owned(),
            host: "x86_64-unknown-linux-gnu".to_owned(),
            sysroot: sysroot.to_owned(),
        }
    }

    #[test]
    fn a_wrong_download_is_refused_with_both_digests() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("x.deb");
        fs::write(&file, "abc")?;
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(&file, abc, "http://archive/x.deb")?;
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let error = words_of(check(&file, empty, "http://archive/x.deb"));
        assert_eq!(error, format!("http://archive/x.deb has the sha256 {abc}, expected {empty}"));
        Ok(())
    }

    #[test]
    fn only_debian_archives_are_asked() {
        let sites = "http://a.example/debian\nhttp://a.example/debian\nhttp://a.example/debian-security\n\
                     https://node.example/node_20.x\nhttp://b.example/debian/\n";
        assert_eq!(mirrors_among(sites), ["http://a.example/debian", "http://b.example/debian"]);
    }

    #[test]
    fn another_release_is_told_so() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let other = Rustc { release: "1.96.0".to_owned(), ..rustc(folder.path()) };
        let error = words_of(make(folder.path(), &folder.path().join("x"), &other, &mut |_| ()));
        assert!(error.starts_with("the rebuild is for rustc 1.95.0 and this is 1.96.0"), "{error}");
        Ok(())
    }

    #[test]
    fn missing_tools_are_named_together() {
        let error = words_of(need_tools(&["no-such-curl", "sh", "no-such-tar"]));
        assert!(error.contains("no-such-curl and no-such-tar"), "{error}");
    }

    #[test]
    fn a_sysroot_is_complete_only_with_library_link_and_marker() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let rustc = rustc(&folder.path().join("toolchain"));
        make_folder(&rustc.sysroot.join("lib/rustlib").join(&rustc.host))?;
        let (rlibs, libc) = (folder.path().join("rlibs"), folder.path().join("libc"));
        make_folder(&rlibs)?;
        make_folder(&libc)?;
        fs::write(rlibs.join("libstd-1.rlib"), "")?;
        for name in SELF_CONTAINED {
            fs::write(libc.join(name), "")?;
        }
        let private = folder.path().join("private");
        assert!(!is_complete(&private, &rustc));
        assemble(&private, &rlibs, &libc, &rustc)?;
        assert!(is_complete(&private, &rustc));

        fs::write(private.join(MARKER), "an older recipe")?;
        assert!(!is_complete(&private, &rustc), "made by another recipe");
        fs::write(private.join(MARKER), RECIPE)?;
        fs::remove_dir_all(&rustc.sysroot)?;
        assert!(!is_complete(&private, &rustc), "the toolchain was removed");
        Ok(())
    }
}
