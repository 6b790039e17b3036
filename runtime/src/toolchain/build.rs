//! Compiling Rust packages: one cargo call, and which component each package became.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Progress, ToolchainError, WASM_TARGET, WasmTarget, process};

/// A package and the component it was compiled to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The package's name in its `Cargo.toml`.
    pub package: String,
    /// The `.wasm` file.
    pub component: PathBuf,
}

/// Compiles several members of the workspace in `root` at once, and gives them in the order of `packages`.
///
/// # Errors
///
/// When there is no `Cargo.toml` in `root`, when they do not compile, or when one is not a `cdylib`.
pub fn build_many(
    root: &Path,
    packages: &[&str],
    target: &WasmTarget,
    progress: Progress<'_>,
) -> Result<Vec<Built>, ToolchainError> {
    if !root.join("Cargo.toml").is_file() {
        return Err(ToolchainError::NoManifest(root.to_owned()));
    }
    progress(&format!("compiling {} for {WASM_TARGET}", packages.join(", ")));
    let messages = compile(target, root, packages)?;
    pick(&messages, packages)
}

/// Runs cargo and gives what it wrote to its standard output: one JSON message per line.
fn compile(target: &WasmTarget, folder: &Path, packages: &[&str]) -> Result<String, ToolchainError> {
    let mut command = command(target, folder);
    for package in packages {
        command.args(["--package", package]);
    }
    let made = process::capture(&mut command)?;
    if made.status.success() {
        return Ok(String::from_utf8_lossy(&made.stdout).into_owned());
    }
    Err(ToolchainError::Compile { command: process::shown(&command), status: made.status })
}

/// The cargo command that compiles the package in `folder`, whose standard output is for [`component`].
pub(super) fn command(target: &WasmTarget, folder: &Path) -> Command {
    let mut command = target.cargo(folder);
    command.args(["build", "--release", "--target", WASM_TARGET, "--message-format=json-render-diagnostics"]);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// The component that the package in `folder` became, from cargo's messages.
pub(super) fn component(folder: &Path, messages: &str) -> Result<PathBuf, ToolchainError> {
    let manifest = folder.join("Cargo.toml");
    let manifest = manifest.canonicalize().map_err(|e| ToolchainError::io("read", &manifest, e))?;
    let found = artifacts(messages).find(|artifact| artifact.manifest == manifest);
    found
        .map(|artifact| artifact.built.component)
        .ok_or_else(|| ToolchainError::NotACdylib { package: folder.display().to_string() })
}

/// A component that cargo reports.
#[derive(Debug, PartialEq, Eq)]
struct Artifact {
    manifest: PathBuf,
    built: Built,
}

/// The components among cargo's messages. Other lines, and what build scripts print, are passed over.
fn artifacts(messages: &str) -> impl Iterator<Item = Artifact> {
    messages.lines().filter_map(|line| artifact(&serde_json::from_str(line).ok()?))
}

fn artifact(message: &Value) -> Option<Artifact> {
    if message.get("reason")? != "compiler-artifact" {
        return None;
    }
    let kinds = message.get("target")?.get("kind")?.as_array()?;
    if !kinds.iter().any(|kind| kind == "cdylib") {
        return None;
    }
    let files = message.get("filenames")?.as_array()?;
    let component = files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm"))?;
    let package = package_name(message.get("package_id")?.as_str()?)?.to_owned();
    let manifest = PathBuf::from(message.get("manifest_path")?.as_str()?);
    Some(Artifact { manifest, built: Built { package, component: PathBuf::from(component) } })
}

/// The name in a package id: `…#name@version`, or `…/name#version` where the folder has the package's name.
fn package_name(id: &str) -> Option<&str> {
    let (source, fragment) = id.split_once('#')?;
    match fragment.split_once('@') {
        Some((name, _)) => Some(name),
        None => source.split('?').next()?.trim_end_matches('/').rsplit('/').next(),
    }
}

fn pick(messages: &str, packages: &[&str]) -> Result<Vec<Built>, ToolchainError> {
    let all: Vec<Built> = artifacts(messages).map(|artifact| artifact.built).collect();
    let one = |name: &&str| {
        let found = all.iter().find(|built| built.package == *name).cloned();
        found.ok_or_else(|| ToolchainError::NotACdylib { package: (*name).to_owned() })
    };
    packages.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::error::words_of;
    use super::*;

    const MESSAGES: &str = r##"{"reason":"compiler-artifact","package_id":"registry+x#serde@1.0.0","manifest_path":"/r/serde/Cargo.toml","target":{"kind":["lib"],"name":"serde"},"filenames":["/t/libserde.rlib"]}
a build script's own words
{"reason":"build-script-executed","package_id":"path+file:///w/hello#0.1.0"}
{"reason":"compiler-artifact","package_id":"path+file:///w/hello#0.1.0","manifest_path":"/w/hello/Cargo.toml","target":{"kind":["cdylib"],"name":"hello"},"filenames":["/t/wasm32-wasip2/release/hello.wasm"]}
{"reason":"compiler-artifact","package_id":"path+file:///w/b#guest-book@0.1.0","manifest_path":"/w/b/Cargo.toml","target":{"kind":["cdylib","rlib"],"name":"guest_book"},"filenames":["/t/libguest_book.rlib","/t/wasm32-wasip2/release/guest_book.wasm"]}
{"reason":"build-finished","success":true}
"##;

    #[test]
    fn components_are_found_among_cargos_messages() {
        let found: Vec<_> = artifacts(MESSAGES).collect();
        let hello = Built {
            package: "hello".to_owned(),
            component: PathBuf::from("/t/wasm32-wasip2/release/hello.wasm"),
        };
        assert_eq!(found.len(), 2);
        assert_eq!(
            found.first(),
            Some(&Artifact { manifest: PathBuf::from("/w/hello/Cargo.toml"), built: hello })
        );
    }

    #[test]
    fn packages_come_in_the_order_they_were_asked_for() -> Result<(), ToolchainError> {
        let built = pick(MESSAGES, &["guest-book", "hello"])?;
        let names: Vec<_> = built.iter().map(|built| built.package.as_str()).collect();
        assert_eq!(names, ["guest-book", "hello"]);
        Ok(())
    }

    #[test]
    fn a_package_without_a_component_is_named() {
        let error = words_of(pick(MESSAGES, &["hello", "serde"]));
        assert!(error.starts_with("serde makes no component"), "{error}");
    }

    #[test]
    fn package_names_are_read_from_both_forms_of_id() {
        assert_eq!(package_name("path+file:///w/hello#0.1.0"), Some("hello"));
        assert_eq!(package_name("path+file:///w/b#guest-book@0.1.0"), Some("guest-book"));
        assert_eq!(package_name("git+https://h/r?branch=main#0.1.0"), Some("r"));
        assert_eq!(package_name("nonsense"), None);
    }
}
