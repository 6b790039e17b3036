//! Requests that functions send: to where they may, within their caps, and to no address that is not public.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use dormouse_tests::client::Cut;
use dormouse_tests::logs::Line;
use dormouse_tests::upstream::{NameServer, Upstream};
use dormouse_tests::{Builder, Tenant, TestNode, eventually};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::SHIPPED;
use crate::manifest::deploy;

in_both_worlds![
    what_the_manifest_allows_is_reached,
    bodies_arrive_while_they_are_sent,
    what_the_manifest_does_not_allow_is_denied_and_told,
    addresses_that_are_not_public_are_refused_in_every_notation,
    the_node_itself_is_refused,
    names_of_such_addresses_are_refused,
    what_the_operator_allows_is_reached,
    only_the_address_that_was_checked_is_connected_to,
    a_redirect_is_judged_like_any_request,
    a_certificate_must_be_for_the_name,
    requests_are_counted,
    bodies_have_caps,
    a_response_without_an_end_is_cut,
    no_step_takes_longer_than_it_may,
    malformed_responses_are_told_apart,
    a_request_that_is_given_up_takes_its_calls_with_it,
    calls_end_with_the_wall_time,
    a_call_keeps_nobody_from_writing,
];

/// Everything on the way to a test's own servers.
fn open() -> Builder {
    TestNode::builder().flag("--outbound-networks-allowed", "127.0.0.0/8")
}

/// A tenant with a guest that may send requests to `hosts`.
fn sender<'n>(node: &'n TestNode, guest: &str, hosts: &[&str]) -> Result<Tenant<'n>> {
    let tenant = node.tenant(guest)?;
    deploy(&tenant, guest, &json!({ "allowed_outbound_hosts": hosts }))?;
    Ok(tenant)
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn path(deed: &str, url: &str, more: &str) -> String {
    format!("{deed}?url={}{more}", encoded(url))
}

/// What becomes of a request to `url`.
fn fetch(tenant: &Tenant<'_>, url: &str) -> Result<Value> {
    tenant.json(&path("/fetch", url, ""))
}

/// Fails unless an outgoing request failed with this code of wasi:http.
fn failed(answer: &Value, code: &str) -> Result<()> {
    let error = answer.get("error").or_else(|| answer.get("body_error")).and_then(Value::as_str);
    ensure!(error.is_some_and(|error| error.contains(code)), "not {code}: {answer}");
    Ok(())
}

fn reached(answer: &Value) -> Result<()> {
    ensure!(answer.get("status") == Some(&json!(200)), "{answer}");
    ensure!(answer.get("body_error") == Some(&Value::Null), "{answer}");
    Ok(())
}

fn text(answer: &Value) -> &str {
    answer.get("body").and_then(Value::as_str).unwrap_or_default()
}

/// The line in which a tenant's log tells of a request that was not sent or not answered.
fn told(tenant: &Tenant<'_>, part: &str) -> Result<Line> {
    tenant.node.logs().wait_for(part, |line| {
        line.is_of_guest() && line.request("tenant") == Some(&tenant.name) && line.message().contains(part)
    })
}

fn sent(node: &TestNode, outcome: &str) -> Result<f64> {
    let name = format!("dormouse_outbound_requests_total{{outcome=\"{outcome}\"}}");
    Ok(node.metrics()?.get(&name).copied().unwrap_or_default())
}

fn what_the_manifest_allows_is_reached(guest: &str) -> Result<()> {
    let (node, upstream) = (open().start()?, Upstream::start()?);
    let tenant = sender(&node, guest, &["http://127.0.0.1:*"])?;
    let answer = fetch(&tenant, &upstream.url("/told?a=b"))?;
    reached(&answer)?;
    ensure!(text(&answer).starts_with("GET /told?a=b HTTP/1.1\n"), "{answer}");
    ensure!(text(&answer).contains(&format!("host: {}", upstream.address)), "{answer}");
    let answer = tenant.json(&path("/fetch", &upstream.url("/told"), "&method=PUT&bytes=40960"))?;
    reached(&answer)?;
    ensure!(text(&answer).starts_with("PUT /told HTTP/1.1\n"), "{answer}");
    ensure!(text(&answer).ends_with("body 40960\n"), "{answer}");
    eventually("both calls are over", || Ok((sent(&node, "allowed")? == 2.0).then_some(())))?;
    eventually("both connections are closed", || Ok((upstream.open() == 0).then_some(())))
}

fn bodies_arrive_while_they_are_sent(guest: &str) -> Result<()> {
    let (node, upstream) = (open().start()?, Upstream::start()?);
    let tenant = sender(&node, guest, &["http://127.0.0.1:*"])?;
    let mut connection = node.connect()?;
    let to = path("/proxy", &upstream.url("/told"), "&method=POST");
    connection.chunked_request("POST", &tenant.path(&to), &[])?;
    for bytes in (1..=3).map(|number| number * 5) {
        connection.chunk(b"piece")?;
        eventually("the piece is there", || Ok((upstream.bytes() == bytes).then_some(())))?;
    }
    connection.chunk(b"")?;
    let answer = connection.response("POST")?.expect(200)?.text();
    ensure!(answer.ends_with("body 15\n"), "{answer}");

    let (mut connection, mut incoming) = tenant.start(&path("/proxy", &upstream.url("/gated"), ""))?;
    assert_eq!(connection.next(&mut incoming)?.as_deref(), Some(b"one".as_slice()));
    upstream.open_gate();
    assert_eq!(connection.rest(&mut incoming)?, b"two");
    Ok(())
}

fn what_the_manifest_does_not_allow_is_denied_and_told(guest: &str) -> Result<()> {
    let (node, upstream) = (open().start()?, Upstream::start()?);
    let port = upstream.address.port();
    let lists: [&[&str]; 4] =
        [&[], &["https://127.0.0.1:*"], &["http://127.0.0.1:1..2"], &["http://*.127.example:*"]];
    for hosts in lists {
        let tenant = sender(&node, guest, hosts)?;
        failed(&fetch(&tenant, &upstream.url("/told"))?, "HttpRequestDenied")?;
        let line = told(&tenant, "its function may not send requests there")?;
        for part in [
            format!("http://127.0.0.1:{port}"),
            format!("allowed_outbound_hosts = [\"http://127.0.0.1:{port}\"]"),
        ] {
            ensure!(line.message().contains(&part), "{part} is missing: {line}");
        }
    }
    // Without a manifest nothing is allowed.
    let tenant = node.tenant(guest)?;
    failed(&fetch(&tenant, &upstream.url("/told"))?, "HttpRequestDenied")?;
    assert_eq!(upstream.connections(), 0);
    eventually("all are counted", || Ok((sent(&node, "denied-by-list")? == 5.0).then_some(())))?;
    for url in ["ftp://127.0.0.1/", "http://user@127.0.0.1/", "http://127.0.0.1:0/", "http:///"] {
        let answer = fetch(&tenant, url)?;
        ensure!(answer.get("error").is_some(), "{url}: {answer}");
    }
    Ok(())
}

fn addresses_that_are_not_public_are_refused_in_every_notation(guest: &str) -> Result<()> {
    let (node, upstream) = (SHIPPED.node()?, Upstream::start()?);
    let port = upstream.address.port();
    let tenant = sender(&node, guest, &["*://*:*"])?;
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.0x1",
        "0177.0.0.01",
        "127.1",
        "127.0.0.1.",
        "0",
        "localhost",
        "LocalHost.",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "10.0.0.1",
        "100.64.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "168.63.129.16",
        "224.0.0.1",
    ] {
        for scheme in ["http", "https"] {
            let answer = fetch(&tenant, &format!("{scheme}://{host}:{port}/told"))?;
            failed(&answer, "DestinationIpProhibited").with_context(|| host.to_owned())?;
        }
    }
    assert_eq!(upstream.connections(), 0);
    told(&tenant, "169.254.169.254 is link-local, and no address of the public internet")?;
    told(&tenant, "--outbound-networks-allowed 10.0.0.1")?;
    ensure!(sent(&node, "denied-by-address")? >= 58.0);
    Ok(())
}

fn the_node_itself_is_refused(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = sender(&node, guest, &["http://*:*"])?;
    for own in [node.public_address()?, node.admin_address()?] {
        failed(&fetch(&tenant, &format!("http://{own}/"))?, "DestinationIpProhibited")?;
    }
    Ok(())
}

/// Addresses by names that read like them: `10-0-0-1.test`, `x--1.test`.
fn by_name(name: &str) -> Option<Vec<IpAddr>> {
    let addresses = name.strip_suffix(".test")?.split("-and-");
    let address = |text: &str| {
        let text = text.strip_prefix('x').map_or_else(|| text.replace('-', "."), |v6| v6.replace('-', ":"));
        text.parse().ok()
    };
    Some(addresses.filter_map(address).collect())
}

fn names_of_such_addresses_are_refused(guest: &str) -> Result<()> {
    let names = NameServer::start(|name, _| by_name(name))?;
    let node = TestNode::builder().flag("--resolver", names.address).start()?;
    let tenant = sender(&node, guest, &["http://*.test:*"])?;
    for name in [
        "127-0-0-1.test",
        "169-254-169-254.test",
        "10-0-0-1-and-192-168-0-1.test",
        "x--1.test",
        "x--ffff-7f00-1.test",
        "x64-ff9b--7f00-1.test",
        "xfd00-ec2--254.test",
        "x2002-7f00-1--.test",
    ] {
        let answer = fetch(&tenant, &format!("http://{name}:9/"))?;
        failed(&answer, "DestinationIpProhibited").with_context(|| name.to_owned())?;
    }
    // A name without an address.
    failed(&fetch(&tenant, "http://none.test:9/")?, "DestinationNotFound")?;
    Ok(())
}

fn what_the_operator_allows_is_reached(guest: &str) -> Result<()> {
    let (names, upstream) = (NameServer::start(|name, _| by_name(name))?, Upstream::start()?);
    let node = open().flag("--resolver", names.address).start()?;
    let tenant = sender(&node, guest, &["http://*:*"])?;
    let port = upstream.address.port();
    // The first has an address that may be reached beside one that may not.
    for host in
        ["10-0-0-1-and-127-0-0-1.test", "127-0-0-1.test.", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"]
    {
        reached(&fetch(&tenant, &format!("http://{host}:{port}/told"))?).with_context(|| host.to_owned())?;
    }
    for host in
        ["[64:ff9b::127.0.0.1]", "[::127.0.0.1]", "x64-ff9b--7f00-1.test", "x--7f00-1.test", "10.0.0.1"]
    {
        let answer = fetch(&tenant, &format!("http://{host}:{port}/told"))?;
        failed(&answer, "DestinationIpProhibited").with_context(|| host.to_owned())?;
    }
    assert_eq!(upstream.connections(), 5);
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    failed(&fetch(&tenant, &format!("http://{nobody}/"))?, "ConnectionRefused")
}

fn only_the_address_that_was_checked_is_connected_to(guest: &str) -> Result<()> {
    let allowed = Upstream::start_at(SocketAddr::from(([127, 0, 0, 2], 0)))?;
    let port = allowed.address.port();
    let other = Upstream::start_at(SocketAddr::from(([127, 0, 0, 3], port)))?;
    let names = NameServer::start(|_, before| {
        Some(vec![IpAddr::from(if before == 0 { [127, 0, 0, 2] } else { [127, 0, 0, 3] })])
    })?;
    let node = TestNode::builder()
        .flag("--outbound-networks-allowed", "127.0.0.2")
        .flag("--resolver", names.address)
        .start()?;
    let tenant = sender(&node, guest, &["http://rebinds.test:*"])?;
    let url = format!("http://rebinds.test:{port}/told");
    let answer = fetch(&tenant, &url)?;
    reached(&answer)?;
    ensure!(text(&answer).contains(&format!("host: rebinds.test:{port}")), "{answer}");
    assert_eq!(names.asked(), 1, "a second question could have another answer");
    failed(&fetch(&tenant, &url)?, "DestinationIpProhibited")?;
    assert_eq!(names.asked(), 2);
    assert_eq!((allowed.connections(), other.connections()), (1, 0));
    Ok(())
}

fn a_redirect_is_judged_like_any_request(guest: &str) -> Result<()> {
    let (node, upstream) = (open().start()?, Upstream::start()?);
    let tenant = sender(&node, guest, &["http://127.0.0.1:*", "http://169.254.169.254"])?;
    for (to, code) in [
        ("http://169.254.169.254/latest", "DestinationIpProhibited"),
        ("http://192.0.2.1/", "HttpRequestDenied"),
    ] {
        let answer = fetch(&tenant, &upstream.url(&format!("/redirect?{to}")))?;
        assert_eq!(answer.get("status"), Some(&json!(302)), "{answer}");
        let location = answer.get("location").and_then(Value::as_str).context("no location")?;
        assert_eq!(location, to);
        failed(&fetch(&tenant, location)?, code)?;
    }
    Ok(())
}

/// A server's configuration with a certificate for `name` that nobody else has signed, and that certificate in PEM.
fn certified(name: &str) -> Result<(ServerConfig, String)> {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()])?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok((config, made.cert.pem()))
}

fn a_certificate_must_be_for_the_name(guest: &str) -> Result<()> {
    let (config, pem) = certified("right.test")?;
    let upstream = Upstream::start_with_tls(config)?;
    let names = NameServer::start(|_, _| Some(vec![IpAddr::from([127, 0, 0, 1])]))?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), pem)?;
    let node = open().flag("--resolver", names.address);
    let node = node.flag("--outbound-ca-file", file.path().display()).start()?;
    let tenant = sender(&node, guest, &["https://*.test:*", "https://127.0.0.1:*", "http://*.test:*"])?;
    let port = upstream.address.port();
    let answer = fetch(&tenant, &format!("https://right.test:{port}/told"))?;
    reached(&answer).with_context(|| node.logs().to_string())?;
    for host in ["wrong.test", "127.0.0.1"] {
        failed(&fetch(&tenant, &format!("https://{host}:{port}/told"))?, "TlsCertificateError")?;
    }
    // Who does not know the authority believes nobody.
    let strict = open().flag("--resolver", names.address).start()?;
    let tenant = sender(&strict, guest, &["https://*.test:*"])?;
    failed(&fetch(&tenant, &format!("https://right.test:{port}/told"))?, "TlsCertificateError")?;
    told(&tenant, "the server's certificate is not valid")?;
    Ok(())
}

fn codes(answers: &Value) -> Vec<String> {
    let answers = answers.as_array().into_iter().flatten();
    let code = |answer: &Value| answer.get("error").and_then(Value::as_str).unwrap_or("reached").to_owned();
    answers.map(code).collect()
}

fn requests_are_counted(guest: &str) -> Result<()> {
    let node = open().flag("--outbound-requests-max", 4).flag("--outbound-concurrency-max", 2).start()?;
    let upstream = Upstream::start()?;
    let tenant = sender(&node, guest, &["http://127.0.0.1:*"])?;
    let answers = tenant.json(&path("/fetch-many", &upstream.url("/told"), "&n=9"))?;
    let (reached, refused) = ("reached", "ErrorCode::ConnectionLimitReached");
    let [of_four, of_five] = [vec![reached; 4], vec![refused; 5]];
    assert_eq!(codes(&answers), [of_four, of_five].concat());
    told(&tenant, "a request may send 4 (outbound_requests_max)")?;
    let is_told = |line: &Line| line.message().contains("outbound_requests_max");
    assert_eq!(node.logs().matching(is_told).len(), 1, "it is told once for a request");
    let answers = tenant.json(&path("/fetch-at-once", &upstream.url("/told"), "&n=4"))?;
    assert_eq!(codes(&answers), [reached, reached, refused, refused]);
    told(&tenant, "a request may have 2 open at the same time (outbound_concurrency_max)")?;
    // Requests that are denied count as well.
    let answers = tenant.json(&path("/fetch-many", "http://192.0.2.1/", "&n=5"))?;
    assert_eq!(codes(&answers).last().map(String::as_str), Some(refused));
    eventually("caps are counted", || Ok((sent(&node, "cap")? == 8.0).then_some(())))
}

fn bodies_have_caps(guest: &str) -> Result<()> {
    let node = open()
        .flag("--outbound-request-bytes-max", 100_000)
        .flag("--outbound-response-bytes-max", 200_000)
        .start()?;
    let upstream = Upstream::start()?;
    let tenant = sender(&node, guest, &["http://127.0.0.1:*"])?;
    let send = |bytes: u32| {
        tenant.json(&path("/fetch", &upstream.url("/told"), &format!("&method=POST&bytes={bytes}")))
    };
    reached(&send(98_304)?)?;
    failed(&send(102_400)?, "HttpRequestBodySize(Some(100000))")?;
    for kind in ["/sized", "/big"] {
        let answer = fetch(&tenant, &upstream.url(&format!("{kind}?200000")))?;
        reached(&answer)?;
        assert_eq!(answer.get("bytes"), Some(&json!(200_000)));
        let answer = fetch(&tenant, &upstream.url(&format!("{kind}?200001")))?;
        failed(&answer, "HttpResponseBodySize(Some(200000))").context(kind)?;
    }
    told(&tenant, "its body may have 100000 bytes (outbound_request_bytes_max)")?;
    told(&tenant, "the body of its response may have 200000 bytes (outbound_response_bytes_max)")?;
    eventually("caps are counted", || Ok((sent(&node, "cap")? == 3.0).then_some(())))
}

fn a_response_without_an_end_is_cut(guest: &str) -> Result<()> {
    let (node, upstream) = (open().start()?, Upstream::start()?);
    let tenant = sender(&node, guest, &["http://127.0.0.1:*"])?;
    failed(&fetch(&tenant, &upstream.url("/big?0"))?, "HttpResponseBodySize(Some(10485760))")?;
    eventually("the connection is closed", || Ok((upstream.open() == 0).then_some(())))
}

fn no_step_takes_longer_than_it_may(guest: &str) -> Result<()> {
    // They take connections and questions, and say nothing.
    let (silent, deaf) = (TcpListener::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let upstream = Upstream::start()?;
    let node = open()
        .flag("--resolver", deaf.local_addr()?)
        .flag("--outbound-connect-time-max-ms", 200)
        .flag("--outbound-first-byte-time-max-ms", 200)
        .flag("--outbound-between-bytes-time-max-ms", 200)
        .start()?;
    let tenant = sender(&node, guest, &["*://*:*"])?;
    let tls = format!("https://{}/", silent.local_addr()?);
    for (url, code) in [
        ("http://slow.test/", "DnsTimeout"),
        (tls.as_str(), "ConnectionTimeout"),
        (&upstream.url("/never"), "ConnectionReadTimeout"),
        (&upstream.url("/pauses"), "ConnectionReadTimeout"),
        (&upstream.url("/unread"), "ConnectionReadTimeout"),
    ] {
        // For more a guest may ask, and does not get it.
        let answer = tenant.json(&path("/fetch", url, "&connect=60000&first=60000&between=60000"))?;
        failed(&answer, code).with_context(|| url.to_owned())?;
    }
    told(&tenant, "the response did not begin in time")?;
    told(&tenant, "the response did not go on in time")?;
    upstream.open_gate();

    let patient = open().flag("--resolver", deaf.local_addr()?).start()?;
    let tenant = sender(&patient, guest, &["*://*:*"])?;
    for (url, asked, code) in [
        ("http://slow.test/", "&connect=100", "DnsTimeout"),
        (tls.as_str(), "&connect=100", "ConnectionTimeout"),
        (&upstream.url("/never"), "&first=100", "ConnectionReadTimeout"),
        (&upstream.url("/pauses"), "&between=100", "ConnectionReadTimeout"),
    ] {
        failed(&tenant.json(&path("/fetch", url, asked))?, code).with_context(|| url.to_owned())?;
    }
    eventually("nothing stays open", || Ok((upstream.open() == 0).then_some(())))
}

fn malformed_responses_are_told_apart(guest: &str) -> Result<()> {
    let (node, upstream) = (open().start()?, Upstream::start()?);
    let tenant = sender(&node, guest, &["http://127.0.0.1:*"])?;
    for (path, code) in [
        ("/nonsense", "HttpProtocolError"),
        ("/large-head", "HttpResponseHeaderSectionSize"),
        ("/cut", "HttpResponseIncomplete"),
    ] {
        failed(&fetch(&tenant, &upstream.url(path))?, code)?;
    }
    let answer = tenant.json(&path("/fetch", &upstream.url("/told"), "&method=CONNECT"))?;
    failed(&answer, "HttpRequestMethodInvalid")
}

fn a_request_that_is_given_up_takes_its_calls_with_it(guest: &str) -> Result<()> {
    let (node, upstream) = (open().start()?, Upstream::start()?);
    let tenant = sender(&node, guest, &["http://127.0.0.1:*"])?;
    let is_open = |wanted: usize| eventually("calls", || Ok((upstream.open() == wanted).then_some(())));
    // Before the head of the response, in its body, and while its own body is sent.
    let waiting = tenant.send(&path("/fetch", &upstream.url("/never"), ""))?;
    let reading = tenant.send(&path("/fetch", &upstream.url("/pauses"), ""))?;
    let passing = tenant.start(&path("/proxy", &upstream.url("/pauses"), ""))?;
    let sending = tenant.send(&path("/fetch", &upstream.url("/unread"), "&method=POST&bytes=9000000"))?;
    is_open(4)?;
    drop((waiting, reading, passing));
    // The fourth server does not read, so that it does not see who is gone.
    is_open(1)?;
    drop(sending);
    node.wait_for_metric("dormouse_requests_in_flight", 0.0)?;
    upstream.open_gate();
    is_open(0)?;
    tenant.json(&path("/fetch-and-forget", &upstream.url("/never"), ""))?;
    is_open(0)?;
    eventually("all are counted", || Ok((sent(&node, "given-up")? >= 3.0).then_some(())))
}

fn calls_end_with_the_wall_time(guest: &str) -> Result<()> {
    let (node, upstream) = (open().start()?, Upstream::start()?);
    let tenant = node.tenant(guest)?;
    let manifest =
        json!({ "allowed_outbound_hosts": ["http://127.0.0.1:*"], "limits": { "wall_time_max_ms": 500 } });
    deploy(&tenant, guest, &manifest)?;
    for kind in ["/never", "/pauses"] {
        tenant.get(&path("/fetch", &upstream.url(kind), ""))?.expect(504)?;
        eventually("the call is over", || Ok((upstream.open() == 0).then_some(())))?;
    }
    // A body that is passed on is cut, and does not look whole.
    let (mut connection, mut incoming) = tenant.start(&path("/proxy", &upstream.url("/pauses"), ""))?;
    let Err(error) = connection.rest(&mut incoming) else { anyhow::bail!("the body looks whole") };
    ensure!(error.is::<Cut>(), "{error:#}");
    eventually("the call is over", || Ok((upstream.open() == 0).then_some(())))
}

fn a_call_keeps_nobody_from_writing(guest: &str) -> Result<()> {
    let (node, upstream) = (open().start()?, Upstream::start()?);
    let tenant = sender(&node, guest, &["http://127.0.0.1:*"])?;
    let waiting = tenant.send(&path("/write-and-fetch", &upstream.url("/never"), ""))?;
    eventually("the call is under way", || Ok((upstream.open() == 1).then_some(())))?;
    tenant.guest_sql("INSERT INTO log(note) VALUES ('beside')")?;
    assert_eq!(tenant.number("SELECT count(*) FROM log")?, 2);
    assert_eq!(upstream.open(), 1);
    drop(waiting);
    eventually("the call is over", || Ok((upstream.open() == 0).then_some(())))
}

#[test]
fn settings_that_cannot_hold_are_told_at_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing")?;
    for (flag, value, part) in [
        ("--resolver", "dns.example", "write the address of a name server"),
        ("--outbound-networks-allowed", "10.0.0.0/33", "is no network"),
        ("--outbound-requests-max", "many", "outbound_requests_max"),
        ("--outbound-concurrency-max", "0", "less than 1"),
        ("--outbound-ca-file", "/nowhere.pem", "/nowhere.pem"),
        ("--outbound-ca-file", &empty.display().to_string(), "no certificate"),
    ] {
        let builder = TestNode::builder().flag(flag, value);
        let (status, said) = builder.run_to_its_end(&folder.path().join("data"))?;
        ensure!(!status.success() && said.contains(part), "{flag} {value}: {said}");
    }
    Ok(())
}

#[test]
fn the_sdk_sends_in_both_worlds() -> Result<()> {
    let (node, upstream) = (open().flag("--outbound-requests-max", 1).start()?, Upstream::start()?);
    for guest in ["sdk", "sdk3"] {
        let tenant = sender(&node, guest, &["http://127.0.0.1:*"])?;
        let answer = tenant.get(&format!("/fetch?{}", upstream.url("/told")))?.expect(200)?.text();
        ensure!(
            answer.starts_with("POST /told HTTP/1.1\n") && answer.ends_with("body 6\n"),
            "{guest}: {answer}"
        );
        let answer = tenant.get(&format!("/fetch?{}", upstream.url("/nonsense")))?.expect(200)?.text();
        ensure!(answer.starts_with("the outgoing request failed: "), "{guest}: {answer}");
    }
    Ok(())
}
