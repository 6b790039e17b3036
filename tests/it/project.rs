//! Projects with a `dormouse.toml`, through the command line: several functions, of any language.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use dormouse_tests::guest;
use serde_json::json;
use tempfile::TempDir;

use crate::cli::{command, fails, run};
use crate::{SHIPPED, TIGHT};

/// A function that is there already, one that a command makes, and one that cargo would compile.
const MANIFEST: &str = r#"
[functions.fn]
component = "hello.wasm"

[functions.book]
path = "book"
build = "echo building the book && cp made-elsewhere book.wasm"
component = "book/book.wasm"
limits = { cpu_time_max_ms = 150 }
allowed_outbound_hosts = ["https://api.example.com"]
variables = ["api_token"]
"#;

fn project(manifest: &str) -> Result<(TempDir, String)> {
    let folder = tempfile::tempdir()?;
    let write = |path: &str, from: PathBuf| fs::copy(from, folder.path().join(path));
    fs::create_dir(folder.path().join("book"))?;
    write("hello.wasm", guest("hello")?)?;
    write("book/made-elsewhere", guest("guestbook")?)?;
    fs::write(folder.path().join("dormouse.toml"), manifest)?;
    let path = folder.path().display().to_string();
    Ok((folder, path))
}

#[test]
fn a_manifest_builds_and_deploys_all_its_functions() -> Result<()> {
    let node = SHIPPED.node()?;
    let (_folder, path) = project(MANIFEST)?;
    let built = run(&node, &["build", &path])?;
    assert_eq!(built.stdout, format!("{path}/book/book.wasm\n{path}/hello.wasm\n"));
    ensure!(built.stderr.contains("building the book"), "{}", built.stderr);
    let built = run(&node, &["build", &path, "--function", "fn"])?;
    assert_eq!((built.stdout, built.stderr), (format!("{path}/hello.wasm\n"), String::new()));

    run(&node, &["tenant", "create", "by-manifest"])?;
    run(&node, &["variable", "set", "by-manifest", "api_token", "s3cret"])?;
    let deployed = run(&node, &["deploy", "by-manifest", &path])?;
    let addresses: Vec<&str> =
        deployed.stdout.lines().filter_map(|line| Some(line.split_once("/t/")?.1)).collect();
    assert_eq!(addresses, ["by-manifest/book", "by-manifest/fn"]);
    let get = |path: &str| node.request("GET", path, &[], b"")?.expect(200);
    assert_eq!(get("/t/by-manifest/fn")?.text(), "Hello from Dormouse\n");
    assert_eq!(get("/t/by-manifest/book")?.json()?, json!([]));

    let shown = node.admin("GET", "/v1/tenants/by-manifest", b"")?.expect(200)?.json()?;
    let book = json!({
        "path": "book",
        "build": "echo building the book && cp made-elsewhere book.wasm",
        "component": "book/book.wasm",
        "limits": {"cpu_time_max_ms": 150},
        "allowed_outbound_hosts": ["https://api.example.com"],
        "variables": ["api_token"],
    });
    assert_eq!(shown.pointer("/functions/0/manifest"), Some(&book));
    Ok(())
}

#[test]
fn nothing_is_deployed_when_something_does_not_build() -> Result<()> {
    let node = SHIPPED.node()?;
    let broken = MANIFEST.replace("echo building the book", "echo no ink && exit 3");
    let (_folder, path) = project(&broken)?;
    run(&node, &["tenant", "create", "unbuilt"])?;
    let said = fails(&command(&node, &["deploy", "unbuilt", &path])?.output()?)?;
    for part in ["no ink", "the build command", "/book", "exit status: 3"] {
        ensure!(said.contains(part), "{part} is missing: {said}");
    }
    assert_eq!(node.request("GET", "/t/unbuilt/fn", &[], b"")?.status, 404);
    Ok(())
}

#[test]
fn a_mistake_in_a_manifest_is_told_with_its_line_and_a_hint() -> Result<()> {
    let node = SHIPPED.node()?;
    let mistaken = format!("{MANIFEST}wach = [\"src\"]\n[functions.Page]\n");
    let (_folder, path) = project(&mistaken)?;
    for arguments in [&["build", path.as_str()] as &[&str], &["deploy", "nobody", &path]] {
        let said = fails(&command(&node, arguments)?.output()?)?;
        for part in [
            "/dormouse.toml: the manifest has mistakes:",
            "dormouse.toml:12: there is no key functions.book.wach; did you mean watch?",
            "dormouse.toml:13: functions: \"Page\" is not a name",
        ] {
            ensure!(said.contains(part), "{part} is missing: {said}");
        }
    }
    let (_folder, path) = project(MANIFEST)?;
    let said = fails(&command(&node, &["build", &path, "--function", "page"])?.output()?)?;
    ensure!(said.contains("has no function page; it has book, fn"), "{said}");
    Ok(())
}

#[test]
fn a_limit_above_the_nodes_is_refused_with_the_nodes() -> Result<()> {
    let node = TIGHT.node()?;
    let (_folder, path) = project(&MANIFEST.replace("150", "201"))?;
    run(&node, &["tenant", "create", "too-much"])?;
    run(&node, &["variable", "set", "too-much", "api_token", "s3cret"])?;
    let said = fails(&command(&node, &["deploy", "too-much", &path])?.output()?)?;
    ensure!(said.contains("cpu_time_max_ms is 201, and this node allows at most 200"), "{said}");
    Ok(())
}
