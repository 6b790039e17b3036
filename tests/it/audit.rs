//! The audit log, and the limit on wrong tokens: what is on record, what is not, and what neither may cost.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::{Connection, Response};
use dormouse_tests::logs::Line;
use dormouse_tests::{Stop, TestNode, eventually, guest, problem_of};
use serde_json::{Value, json};

use crate::cli;
use crate::tokens::{Made, make, with};

fn entries(node: &TestNode, query: &str) -> Result<Vec<Value>> {
    let answer = node.admin("GET", &format!("/v1/audit{query}"), b"")?.expect(200)?.json()?;
    answer.get("entries").and_then(Value::as_array).cloned().context("no entries")
}

/// Method, path and outcome of each entry.
fn told(entries: &[Value]) -> Vec<(String, String, String)> {
    let text =
        |entry: &Value, member| entry.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    entries.iter().map(|entry| (text(entry, "method"), text(entry, "path"), text(entry, "outcome"))).collect()
}

/// Method, path, body, status, and what the log says of it.
type Request<'a> = (&'a str, &'a str, Vec<u8>, u16, Option<&'a str>);

#[test]
fn every_change_is_on_record_and_nothing_else() -> Result<()> {
    let node = TestNode::start()?;
    let component = std::fs::read(guest("guestbook")?)?;
    let long = "x".repeat(20_000);
    let json = |value: Value| value.to_string().into_bytes();
    // What each request is answered with, and what the log says of it; nothing where it changes nothing.
    let requests: &[Request<'_>] = &[
        ("POST", "/v1/tenants", json(json!({"name": "acme"})), 201, Some("done")),
        ("POST", "/v1/tenants", json(json!({"name": "acme"})), 409, Some("tenant-exists")),
        ("GET", "/v1/tenants", vec![], 200, None),
        ("PUT", "/v1/tenants/acme/functions/fn", component, 200, Some("done")),
        ("PUT", "/v1/tenants/acme/functions/fn", b"none".to_vec(), 422, Some("bad-component")),
        (
            "PUT",
            "/v1/tenants/acme/variables/a",
            json(json!({"value": "x", "secret": true})),
            204,
            Some("done"),
        ),
        ("PUT", "/v1/tenants/acme/variables/a", json(json!({"value": long})), 422, Some("bad-variable")),
        ("DELETE", "/v1/tenants/acme/variables/a", vec![], 204, Some("done")),
        ("DELETE", "/v1/tenants/acme/variables/a", vec![], 404, Some("unknown-variable")),
        ("POST", "/v1/tenants/acme/sql", json(json!({"sql": "CREATE TABLE t(a)"})), 200, Some("done")),
        ("POST", "/v1/tenants/acme/sql", json(json!({"sql": "nonsense"})), 422, Some("bad-sql")),
        ("POST", "/v1/tenants/acme/recover", vec![], 200, Some("done")),
        ("POST", "/v1/tenants/acme/database/revert", vec![], 409, Some("no-previous-database")),
        ("PUT", "/v1/tenants/acme/database", b"none".to_vec(), 422, Some("bad-database")),
        ("POST", "/v1/tokens", json(json!({"label": "ci", "tenant": "acme"})), 201, Some("done")),
        ("DELETE", "/v1/tokens/no-such-token", vec![], 404, Some("unknown-token")),
        ("POST", "/v1/no-such-thing", vec![], 404, None),
        ("DELETE", "/v1/tenants/acme", vec![], 204, Some("done")),
        ("DELETE", "/v1/tenants/acme", vec![], 404, None),
    ];
    let mut expected = Vec::new();
    for (method, path, body, status, outcome) in requests {
        node.admin(method, path, body)?.expect(*status).with_context(|| format!("{method} {path}"))?;
        let entry = |outcome: &str| ((*method).to_owned(), (*path).to_owned(), outcome.to_owned());
        expected.extend(outcome.map(entry));
    }
    let kept = entries(&node, "?limit=1000")?;
    let found = told(&kept);
    // A tenant that is not there is refused before its route: there is nothing to change.
    assert_eq!(found, expected);

    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    for entry in &kept {
        assert_eq!(entry.get("label"), Some(&json!("admin.token")));
        assert_eq!(entry.get("token"), Some(&json!(null)));
        assert_eq!(entry.get("address"), Some(&json!("127.0.0.1")));
        ensure!(entry.get("request_id").and_then(Value::as_str).is_some_and(|id| id.len() > 8), "{entry}");
        ensure!(
            entry.get("at").and_then(Value::as_u64).is_some_and(|at| at <= now && at + 600 > now),
            "{entry}"
        );
        let of_tenant = entry.get("path").and_then(Value::as_str).is_some_and(|path| path.contains("/acme"));
        ensure!(entry.get("tenant").is_some_and(Value::is_string) == of_tenant, "{entry}");
    }
    let objects: Vec<_> = kept.iter().filter_map(|entry| entry.get("object")?.as_str()).collect();
    ensure!(objects.iter().any(|object| object.starts_with("component ")), "{objects:?}");
    ensure!(objects.iter().any(|object| object.starts_with("tenant acme ")), "{objects:?}");
    // Lines are written in order: behind one more, none of an earlier request is on its way.
    node.create_tenant("marker")?;
    let is_of_audit = |line: &Line| line.get("target") == Some("audit");
    node.logs()
        .wait_for("one more change", |line| is_of_audit(line) && line.text.contains("tenant marker"))?;
    assert_eq!(node.logs().matching(is_of_audit).len(), expected.len() + 1);
    Ok(())
}

#[test]
fn an_import_and_its_way_back_are_on_record() -> Result<()> {
    let node = TestNode::start()?;
    node.create_tenant("acme")?;
    let sql = json!({"sql": "CREATE TABLE t(a)"}).to_string();
    node.admin("POST", "/v1/tenants/acme/sql", sql.as_bytes())?.expect(200)?;
    let file = node.admin("GET", "/v1/tenants/acme/database", b"")?.expect(200)?.body;
    node.admin("PUT", "/v1/tenants/acme/database", &file)?.expect(200)?;
    node.admin("POST", "/v1/tenants/acme/database/revert", b"")?.expect(200)?;
    let kept = entries(&node, "?limit=2")?;
    let objects: Vec<_> = kept.iter().filter_map(|entry| entry.get("object")?.as_str()).collect();
    assert_eq!(objects, ["generation 2", "generation 1"]);
    ensure!(kept.iter().all(|entry| entry.get("outcome") == Some(&json!("done"))), "{kept:?}");
    Ok(())
}

#[test]
fn the_record_names_the_token_and_holds_no_secret() -> Result<()> {
    let mut node = TestNode::start()?;
    node.create_tenant("acme")?;
    let Made { id, token } = make(&node, &json!({"label": "ci", "tenant": "acme"}))?;
    let secret = "hunter2-and-more";
    let set = json!({"value": secret, "secret": true}).to_string();
    with(&node, &token, "PUT", "/v1/tenants/acme/variables/key", set.as_bytes())?.expect(204)?;
    let mistake = format!("/v1/tenants/acme/variables/key?value={secret}");
    with(&node, &token, "PUT", &mistake, set.as_bytes())?.expect(400)?;
    let sql = json!({"sql": format!("SELECT '{secret}'")}).to_string();
    with(&node, &token, "POST", "/v1/tenants/acme/sql", sql.as_bytes())?.expect(200)?;
    let kept = entries(&node, "")?;
    let by_token: Vec<_> = kept.iter().filter(|entry| entry.get("token") == Some(&json!(id))).collect();
    assert_eq!(by_token.len(), 3);
    ensure!(by_token.iter().all(|entry| entry.get("label") == Some(&json!("ci"))), "{by_token:?}");
    let said = Value::from(kept).to_string();
    ensure!(!said.contains(secret) && !said.contains(&token), "{said}");
    ensure!(node.logs().matching(|line| line.text.contains(secret)).is_empty(), "it is in the log");

    // It outlives the token, the tenant and the process.
    node.admin("DELETE", "/v1/tenants/acme", b"")?.expect(204)?;
    node.restart(Stop::Kill)?;
    let kept = entries(&node, "")?;
    assert_eq!(kept.iter().filter(|entry| entry.get("token") == Some(&json!(id))).count(), 3);
    Ok(())
}

#[test]
fn what_is_refused_is_in_the_log_and_not_on_record() -> Result<()> {
    let node = TestNode::start()?;
    node.create_tenant("acme")?;
    let Made { token, .. } = make(&node, &json!({"label": "looker", "read_only": true}))?;
    let before = entries(&node, "")?.len();
    with(&node, &token, "DELETE", "/v1/tenants/acme", b"")?.expect(403)?;
    with(&node, "wrong", "DELETE", "/v1/tenants/acme", b"")?.expect(401)?;
    node.admin_request("DELETE", "/v1/tenants/acme", &[], b"")?.expect(401)?;
    assert_eq!(entries(&node, "")?.len(), before);
    for (text, label) in [("forbidden", Some("looker")), ("unauthorized", None)] {
        node.logs().wait_for(text, |line| {
            let is_it = line.get("target") == Some("audit") && line.message().starts_with(text);
            is_it && line.get("label") == label && line.get("address") == Some("127.0.0.1")
        })?;
    }
    ensure!(node.metric("dormouse_admin_refusals_total{problem=\"forbidden\"}")? >= 1.0);
    ensure!(node.metric("dormouse_admin_refusals_total{problem=\"unauthorized\"}")? >= 2.0);
    Ok(())
}

#[test]
fn pages_follow_each_other_and_the_latest_come_by_themselves() -> Result<()> {
    let node = TestNode::start()?;
    for number in 0..5 {
        node.create_tenant(&format!("t{number}"))?;
    }
    let mut paths = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page =
            node.admin("GET", &format!("/v1/audit?limit=2&after={after}"), b"")?.expect(200)?.json()?;
        let found = page.get("entries").and_then(Value::as_array).context("no entries")?;
        paths.extend(found.iter().filter_map(|entry| entry.get("object")?.as_str().map(str::to_owned)));
        match page.get("next").and_then(Value::as_i64) {
            Some(next) => after = next.to_string(),
            None => break,
        }
    }
    let names: Vec<_> = paths.iter().filter_map(|object| object.split(' ').nth(1)).collect();
    assert_eq!(names, ["t0", "t1", "t2", "t3", "t4"]);
    let latest = entries(&node, "?limit=2")?;
    let latest: Vec<_> = latest.iter().filter_map(|entry| entry.get("id")?.as_i64()).collect();
    assert_eq!(latest, [4, 5]);
    let said = cli::run(&node, &["audit", "--limit", "2"])?;
    ensure!(
        said.stdout.contains("POST /v1/tenants") && said.stdout.contains("admin.token"),
        "{}",
        said.stdout
    );
    ensure!(said.stdout.contains("t4") && !said.stdout.contains("t2"), "{}", said.stdout);
    Ok(())
}

#[test]
fn the_record_is_bounded_and_a_tenants_token_pushes_nobody_out() -> Result<()> {
    let node = TestNode::builder().flag("--audit-entries-max", 100).start()?;
    node.create_tenant("acme")?;
    let Made { token, .. } = make(&node, &json!({"label": "noisy", "tenant": "acme"}))?;
    for _ in 0..150 {
        with(&node, &token, "DELETE", "/v1/tenants/acme/variables/none", b"")?.expect(404)?;
    }
    let kept = entries(&node, "?limit=1000")?;
    let by_noisy = kept.iter().filter(|entry| entry.get("label") == Some(&json!("noisy"))).count();
    assert_eq!((by_noisy, kept.len()), (1, 3), "{kept:?}");
    for _ in 0..150 {
        node.admin("DELETE", "/v1/tenants/acme/variables/none", b"")?.expect(404)?;
    }
    assert_eq!(entries(&node, "?limit=1000")?.len(), 101);
    Ok(())
}

/// Sends wrong tokens on a connection until one is refused for being one too many.
fn until_too_many(connection: &mut Connection) -> Result<Response> {
    for number in 0..10_000 {
        connection.request(
            "GET",
            "/v1/node",
            &[("authorization", &format!("Bearer wrong-{number}"))],
            b"",
        )?;
        let answer = connection.response("GET")?;
        if answer.status != 401 {
            return Ok(answer);
        }
    }
    anyhow::bail!("ten thousand wrong tokens were answered")
}

#[test]
fn wrong_tokens_are_limited_by_address_and_right_ones_never() -> Result<()> {
    let node = TestNode::builder().flag("--admin-listen", "[::]:0").start()?;
    let port = node.admin_address()?.port();
    let connect = |host: [u16; 8]| Connection::open((std::net::Ipv6Addr::from(host), port).into());
    let (own, mapped) = ([0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0xffff, 0x7f00, 1]);
    let mut attacker = connect(own)?;
    let refused = until_too_many(&mut attacker)?.expect(429)?;
    assert_eq!(problem_of(&refused)?, "too-many-wrong-tokens");
    let seconds: u64 = refused.header("retry-after").context("no retry-after")?.parse()?;
    ensure!((1..=60).contains(&seconds), "{seconds}");

    let bearer = format!("Bearer {}", node.token()?);
    attacker.request("GET", "/v1/node", &[("authorization", &bearer)], b"")?;
    attacker.response("GET")?.expect(200)?;
    // Lines are written in order, so one of another address follows all that came before it.
    let mut other = connect(mapped)?;
    let unauthorized = |line: &Line, address| {
        line.message().starts_with("unauthorized") && line.get("address") == Some(address)
    };
    let mut logged = |already: usize| -> Result<usize> {
        other.request("GET", "/v1/node", &[("authorization", "Bearer wrong")], b"")?;
        other.response("GET")?.expect(401)?;
        eventually("the other's line is there", || {
            let others = node.logs().matching(|line| unauthorized(line, "127.0.0.1")).len();
            Ok((others > already).then_some(()))
        })?;
        Ok(node.logs().matching(|line| unauthorized(line, "::1")).len())
    };
    let before = logged(0)?;
    for _ in 0..50 {
        attacker.request("GET", "/v1/node", &[("authorization", "Bearer wrong")], b"")?;
        attacker.response("GET")?;
    }
    let after = logged(1)?;
    ensure!(before > 0 && after <= before + 5, "{before} lines, then {after}");
    let name = "dormouse_admin_refusals_total{problem=\"too-many-wrong-tokens\"}";
    let mut metrics = connect(own)?;
    metrics.request("GET", "/metrics", &[], b"")?;
    ensure!(metrics.response("GET")?.text().contains(name));
    Ok(())
}
