//! Limits: whoever runs into one is told which, the metrics count it, and one line of the log says how much was used.

mod attacks;

use anyhow::{Result, ensure};
use dormouse_tests::client::Cut;
use dormouse_tests::logs::Line;
use dormouse_tests::{Shared, Tenant, TestNode, eventually, problem_of};
use serde_json::json;

in_both_worlds![
    a_client_that_stops_sending_is_told,
    a_client_that_trickles_is_told,
    a_client_that_takes_nothing_lets_go_of_its_turn,
];

/// A node that waits for clients for a moment only.
static IMPATIENT: Shared = Shared::new(&[("--body-wait-max-ms", "300")]);

/// How often a limit was exceeded.
fn count(node: &TestNode, limit: &str) -> Result<f64> {
    let name = format!("dormouse_limits_exceeded_total{{limit=\"{limit}\"}}");
    Ok(node.metrics()?.get(&name).copied().unwrap_or_default())
}

/// Waits for the line that tells of a tenant and a limit, and checks that there is one only.
fn told(tenant: &Tenant<'_>, limit: &str) -> Result<Line> {
    let is_it = |line: &Line| {
        line.get("limit") == Some(limit) && line.request("tenant") == Some(tenant.name.as_str())
    };
    let line = tenant.node.logs().wait_for(limit, is_it)?;
    let lines = tenant.node.logs().matching(is_it).len();
    ensure!(lines == 1, "{lines} lines tell of {limit}: {}", tenant.node.logs());
    Ok(line)
}

fn a_client_that_stops_sending_is_told(guest: &str) -> Result<()> {
    let node = IMPATIENT.node()?;
    let tenant = node.tenant(guest)?;
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &tenant.path("/sql"), &[])?;
    connection.chunk(b"{\"sql\":")?;
    let answer = connection.response("POST")?.expect(408)?;
    assert_eq!(problem_of(&answer)?, "body-too-slow");
    let line = told(&tenant, "request_bytes_per_second_min")?;
    assert_eq!(line.number("allowed"), Some(1_024));
    ensure!(line.number("used").is_some_and(|used| used < 1_024), "{line}");
    Ok(())
}

fn a_client_that_trickles_is_told(guest: &str) -> Result<()> {
    let node = IMPATIENT.node()?;
    let tenant = node.tenant(guest)?;
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &tenant.path("/sql"), &[])?;
    // It never stops for as long as it may, and is slower than it must be.
    let answer = eventually("the trickle is refused", || {
        std::thread::sleep(std::time::Duration::from_millis(30));
        let _ = connection.chunk(b"x");
        Ok(node.logs().matching(|line| line.request("tenant") == Some(tenant.name.as_str())).pop())
    })?;
    assert_eq!(answer.get("limit"), Some("request_bytes_per_second_min"));
    assert_eq!(problem_of(&connection.response("POST")?.expect(408)?)?, "body-too-slow");
    Ok(())
}

fn a_client_that_takes_nothing_lets_go_of_its_turn(guest: &str) -> Result<()> {
    let node = TestNode::builder().flag("--body-wait-max-ms", 300).start()?;
    let tenant = node.tenant(guest)?;
    let (mut connection, mut incoming) = tenant.start("/big?bytes=60000000")?;
    connection.next(&mut incoming)?;
    node.wait_for_metric("dormouse_instances", 0.0)?;
    told(&tenant, "response_bytes_per_second_min")?;
    assert_eq!(count(&node, "response_bytes_per_second_min")?.total_cmp(&1.0), std::cmp::Ordering::Equal);
    let Err(error) = connection.rest(&mut incoming) else { anyhow::bail!("the response looks whole") };
    ensure!(error.is::<Cut>(), "{error:#}");
    Ok(())
}

#[test]
fn a_function_may_ask_for_faster_clients() -> Result<()> {
    let node = IMPATIENT.node()?;
    let tenant = node.tenant("hello")?;
    let component = std::fs::read(dormouse_tests::guest("misbehave")?)?;
    let manifest = br#"{"limits":{"body_bytes_per_second_min":100000000}}"#;
    let parts = [("component", component.as_slice()), ("manifest", manifest.as_slice())];
    node.upload_parts(&tenant.name, "fn", &parts)?.expect(200)?;
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &tenant.path("/sql"), &[])?;
    connection.chunk(b"{\"sql\":")?;
    assert_eq!(problem_of(&connection.response("POST")?.expect(408)?)?, "body-too-slow");
    assert_eq!(told(&tenant, "request_bytes_per_second_min")?.number("allowed"), Some(100_000_000));
    Ok(())
}

#[test]
fn a_body_over_the_cap_is_counted() -> Result<()> {
    let node = TestNode::builder().flag("--body-bytes-max", 1_000).start()?;
    let tenant = node.tenant("misbehave")?;
    let answer = tenant.post("/sql", &json!({ "sql": "x".repeat(2_000) }))?.expect(413)?;
    assert_eq!(problem_of(&answer)?, "body-too-large");
    let line = told(&tenant, "body_bytes_max")?;
    assert_eq!((line.number("used"), line.number("allowed")), (Some(2_010), Some(1_000)));
    assert_eq!(count(&node, "body_bytes_max")?.total_cmp(&1.0), std::cmp::Ordering::Equal);
    Ok(())
}

#[test]
fn a_head_has_no_body_that_could_be_too_large() -> Result<()> {
    let node = TestNode::builder().flag("--response-bytes-max", 10).start()?;
    let tenant = node.tenant("hello")?;
    let answer = tenant.get("")?.expect(502)?;
    assert_eq!(problem_of(&answer)?, "response-too-large");
    tenant.request("HEAD", "", &[], b"")?.expect(200)?;
    Ok(())
}
