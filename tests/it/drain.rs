//! SIGTERM: finish what is in flight, name what holds it up, close, exit 0.

use anyhow::{Result, ensure};
use dormouse_tests::client::Connection;
use dormouse_tests::logs::Line;
use dormouse_tests::{Stop, TestNode, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::json;

in_both_worlds![
    requests_in_flight_are_finished,
    what_holds_it_up_is_named_and_cancelled,
    a_node_that_drains_is_not_ready,
];

fn requests_in_flight_are_finished(guest: &str) -> Result<()> {
    let mut node = TestNode::start()?;
    let address = node.public_address()?;
    let (mut slow, mut drip, mut transaction) = {
        let tenant = node.tenant(guest)?;
        tenant.guest_sql("CREATE TABLE log(id INTEGER PRIMARY KEY, note TEXT)")?;
        let slow = tenant.send("/slow?ms=700")?;
        let drip = tenant.start("/drip?chunks=8&ms=100")?;
        let transaction = tenant.send("/hold-transaction?ms=500")?;
        node.wait_for_metric("dormouse_instances", 3.0)?;
        (slow, drip, transaction)
    };
    node.terminate()?;
    eventually("new clients are refused", || Ok(Connection::open(address).is_err().then_some(())))?;
    assert_eq!(slow.response("GET")?.expect(200)?.text(), "slow");
    let (connection, incoming) = &mut drip;
    assert_eq!(connection.rest(incoming)?, b"drip\n".repeat(8));
    let told = transaction.response("GET")?.expect(200)?.json()?;
    ensure!(told.pointer("/commit/error").is_none(), "{told}");
    ensure!(node.wait()?.success());
    let cancelled = node.logs().matching(|line| line.message().contains("did not finish"));
    ensure!(cancelled.is_empty(), "{cancelled:?}");
    Ok(())
}

fn what_holds_it_up_is_named_and_cancelled(guest: &str) -> Result<()> {
    let mut node = TestNode::builder()
        .flag("--drain-deadline-ms", 400)
        .flag("--transaction-held-max-ms", 600_000)
        .start()?;
    node.expect_log("did not finish before the drain's deadline");
    let name = {
        let tenant = node.tenant(guest)?;
        tenant.guest_sql("CREATE TABLE log(id INTEGER PRIMARY KEY, note TEXT)")?;
        tenant.name
    };
    let mut never = node.connect()?;
    never.request("GET", &format!("/t/{name}/fn/never"), &[("x-request-id", "holds-it-up-1")], b"")?;
    let mut holder = node.connect()?;
    let path = format!("/t/{name}/fn/hold-transaction?ms=3600000");
    holder.request("GET", &path, &[("x-request-id", "holds-it-up-2")], b"")?;
    node.wait_for_metric("dormouse_instances", 2.0)?;

    ensure!(node.stop(Stop::Terminate)?.success());
    for id in ["holds-it-up-1", "holds-it-up-2"] {
        let is_it = |line: &Line| line.message().contains("did not finish") && line.text.contains(id);
        let lines = node.logs().matching(is_it);
        ensure!(lines.len() == 1, "{id} is named {} times:\n{}", lines.len(), node.logs());
        ensure!(lines.iter().all(|line| line.text.contains(&name)), "the tenant is not named: {lines:?}");
    }
    // What was not committed is rolled back, and nothing is left behind in a log.
    let leftovers = crate::parking::leftovers(&node)?;
    ensure!(leftovers.is_empty(), "{leftovers:?}");
    node.restart_after_stop()?;
    let body = json!({ "sql": "SELECT count(*) FROM log" }).to_string();
    let count =
        node.admin("POST", &format!("/v1/tenants/{name}/sql"), body.as_bytes())?.expect(200)?.json()?;
    assert_eq!(count.pointer("/rows/0/0"), Some(&json!(0)));
    Ok(())
}

#[test]
fn idle_connections_do_not_hold_it_up() -> Result<()> {
    let mut node = TestNode::start()?;
    let mut used = node.connect()?;
    used.request("GET", "/t/nobody/fn", &[], b"")?;
    used.response("GET")?.expect(404)?;
    let mut fresh = node.connect()?;
    let mut half = node.connect()?;
    half.send("GET /t/nobody/fn HTTP/1.1\r\nhost:")?;
    // All three are accepted once a later one is answered.
    node.request("GET", "/", &[], b"")?.expect(404)?;
    ensure!(node.stop(Stop::Terminate)?.success());
    used.until_closed()?;
    fresh.until_closed()?;
    half.until_closed()?;
    Ok(())
}

fn a_node_that_drains_is_not_ready(guest: &str) -> Result<()> {
    let mut node = TestNode::start()?;
    let admin = node.admin_address()?;
    let mut slow = node.tenant(guest)?.send("/slow?ms=1500")?;
    node.wait_for_metric("dormouse_instances", 1.0)?;
    node.terminate()?;
    eventually("it is not ready", || {
        let mut connection = Connection::open(admin)?;
        connection.request("GET", "/readyz", &[], b"")?;
        Ok((connection.response("GET")?.status == 503).then_some(()))
    })?;
    node.admin_request("GET", "/healthz", &[], b"")?.expect(200)?;
    slow.response("GET")?.expect(200)?;
    ensure!(node.wait()?.success());
    Ok(())
}

#[test]
fn interrupt_drains_too() -> Result<()> {
    let mut node = TestNode::start()?;
    kill_process(node.pid()?, Signal::INT)?;
    ensure!(node.wait()?.success());
    Ok(())
}
