//! HTTP/2 without TLS: only if asked for, and then with a bound on whatever a client can send without end.

use anyhow::{Context, Result, ensure};
use dormouse_tests::http2::{END_HEADERS, END_STREAM, Http2, Kind, fields, frame, request};
use dormouse_tests::{Builder, Shared, Tenant, TestNode};

use super::bystander::attacked;

static H2C: Shared = Shared::new(&[("--h2c", "true")]);

/// How often a flood sends its frame. A client that is read from sends them all.
const FLOOD: usize = 20_000;

fn builder() -> Builder {
    TestNode::builder().flag("--h2c", true)
}

fn open(tenant: &Tenant<'_>) -> Result<Http2> {
    Http2::open(tenant.node.public_address()?, &[])
}

/// Sends a request with these fields on a connection of its own.
fn ask(tenant: &Tenant<'_>, all: &[(&str, &str)]) -> Result<(u16, String)> {
    let mut connection = open(tenant)?;
    connection.send(&frame(Kind::Headers, END_STREAM | END_HEADERS, 1, &fields(all)))?;
    let (status, body) = connection.answer(1)?;
    Ok((status, String::from_utf8(body)?))
}

#[test]
fn both_versions_are_spoken_where_both_are_asked_for() -> Result<()> {
    let node = H2C.node()?;
    let tenant = node.tenant("misbehave")?;
    // The preface is told from a request that begins as it does, and may come in pieces.
    for method in ["GET", "POST", "PRI", "PROPFIND"] {
        tenant.request(method, "/ok", &[], b"")?.expect(200)?;
    }
    let mut slow = node.connect()?;
    for byte in format!("PRI {} HTTP/1.1\r\nhost: x\r\n\r\n", tenant.path("/ok")).bytes() {
        slow.send([byte])?;
    }
    slow.response("PRI")?.expect(200)?;
    let mut connection = open(&tenant)?;
    for stream in [1, 3, 5] {
        let fields = request("GET", &tenant.path("/ok"));
        connection.send(&frame(Kind::Headers, END_STREAM | END_HEADERS, stream, &fields))?;
        assert_eq!(connection.answer(stream)?, (200, b"ok".to_vec()));
    }
    let fields = request("POST", &tenant.path("/echo"));
    connection.send(&frame(Kind::Headers, END_HEADERS, 7, &fields))?;
    connection.send(&frame(Kind::Data, END_STREAM, 7, b"a body"))?;
    assert_eq!(connection.answer(7)?, (200, b"a body".to_vec()));
    Ok(())
}

#[test]
fn a_function_sees_no_difference() -> Result<()> {
    let node = H2C.node()?;
    let tenant = node.tenant("misbehave")?;
    let path = tenant.path("/headers?q=1");
    let (status, seen) = ask(
        &tenant,
        &[
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "dormouse.test"),
            (":path", &path),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("te", "trailers"),
            ("spin-client-addr", "forged"),
            ("x_forwarded_for", "forged"),
            ("x-forwarded-proto", "https"),
        ],
    )?;
    assert_eq!(status, 200, "{seen}");
    for part in ["[\"cookie\",\"a=1; b=2\"]", "\"authority\":\"dormouse.test\"", "\"scheme\":\"http\""] {
        ensure!(seen.contains(part), "{part} is not in {seen}");
    }
    for part in ["forged", "https", "\"te\""] {
        ensure!(!seen.contains(part), "{part} is in {seen}");
    }
    Ok(())
}

#[test]
fn a_request_names_one_host() -> Result<()> {
    let node = H2C.node()?;
    let tenant = node.tenant("misbehave")?;
    let path = tenant.path("/ok");
    let start = [(":method", "GET"), (":scheme", "http"), (":path", path.as_str())];
    for (hosts, expected) in [
        (&[(":authority", "x")] as &[(&str, &str)], 200),
        (&[("host", "x")], 200),
        (&[(":authority", "x"), ("host", "x")], 200),
        (&[(":authority", "x"), ("host", "y")], 400),
        (&[("host", "x"), ("host", "y")], 400),
        (&[("host", "y@x")], 400),
    ] {
        // Fields whose name begins with a colon come first.
        let mut all = start.to_vec();
        all.extend(hosts);
        let (status, body) = ask(&tenant, &all)?;
        assert_eq!(status, expected, "{hosts:?}: {body}");
    }
    Ok(())
}

#[test]
fn malformed_requests_are_reset() -> Result<()> {
    let node = H2C.node()?;
    let tenant = node.tenant("misbehave")?;
    let path = tenant.path("/log?line=smuggled-h2");
    let start = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path.as_str())];
    // What would be a second request, or a second framing, for whoever writes it out as HTTP/1.1 (RFC 9113, 8.2.1, 8.2.2).
    for wrong in [
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("content-length", "3, 4"),
        ("content-length", "x"),
        ("x-a", "b\r\nx-c: d"),
        ("x-a", "b\0"),
        ("X-A", "b"),
        ("x a", "b"),
        ("", "b"),
        (":method", "GET"),
        (":unknown", "b"),
    ] {
        let mut all = start.to_vec();
        all.push(wrong);
        let refused = ask(&tenant, &all).map(|(status, _)| status);
        ensure!(refused.as_ref().map_or(true, |status| *status == 400), "{wrong:?}: {refused:?}");
    }
    // A body that is not as long as it says, for a function that reads it before it answers.
    let mut connection = open(&tenant)?;
    let path = tenant.path("/sql");
    let all = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", path.as_str()),
        ("content-length", "3"),
    ];
    connection.send(&frame(Kind::Headers, END_HEADERS, 1, &fields(&all)))?;
    connection.send(&frame(Kind::Data, END_STREAM, 1, b"abcdef"))?;
    ensure!(connection.answer(1).map_or(true, |(status, _)| status >= 400), "a length was exceeded");
    Ok(())
}

/// Sends what a flood is made of until it is cut off, pushed back or done. One that `must_end` has its connection closed.
fn flood(
    tenant: &Tenant<'_>,
    start: &[u8],
    mut next: impl FnMut(u32) -> Vec<u8>,
    must_end: bool,
) -> Result<()> {
    let mut connection = open(tenant)?;
    let _ = connection.send(start);
    for n in 0..FLOOD / 100 {
        let bytes: Vec<u8> = (0..100).flat_map(|m| next((n * 100 + m) as u32)).collect();
        if connection.send(&bytes).is_err() {
            return Ok(());
        }
    }
    if must_end {
        connection.until_closed().context("it was taken to its end")?;
    }
    Ok(())
}

/// Floods that no bound of memory or time holds up: their connection has to end.
const ENDED: &[&str] = &["rapid reset", "made you reset", "continuations", "empty continuations"];

#[test]
fn floods_of_frames_disturb_nobody_and_the_worst_end_with_their_connection() -> Result<()> {
    let node = builder().start()?;
    let tenant = node.tenant("misbehave")?;
    let ask = |deed: &str| request("GET", &tenant.path(deed));
    let (never, ok) = (ask("/never"), ask("/ok"));
    let post = frame(Kind::Headers, END_HEADERS, 1, &request("POST", &tenant.path("/ignore-body")));
    let unfinished = frame(Kind::Headers, END_STREAM, 1, &ok);
    let large = fields(&[("x-large", &"a".repeat(1_000))]);
    let stream = |n: u32| 2 * n + 1;
    let whole = END_STREAM | END_HEADERS;
    let reset = |n| frame(Kind::RstStream, 0, stream(n), &[0, 0, 0, 8]);
    type Next<'a> = Box<dyn FnMut(u32) -> Vec<u8> + 'a>;
    let floods: Vec<(&str, &[u8], Next<'_>)> = vec![
        (
            "rapid reset",
            b"",
            Box::new(|n| [frame(Kind::Headers, whole, stream(n), &never), reset(n)].concat()),
        ),
        ("streams", b"", Box::new(|n| frame(Kind::Headers, whole, stream(n), &never))),
        (
            "made you reset",
            b"",
            Box::new(|n| {
                let nothing = frame(Kind::WindowUpdate, 0, stream(n), &[0; 4]);
                [frame(Kind::Headers, whole, stream(n), &never), nothing].concat()
            }),
        ),
        ("continuations", &unfinished, Box::new(|_| frame(Kind::Continuation, 0, 1, &large))),
        ("empty continuations", &unfinished, Box::new(|_| frame(Kind::Continuation, 0, 1, b""))),
        ("pings", b"", Box::new(|_| frame(Kind::Ping, 0, 0, &[1; 8]))),
        ("settings", b"", Box::new(|_| frame(Kind::Settings, 0, 0, &[0, 4, 0, 0, 255, 255]))),
        ("empty data", &post, Box::new(|_| frame(Kind::Data, 0, 1, b""))),
        ("priorities", b"", Box::new(|n| frame(Kind::Priority, 0, stream(n), &[0, 0, 0, 0, 1]))),
        ("windows", &post, Box::new(|_| frame(Kind::WindowUpdate, 0, 0, &[0, 0, 0, 1]))),
    ];
    for (name, start, next) in floods {
        attacked(&node, || flood(&tenant, start, next, ENDED.contains(&name)))
            .map_err(|error| error.context(name.to_owned()))?;
    }
    Ok(())
}

#[test]
fn a_reset_flood_is_told_to_calm_down() -> Result<()> {
    let node = builder().start()?;
    let tenant = node.tenant("misbehave")?;
    let path = request("GET", &tenant.path("/ok"));
    // Before the node looks at one of them, all of them are reset.
    let bytes: Vec<u8> = (0..1_000)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            let headers = frame(Kind::Headers, END_STREAM | END_HEADERS, stream, &path);
            [headers, frame(Kind::RstStream, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    attacked(&node, || {
        let mut connection = open(&tenant)?;
        let _ = connection.send(&bytes);
        // ENHANCE_YOUR_CALM, where the reset of the connection has not taken it away.
        let code = connection.until_closed()?;
        ensure!(code.is_none_or(|code| code == 11), "{code:?}");
        Ok(())
    })?;
    ensure!(node.metric("dormouse_connections_cut_total{reason=\"flood\"}")? >= 1.0);
    Ok(())
}

#[test]
fn a_connection_at_rest_is_let_go() -> Result<()> {
    let node = builder().flag("--wall-time-max-ms", 1_000).start()?;
    let tenant = node.tenant("misbehave")?;
    let address = node.public_address()?;
    // It takes as long as the node is patient, for all of them together.
    attacked(&node, || {
        let mut silent = node.connect()?;
        let mut part = node.connect()?;
        part.send("PRI * HTTP/2.0\r\n")?;
        let mut idle = Http2::open(address, &[])?;
        let mut unfinished = Http2::open(address, &[])?;
        unfinished.send(&frame(Kind::Headers, END_STREAM, 1, &request("GET", &tenant.path("/ok"))))?;
        // SETTINGS_INITIAL_WINDOW_SIZE: it takes the head of an answer, and nothing of its body.
        let mut stalled = Http2::open(address, &[0, 4, 0, 0, 0, 0])?;
        let fields = request("GET", &tenant.path("/big?bytes=1000000"));
        stalled.send(&frame(Kind::Headers, END_STREAM | END_HEADERS, 1, &fields))?;
        for connection in [&mut silent, &mut part] {
            ensure!(connection.until_closed()?.is_empty());
        }
        for (name, connection) in
            [("idle", &mut idle), ("unfinished", &mut unfinished), ("stalled", &mut stalled)]
        {
            connection.until_closed().map_err(|error| error.context(name))?;
        }
        Ok(())
    })?;
    ensure!(node.metric("dormouse_connections_cut_total{reason=\"timeout\"}")? >= 2.0);
    ensure!(node.metric("dormouse_connections_cut_total{reason=\"stalled\"}")? >= 1.0);
    Ok(())
}
