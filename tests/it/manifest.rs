//! Manifests: what a function asks for itself is kept with it and holds when it runs.

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::{SharedNode, Stop, Tenant, TestNode, guest, problem_of};
use serde_json::{Value, json};

use crate::{SHIPPED, TIGHT};

in_both_worlds![a_function_is_held_to_its_own_limits];

/// Deploys a guest as a tenant's function `fn`, with a manifest.
fn deploy(tenant: &Tenant<'_>, component: &str, manifest: &Value) -> Result<()> {
    let component = std::fs::read(guest(component)?)?;
    let manifest = manifest.to_string();
    let parts = [("manifest", manifest.as_bytes()), ("component", component.as_slice())];
    tenant.node.upload_parts(&tenant.name, "fn", &parts)?.expect(200)?;
    Ok(())
}

/// What an upload is refused with: the slug and the detail.
fn refused(node: &SharedNode, parts: &[(&str, &[u8])], status: u16) -> Result<(String, String)> {
    let tenant = node.tenant("hello")?;
    let answer = node.upload_parts(&tenant.name, "fn", parts)?.expect(status)?;
    let detail = answer.json()?.get("detail").and_then(Value::as_str).unwrap_or_default().to_owned();
    assert_eq!(tenant.get("")?.expect(200)?.text(), "Hello from Dormouse\n");
    Ok((problem_of(&answer)?, detail))
}

fn a_function_is_held_to_its_own_limits(component: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(component)?;
    for (limit, most, path, status, slug) in [
        ("cpu_time_max_ms", 150, "/spin", 502, "cpu-time-limit"),
        ("memory_bytes_max", 16_777_216, "/allocate", 502, "memory-limit"),
        ("wall_time_max_ms", 700, "/never", 504, "wall-time-limit"),
    ] {
        deploy(&tenant, component, &json!({"limits": {limit: most}}))?;
        let answer = tenant.get(path)?.expect(status)?;
        assert_eq!(problem_of(&answer)?, slug);
        let detail = answer.json()?.get("detail").and_then(Value::as_str).unwrap_or_default().to_owned();
        assert_eq!(detail, format!("its {limit} is {most}"));
    }
    // The next deploy takes the function's place, and with it its limits.
    node.deploy(&tenant.name, "fn", &guest(component)?)?;
    tenant.get("/slow?ms=800")?.expect(200)?;
    Ok(())
}

#[test]
fn a_limit_of_the_node_holds_where_the_manifest_has_none() -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant("misbehave")?;
    deploy(&tenant, "misbehave", &json!({"limits": {"memory_bytes_max": 16_777_216}}))?;
    let answer = tenant.get("/spin")?.expect(502)?;
    assert_eq!(problem_of(&answer)?, "cpu-time-limit");
    ensure!(answer.text().contains("cpu_time_max_ms is 200"), "{}", answer.text());
    Ok(())
}

#[test]
fn more_than_the_node_allows_is_refused() -> Result<()> {
    let node = TIGHT.node()?;
    let manifest = json!({"limits": {"memory_bytes_max": 33_554_433, "cpu_time_max_ms": 201}}).to_string();
    let parts = [("manifest", manifest.as_bytes()), ("component", b"never looked at".as_slice())];
    let (slug, detail) = refused(&node, &parts, 422)?;
    assert_eq!(slug, "bad-manifest");
    for part in ["memory_bytes_max is 33554433", "at most 33554432", "cpu_time_max_ms is 201", "at most 200"]
    {
        ensure!(detail.contains(part), "{part} is missing: {detail}");
    }
    Ok(())
}

#[test]
fn what_is_no_manifest_is_refused() -> Result<()> {
    let node = SHIPPED.node()?;
    for (manifest, part) in [
        ("", "EOF"),
        ("7", "invalid type"),
        (r#"{"limit":{}}"#, "limit"),
        (r#"{"limits":{"cpu_time_max_ms":0}}"#, "nonzero"),
        (r#"{"allowed_outbound_hosts":["example.com"]}"#, "example.com"),
        (r#"{"variables":["A-B"]}"#, "A-B"),
    ] {
        let parts = [("manifest", manifest.as_bytes()), ("component", b"never looked at".as_slice())];
        let (slug, detail) = refused(&node, &parts, 422)?;
        assert_eq!(slug, "bad-manifest", "{manifest}");
        ensure!(detail.contains(part), "{manifest}: {detail}");
    }
    let large = vec![b' '; (64 << 10) + 1];
    let (slug, _) = refused(&node, &[("manifest", &large), ("component", b"")], 422)?;
    assert_eq!(slug, "bad-manifest");
    Ok(())
}

#[test]
fn an_upload_in_parts_needs_its_component_and_nothing_unknown() -> Result<()> {
    let node = SHIPPED.node()?;
    let (slug, detail) = refused(&node, &[("manifest", b"{}")], 400)?;
    assert_eq!(slug, "bad-request");
    ensure!(detail.contains("no part named component"), "{detail}");
    let (_, detail) = refused(&node, &[("component", b""), ("readme", b"")], 400)?;
    ensure!(detail.contains("readme"), "{detail}");
    Ok(())
}

#[test]
fn a_component_in_a_part_has_the_same_cap() -> Result<()> {
    let node = TIGHT.node()?;
    let component = vec![b'x'; (1 << 20) + 1];
    let (slug, _) = refused(&node, &[("manifest", b"{}"), ("component", &component)], 413)?;
    assert_eq!(slug, "component-too-large");
    Ok(())
}

#[test]
fn a_manifest_is_shown_and_kept_over_a_restart() -> Result<()> {
    let mut node = TestNode::start()?;
    let manifest = json!({
        "build": "make", "component": "fn.wasm",
        "limits": {"cpu_time_max_ms": 150},
        "allowed_outbound_hosts": ["https://*.example.com"],
        "variables": ["api_token"],
    });
    let name = {
        let tenant = node.tenant("misbehave")?;
        deploy(&tenant, "misbehave", &manifest)?;
        tenant.name
    };
    node.deploy(&name, "bare", &guest("hello")?)?;
    for _ in 0..2 {
        let shown = node.admin("GET", &format!("/v1/tenants/{name}"), b"")?.expect(200)?.json()?;
        assert_eq!(shown.pointer("/functions/0/manifest"), Some(&Value::Null));
        assert_eq!(shown.pointer("/functions/1/manifest"), Some(&manifest));
        let answer = node.request("GET", &format!("/t/{name}/fn/spin"), &[], b"")?.expect(502)?;
        ensure!(answer.text().contains("cpu_time_max_ms is 150"), "{}", answer.text());
        node.restart(Stop::Terminate)?;
    }
    Ok(())
}

#[test]
fn a_node_tells_the_most_that_a_manifest_may_ask_for() -> Result<()> {
    let node = TIGHT.node()?;
    let told = node.admin("GET", "/v1/node", b"")?.expect(200)?.json()?;
    let limits = told.get("limits").context("no limits")?;
    let expected = json!({"memory_bytes_max": 33_554_432, "cpu_time_max_ms": 200, "wall_time_max_ms": 2_000});
    assert_eq!(limits, &expected);
    Ok(())
}
