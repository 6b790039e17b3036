//! HTTP/1.1 as attackers speak it: no second request out of one, and no connection for ever.

use anyhow::{Result, ensure};
use dormouse_tests::{SharedNode, Tenant, TestNode, eventually};

use crate::SHIPPED;

/// Sends raw bytes, then everything that was answered until the node closed.
fn raw(tenant: &Tenant<'_>, bytes: &[u8]) -> Result<String> {
    let mut connection = tenant.node.connect()?;
    connection.send(bytes)?;
    connection.finish_sending()?;
    Ok(String::from_utf8_lossy(&connection.until_closed()?).into_owned())
}

/// Counts the responses in what a connection gave.
fn responses(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count()
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
        let answer = raw(&tenant, format!("POST {path} HTTP/1.1\r\nhost: x\r\n{lengths}\r\n{smuggled}").as_bytes())?;
        ensure!(answer.starts_with("HTTP/1.1 400 ") && responses(&answer) == 1, "{lengths}{answer}");
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
            let answer = raw(&tenant, format!("POST {path} HTTP/1.1\r\nhost: x\r\n{head}\r\n{body}").as_bytes())?;
            ensure!(responses(&answer) == 1, "more than one response, or none: {head}{answer}");
            ensure!(answer.starts_with("HTTP/1.1 400 "), "{head}{answer}");
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
    for encoding in ["gzip", "chunked, gzip", "xchunked", "chunked, identity", "identity", "\u{b}chunked", ""] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: {encoding}\r\n\r\n0\r\n\r\n{smuggled}");
        let answer = raw(&tenant, request.as_bytes())?;
        let is_refused = answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 501 ");
        ensure!(is_refused && responses(&answer) == 1, "{encoding:?}: {answer}");
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
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\r\n\r\n".to_owned(),
    ] {
        let answer = raw(&tenant, head.as_bytes())?;
        let is_refused = ["400", "405", "501", "505"].iter().any(|status| answer.starts_with(&format!("HTTP/1.1 {status} ")));
        ensure!(is_refused && responses(&answer) == 1, "{head:?}: {answer}");
    }
    Ok(())
}

#[test]
fn a_request_names_one_host() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let path = tenant.path("/ok");
    for hosts in ["", "host: a\r\nhost: b\r\n", "host: a b\r\n", "host: \u{e4}\r\n", "host: a/b\r\n"] {
        let answer = raw(&tenant, format!("GET {path} HTTP/1.1\r\n{hosts}\r\n").as_bytes())?;
        ensure!(answer.starts_with("HTTP/1.1 400 ") && responses(&answer) == 1, "{hosts:?}: {answer}");
    }
    Ok(())
}

#[test]
fn unusual_but_valid_requests_are_served() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let path = tenant.path("/ok");
    let answer = raw(&tenant, format!("GET http://other.example{path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())?;
    ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok") || answer.contains("ok\r\n"), "{answer}");
    let answer = raw(&tenant, format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes())?;
    ensure!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\nok"), "{answer}");
    let echo = tenant.path("/echo");
    let chunks = "3;name=value\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n";
    let request = format!("POST {echo} HTTP/1.1\r\nhost: x\r\nTransfer-Encoding:  Chunked\r\n\r\n{chunks}");
    let answer = raw(&tenant, request.as_bytes())?;
    ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("abc"), "{answer}");
    for method in ["CONNECT", "OPTIONS"] {
        let answer = raw(&tenant, format!("{method} * HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())?;
        ensure!(answer.starts_with("HTTP/1.1 4") && responses(&answer) == 1, "{answer}");
    }
    Ok(())
}

#[test]
fn a_broken_chunk_ends_the_connection() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let smuggled = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", tenant.path("/log?line=smuggled-chunk"));
    let path = tenant.path("/ignore-body");
    for chunks in ["zz\r\n", "-1\r\nx\r\n", "ffffffffffffffffff\r\nx\r\n", "3\r\nabcdef\r\n", "3\nabc\n0\n\n"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        let answer = raw(&tenant, format!("{head}{chunks}0\r\n\r\n{smuggled}").as_bytes())?;
        ensure!(responses(&answer) <= 1, "{chunks:?}: {answer}");
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
    eventually("all are gone", || Ok((node.metric("dormouse_connections")? < 2.0).then_some(())))
}
