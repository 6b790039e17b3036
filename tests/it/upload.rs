//! Uploads: what is no function is refused with a reason, and a refused upload changes nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::{Connection, Response};
use dormouse_tests::{Stop, TestNode, guest, problem_of};
use serde_json::Value;

use crate::{SHIPPED, TIGHT};

fn wat(text: &str) -> Result<Vec<u8>> {
    Ok(wat::parse_str(text)?)
}

/// The reason that a refused upload is told.
fn refused(response: &Response, status: u16) -> Result<String> {
    ensure!(response.status == status, "expected {status}, got {}: {}", response.status, response.text());
    problem_of(response)?;
    let problem = response.json()?;
    Ok(problem.get("detail").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// Everything in the folder of components.
fn artifacts(node: &TestNode) -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(node.data().join("artifacts"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[test]
fn what_a_deploy_answers_is_what_the_tenant_shows() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let component = std::fs::read(guest("hello")?)?;
    let answer = node.upload(&tenant.name, "again", &component)?.expect(200)?.json()?;
    assert_eq!(answer.get("tenant"), Some(&Value::from(tenant.name.as_str())));
    assert_eq!(answer.get("function"), Some(&Value::from("again")));
    assert_eq!(answer.get("bytes"), Some(&Value::from(component.len())));
    let digest = answer.get("component").and_then(Value::as_str).context("no digest")?;
    ensure!(digest.ends_with(|last: char| last.is_ascii_hexdigit()) && digest.len() >= 64, "{digest}");

    let shown = tenant.shown()?;
    let functions = shown.get("functions").and_then(Value::as_array).context("no functions")?;
    let names: Vec<_> = functions.iter().filter_map(|function| function.get("name")).collect();
    assert_eq!(names, ["again", "fn"]);
    for function in functions {
        assert_eq!(function.get("component").and_then(Value::as_str), Some(digest));
        assert_eq!(function.get("bytes"), Some(&Value::from(component.len())));
        ensure!(function.get("deployed_at").is_some_and(|time| !time.is_null()), "{function}");
    }
    Ok(())
}

#[test]
fn what_is_no_component_is_refused() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let (module, broken) = (wat("(module)")?, b"\0asm\x0d\0\x01\0broken".to_vec());
    for file in [b"#!/bin/sh".to_vec(), Vec::new(), module, broken] {
        let reason = refused(&node.upload(&tenant.name, "fn", &file)?, 422)?;
        ensure!(reason.contains("component"), "{reason}");
    }
    Ok(())
}

#[test]
fn a_component_without_a_handler_is_refused() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let reason = refused(&node.upload(&tenant.name, "fn", &wat("(component)")?)?, 422)?;
    for handler in ["wasi:http/incoming-handler@0.2", "wasi:http/handler@0.3"] {
        ensure!(reason.contains(handler), "{reason}");
    }
    Ok(())
}

#[test]
fn a_release_candidate_of_the_newer_world_is_named() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let name = "wasi:http/handler@0.3.0-rc-2026-03-15";
    let component = wat(&format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#))?;
    let reason = refused(&node.upload(&tenant.name, "fn", &component)?, 422)?;
    ensure!(reason.contains(name) && reason.contains("rebuild it with the final SDK"), "{reason}");
    Ok(())
}

#[test]
fn an_unknown_import_is_named() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let component =
        wat(r#"(component (import "acme:weather/forecast@1.2.3" (instance (export "today" (func)))))"#)?;
    let reason = refused(&node.upload(&tenant.name, "fn", &component)?, 422)?;
    ensure!(reason.contains("acme:weather/forecast@1.2.3"), "{reason}");
    Ok(())
}

#[test]
fn a_known_import_of_the_wrong_shape_is_named() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let component = wat(r#"(component (import "wasi:random/random@0.2.0" (instance
        (export "get-random-u64" (func (param "seed" string) (result string))))))"#)?;
    let reason = refused(&node.upload(&tenant.name, "fn", &component)?, 422)?;
    ensure!(reason.contains("wasi:random/random@0.2.0"), "{reason}");
    Ok(())
}

#[test]
fn a_component_over_the_cap_is_refused() -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant("hello")?;
    let mut connection = Connection::open(node.admin_address()?)?;
    connection.send(format!(
        "PUT /v1/tenants/{}/functions/fn HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 1048577\r\n\r\n",
        tenant.name,
        node.token()?
    ))?;
    refused(&connection.response("PUT")?, 413)?;

    let mut connection = Connection::open(node.admin_address()?)?;
    let bearer = format!("Bearer {}", node.token()?);
    let path = format!("/v1/tenants/{}/functions/fn", tenant.name);
    connection.chunked_request("PUT", &path, &[("authorization", &bearer)])?;
    for _ in 0..17 {
        connection.chunk(&vec![0; 64 << 10])?;
    }
    refused(&connection.response("PUT")?, 413)?;
    assert_eq!(tenant.get("")?.expect(200)?.text(), "Hello from Dormouse\n");
    Ok(())
}

#[test]
fn a_refused_upload_changes_nothing() -> Result<()> {
    // A node of its own: other tests' uploads would be in the folder that is compared.
    let node = TestNode::start()?;
    let tenant = node.tenant("hello")?;
    let before = (tenant.shown()?, artifacts(&node)?);
    let no_handler = wat("(component)")?;
    for file in [b"nonsense".as_slice(), &no_handler, &wat("(module)")?] {
        refused(&node.upload(&tenant.name, "fn", file)?, 422)?;
        refused(&node.upload(&tenant.name, "fresh", file)?, 422)?;
    }
    // An upload that its client gives up.
    let mut connection = Connection::open(node.admin_address()?)?;
    let path = format!("/v1/tenants/{}/functions/fn", tenant.name);
    let token = node.token()?;
    connection.send(format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 1000\r\n\r\nhalf"
    ))?;
    connection.finish_sending()?;
    connection.until_closed()?;

    assert_eq!(tenant.get("")?.expect(200)?.text(), "Hello from Dormouse\n");
    let fresh = node.request("GET", &format!("/t/{}/fresh", tenant.name), &[], b"")?;
    assert_eq!(problem_of(&fresh)?, "unknown-function");
    let shown = tenant.shown()?;
    assert_eq!(shown.get("functions"), before.0.get("functions"));
    assert_eq!(artifacts(&node)?, before.1, "something was left in the folder of components");
    Ok(())
}

#[test]
fn a_component_is_compiled_and_kept_once() -> Result<()> {
    let node = TestNode::start()?;
    let names: Vec<String> = (0..6).map(|n| format!("same-{n}")).collect();
    names.iter().try_for_each(|name| node.create_tenant(name))?;
    let component = std::fs::read(guest("hello")?)?;
    let upload = |name: &str| node.upload(name, "fn", &component)?.expect(200);
    std::thread::scope(|scope| -> Result<()> {
        let uploads: Vec<_> = names.iter().map(|name| scope.spawn(|| upload(name))).collect();
        uploads.into_iter().try_for_each(|upload| upload.join().ok().context("a thread failed")?.map(drop))
    })?;
    let kept = artifacts(&node)?;
    for extension in [".wasm", ".cwasm"] {
        assert_eq!(kept.iter().filter(|name| name.ends_with(extension)).count(), 1, "{kept:?}");
    }
    for name in names {
        assert_eq!(
            node.request("GET", &format!("/t/{name}/fn"), &[], b"")?.expect(200)?.text(),
            "Hello from Dormouse\n"
        );
    }
    Ok(())
}

#[test]
fn a_compiled_component_that_was_changed_is_not_run() -> Result<()> {
    let mut node = TestNode::start()?;
    let name = node.tenant("hello")?.name;
    let get = |node: &TestNode| node.request("GET", &format!("/t/{name}/fn"), &[], b"");
    get(&node)?.expect(200)?;
    node.stop(Stop::Terminate)?;
    let path = compiled_file(&node)?;
    let mac = path.with_extension("mac");
    let (good, good_mac) = (std::fs::read(&path)?, std::fs::read(&mac)?);
    let foreign = foreign_code()?;
    let flipped = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == bytes.len() / 2)).collect()
    };
    let half = |bytes: &[u8]| bytes.iter().take(bytes.len() / 2).copied().collect::<Vec<u8>>();
    node.expect_log("is not what this node compiled");
    for (what, code, code_mac) in [
        ("changed code", flipped(&good), good_mac.clone()),
        ("a changed MAC", good.clone(), flipped(&good_mac)),
        ("half of the code", half(&good), good_mac.clone()),
        ("half of the MAC", good.clone(), half(&good_mac)),
        ("no MAC", good.clone(), Vec::new()),
        ("another node's code and MAC", foreign.0, foreign.1),
    ] {
        std::fs::write(&path, code)?;
        std::fs::write(&mac, code_mac)?;
        node.restart_after_stop()?;
        assert_eq!(get(&node)?.expect(200).context(what)?.text(), "Hello from Dormouse\n");
        let refused = node.metric("dormouse_components_refused_total{reason=\"not_ours\"}")?;
        assert_eq!(refused.total_cmp(&1.0), std::cmp::Ordering::Equal, "{what}");
        node.stop(Stop::Terminate)?;
    }
    let told = node.logs().matching(|line| line.text.contains("is not what this node compiled"));
    assert_eq!(told.len(), 6);
    // What was compiled last is taken as it is.
    node.restart_after_stop()?;
    assert_eq!(get(&node)?.expect(200)?.text(), "Hello from Dormouse\n");
    ensure!(!node.metrics()?.keys().any(|name| name.contains("not_ours")));
    Ok(())
}

/// The one compiled component of a node.
fn compiled_file(node: &TestNode) -> Result<PathBuf> {
    let compiled: Vec<_> = artifacts(node)?.into_iter().filter(|file| file.ends_with(".cwasm")).collect();
    let [compiled] = compiled.as_slice() else { anyhow::bail!("{compiled:?}") };
    Ok(node.data().join("artifacts").join(compiled))
}

/// The same component as another node has compiled and signed it.
fn foreign_code() -> Result<(Vec<u8>, Vec<u8>)> {
    let node = TestNode::start()?;
    node.tenant("hello")?;
    let path = compiled_file(&node)?;
    Ok((std::fs::read(&path)?, std::fs::read(path.with_extension("mac"))?))
}

#[test]
fn an_upload_needs_its_tenant_and_a_name() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let component = std::fs::read(guest("hello")?)?;
    refused(&node.upload("nobody", "fn", &component)?, 404)?;
    refused(&node.upload(&tenant.name, "Not_A_Name", &component)?, 422)?;
    Ok(())
}

/// The statuses of the admin API's calls for an `authorization` field, or for none.
fn with_authorization(node: &TestNode, tenant: &str, value: Option<&str>) -> Result<Vec<Response>> {
    let headers: Vec<(&str, &str)> = value.map(|value| ("authorization", value)).into_iter().collect();
    let tenant_path = format!("/v1/tenants/{tenant}");
    let calls = [
        ("GET", "/v1/tenants".to_owned(), b"".as_slice()),
        ("POST", "/v1/tenants".to_owned(), b"{\"name\":\"intruder\"}"),
        ("GET", tenant_path.clone(), b""),
        ("DELETE", tenant_path.clone(), b""),
        ("PUT", format!("{tenant_path}/functions/fn"), b"\0asm"),
        ("POST", format!("{tenant_path}/sql"), b"{\"sql\":\"SELECT 1\"}"),
        ("GET", "/v1/no-such-thing".to_owned(), b""),
    ];
    calls.iter().map(|(method, path, body)| node.admin_request(method, path, &headers, body)).collect()
}

#[test]
fn nothing_is_done_without_the_token() -> Result<()> {
    // A node of its own: wrong tokens are counted.
    let node = TestNode::start()?;
    let tenant = node.tenant("hello")?;
    let token = node.token()?;
    let shortened = format!("Bearer {}", token.get(..token.len() - 1).context("an empty token")?);
    let lengthened = format!("Bearer {token}0");
    let basic = format!("Basic {token}");
    for value in [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer wrong"),
        Some(token),
        Some(&basic),
        Some(&shortened),
        Some(&lengthened),
    ] {
        for response in with_authorization(&node, &tenant.name, value)? {
            ensure!(response.status == 401, "{value:?}: {}: {}", response.status, response.text());
            problem_of(&response)?;
            ensure!(response.header("www-authenticate").is_some_and(|scheme| scheme.starts_with("Bearer")));
        }
    }
    assert_eq!(tenant.get("")?.expect(200)?.text(), "Hello from Dormouse\n");
    node.admin("GET", "/v1/tenants/intruder", b"")?.expect(404)?;
    Ok(())
}

#[test]
fn the_token_is_for_its_owner_only() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let node = SHIPPED.node()?;
    let mode = |path: &str| -> Result<u32> {
        Ok(std::fs::metadata(node.data().join(path))?.permissions().mode() & 0o777)
    };
    assert_eq!(mode("keys/admin.token")?, 0o600);
    for folder in ["keys", "artifacts", "tenants"] {
        assert_eq!(mode(folder)? & 0o077, 0, "{folder} can be read by others");
    }
    ensure!(node.token()?.len() >= 43, "256 random bits do not fit");
    Ok(())
}
