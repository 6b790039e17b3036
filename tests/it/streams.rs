//! Bodies stream both ways, and a guest ends with its client.

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::Cut;
use dormouse_tests::{Shared, TestNode, problem_of};
use serde_json::json;

use crate::{SHIPPED, TIGHT};

in_both_worlds![
    a_request_body_streams_in_while_the_response_streams_out,
    a_large_body_arrives_whole,
    a_drip_arrives_drop_by_drop,
    a_client_that_goes_away_cancels_its_guest,
    a_client_that_goes_away_leaves_no_transaction,
    a_response_that_its_guest_did_not_finish_is_cut,
    a_response_over_the_wall_time_is_cut,
    a_client_that_waits_to_be_asked_for_its_body_is_asked,
    a_client_that_sends_nothing_is_not_waited_for,
    a_client_that_reads_nothing_is_not_waited_for,
    head_gets_a_head,
    a_body_that_the_guest_ignores_is_no_next_request,
    requests_in_one_packet_are_answered_in_order,
];

fn a_request_body_streams_in_while_the_response_streams_out(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &tenant.path("/echo"), &[])?;
    connection.chunk(b"one")?;
    // The answer to the first chunk is here before the second is sent.
    let mut incoming = connection.head("POST")?;
    assert_eq!(incoming.status, 200);
    assert_eq!(connection.next(&mut incoming)?.as_deref(), Some(b"one".as_slice()));
    connection.chunk(b"two")?;
    assert_eq!(connection.next(&mut incoming)?.as_deref(), Some(b"two".as_slice()));
    connection.chunk(b"")?;
    assert_eq!(connection.next(&mut incoming)?, None);

    // The connection is whole: it serves another request.
    connection.request("GET", &tenant.path("/ok"), &[], b"")?;
    assert_eq!(connection.response("GET")?.expect(200)?.text(), "ok");
    Ok(())
}

fn a_large_body_arrives_whole(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let (mut connection, mut incoming) = tenant.start("/big?bytes=50000000")?;
    let mut length = 0;
    while let Some(bytes) = connection.next(&mut incoming)? {
        ensure!(bytes.iter().all(|byte| *byte == b'x'), "other bytes than were sent");
        length += bytes.len();
    }
    assert_eq!(length, 50_000_000);
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    ensure!(tenant.request("POST", "/echo", &[], &body)?.expect(200)?.body == body, "the echo differs");
    Ok(())
}

fn a_drip_arrives_drop_by_drop(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let (mut connection, mut incoming) = tenant.start("/drip?chunks=4&ms=30")?;
    let mut drops = 0;
    while let Some(bytes) = connection.next(&mut incoming)? {
        assert_eq!(bytes, b"drip\n");
        drops += 1;
    }
    assert_eq!(drops, 4);
    Ok(())
}

fn a_client_that_goes_away_cancels_its_guest(guest: &str) -> Result<()> {
    let node = TestNode::start()?;
    let tenant = node.tenant(guest)?;
    let nobody_runs = || node.wait_for_metric("dormouse_instances", 0.0);

    // Before the head.
    let connection = tenant.send("/never")?;
    node.wait_for_metric("dormouse_instances", 1.0)?;
    drop(connection);
    nobody_runs()?;

    // While it waits between two chunks.
    let (mut connection, mut incoming) = tenant.start("/drip?chunks=2&ms=3600000")?;
    connection.next(&mut incoming)?.context("no first drop")?;
    assert_eq!(node.metric("dormouse_instances")?.total_cmp(&1.0), std::cmp::Ordering::Equal);
    drop(connection);
    nobody_runs()?;

    // While it writes faster than its client reads.
    let (connection, _incoming) = tenant.start("/big?bytes=1000000000000")?;
    node.wait_for_metric("dormouse_instances", 1.0)?;
    drop(connection);
    nobody_runs()?;

    // While it reads.
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &tenant.path("/echo"), &[])?;
    connection.chunk(b"one")?;
    let mut incoming = connection.head("POST")?;
    connection.next(&mut incoming)?.context("no echo")?;
    drop(connection);
    nobody_runs()
}

fn a_client_that_goes_away_leaves_no_transaction(guest: &str) -> Result<()> {
    let node = TestNode::builder().flag("--transaction-held-max-ms", 600_000).start()?;
    let tenant = node.tenant(guest)?;
    let connection = tenant.send("/hold-transaction?ms=3600000")?;
    tenant.wait_for_state("leased")?;
    drop(connection);
    node.wait_for_metric("dormouse_instances", 0.0)?;
    // The writer permit is free again, and nothing of the transaction is there.
    tenant.sql("CREATE TABLE IF NOT EXISTS log(id INTEGER PRIMARY KEY, note TEXT)")?;
    assert_eq!(tenant.number("SELECT count(*) FROM log")?, 0);
    assert_eq!(tenant.get("/insert-and-rowid?ms=0")?.expect(200)?.json()?.get("rowid"), Some(&json!(1)));
    Ok(())
}

/// A node whose guests may compute for a moment only.
static HASTY: Shared = Shared::new(&[("--cpu-time-max-ms", "100")]);

fn a_response_that_its_guest_did_not_finish_is_cut(guest: &str) -> Result<()> {
    let node = HASTY.node()?;
    let tenant = node.tenant(guest)?;
    for deed in ["/trap-after-head", "/spin-after-head"] {
        let (mut connection, mut incoming) = tenant.start(deed)?;
        // A guest that fails before its head has gone out can still be answered for.
        if incoming.status == 502 {
            continue;
        }
        assert_eq!(incoming.status, 200);
        let Err(error) = connection.rest(&mut incoming) else {
            anyhow::bail!("{deed}: the body looks whole")
        };
        ensure!(error.is::<Cut>(), "{deed}: {error:#}");
    }
    tenant.get("/ok")?.expect(200)?;
    Ok(())
}

fn a_response_over_the_wall_time_is_cut(guest: &str) -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(guest)?;
    let (mut connection, mut incoming) = tenant.start("/drip?chunks=2&ms=3600000")?;
    assert_eq!(connection.next(&mut incoming)?.as_deref(), Some(b"drip\n".as_slice()));
    let Err(error) = connection.rest(&mut incoming) else { anyhow::bail!("the body looks whole") };
    ensure!(error.is::<Cut>(), "{error:#}");
    Ok(())
}

fn a_client_that_waits_to_be_asked_for_its_body_is_asked(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let mut connection = node.connect()?;
    // This deed reads its body before it answers; one that answers first need not ask.
    connection.chunked_request("POST", &tenant.path("/sql"), &[("expect", "100-continue")])?;
    connection.wait_for_continue()?;
    connection.chunk(br#"{"sql":"SELECT 'asked for' AS a"}"#)?;
    connection.chunk(b"")?;
    assert!(connection.response("POST")?.expect(200)?.text().contains("asked for"));
    Ok(())
}

fn a_client_that_sends_nothing_is_not_waited_for(guest: &str) -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(guest)?;
    let mut connection = node.connect()?;
    connection.send(format!(
        "POST {} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n12345",
        tenant.path("/sql")
    ))?;
    let answer = connection.response("POST")?.expect(504)?;
    assert_eq!(problem_of(&answer)?, "wall-time-limit");
    Ok(())
}

fn a_client_that_reads_nothing_is_not_waited_for(guest: &str) -> Result<()> {
    let node = TestNode::builder().flag("--wall-time-max-ms", 500).start()?;
    let tenant = node.tenant(guest)?;
    let connections = node.metric("dormouse_connections")?;
    let _reads_nothing = tenant.send("/big?bytes=1000000000000")?;
    node.wait_for_metric("dormouse_instances", 1.0)?;
    node.wait_for_metric("dormouse_instances", 0.0)?;
    // Its connection goes too.
    node.wait_for_metric("dormouse_connections", connections)
}

fn head_gets_a_head(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let mut connection = node.connect()?;
    for path in ["/headers", "/no-such-deed", "/big?bytes=100000"] {
        connection.request("HEAD", &tenant.path(path), &[], b"")?;
        let answer = connection.response("HEAD")?;
        assert_eq!(answer.status, if path == "/no-such-deed" { 404 } else { 200 });
    }
    // Problems have no body either, and the connection stays in step.
    connection.request("HEAD", "/t/nobody/fn", &[], b"")?;
    assert_eq!(connection.response("HEAD")?.status, 404);
    connection.request("GET", &tenant.path("/ok"), &[], b"")?;
    assert_eq!(connection.response("GET")?.expect(200)?.text(), "ok");
    Ok(())
}

fn a_body_that_the_guest_ignores_is_no_next_request(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let smuggled =
        format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", tenant.path("/log?line=ignored-body-smuggled"));
    let mut connection = node.connect()?;
    connection.request("POST", &tenant.path("/ignore-body"), &[], smuggled.as_bytes())?;
    assert_eq!(connection.response("POST")?.expect(200)?.text(), "ignored");
    // The connection serves a next request properly, or it has closed.
    if connection.request("GET", &tenant.path("/ok"), &[], b"").is_ok()
        && let Ok(next) = connection.response("GET")
    {
        assert_eq!(next.text(), "ok");
    }
    ensure!(node.logs().matching(|line| line.text.contains("ignored-body-smuggled")).is_empty());
    Ok(())
}

fn requests_in_one_packet_are_answered_in_order(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let mut connection = node.connect()?;
    let get = |rest: &str| format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", tenant.path(rest));
    connection.send(format!("{}{}{}", get("/slow?ms=50"), get("/ok"), get("/no-such-deed")))?;
    assert_eq!(connection.response("GET")?.expect(200)?.text(), "slow");
    assert_eq!(connection.response("GET")?.expect(200)?.text(), "ok");
    connection.response("GET")?.expect(404)?;
    Ok(())
}
