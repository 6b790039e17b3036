//! Trusted proxies: who a client is, by whose word, and whose word is worth nothing.

use anyhow::{Context, Result, ensure};
use dormouse_tests::{Builder, Shared, SharedNode, TestNode, client};
use serde_json::Value;

use crate::config::refused;
use crate::hosts::header;

/// Nodes that trust whoever connects from this machine, and a node that trusts a network of somebody else's.
static FLY: Shared =
    Shared::new(&[("--trusted-proxies", "127.0.0.0/8"), ("--client-ip-header", "fly-client-ip")]);
static CLOUDFLARE: Shared =
    Shared::new(&[("--trusted-proxies", "127.0.0.1"), ("--client-ip-header", "CF-Connecting-IP")]);
static FORWARDED: Shared = Shared::new(&[
    ("--trusted-proxies", "127.0.0.0/8, 10.0.0.0/8"),
    ("--client-ip-header", "X-Forwarded-For"),
    ("--base-domain", "proxies.test"),
]);
static PROXY: Shared =
    Shared::new(&[("--trusted-proxies", "127.0.0.0/8"), ("--client-ip-header", "proxy_protocol")]);
static ELSEWHERE: Shared =
    Shared::new(&[("--trusted-proxies", "192.0.2.0/24"), ("--client-ip-header", "X-Forwarded-For")]);
static PROXY_ELSEWHERE: Shared =
    Shared::new(&[("--trusted-proxies", "192.0.2.0/24"), ("--client-ip-header", "proxy_protocol")]);

/// Every header by which a client could claim to be somebody.
const CLAIMS: client::Headers<'_> = &[
    ("fly-client-ip", "6.6.6.6"),
    ("cf-connecting-ip", "6.6.6.6"),
    ("x-forwarded-for", "6.6.6.6"),
    ("x-real-ip", "6.6.6.6"),
    ("true-client-ip", "6.6.6.6"),
    ("forwarded", "for=6.6.6.6;proto=https"),
    ("x-forwarded-proto", "https"),
    ("spin-client-addr", "6.6.6.6:6"),
];

/// What the guest saw of a request, and the address of the connection that it came by.
struct Seen {
    all: Value,
    socket: String,
}

impl Seen {
    /// Sends bytes, if there are some, and a request behind them.
    fn after(node: &SharedNode, start: &[u8], headers: client::Headers<'_>) -> Result<Self> {
        let tenant = node.tenant("misbehave")?;
        let mut connection = node.connect()?;
        let socket = connection.local_address()?.to_string();
        if !start.is_empty() {
            connection.send(start)?;
        }
        connection.request("GET", &tenant.path("/headers"), headers, b"")?;
        Ok(Self { all: connection.response("GET")?.expect(200)?.json()?, socket })
    }

    fn of(node: &SharedNode, headers: client::Headers<'_>) -> Result<Self> {
        Self::after(node, b"", headers)
    }

    fn client(&self) -> Result<&str> {
        header(&self.all, "spin-client-addr")
    }

    /// The scheme that the guest is told, which is the same in both places.
    fn scheme(&self) -> Result<&str> {
        let scheme = self.all.get("scheme").and_then(Value::as_str).context("no scheme")?;
        let url = header(&self.all, "spin-full-url")?;
        ensure!(url.starts_with(&format!("{scheme}://dormouse.test/t/")), "{scheme}, but {url}");
        Ok(scheme)
    }

    /// The client is whoever holds the connection, and no claim has come through.
    fn is_of_the_socket(&self) -> Result<()> {
        assert_eq!(self.client()?, self.socket);
        assert_eq!(self.scheme()?, "http");
        ensure!(!self.all.to_string().contains("6.6.6.6"), "{}", self.all);
        Ok(())
    }
}

#[test]
fn a_trusted_proxy_names_its_client() -> Result<()> {
    for (node, name) in [(FLY.node()?, "Fly-Client-IP"), (CLOUDFLARE.node()?, "CF-Connecting-IP")] {
        for (address, expected) in [("192.0.2.1", "192.0.2.1:0"), ("2001:db8::1", "[2001:db8::1]:0")] {
            let seen = Seen::of(&node, &[(name, address), ("x-forwarded-proto", "https")])?;
            assert_eq!(seen.client()?, expected);
            assert_eq!(seen.scheme()?, "https");
        }
    }
    Ok(())
}

#[test]
fn only_the_named_header_counts() -> Result<()> {
    for (node, name) in [(FLY.node()?, "fly-client-ip"), (CLOUDFLARE.node()?, "cf-connecting-ip")] {
        let others: Vec<_> = CLAIMS
            .iter()
            .copied()
            .filter(|(claim, _)| *claim != name && *claim != "x-forwarded-proto")
            .collect();
        Seen::of(&node, &others)?.is_of_the_socket()?;
        // A proxy sets it once. Of two, one is its client's.
        Seen::of(&node, &[(name, "6.6.6.6"), (name, "192.0.2.1")])?.is_of_the_socket()?;
        Seen::of(&node, &[(name, "6.6.6.6, 192.0.2.1")])?.is_of_the_socket()?;
        Seen::of(&node, &[(name, "nobody")])?.is_of_the_socket()?;
    }
    Ok(())
}

#[test]
fn of_a_chain_the_rightmost_stranger_is_the_client() -> Result<()> {
    let node = FORWARDED.node()?;
    for values in [
        &["192.0.2.1"] as &[&str],
        &["6.6.6.6, 192.0.2.1"],
        &["6.6.6.6, 192.0.2.1, 10.1.2.3, 127.0.0.9"],
        &["6.6.6.6", "192.0.2.1", "10.1.2.3"],
        &["6.6.6.6, nonsense, 192.0.2.1:4711,10.1.2.3"],
    ] {
        let headers: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
        let seen = Seen::of(&node, &headers)?;
        assert_eq!(seen.client()?, "192.0.2.1:0", "{values:?}");
        ensure!(!seen.all.to_string().contains("6.6.6.6"), "{}", seen.all);
    }
    Seen::of(&node, &[("x-forwarded-for", "6.6.6.6, nonsense")])?.is_of_the_socket()
}

#[test]
fn a_stranger_is_not_believed() -> Result<()> {
    Seen::of(&ELSEWHERE.node()?, CLAIMS)?.is_of_the_socket()?;
    Seen::of(&PROXY_ELSEWHERE.node()?, CLAIMS)?.is_of_the_socket()?;
    Seen::of(&crate::SHIPPED.node()?, CLAIMS)?.is_of_the_socket()
}

/// The header of version 2 for a client at 192.0.2.1:4711, with what follows the addresses.
fn version_2(command: u8, extensions: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let length = 12 + extensions.len();
    bytes.extend([0x20 | command, 0x11, (length >> 8) as u8, (length & 0xff) as u8]);
    bytes.extend([192, 0, 2, 1, 127, 0, 0, 1]);
    bytes.extend(4711_u16.to_be_bytes());
    bytes.extend(443_u16.to_be_bytes());
    bytes.extend(extensions);
    bytes
}

/// PP2_TYPE_SSL with PP2_CLIENT_SSL and a verified certificate.
const OVER_TLS: &[u8] = &[0x20, 0, 5, 1, 0, 0, 0, 0];

#[test]
fn the_proxy_protocol_names_the_client() -> Result<()> {
    let node = PROXY.node()?;
    // In this mode the proxy touches no header: all of them are the client's.
    let one = Seen::after(&node, b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 443\r\n", CLAIMS)?;
    assert_eq!((one.client()?, one.scheme()?), ("192.0.2.1:4711", "http"));
    ensure!(!one.all.to_string().contains("6.6.6.6"), "{}", one.all);
    let six = Seen::after(&node, b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n", &[])?;
    assert_eq!((six.client()?, six.scheme()?), ("[2001:db8::1]:4711", "http"));
    let two = Seen::after(&node, &version_2(1, b""), CLAIMS)?;
    assert_eq!((two.client()?, two.scheme()?), ("192.0.2.1:4711", "http"));
    let tls = Seen::after(&node, &version_2(1, OVER_TLS), &[])?;
    assert_eq!((tls.client()?, tls.scheme()?), ("192.0.2.1:4711", "https"));
    Ok(())
}

#[test]
fn a_proxys_own_connection_is_its_own() -> Result<()> {
    let node = PROXY.node()?;
    Seen::after(&node, b"PROXY UNKNOWN\r\n", CLAIMS)?.is_of_the_socket()?;
    Seen::after(&node, &version_2(0, OVER_TLS), CLAIMS)?.is_of_the_socket()
}

#[test]
fn a_proxy_header_may_come_in_pieces() -> Result<()> {
    let node = PROXY.node()?;
    let tenant = node.tenant("misbehave")?;
    let mut connection = node.connect()?;
    for byte in version_2(1, OVER_TLS) {
        connection.send([byte])?;
    }
    connection.request("GET", &tenant.path("/headers"), &[], b"")?;
    let seen = connection.response("GET")?.expect(200)?.json()?;
    assert_eq!(header(&seen, "spin-client-addr")?, "192.0.2.1:4711");
    // It holds for the whole connection.
    connection.request("GET", &tenant.path("/headers"), &[], b"")?;
    let seen = connection.response("GET")?.expect(200)?.json()?;
    assert_eq!(header(&seen, "spin-client-addr")?, "192.0.2.1:4711");
    Ok(())
}

#[test]
fn a_trusted_proxy_must_speak_the_protocol() -> Result<()> {
    let node = PROXY.node()?;
    node.expect_log("a trusted proxy does not speak the PROXY protocol");
    for start in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\n\r\n",
        "PROXY TCP4 nobody 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "PROXY TCP4 192.0.2.1 127.0.0.1 99999 2\r\n",
        &format!("PROXY TCP4 {}", "1".repeat(200)),
        "\r\n\r\n\0\r\nQUIT\n\u{31}\u{11}\0\0 and so on",
    ] {
        let mut connection = node.connect()?;
        connection.send(start)?;
        ensure!(connection.until_closed()?.is_empty(), "{start:?} was answered");
    }
    // One that says nothing, or never comes to an end, is let go. It takes as long as the node is patient.
    let (mut silent, mut slow) = (node.connect()?, node.connect()?);
    slow.send("PROXY TCP4 192")?;
    for connection in [&mut silent, &mut slow] {
        ensure!(connection.until_closed()?.is_empty());
    }
    Ok(())
}

#[test]
fn a_stranger_may_not_speak_the_protocol() -> Result<()> {
    let node = PROXY_ELSEWHERE.node()?;
    for start in [b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 443\r\n".to_vec(), version_2(1, b"")] {
        let mut connection = node.connect()?;
        connection.send(start)?;
        connection.request("GET", "/", &[], b"")?;
        let answer = String::from_utf8_lossy(&connection.until_closed()?).into_owned();
        ensure!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    Ok(())
}

#[test]
fn the_admin_door_has_no_proxy() -> Result<()> {
    let node = PROXY.node()?;
    node.admin_request("GET", "/healthz", &[], b"")?.expect(200)?;
    Ok(())
}

#[test]
fn a_log_line_names_the_client() -> Result<()> {
    let node = FORWARDED.node()?;
    let tenant = node.tenant("misbehave")?;
    let headers = [("x-request-id", "names-the-client-1"), ("x-forwarded-for", "6.6.6.6, 192.0.2.1")];
    tenant.request("GET", "/log?line=said", &headers, b"")?.expect(200)?;
    let line = node.logs().wait_for("the guest's line", |line| {
        line.is_of_guest() && line.request("request_id") == Some("names-the-client-1")
    })?;
    assert_eq!(line.request("client"), Some("192.0.2.1"));
    Ok(())
}

#[test]
fn cookies_that_came_over_tls_are_secure() -> Result<()> {
    let node = FORWARDED.node()?;
    let tenant = node.tenant("misbehave")?;
    let cookie = |proto: &str, host: &str, path: &str| -> Result<String> {
        let headers = [("x-forwarded-proto", proto), ("host", host)];
        let answer = node.request("POST", path, &headers, br#"[["set-cookie", "a=b"]]"#)?.expect(200)?;
        Ok(answer.header("set-cookie").unwrap_or_default().to_owned())
    };
    let (path, own) = (tenant.path("/respond"), format!("/t/{}/", tenant.name));
    assert_eq!(cookie("https", "proxies.test", &path)?, format!("a=b; Path={own}; Secure"));
    assert_eq!(cookie("http", "proxies.test", &path)?, format!("a=b; Path={own}"));
    // On its own host it is the tenant's choice.
    assert_eq!(cookie("https", &format!("{}.proxies.test", tenant.name), "/respond")?, "a=b");
    Ok(())
}

#[test]
fn networks_may_be_an_array() -> Result<()> {
    let file = "trusted_proxies = [\"10.0.0.0/8\", \"127.0.0.1\"]\nclient_ip_header = \"X-Forwarded-For\"\n";
    let node = TestNode::builder().config(file).start()?;
    let tenant = node.tenant("misbehave")?;
    let seen = tenant.request("GET", "/headers", &[("x-forwarded-for", "192.0.2.1, 10.1.2.3")], b"")?;
    assert_eq!(header(&seen.expect(200)?.json()?, "spin-client-addr")?, "192.0.2.1:0");
    Ok(())
}

#[test]
fn mistakes_about_proxies_are_told_together() -> Result<()> {
    let said = |builder: Builder| refused(builder.flag("--cpu-time-max-ms", "soon"));
    let with = |networks: &str, header: &str| {
        TestNode::builder().env("DORMOUSE_TRUSTED_PROXIES", networks).env("DORMOUSE_CLIENT_IP_HEADER", header)
    };
    let both = said(with("10.0.0.0/33", "X-Real-IP"))?;
    for part in [
        "DORMOUSE_TRUSTED_PROXIES: trusted_proxies",
        "10.0.0.0/33",
        "DORMOUSE_CLIENT_IP_HEADER: client_ip_header",
        "proxy_protocol",
        "--cpu-time-max-ms",
    ] {
        ensure!(both.contains(part), "{part} is missing in {both}");
    }
    let nobody = said(with("", "X-Forwarded-For"))?;
    ensure!(nobody.contains("client_ip_header") && nobody.contains("trusted_proxies"), "{nobody}");
    let unnamed = said(TestNode::builder().flag("--trusted-proxies", "10.0.0.0/8"))?;
    ensure!(
        unnamed.contains("--trusted-proxies: trusted_proxies") && unnamed.contains("client_ip_header"),
        "{unnamed}"
    );
    let list = said(TestNode::builder().config("trusted_proxies = [1]\nclient_ip_header = [\"x\"]\n"))?;
    ensure!(list.contains("trusted_proxies") && list.contains("client_ip_header"), "{list}");
    Ok(())
}
