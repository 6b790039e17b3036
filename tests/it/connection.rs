//! HTTP/1.1 as attackers speak it: no second request out of one, and no connection for ever.

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::Response;
use dormouse_tests::{SharedNode, Tenant, TestNode};

use crate::SHIPPED;

/// Sends raw bytes, and gives every response to them. When the node keeps the connection, a request of a kind that no
/// test sends ends the exchange, so that a smuggled one would be answered before it.
fn exchange(tenant: &Tenant<'_>, bytes: &[u8]) -> Result<Vec<Response>> {
    const LAST: &str = "/the-last-request";
    let mut connection = tenant.node.connect()?;
    let mut responses = Vec::new();
    connection.send(bytes)?;
    while let Ok(response) = connection.response("GET") {
        if response.text().contains(LAST) {
            return Ok(responses);
        }
        responses.push(response);
        if responses.len() == 1 {
            // The node may have closed, which the next read tells.
            let _ = connection.request("GET", &tenant.path(LAST), &[], b"");
        }
    }
    Ok(responses)
}

/// The only response to raw bytes.
fn one_response(tenant: &Tenant<'_>, bytes: impl AsRef<[u8]>) -> Result<Response> {
    let sent = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    let mut responses = exchange(tenant, bytes.as_ref())?;
    ensure!(responses.len() == 1, "{} responses to {sent:?}: {responses:?}", responses.len());
    responses.pop().context("no response")
}

/// Checks that raw bytes are answered with one of the statuses, and with nothing else.
fn is_refused(tenant: &Tenant<'_>, request: &str, statuses: &[u16]) -> Result<()> {
    let response = one_response(tenant, request)?;
    ensure!(statuses.contains(&response.status), "{request:?}: {}: {}", response.status, response.text());
    Ok(())
}

fn was_never_run(node: &SharedNode, marker: &str) -> Result<()> {
    let lines = node.logs().matching(|line| line.is_of_guest() && line.text.contains(marker));
    ensure!(lines.is_empty(), "the smuggled request ran: {lines:?}");
    Ok(())
}

#[test]
fn a_body_of_two_lengths_is_refused() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let smuggled = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", tenant.path("/log?line=smuggled-cl-cl"));
    let path = tenant.path("/ok");
    let lengths = [
        format!("content-length: 0\r\ncontent-length: {}\r\n", smuggled.len()),
        format!("content-length: {}\r\ncontent-length: 0\r\n", smuggled.len()),
        format!("content-length: 0, {}\r\n", smuggled.len()),
        "content-length: +5\r\n".to_owned(),
        "content-length: -1\r\n".to_owned(),
        "content-length: 0x10\r\n".to_owned(),
        "content-length: 5 5\r\n".to_owned(),
        "content-length:\r\n".to_owned(),
    ];
    for lengths in lengths {
        let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{lengths}\r\n{smuggled}");
        is_refused(&tenant, &request, &[400])?;
    }
    was_never_run(&node, "smuggled-cl-cl")
}

#[test]
fn a_length_beside_chunks_never_counts() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let smuggled = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", tenant.path("/log?line=smuggled-cl-te"));
    let path = tenant.path("/headers");
    for (length, body) in [
        // The length covers the smuggled request, the chunks end before it.
        (5 + smuggled.len(), format!("0\r\n\r\n{smuggled}")),
        // The chunks cover it, the length ends before it.
        (4, format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len())),
    ] {
        for head in [
            format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
            format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"),
        ] {
            let answer =
                one_response(&tenant, format!("POST {path} HTTP/1.1\r\nhost: x\r\n{head}\r\n{body}"))?;
            // RFC 9112, 6.3: refused, or the chunks count, the length goes, and the connection ends.
            if answer.status != 400 {
                let seen = answer.expect(200)?;
                ensure!(!seen.text().contains("content-length"), "the guest saw the length: {}", seen.text());
                assert_eq!(seen.header("connection"), Some("close"));
            }
        }
    }
    was_never_run(&node, "smuggled-cl-te")
}

#[test]
fn an_encoding_that_is_not_chunked_is_refused() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let smuggled = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", tenant.path("/log?line=smuggled-te"));
    let path = tenant.path("/ok");
    for encoding in ["gzip", "chunked, gzip", "xchunked", "chunked, identity", "identity", "\u{b}chunked", ""]
    {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: {encoding}\r\n\r\n0\r\n\r\n{smuggled}"
        );
        is_refused(&tenant, &request, &[400, 501])?;
    }
    was_never_run(&node, "smuggled-te")
}

#[test]
fn malformed_heads_are_refused() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let path = tenant.path("/ok");
    for head in [
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-a: 1\r\n folded: 2\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-a : 1\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-a: \0\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nhost: x\r\n: no name\r\n\r\n"),
        format!("G\u{e4}T {path} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET {path} HTTP/1.2\r\nhost: x\r\n\r\n"),
        format!("GET {path} HTTP/2.0\r\nhost: x\r\n\r\n"),
        format!("GET  {path} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET {path}\r\n\r\n"),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\r\n\r\n".to_owned(),
    ] {
        is_refused(&tenant, &head, &[400, 405, 501, 505])?;
    }
    let answers = exchange(&tenant, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    ensure!(answers.iter().all(|answer| answer.status >= 400), "HTTP/2 is not spoken here: {answers:?}");
    Ok(())
}

#[test]
fn a_request_names_one_host() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let path = tenant.path("/ok");
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a b\r\n", "host: \u{e4}\r\n", "host: a/b\r\n"] {
        is_refused(&tenant, &format!("GET {path} HTTP/1.1\r\n{hosts}\r\n"), &[400])?;
    }
    Ok(())
}

#[test]
fn unusual_but_valid_requests_are_served() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let path = tenant.path("/ok");
    let answer =
        one_response(&tenant, format!("GET http://other.example{path} HTTP/1.1\r\nhost: x\r\n\r\n"))?;
    assert_eq!(answer.expect(200)?.text(), "ok");
    let answer = one_response(&tenant, format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n"))?.expect(200)?;
    assert_eq!((answer.text().as_str(), answer.header("transfer-encoding")), ("ok", None));
    let echo = tenant.path("/echo");
    let chunks = "3;name=value\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n";
    let request = format!("POST {echo} HTTP/1.1\r\nhost: x\r\nTransfer-Encoding:  Chunked\r\n\r\n{chunks}");
    assert_eq!(one_response(&tenant, request)?.expect(200)?.text(), "abc");
    is_refused(&tenant, "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", &[400, 404])?;
    is_refused(&tenant, "CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n", &[400, 404, 405, 501])
}

#[test]
fn a_broken_chunk_ends_the_connection() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let smuggled = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", tenant.path("/log?line=smuggled-chunk"));
    let path = tenant.path("/ignore-body");
    for chunks in ["zz\r\n", "-1\r\nx\r\n", "ffffffffffffffffff\r\nx\r\n", "3\r\nabcdef\r\n", "3\nabc\n0\n\n"]
    {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        let answers = exchange(&tenant, format!("{head}{chunks}0\r\n\r\n{smuggled}").as_bytes())?;
        ensure!(answers.len() <= 1, "{chunks:?}: {answers:?}");
    }
    was_never_run(&node, "smuggled-chunk")
}

#[test]
fn a_client_that_says_too_little_is_let_go() -> Result<()> {
    let node = SHIPPED.node()?;
    // It takes as long as the node is patient, for all of them together.
    let mut silent = node.connect()?;
    let mut slow = node.connect()?;
    slow.send("GET / HTTP/1.1\r\nhost: x\r\nx-slow:")?;
    let mut done = node.connect()?;
    done.request("GET", "/", &[], b"")?;
    done.response("GET")?.expect(404)?;
    for (what, connection) in [("silent", &mut silent), ("slow", &mut slow), ("done", &mut done)] {
        let said = String::from_utf8_lossy(&connection.until_closed()?).into_owned();
        ensure!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{what}: {said}");
    }
    Ok(())
}

#[test]
fn connections_are_bounded() -> Result<()> {
    let node = TestNode::builder().flag("--connections-max", 2).start()?;
    node.wait_for_metric("dormouse_connections", 0.0)?;
    let mut first = node.connect()?;
    let mut second = node.connect()?;
    for connection in [&mut first, &mut second] {
        connection.request("GET", "/", &[], b"")?;
        connection.response("GET")?.expect(404)?;
    }
    node.wait_for_metric("dormouse_connections", 2.0)?;
    let mut third = node.connect()?;
    third.request("GET", "/", &[], b"")?;
    // It is served once there is room, and not before: the count never shows three.
    for _ in 0..20 {
        ensure!(node.metric("dormouse_connections")? <= 2.0);
    }
    drop(first);
    third.response("GET")?.expect(404)?;
    drop((second, third));
    node.wait_for_metric("dormouse_connections", 0.0)
}
