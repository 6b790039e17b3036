//! The admin API: tenants, their SQL, and the paths that need no token.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use dormouse_tests::{SharedNode, Tenant, TestNode, eventually, guest, problem_of};
use serde_json::{Value, json};

use crate::SHIPPED;

fn create(node: &TestNode, body: &str) -> Result<dormouse_tests::client::Response> {
    node.admin("POST", "/v1/tenants", body.as_bytes())
}

#[test]
fn a_tenant_is_made_once() -> Result<()> {
    let node = SHIPPED.node()?;
    let made = create(&node, r#"{"name":"made-once"}"#)?.expect(201)?.json()?;
    assert_eq!(made.get("name"), Some(&json!("made-once")));
    let again = create(&node, r#"{"name":"made-once"}"#)?.expect(409)?;
    problem_of(&again)?;
    Ok(())
}

#[test]
fn a_bad_name_is_refused() -> Result<()> {
    let node = SHIPPED.node()?;
    for name in ["", "-a", "Acme", "a_b", "a.b", "a/b", "../x", "\u{e4}", &"x".repeat(64)] {
        let refused = create(&node, &json!({ "name": name }).to_string())?.expect(422)?;
        problem_of(&refused)?;
    }
    for body in ["", "{", "[]", "{}", r#"{"name":1}"#, "\"acme\""] {
        let refused = create(&node, body)?;
        ensure!(matches!(refused.status, 400 | 422), "{body:?}: {}", refused.status);
        problem_of(&refused)?;
    }
    Ok(())
}

#[test]
fn all_tenants_are_listed_page_by_page() -> Result<()> {
    let node = SHIPPED.node()?;
    let wanted: Vec<String> = (0..5).map(|n| format!("listed-{n}")).collect();
    for name in &wanted {
        node.create_tenant(name)?;
    }
    let (mut names, mut after) = (Vec::<String>::new(), String::new());
    loop {
        let page = node.admin("GET", &format!("/v1/tenants?limit=2{after}"), b"")?.expect(200)?.json()?;
        let tenants = page.get("tenants").and_then(Value::as_array).context("no tenants")?;
        ensure!(tenants.len() <= 2, "{page}");
        let name = |tenant: &Value| tenant.get("name").and_then(Value::as_str).map(str::to_owned);
        names.extend(tenants.iter().filter_map(name));
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    ensure!(names.is_sorted_by(|one, next| one < next), "not sorted, or one twice: {names:?}");
    let listed: Vec<_> = names.into_iter().filter(|name| name.starts_with("listed-")).collect();
    assert_eq!(listed, wanted);
    Ok(())
}

#[test]
fn an_address_with_a_mistake_is_a_problem() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let variable = format!("/v1/tenants/{}/variables/a", tenant.name);
    for (method, path, part) in [
        ("PUT", format!("{variable}?functon=fn"), "functon"),
        ("DELETE", format!("{variable}?value=x"), "value"),
        ("GET", "/v1/tenants?limit=many".to_owned(), "invalid digit"),
        ("GET", "/v1/tenants?page=2".to_owned(), "page"),
        ("GET", "/v1/tenants/%ff".to_owned(), "UTF-8"),
    ] {
        let answer = node.admin(method, &path, b"{}")?.expect(400)?;
        assert_eq!(problem_of(&answer)?, "bad-request", "{path}");
        ensure!(answer.text().contains(part), "{path}: {}", answer.text());
    }
    Ok(())
}

#[test]
fn a_tenant_is_shown() -> Result<()> {
    let node = SHIPPED.node()?;
    node.create_tenant("shown")?;
    let shown = node.admin("GET", "/v1/tenants/shown", b"")?.expect(200)?.json()?;
    assert_eq!(shown.get("name"), Some(&json!("shown")));
    assert_eq!(shown.get("functions"), Some(&json!([])));
    assert_eq!(shown.pointer("/database/state"), Some(&json!("unused")));
    assert_eq!(shown.pointer("/database/wal_bytes"), Some(&json!(0)));
    assert_eq!(shown.pointer("/database/bytes"), Some(&json!(0)));
    let id = shown.get("id").and_then(Value::as_str).unwrap_or_default();
    ensure!(id.len() == 32, "{shown}");
    ensure!(shown.get("created_at").is_some_and(|time| !time.is_null()), "{shown}");
    node.admin("GET", "/v1/tenants/nobody", b"")?.expect(404)?;
    Ok(())
}

/// The folders of a tenant's id below the data folder.
fn folders(node: &TestNode, id: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for shard in std::fs::read_dir(node.data().join("tenants"))? {
        let folder = shard?.path().join(id);
        if folder.exists() {
            found.push(folder);
        }
    }
    Ok(found)
}

fn delete(tenant: &Tenant<'_>) -> Result<()> {
    tenant.node.admin("DELETE", &format!("/v1/tenants/{}", tenant.name), b"")?.expect(204)?;
    Ok(())
}

#[test]
fn a_deleted_tenant_is_gone_with_its_files() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("guestbook")?;
    tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
    let id = tenant.id()?;
    assert_eq!(folders(&node, &id)?.len(), 1);
    delete(&tenant)?;
    assert_eq!(problem_of(&tenant.get("")?.expect(404)?)?, "unknown-tenant");
    let path = format!("/v1/tenants/{}", tenant.name);
    node.admin("GET", &path, b"")?.expect(404)?;
    node.admin("DELETE", &path, b"")?.expect(404)?;
    eventually("its files are gone", || Ok(folders(&node, &id)?.is_empty().then_some(())))?;

    // Another tenant may have the name; nothing of the first is found in it.
    node.create_tenant(&tenant.name)?;
    assert_ne!(tenant.id()?, id);
    assert_eq!(problem_of(&tenant.get("")?.expect(404)?)?, "unknown-function");
    node.deploy(&tenant.name, "fn", &guest("guestbook")?)?;
    assert_eq!(tenant.json("")?, json!([]));
    Ok(())
}

#[test]
fn a_tenant_deleted_under_a_request_leaves_nothing() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let id = tenant.id()?;
    let mut request = tenant.send("/hold-transaction?ms=700")?;
    tenant.wait_for_state("leased")?;
    delete(&tenant)?;
    assert_eq!(problem_of(&tenant.get("/ok")?.expect(404)?)?, "unknown-tenant");
    // What the request in flight is told is not laid down; that it ends is.
    let answer = request.response("GET")?;
    ensure!(answer.status == 200 || answer.status >= 500, "{}", answer.status);
    eventually("its files are gone", || Ok(folders(&node, &id)?.is_empty().then_some(())))?;
    Ok(())
}

#[test]
fn an_operator_runs_sql() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let run = |sql: &str, parameters: Value| tenant.try_sql(sql, &parameters)?.expect(200)?.json();
    run("CREATE TABLE t(a INTEGER, b REAL, c TEXT, d)", json!([]))?;
    let inserted =
        run("INSERT INTO t VALUES (?, ?, ?, ?)", json!([i64::MAX, 0.5, "caf\u{e9} \u{0} \u{1f42d}", null]))?;
    assert_eq!(inserted.get("changes"), Some(&json!(1)));
    assert_eq!(inserted.get("last_insert_rowid"), Some(&json!(1)));
    let found = run("SELECT a, b, c, d FROM t WHERE a = ?1", json!([i64::MAX]))?;
    assert_eq!(found.get("columns"), Some(&json!(["a", "b", "c", "d"])));
    assert_eq!(found.get("rows"), Some(&json!([[i64::MAX, 0.5, "caf\u{e9} \u{0} \u{1f42d}", null]])));
    let none = run("SELECT a FROM t WHERE a = 0", json!([]))?;
    assert_eq!(none.get("columns"), Some(&json!(["a"])));
    assert_eq!(none.get("rows"), Some(&json!([])));
    Ok(())
}

#[test]
fn wrong_sql_is_explained() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    for (sql, expected) in [
        ("SELEKT 1", "syntax error"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("ATTACH 'x' AS x", "not authorized"),
    ] {
        let refused = tenant.try_sql(sql, &json!([]))?.expect(422)?;
        problem_of(&refused)?;
        let detail = refused.json()?.get("detail").and_then(Value::as_str).unwrap_or_default().to_owned();
        ensure!(detail.contains(expected), "{sql}: {detail}");
    }
    let too_few = tenant.try_sql("SELECT ?, ?", &json!([1]))?.expect(422)?;
    problem_of(&too_few)?;
    let body = json!({ "sql": "SELECT 1", "parameters": [{ "an": "object" }] }).to_string();
    let path = format!("/v1/tenants/{}/sql", tenant.name);
    ensure!(matches!(node.admin("POST", &path, body.as_bytes())?.status, 400 | 422));
    node.admin("POST", "/v1/tenants/nobody/sql", br#"{"sql":"SELECT 1"}"#)?.expect(404)?;
    Ok(())
}

#[test]
fn an_operators_sql_leaves_no_transaction() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    tenant.sql("CREATE TABLE t(a)")?;
    // Whether it is refused or rolled back is not laid down.
    tenant.try_sql("BEGIN IMMEDIATE", &json!([]))?;
    tenant.sql("INSERT INTO t VALUES (1)")?;
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 1);
    Ok(())
}

#[test]
fn health_readiness_and_metrics_need_no_token() -> Result<()> {
    let node = SHIPPED.node()?;
    for path in ["/healthz", "/readyz", "/metrics"] {
        node.admin_request("GET", path, &[], b"")?.expect(200)?;
    }
    let metrics = node.admin_request("GET", "/metrics", &[], b"")?;
    let content_type = metrics.header("content-type").unwrap_or_default();
    ensure!(
        content_type.starts_with("text/plain") || content_type.starts_with("application/openmetrics-text")
    );
    let unknown = node.admin("GET", "/v1/no-such-thing", b"")?.expect(404)?;
    problem_of(&unknown)?;
    Ok(())
}

#[test]
fn every_promised_metric_is_there() -> Result<()> {
    let node: SharedNode = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let requests = || -> Result<f64> {
        let metrics = node.metrics()?;
        Ok(metrics
            .iter()
            .filter(|(name, _)| name.starts_with("dormouse_requests_total{"))
            .map(|(_, n)| n)
            .sum())
    };
    let before = requests()?;
    tenant.get("")?.expect(200)?;
    ensure!(requests()? >= before + 1.0, "a request was not counted");
    for name in [
        "dormouse_instances",
        "dormouse_database_sessions",
        "dormouse_database_sessions_parked",
        "dormouse_database_parked_bytes",
        "dormouse_tenants_present",
        "dormouse_databases_quarantined",
        "dormouse_components_mapped",
        "dormouse_components_mapped_bytes",
        "dormouse_pool_unused_resident_bytes",
        "dormouse_connections",
    ] {
        ensure!(node.metric(name)? >= 0.0, "{name}");
    }
    ensure!(node.metric("dormouse_resident_bytes")? > 1_000_000.0);
    ensure!(node.metric("dormouse_components_mapped")? >= 1.0);
    Ok(())
}
