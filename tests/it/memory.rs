//! The node's memory: small requests are small, and whoever asks for more than there is is refused alone.

use anyhow::{Result, ensure};
use dormouse_tests::{Builder, Tenant, TestNode, eventually, guest, problem_of};
use serde_json::{Value, json};

/// A node of which requests share 92 MB.
fn small() -> Builder {
    TestNode::builder().flag("--memory", "256MB").flag("--memory-bytes-max", 64_000_000)
}

fn shared(node: &TestNode) -> Result<f64> {
    node.metric("dormouse_memory_shared_bytes")
}

/// Lets a guest take so much for as long as the connection is there.
fn hold(tenant: &Tenant<'_>, bytes: u32) -> Result<dormouse_tests::client::Connection> {
    let before = shared(tenant.node)?;
    let connection = tenant.send(&format!("/take?bytes={bytes}&ms=600000"))?;
    let least = before + f64::from(bytes) - 2_200_000.0;
    eventually("the memory is taken", || Ok((shared(tenant.node)? >= least).then_some(())))?;
    Ok(connection)
}

fn is_refused(answer: &dormouse_tests::client::Response) -> Result<()> {
    ensure!(answer.status == 503, "{}: {}", answer.status, answer.text());
    assert_eq!(problem_of(answer)?, "node-memory");
    assert_eq!(answer.header("retry-after"), Some("1"));
    Ok(())
}

fn a_guest_that_asks_for_more_than_the_node_has_is_ended(name: &str) -> Result<()> {
    let node = small().start()?;
    let (greedy, late, modest) = (node.tenant(name)?, node.tenant(name)?, node.tenant(name)?);
    let held = hold(&greedy, 60_000_000)?;
    is_refused(&late.get("/take?bytes=50000000")?)?;
    ensure!(node.metric("dormouse_memory_refusals")? >= 1.0);
    assert_eq!(modest.get("/ok")?.expect(200)?.text(), "ok");
    let insert = ["CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"];
    let told = modest.guest_statements(&insert)?;
    ensure!(told.iter().all(|answer| answer.get("error").is_none()), "{told:?}");
    drop(held);
    eventually("the memory is back", || Ok((shared(&node)? == 0.0).then_some(())))?;
    assert_eq!(late.get("/take?bytes=50000000")?.expect(200)?.text(), "50000000");
    Ok(())
}

fn sql_that_asks_for_more_than_the_node_has_ends_its_request(name: &str) -> Result<()> {
    let node = small().start()?;
    let (greedy, other) = (node.tenant(name)?, node.tenant(name)?);
    let sorting = "WITH RECURSIVE n(x, y) AS (SELECT 1, randomblob(500000) UNION ALL SELECT x + 1, randomblob(500000) \
                   FROM n WHERE x < 100) SELECT count(*) FROM (SELECT x FROM n ORDER BY y)";
    let rows = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 26) \
                SELECT zeroblob(500000) FROM n";
    let held = (hold(&greedy, 50_000_000)?, hold(&greedy, 36_000_000)?);
    for sql in [sorting, rows] {
        is_refused(&other.post("/sql", &json!({ "sql": sql }))?)?;
        is_refused(&other.try_sql(sql, &json!([]))?)?;
    }
    assert_eq!(other.guest_sql("SELECT 1")?.get("rows"), Some(&json!([[1]])));
    drop(held);
    eventually("the memory is back", || Ok((shared(&node)? == 0.0).then_some(())))?;
    let answer = other.guest_sql(sorting)?;
    ensure!(answer.get("error").is_some_and(Value::is_object) || answer.get("rows").is_some(), "{answer}");
    eventually("the memory is back", || Ok((shared(&node)? == 0.0).then_some(())))?;
    Ok(())
}

in_both_worlds!(
    a_guest_that_asks_for_more_than_the_node_has_is_ended,
    sql_that_asks_for_more_than_the_node_has_ends_its_request,
    a_request_with_an_instance_and_a_database_that_has_written_is_small,
);

#[test]
fn a_deploy_waits_for_no_memory() -> Result<()> {
    let node = small().start()?;
    let tenant = node.tenant("misbehave")?;
    let held = (hold(&tenant, 50_000_000)?, hold(&tenant, 36_000_000)?);
    let component = std::fs::read(guest("hello")?)?;
    is_refused(&node.upload(&tenant.name, "other", &component)?)?;
    drop(held);
    eventually("the memory is back", || Ok((shared(&node)? == 0.0).then_some(())))?;
    node.upload(&tenant.name, "other", &component)?.expect(200)?;
    assert_eq!(shared(&node)?, 0.0);
    Ok(())
}

#[test]
fn a_component_that_is_too_large_to_compile_here_is_told_so() -> Result<()> {
    let node = TestNode::builder().flag("--memory", "100MB").start()?;
    node.create_tenant("t")?;
    let answer = node.upload("t", "fn", &std::fs::read(guest("sdk3")?)?)?.expect(422)?;
    assert_eq!(problem_of(&answer)?, "bad-component");
    ensure!(answer.text().contains("MiB of address space"), "{}", answer.text());
    node.upload("t", "fn", &std::fs::read(guest("hello")?)?)?.expect(200)?;
    assert_eq!(node.request("GET", "/t/t/fn", &[], b"")?.expect(200)?.text(), "Hello from Dormouse\n");
    Ok(())
}

/// The exact figure is the benchmark's (`bench --memory`); this is the founding model's.
fn a_request_with_an_instance_and_a_database_that_has_written_is_small(name: &str) -> Result<()> {
    const REQUESTS: u32 = 100;
    let node = TestNode::start()?;
    let tenants: Vec<_> = (0..REQUESTS).map(|_| node.tenant(name)).collect::<Result<_>>()?;
    tenants.first().map(|tenant| tenant.get("/ok")).transpose()?;
    let before = node.metric("dormouse_resident_bytes")?;
    let mut held = Vec::new();
    for tenant in &tenants {
        let (mut connection, mut incoming) = tenant.start("/write-and-hold?ms=600000")?;
        ensure!(connection.next(&mut incoming)?.is_some_and(|bytes| bytes == b"partial"));
        held.push(connection);
    }
    assert_eq!(node.metric("dormouse_database_sessions")?, f64::from(REQUESTS));
    let each = (node.metric("dormouse_resident_bytes")? - before) / f64::from(REQUESTS);
    ensure!(each < 1_500_000.0, "{each} bytes for each request");
    drop(held);
    eventually("all have ended", || Ok((node.metric("dormouse_requests_in_flight")? == 0.0).then_some(())))?;
    Ok(())
}
