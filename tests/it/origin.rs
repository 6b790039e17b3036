//! The browser-origin rules: on path addresses, where all tenants share an origin, a guest speaks for itself only.

use anyhow::{Result, ensure};
use dormouse_tests::client::Response;
use dormouse_tests::{Shared, Tenant, problem_of};
use serde_json::json;

/// A node whose tenants have hosts beside their path addresses.
static HOSTS: Shared = Shared::new(&[("--base-domain", "origin.test")]);

type Fields<'a> = &'a [(&'a str, &'a str)];

/// The answer of a guest that sets these fields, at its path address.
fn on_path(tenant: &Tenant<'_>, fields: Fields<'_>) -> Result<Response> {
    tenant.post("/respond", &json!(fields))?.expect(200)
}

/// The same on its own host.
fn on_host(tenant: &Tenant<'_>, fields: Fields<'_>) -> Result<Response> {
    let host = format!("{}.origin.test", tenant.name);
    let body = json!(fields).to_string();
    tenant.node.request("POST", "/respond", &[("host", &host)], body.as_bytes())?.expect(200)
}

fn values<'a>(response: &'a Response, name: &str) -> Vec<&'a str> {
    let named = response.headers.iter().filter(|(found, _)| found == name);
    named.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn cookies_stay_on_the_tenants_path() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("misbehave")?;
    let own = format!("/t/{}/", tenant.name);
    let narrow = format!("d=4; Path={own}fn/admin");
    let neighbour = format!("e=5; Path=/t/{}2/", tenant.name);
    let answer = on_path(
        &tenant,
        &[
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2; path=/; Domain=origin.test; HttpOnly"),
            ("Set-Cookie", "c=3;PATH=/t;domain = .test;path=/t/other/; SameSite=Strict"),
            ("set-cookie", &narrow),
            ("set-cookie", &neighbour),
            ("set-cookie", "__Host-f=6; Secure; Path=/"),
            ("set-cookie", "=__Host-g=7"),
            ("set-cookie", "nameless"),
        ],
    )?;
    assert_eq!(
        values(&answer, "set-cookie"),
        [
            format!("a=1; Path={own}"),
            format!("b=2; HttpOnly; Path={own}"),
            format!("c=3; SameSite=Strict; Path={own}"),
            format!("d=4; Path={own}fn/admin"),
            format!("e=5; Path={own}"),
        ]
    );
    Ok(())
}

#[test]
fn cookies_stay_on_the_tenants_host() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("misbehave")?;
    let answer = on_host(
        &tenant,
        &[
            ("set-cookie", "a=1; Path=/; Domain=origin.test; HttpOnly"),
            ("set-cookie", "b=2;DOMAIN=.test"),
            ("set-cookie", "__Host-c=3; Path=/; Secure"),
        ],
    )?;
    assert_eq!(values(&answer, "set-cookie"), ["a=1; Path=/; HttpOnly", "b=2", "__Host-c=3; Path=/; Secure"]);
    Ok(())
}

/// What a guest may not say for an origin that it shares.
const ORIGIN_WIDE: Fields<'_> = &[
    ("service-worker-allowed", "/"),
    ("clear-site-data", "\"*\""),
    ("strict-transport-security", "max-age=0; includeSubDomains"),
    ("public-key-pins", "pin-sha256=\"x\"; max-age=9"),
    ("expect-ct", "max-age=9"),
    ("nel", "{}"),
    ("report-to", "{}"),
    ("alt-svc", "h2=\"evil.test:443\""),
    ("accept-ch", "Sec-CH-UA-Model"),
    ("set-login", "logged-out"),
    ("origin-agent-cluster", "?0"),
    ("use-as-dictionary", "match=\"/*\""),
    ("www-authenticate", "Basic realm=\"other\""),
    ("www-authenticate", "Bearer realm=\"api\", DIGEST realm=\"other\""),
];

#[test]
fn nothing_is_said_for_the_whole_origin() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("misbehave")?;
    let answer = on_path(&tenant, ORIGIN_WIDE)?;
    for (name, _) in ORIGIN_WIDE {
        ensure!(values(&answer, name).is_empty(), "{name}: {:?}", answer.headers);
    }
    let answer = on_host(&tenant, ORIGIN_WIDE)?;
    for (name, value) in ORIGIN_WIDE {
        ensure!(values(&answer, name).contains(value), "{name}: {:?}", answer.headers);
    }
    Ok(())
}

#[test]
fn what_concerns_the_response_alone_goes_through() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("misbehave")?;
    let own = [
        ("access-control-allow-origin", "*"),
        ("cache-control", "max-age=60"),
        ("www-authenticate", "Bearer realm=\"api\""),
        ("location", "/elsewhere"),
        ("x-frame-options", "DENY"),
        ("reporting-endpoints", "a=\"https://a.test\""),
    ];
    for answer in [on_path(&tenant, &own)?, on_host(&tenant, &own)?] {
        for (name, value) in own {
            assert_eq!(values(&answer, name), [value]);
        }
    }
    Ok(())
}

#[test]
fn pages_are_sandboxed() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("misbehave")?;
    for page in [
        "text/html",
        "Text/HTML; charset=utf-8",
        "application/xhtml+xml",
        "image/svg+xml",
        "text/xml",
        "application/xml",
        "application/atom+xml",
        "multipart/x-mixed-replace; boundary=b",
        "text/plain, text/html",
        "what/ever",
    ] {
        let answer = on_path(&tenant, &[("content-type", page)])?;
        assert_eq!(values(&answer, "content-security-policy"), ["sandbox"], "{page}");
        assert_eq!(values(&answer, "content-type"), [page]);
    }
    let untyped = on_path(&tenant, &[])?;
    assert_eq!(values(&untyped, "content-security-policy"), ["sandbox"]);
    for data in ["application/json", "text/plain; charset=utf-8", "image/png", "application/octet-stream"] {
        let answer = on_path(&tenant, &[("content-type", data)])?;
        ensure!(values(&answer, "content-security-policy").is_empty(), "{data}");
    }
    let html = on_host(&tenant, &[("content-type", "text/html")])?;
    ensure!(values(&html, "content-security-policy").is_empty());
    Ok(())
}

#[test]
fn a_guests_own_policy_stays_in_force() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("misbehave")?;
    let own = [
        ("content-type", "text/html"),
        ("content-security-policy", "default-src 'self'"),
        ("content-security-policy", "sandbox allow-scripts allow-same-origin"),
    ];
    let answer = on_path(&tenant, &own)?;
    assert_eq!(
        values(&answer, "content-security-policy"),
        ["default-src 'self'", "sandbox allow-scripts allow-same-origin", "sandbox"]
    );
    Ok(())
}

#[test]
fn types_are_not_guessed() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("misbehave")?;
    let own = [("content-type", "text/plain"), ("x-content-type-options", "maybe")];
    assert_eq!(values(&on_path(&tenant, &own)?, "x-content-type-options"), ["nosniff"]);
    assert_eq!(values(&on_host(&tenant, &own)?, "x-content-type-options"), ["maybe"]);
    Ok(())
}

#[test]
fn scripts_of_service_workers_are_refused() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("misbehave")?;
    let refused = tenant.request("GET", "/ok", &[("Service-Worker", "script")], b"")?.expect(403)?;
    assert_eq!(problem_of(&refused)?, "no-service-worker");
    let host = format!("{}.origin.test", tenant.name);
    let headers = [("host", host.as_str()), ("service-worker", "script")];
    assert_eq!(node.request("GET", "/ok", &headers, b"")?.expect(200)?.text(), "ok");
    Ok(())
}
