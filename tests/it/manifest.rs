//! Manifests: what a function asks for itself is kept with it and holds when it runs.

use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::client::Connection;
use dormouse_tests::{PATIENCE, SharedNode, Stop, Tenant, TestNode, binary, guest, problem_of};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::cli::{command, fails, run};
use crate::{SHIPPED, TIGHT};

in_both_worlds![a_function_is_held_to_its_own_limits];

/// Deploys a guest as a tenant's function `fn`, with a manifest.
pub(crate) fn deploy(tenant: &Tenant<'_>, component: &str, manifest: &Value) -> Result<()> {
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
        tenant.set_variable("api_token", &json!({"value": "s3cret", "secret": true}))?;
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
fn variables_that_are_required_must_be_set_before_a_deploy() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let manifest = br#"{"variables":["api_token","greeting","level"]}"#;
    tenant.set_variable("greeting", &json!({"value": "Moin"}))?;
    tenant.set_variable("level?function=other", &json!({"value": "not of this function"}))?;
    let deploy = || {
        let component = std::fs::read(guest("sdk")?)?;
        node.upload_parts(&tenant.name, "fn", &[("manifest", manifest), ("component", &component)])
    };
    let refused = deploy()?.expect(422)?;
    assert_eq!(problem_of(&refused)?, "missing-variables");
    let detail = refused.json()?.get("detail").and_then(Value::as_str).unwrap_or_default().to_owned();
    for name in ["api_token", "level"] {
        let command = format!("`dormouse variable set {} {name} <value>`", tenant.name);
        ensure!(detail.contains(&command), "{command} is missing: {detail}");
    }
    ensure!(!detail.contains("greeting"), "{detail}");
    assert_eq!(tenant.get("")?.expect(200)?.text(), "Hello from Dormouse\n", "nothing has changed");

    tenant.set_variable("api_token", &json!({"value": "", "secret": true}))?;
    tenant.set_variable("level?function=fn", &json!({"value": "its own"}))?;
    deploy()?.expect(200)?;
    assert_eq!(tenant.json("/variable/level")?.get("value"), Some(&json!("its own")));
    Ok(())
}

#[test]
fn a_project_is_not_deployed_without_its_variables() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let project = tempfile::tempdir()?;
    let component = guest("sdk")?;
    let manifest = format!("[functions.fn]\ncomponent = {component:?}\nvariables = [\"greeting\"]\n");
    std::fs::write(project.path().join("dormouse.toml"), manifest)?;
    let path = project.path().to_str().context("a path that is text")?;
    let said = fails(&command(&node, &["deploy", &tenant.name, path])?.output()?)?;
    let set = format!("dormouse variable set {} greeting", tenant.name);
    ensure!(said.contains(&set), "{said}");
    run(&node, &["variable", "set", &tenant.name, "greeting", "Moin"])?;
    run(&node, &["deploy", &tenant.name, path])?;
    assert_eq!(tenant.json("/variable/greeting")?.get("value"), Some(&json!("Moin")));
    Ok(())
}

/// `dormouse dev` over a project, and what it writes.
struct Developing {
    child: Child,
    said: Receiver<String>,
}

impl Developing {
    fn start(project: &Path, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(["dev", "--public-listen", "127.0.0.1:0"]).args(options).arg(project);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (sender, said) = mpsc::sync_channel(1_000);
        let stdout = child.stdout.take().context("no stdout")?;
        let stderr = child.stderr.take().context("no stderr")?;
        for output in [Box::new(stdout) as Box<dyn Read + Send>, Box::new(stderr)] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        Ok(Self { child, said })
    }

    /// The line that has a text in it, once it comes.
    fn wait_for(&self, text: &str) -> Result<String> {
        let mut before = Vec::new();
        loop {
            let line =
                self.said.recv_timeout(PATIENCE).with_context(|| format!("no {text:?}: {before:#?}"))?;
            if line.contains(text) {
                return Ok(line);
            }
            before.push(line);
        }
    }

    /// What the project's function answers, once it is live.
    fn get(&self, path: &str) -> Result<Value> {
        let line = self.wait_for(" is live")?;
        let (address, base) = line
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once(" is live")?.0.split_once('/'))
            .with_context(|| format!("no address: {line}"))?;
        let mut connection = Connection::open(address.parse()?)?;
        connection.request("GET", &format!("/{base}{path}"), &[], b"")?;
        connection.response("GET")?.expect(200)?.json()
    }
}

impl Drop for Developing {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

#[test]
fn a_project_is_given_its_variables_while_it_is_edited() -> Result<()> {
    let project = tempfile::tempdir()?;
    let component = guest("sdk")?;
    let manifest = format!("[functions.fn]\ncomponent = {component:?}\nvariables = [\"greeting\"]\n");
    std::fs::write(project.path().join("dormouse.toml"), manifest)?;
    {
        let without = Developing::start(project.path(), &[])?;
        without.wait_for("start `dormouse dev --variable greeting=<value>`")?;
    }
    for options in [&["--variable", "greeting=Moin"] as &[_], &[]] {
        let developing = Developing::start(project.path(), options)?;
        let told = developing.get("/variable/greeting")?;
        assert_eq!(told.get("value"), Some(&json!("Moin")), "it stays between runs");
    }
    Ok(())
}

#[test]
fn a_node_tells_its_limits_as_a_manifest_writes_them() -> Result<()> {
    let node = TIGHT.node()?;
    let told = node.admin("GET", "/v1/node", b"")?.expect(200)?.json()?;
    let limits = told.get("limits").context("no limits")?;
    let expected = json!({
        "memory_bytes_max": 33_554_432,
        "cpu_time_max_ms": 200,
        "wall_time_max_ms": 2_000,
        "response_bytes_max": 67_108_864,
        "body_bytes_per_second_min": 1_024,
        "table_elements_max": 100_000,
        "core_instances_max": 16,
        "handles_max": 10_000,
        "hostcall_bytes_max": 16_777_216,
        "log_bytes_max": 65_536,
    });
    assert_eq!(limits, &expected);
    Ok(())
}
