//! Variables: set by the operator, read by functions, and kept secret where they are secrets.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::Response;
use dormouse_tests::{Stop, Tenant, TestNode, guest, problem_of};
use serde_json::{Value, json};

use crate::SHIPPED;
use crate::cli::{command, fails, run};

/// A value that is nowhere but where a test has put it.
const SECRET: &str = "hunter2-e7f9d3-\u{e4}\u{1f42d}";

/// A tenant that is there already.
fn named<'a>(node: &'a TestNode, name: &str) -> Tenant<'a> {
    Tenant { node, name: name.to_owned() }
}

fn path(tenant: &Tenant<'_>, name: &str) -> String {
    format!("/v1/tenants/{}/variables/{name}", tenant.name)
}

/// Sets a variable. The name may be followed by `?function=<name>`.
fn set(tenant: &Tenant<'_>, name: &str, body: &Value) -> Result<Response> {
    tenant.node.admin("PUT", &path(tenant, name), body.to_string().as_bytes())
}

fn set_to(tenant: &Tenant<'_>, name: &str, value: &str) -> Result<()> {
    set(tenant, name, &json!({ "value": value }))?.expect(204)?;
    Ok(())
}

fn unset(tenant: &Tenant<'_>, name: &str) -> Result<Response> {
    tenant.node.admin("DELETE", &path(tenant, name), b"")
}

fn list(tenant: &Tenant<'_>) -> Result<Vec<Value>> {
    let path = format!("/v1/tenants/{}/variables", tenant.name);
    let answer = tenant.node.admin("GET", &path, b"")?.expect(200)?.json()?;
    answer.get("variables").and_then(Value::as_array).cloned().context("no list")
}

/// What a function gets for a name.
fn got(tenant: &Tenant<'_>, function: &str, name: &str) -> Result<Value> {
    let path = format!("/t/{}/{function}/variable/{name}", tenant.name);
    tenant.node.request("GET", &path, &[], b"")?.expect(200)?.json()
}

fn error_of(told: &Value) -> &str {
    told.get("error").and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn a_function_reads_what_is_set_without_a_deploy() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("spin2")?;
    assert_eq!(error_of(&got(&tenant, "fn", "greeting")?), "undefined");
    for value in ["Hello", "Good day", "", "several\nlines and a NUL: \u{0} and a \u{1f42d}"] {
        set_to(&tenant, "greeting", value)?;
        assert_eq!(got(&tenant, "fn", "greeting")?, json!({ "value": value }));
    }
    unset(&tenant, "greeting")?.expect(204)?;
    assert_eq!(error_of(&got(&tenant, "fn", "greeting")?), "undefined");
    assert_eq!(problem_of(&unset(&tenant, "greeting")?.expect(404)?)?, "unknown-variable");
    Ok(())
}

#[test]
fn a_functions_own_value_comes_first() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("spin2")?;
    // It may be set before the function is deployed.
    set_to(&tenant, "level?function=other", "of other")?;
    node.deploy(&tenant.name, "other", &guest("spin2")?)?;
    assert_eq!(error_of(&got(&tenant, "fn", "level")?), "undefined");
    assert_eq!(got(&tenant, "other", "level")?, json!({ "value": "of other" }));
    set_to(&tenant, "level", "of all")?;
    assert_eq!(got(&tenant, "fn", "level")?, json!({ "value": "of all" }));
    assert_eq!(got(&tenant, "other", "level")?, json!({ "value": "of other" }));
    unset(&tenant, "level?function=other")?.expect(204)?;
    assert_eq!(got(&tenant, "other", "level")?, json!({ "value": "of all" }));
    assert_eq!(problem_of(&unset(&tenant, "level?function=other")?.expect(404)?)?, "unknown-variable");
    Ok(())
}

#[test]
fn a_tenant_has_its_own_variables() -> Result<()> {
    let node = SHIPPED.node()?;
    let (one, other) = (node.tenant("spin2")?, node.tenant("spin2")?);
    set_to(&one, "whose", "one's")?;
    assert_eq!(error_of(&got(&other, "fn", "whose")?), "undefined");
    ensure!(list(&other)?.is_empty());
    set_to(&other, "whose", "the other's")?;
    assert_eq!(got(&one, "fn", "whose")?, json!({ "value": "one's" }));

    // They go with their tenant, and another one of its name has none.
    node.admin("DELETE", &format!("/v1/tenants/{}", one.name), b"")?.expect(204)?;
    node.create_tenant(&one.name)?;
    ensure!(list(&one)?.is_empty());
    node.deploy(&one.name, "fn", &guest("spin2")?)?;
    assert_eq!(error_of(&got(&one, "fn", "whose")?), "undefined");
    node.admin("GET", "/v1/tenants/nobody/variables", b"")?.expect(404)?;
    node.admin("PUT", "/v1/tenants/nobody/variables/a", br#"{"value":""}"#)?.expect(404)?;
    Ok(())
}

#[test]
fn variables_are_listed() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("spin2")?;
    set_to(&tenant, "b", "two")?;
    set_to(&tenant, "a?function=fn", "one")?;
    set(&tenant, "c", &json!({ "value": SECRET, "secret": true }))?.expect(204)?;
    let mut listed = list(&tenant)?;
    for variable in &mut listed {
        let changed = variable.as_object_mut().and_then(|members| members.remove("changed_at"));
        ensure!(changed.is_some_and(|time| time.is_i64()), "{variable}");
    }
    assert_eq!(
        listed,
        [
            json!({ "name": "a", "function": "fn", "secret": false, "value": "one" }),
            json!({ "name": "b", "function": null, "secret": false, "value": "two" }),
            json!({ "name": "c", "function": null, "secret": true, "value": null }),
        ]
    );
    Ok(())
}

/// Fails when a file below a folder holds a text.
fn ensure_nowhere(folder: &Path, text: &str) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            ensure_nowhere(&path, text)?;
        } else {
            let bytes = fs::read(&path)?;
            let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
            ensure!(!found, "{text:?} stands in {}", path.display());
        }
    }
    Ok(())
}

#[test]
fn a_secret_is_given_to_its_function_and_to_nobody_else() -> Result<()> {
    let mut node = TestNode::builder().flag("--log-level", "debug").start()?;
    let name = node.tenant("spin2")?.name;
    let told =
        set(&named(&node, &name), "api_key", &json!({ "value": SECRET, "secret": true }))?.expect(204)?;
    ensure!(told.text().is_empty());
    set_to(&named(&node, &name), "plain", "plain-93a1c7")?;
    assert_eq!(got(&named(&node, &name), "fn", "api_key")?, json!({ "value": SECRET }));
    ensure!(!json!(list(&named(&node, &name))?).to_string().contains("hunter2"));

    let key = node.data().join("keys/variables.key");
    assert_eq!(fs::metadata(&key)?.permissions().mode() & 0o777, 0o600);
    node.restart(Stop::Kill)?;
    assert_eq!(got(&named(&node, &name), "fn", "api_key")?, json!({ "value": SECRET }));
    assert_eq!(got(&named(&node, &name), "fn", "plain")?, json!({ "value": "plain-93a1c7" }));
    node.restart(Stop::Terminate)?;
    assert_eq!(got(&named(&node, &name), "fn", "api_key")?, json!({ "value": SECRET }));
    ensure_nowhere(&node.data(), "hunter2")?;
    ensure_nowhere(&node.data(), "plain-93a1c7")?;
    ensure!(!node.logs().to_string().contains("hunter2"), "it stands in the log");
    Ok(())
}

#[test]
fn a_mistake_with_a_secret_does_not_show_it() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("spin2")?;
    for body in [
        json!({ "value": "x", "secret": "hunter2" }),
        json!({ "value": ["hunter2"] }),
        json!({ "value": "x", "hunter2": true }),
        json!("hunter2"),
        json!({}),
    ] {
        let refused = set(&tenant, "api_key", &body)?.expect(400)?;
        assert_eq!(problem_of(&refused)?, "bad-request");
        ensure!(!refused.text().contains("hunter2"), "{}", refused.text());
    }
    ensure!(list(&tenant)?.is_empty());
    Ok(())
}

#[test]
fn names_follow_spins_rules() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("spin2")?;
    let (longest, longer) = ("x".repeat(128), "x".repeat(129));
    for good in ["a", "api_key", "v2_1", &longest] {
        set_to(&tenant, good, "x")?;
        assert_eq!(got(&tenant, "fn", good)?, json!({ "value": "x" }));
    }
    for bad in ["API_KEY", "_a", "a_", "a__b", "2a", "a-b", "a.b", "%C3%A4", &longer] {
        assert_eq!(problem_of(&set(&tenant, bad, &json!({ "value": "x" }))?.expect(422)?)?, "bad-name");
        assert_eq!(problem_of(&unset(&tenant, bad)?.expect(422)?)?, "bad-name");
        assert_eq!(error_of(&got(&tenant, "fn", bad)?), "invalid-name", "{bad}");
    }
    assert_eq!(error_of(&got(&tenant, "fn", "")?), "invalid-name");
    let wrong_function = set(&tenant, "a?function=No", &json!({ "value": "x" }))?.expect(422)?;
    assert_eq!(problem_of(&wrong_function)?, "bad-name");
    ensure!(set(&tenant, "a?funktion=fn", &json!({ "value": "x" }))?.status == 400);
    Ok(())
}

#[test]
fn variables_are_bounded() -> Result<()> {
    let node = SHIPPED.node()?;
    let (tenant, crowded) = (node.tenant("spin2")?, node.tenant("spin2")?);
    let refused = |tenant: &Tenant<'_>, name: &str, bytes: usize| {
        problem_of(&set(tenant, name, &json!({ "value": "x".repeat(bytes) }))?.expect(422)?)
    };
    let largest = "x".repeat(16 << 10);
    assert_eq!(refused(&tenant, "large", largest.len() + 1)?, "bad-variable");
    for name in ["one", "two", "three", "four"] {
        set_to(&tenant, name, &largest)?;
    }
    assert_eq!(refused(&tenant, "five", 1)?, "bad-variable");
    // One that is set already makes room for its next value.
    set_to(&tenant, "three", &largest)?;
    assert_eq!(got(&tenant, "fn", "three")?, json!({ "value": largest }));

    for number in 0..100 {
        set_to(&crowded, &format!("v{number}"), "x")?;
    }
    assert_eq!(refused(&crowded, "v100", 1)?, "bad-variable");
    assert_eq!(refused(&crowded, "v1?function=fn", 1)?, "bad-variable");
    set_to(&crowded, "v99", "y")?;
    unset(&crowded, "v0")?.expect(204)?;
    set_to(&crowded, "v100", "x")?;
    assert_eq!(got(&crowded, "fn", "v100")?, json!({ "value": "x" }));
    Ok(())
}

#[test]
fn without_its_key_nothing_opens() -> Result<()> {
    let mut node = TestNode::start()?;
    node.expect_log("keys/variables.key");
    let name = node.tenant("spin2")?.name;
    set(&named(&node, &name), "api_key", &json!({ "value": SECRET, "secret": true }))?.expect(204)?;
    set_to(&named(&node, &name), "plain", "x")?;
    node.stop(Stop::Terminate)?;
    fs::remove_file(node.data().join("keys/variables.key"))?;
    node.restart_after_stop()?;

    let told = got(&named(&node, &name), "fn", "api_key")?;
    assert_eq!(error_of(&told), "provider");
    // The cause is the operator's to know.
    ensure!(!told.to_string().contains("variables.key"), "{told}");
    node.logs().wait_for("the cause", |line| {
        line.message() == "a function cannot read its variables" && line.get("error").is_some()
    })?;
    let path = format!("/v1/tenants/{name}/variables");
    let refused = node.admin("GET", &path, b"")?.expect(500)?;
    ensure!(refused.text().contains("plain") && refused.text().contains("variables.key"));

    // Set again they open, and what is unset is in nobody's way.
    unset(&named(&node, &name), "plain")?.expect(204)?;
    set(&named(&node, &name), "api_key", &json!({ "value": "new", "secret": true }))?.expect(204)?;
    assert_eq!(got(&named(&node, &name), "fn", "api_key")?, json!({ "value": "new" }));
    Ok(())
}

#[test]
fn the_command_sets_lists_and_unsets() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("spin2")?;
    let name = tenant.name.as_str();
    run(&node, &["variable", "set", name, "greeting", "Good day"])?;
    run(&node, &["variable", "set", name, "offset", "--function", "fn", "--", "-5"])?;
    let mut piped = command(&node, &["variable", "set", name, "api_key", "--secret"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    piped.stdin.take().context("no stdin")?.write_all(format!("{SECRET}\n").as_bytes())?;
    let piped = piped.wait_with_output()?;
    ensure!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    let said = [piped.stdout, piped.stderr].concat();
    ensure!(!String::from_utf8_lossy(&said).contains("hunter2"));
    for (variable, value) in [("greeting", "Good day"), ("offset", "-5"), ("api_key", SECRET)] {
        assert_eq!(got(&tenant, "fn", variable)?, json!({ "value": value }));
    }

    let table = run(&node, &["variable", "list", name])?.stdout;
    for part in ["greeting", "Good day", "(all)", "offset", "-5", "fn", "api_key", "secret"] {
        ensure!(table.contains(part), "{part} is missing in:\n{table}");
    }
    let listed = run(&node, &["variable", "list", name, "--json"])?.stdout;
    ensure!(!table.contains("hunter2") && !listed.contains("hunter2"));
    let listed: Value = serde_json::from_str(&listed)?;
    assert_eq!(listed.pointer("/variables/0/name"), Some(&json!("api_key")));

    run(&node, &["variable", "unset", name, "offset", "--function", "fn"])?;
    assert_eq!(error_of(&got(&tenant, "fn", "offset")?), "undefined");
    let said = fails(&command(&node, &["variable", "unset", name, "offset"])?.output()?)?;
    ensure!(said.contains("offset"), "{said}");
    let said = fails(&command(&node, &["variable", "set", name, "Offset", "1"])?.output()?)?;
    ensure!(said.contains("Offset") && said.contains("lowercase"), "{said}");
    Ok(())
}
