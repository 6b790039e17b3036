//! Header hygiene: what reaches a guest is the caller's, except what only the node may say.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use dormouse_tests::{Tenant, client};
use serde_json::Value;

use crate::SHIPPED;

in_both_worlds![
    method_path_query_and_fields_arrive_untouched,
    hop_by_hop_fields_end_here,
    a_client_cannot_say_where_it_comes_from,
    a_guest_is_told_where_it_is,
    the_request_id_reaches_the_guest,
    no_path_is_a_slash,
];

/// What a guest saw of a request.
struct Seen {
    all: Value,
    client: SocketAddr,
}

impl Seen {
    fn of(tenant: &Tenant<'_>, method: &str, rest: &str, headers: client::Headers<'_>) -> Result<Self> {
        let mut connection = tenant.node.connect()?;
        connection.request(method, &tenant.path(rest), headers, b"")?;
        let all = connection.response(method)?.expect(200)?.json()?;
        Ok(Self { all, client: connection.local_address()? })
    }

    fn values(&self, name: &str) -> Vec<&str> {
        let headers = self.all.get("headers").and_then(Value::as_array).into_iter().flatten();
        let is_it = |header: &&Value| header.pointer("/0").and_then(Value::as_str) == Some(name);
        headers.filter(is_it).filter_map(|header| header.pointer("/1")?.as_str()).collect()
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.all.get(field)?.as_str()
    }
}

fn method_path_query_and_fields_arrive_untouched(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let rest = "/headers?a=%2F%2e%2E&b=c+d%20e&&=&%C3%A4";
    let headers = [
        ("x-a", "1"),
        ("x-a", "2"),
        ("cookie", "a=b"),
        ("authorization", "Bearer tenant's"),
        ("x-b", "caf\u{e9}"),
    ];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let seen = Seen::of(&tenant, method, rest, &headers)?;
        assert_eq!(seen.text("method"), Some(method));
        assert_eq!(seen.text("path_with_query"), Some(rest));
        assert_eq!(seen.text("authority"), Some("dormouse.test"));
        assert_eq!(seen.text("scheme"), Some("http"));
        assert_eq!(seen.values("x-a"), ["1", "2"]);
        assert_eq!(seen.values("cookie"), ["a=b"]);
        assert_eq!(seen.values("authorization"), ["Bearer tenant's"]);
        assert_eq!(seen.values("x-b"), ["caf\u{e9}"]);
    }
    Ok(())
}

fn hop_by_hop_fields_end_here(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let headers = [
        ("connection", "keep-alive, x-private"),
        ("x-private", "for this hop"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic c2VjcmV0"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("trailer", "x-checksum"),
        ("upgrade", "websocket"),
        ("x-end-to-end", "stays"),
    ];
    let seen = Seen::of(&tenant, "GET", "/headers", &headers)?;
    for (name, _) in headers.iter().filter(|(name, _)| *name != "x-end-to-end") {
        ensure!(seen.values(name).is_empty(), "{name} reached the guest: {}", seen.all);
    }
    assert_eq!(seen.values("x-end-to-end"), ["stays"]);
    Ok(())
}

fn a_client_cannot_say_where_it_comes_from(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let spoofed = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-port",
        "x-real-ip",
        "fly-client-ip",
        "cf-connecting-ip",
        "true-client-ip",
        "spin-client-addr",
        "spin-full-url",
        "spin-path-info",
        "spin-base-path",
        "spin-component-route",
        "spin-matched-route",
        "spin-raw-component-route",
        "spin-no-such",
    ];
    let headers: Vec<_> = spoofed.iter().map(|name| (*name, "spoofed.example")).collect();
    let seen = Seen::of(&tenant, "GET", "/headers", &headers)?;
    ensure!(!seen.all.to_string().contains("spoofed.example"), "{}", seen.all);
    Ok(())
}

fn a_guest_is_told_where_it_is(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let seen = Seen::of(&tenant, "GET", "/headers?q=1", &[])?;
    let base = tenant.path("");
    let one = |name: &str| -> Result<&str> {
        let values = seen.values(name);
        ensure!(values.len() == 1, "{name}: {values:?}");
        values.first().copied().context("none")
    };
    assert_eq!(one("spin-path-info")?, "/headers");
    assert_eq!(one("spin-full-url")?, format!("http://dormouse.test{base}/headers?q=1"));
    assert_eq!(one("spin-base-path")?, base);
    // As Spin has it: base path, then the component's own route without its wildcard, is what matched.
    assert_eq!(one("spin-component-route")?, "");
    assert_eq!(one("spin-matched-route")?, format!("{base}/..."));
    assert_eq!(one("spin-client-addr")?, seen.client.to_string());
    Ok(())
}

fn the_request_id_reaches_the_guest(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let seen = Seen::of(&tenant, "GET", "/headers", &[("x-request-id", "reaches-the-guest-1")])?;
    assert_eq!(seen.values("x-request-id"), ["reaches-the-guest-1"]);
    Ok(())
}

fn no_path_is_a_slash(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let path = |rest: &str| -> Result<String> {
        let answer = tenant.get(rest)?.expect(404)?.json()?;
        Ok(answer.get("no such deed").and_then(Value::as_str).context("another answer")?.to_owned())
    };
    assert_eq!(path("")?, "/");
    assert_eq!(path("/")?, "/");
    assert_eq!(path("?q=1")?, "/");
    assert_eq!(path("/a//b/../c/%2e%2e/")?, "/a//b/../c/%2e%2e/");
    Ok(())
}
