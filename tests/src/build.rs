//! What the tests run: the server and the guests, built from this source once per process.
//!
//! A nested cargo does both, so nothing that is stale can be tested.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};
use dormouse::toolchain::{self, WasmTarget};
use serde_json::Value;

/// Every guest of the tests.
const GUESTS: [&str; 13] = [
    "hello",
    "hello3",
    "guestbook",
    "guestbook3",
    "qrcards",
    "webhook-inbox",
    "misbehave",
    "misbehave3",
    "attacker",
    "attacker3",
    "sdk",
    "sdk3",
    "spin2",
];

type Once<T> = OnceLock<Result<T, String>>;

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// The `dormouse` binary.
///
/// # Errors
/// When it does not compile.
pub fn binary() -> Result<PathBuf> {
    static BINARY: Once<PathBuf> = OnceLock::new();
    once(&BINARY, build_binary)
}

/// The component of a guest.
///
/// # Errors
/// When the guests do not compile, or there is none of that name.
pub fn guest(name: &str) -> Result<PathBuf> {
    static BUILT: Once<BTreeMap<String, PathBuf>> = OnceLock::new();
    let guests = once(&BUILT, build_guests)?;
    guests.get(name).cloned().with_context(|| format!("no guest {name}: the tests know {GUESTS:?}"))
}

fn once<T: Clone>(cell: &Once<T>, build: impl FnOnce() -> Result<T>) -> Result<T> {
    cell.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
}

fn target() -> Result<WasmTarget> {
    Ok(toolchain::ensure_wasm_target(&root(), &mut |line| eprintln!("{line}"))?)
}

fn build_guests() -> Result<BTreeMap<String, PathBuf>> {
    let built = toolchain::build_many(&root(), &GUESTS, &target()?, &mut |line| eprintln!("{line}"))?;
    Ok(built.into_iter().map(|guest| (guest.package, guest.component)).collect())
}

/// The same profile and the same packages as `cargo test --release`, so that there is next to nothing to do.
fn build_binary() -> Result<PathBuf> {
    let mut cargo = target()?.cargo(&root());
    cargo.args(["build", "--release", "--bin", "dormouse", "--message-format=json-render-diagnostics"]);
    let built = cargo.stdout(Stdio::piped()).stderr(Stdio::inherit()).output()?;
    if !built.status.success() {
        bail!("the server does not compile: {}", built.status);
    }
    let messages = String::from_utf8(built.stdout)?;
    let mut artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let binary = artifacts.find_map(|message| {
        let is_it = message.pointer("/target/name")? == "dormouse";
        let path = message.get("executable")?.as_str()?;
        is_it.then(|| PathBuf::from(path))
    });
    binary.context("cargo named no executable of dormouse")
}
