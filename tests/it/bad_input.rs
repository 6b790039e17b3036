//! What bad input gets: a problem with the request's id, its own type, and never internals.

use anyhow::{Result, ensure};
use dormouse_tests::client::{Connection, Response};
use dormouse_tests::{Shared, problem_of};

use crate::{SHIPPED, TIGHT};

in_both_worlds![
    a_body_over_the_cap_is_refused_before_it_is_sent,
    a_body_as_large_as_the_cap_is_taken,
    a_busy_tenant_and_a_busy_node_say_when_to_come_back,
    a_guest_that_traps,
    a_guest_that_spins,
    a_guest_that_allocates_without_end,
    a_guest_that_never_answers,
    waiting_costs_no_cpu_time,
];

/// A node that runs two requests at once, one for each tenant.
static BUSY: Shared = Shared::new(&[
    ("--concurrency-max", "2"),
    ("--tenant-concurrency-max", "1"),
    ("--turn-wait-max-ms", "50"),
]);

/// Checks a problem's status and type, and that it tells nothing of the inside.
fn is_problem(response: &Response, status: u16, slug: &str) -> Result<()> {
    ensure!(response.status == status, "expected {status}, got {}: {}", response.status, response.text());
    assert_eq!(problem_of(response)?, slug);
    let text = response.text();
    for inside in ["/tmp", ".db", "wasm", "rust", "sqlite", "panicked", "backtrace"] {
        ensure!(!text.to_lowercase().contains(inside), "{inside} is in {text}");
    }
    Ok(())
}

#[test]
fn unknown_tenants_and_functions_are_not_found() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let get = |path: &str| node.request("GET", path, &[], b"");
    is_problem(&get("/t/nobody/fn")?, 404, "unknown-tenant")?;
    is_problem(&get(&format!("/t/{}/other", tenant.name))?, 404, "unknown-function")?;
    let staging = get(&format!("/t/{}@staging/fn", tenant.name))?;
    ensure!(problem_of(&staging)?.starts_with("unknown-"), "{}", staging.text());
    staging.expect(404)?;
    Ok(())
}

#[test]
fn a_malformed_address_is_not_found() -> Result<()> {
    let node = SHIPPED.node()?;
    let long = format!("/t/{}/fn", "x".repeat(64));
    for path in [
        "/",
        "/t",
        "/t/",
        "/t/acme",
        "/t/acme/",
        "/t//fn",
        "/t/Acme/fn",
        "/t/-acme/fn",
        "/t/a_b/fn",
        "/t/a.b/fn",
        "/t/../fn",
        "/t/%61cme/fn",
        "/t/a%2Fb/fn",
        "/t/acme@/fn",
        "/t/acme/FN",
        "/t/acme/f%00n",
        "/x/acme/fn",
        "//t/acme/fn",
        "/healthz",
        "/metrics",
        "/v1/tenants",
        &long,
    ] {
        is_problem(&node.request("GET", path, &[], b"")?, 404, "no-route")?;
    }
    Ok(())
}

fn a_body_over_the_cap_is_refused_before_it_is_sent(guest: &str) -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(guest)?;
    for length in ["65537", "9223372036854775807"] {
        let mut connection = node.connect()?;
        let path = tenant.path("/ignore-body");
        connection.send(format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"))?;
        is_problem(&connection.response("POST")?, 413, "body-too-large")?;
    }
    Ok(())
}

#[test]
fn a_chunked_body_over_the_cap_is_refused_when_it_gets_there() -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant("guestbook")?;
    let mut connection = node.connect()?;
    connection.chunked_request("POST", &tenant.path(""), &[("content-type", "application/json")])?;
    for _ in 0..17 {
        connection.chunk(&[b' '; 4096])?;
    }
    let response = connection.response("POST")?;
    assert_eq!(response.status, 413, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    Ok(())
}

fn a_body_as_large_as_the_cap_is_taken(guest: &str) -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(guest)?;
    let body = vec![b'x'; 65_536];
    assert_eq!(tenant.request("POST", "/echo", &[], &body)?.expect(200)?.body, body);

    let mut connection = node.connect()?;
    connection.chunked_request("POST", &tenant.path("/echo"), &[])?;
    for chunk in body.chunks(4096) {
        connection.chunk(chunk)?;
    }
    connection.chunk(b"")?;
    assert_eq!(connection.response("POST")?.expect(200)?.body, body);
    Ok(())
}

#[test]
fn too_many_or_too_large_headers_are_refused() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let value = "v".repeat(40 << 10);
    is_problem(&tenant.request("GET", "", &[("x-large", &value)], b"")?, 431, "headers-too-large")?;
    let many = vec![("x-many", "1"); dormouse::limits::HEADERS_MAX + 1];
    is_problem(&tenant.request("GET", "", &many, b"")?, 431, "headers-too-large")?;
    let some = vec![("x-some", "1"); 90];
    tenant.request("GET", "", &some, b"")?.expect(200)?;
    Ok(())
}

#[test]
fn an_endless_head_is_refused() -> Result<()> {
    let node = SHIPPED.node()?;
    let mut connection = node.connect()?;
    connection.send("GET /t/a/fn HTTP/1.1\r\nx-endless: ")?;
    let answer = (0..4096).try_for_each(|_| connection.send([b'x'; 1024]));
    ensure!(answer.is_err(), "4 MiB of head were taken");
    // What it answered may be lost with the reset; what matters is that it let go.
    let said = String::from_utf8_lossy(&connection.until_closed()?).into_owned();
    ensure!(said.is_empty() || said.starts_with("HTTP/1.1 431 "), "{said}");
    Ok(())
}

fn a_busy_tenant_and_a_busy_node_say_when_to_come_back(guest: &str) -> Result<()> {
    let node = BUSY.node()?;
    let (one, two, three) = (node.tenant(guest)?, node.tenant(guest)?, node.tenant(guest)?);
    let busy = |response: &Response, slug: &str| -> Result<()> {
        is_problem(response, 503, slug)?;
        let seconds = response.header("retry-after").unwrap_or_default();
        ensure!(seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0), "retry-after: {seconds:?}");
        Ok(())
    };
    let first: Connection = one.send("/never")?;
    node.wait_for_metric("dormouse_instances", 1.0)?;
    busy(&one.get("/ok")?, "tenant-busy")?;
    two.get("/ok")?.expect(200)?;

    let second = two.send("/never")?;
    node.wait_for_metric("dormouse_instances", 2.0)?;
    busy(&three.get("/ok")?, "node-busy")?;
    busy(&two.get("/ok")?, "tenant-busy")?;

    drop((first, second));
    node.wait_for_metric("dormouse_instances", 0.0)?;
    for tenant in [one, two, three] {
        tenant.get("/ok")?.expect(200)?;
    }
    Ok(())
}

/// A guest's deed that breaks a bound gets its problem, and the tenant's next request is served.
fn fails_alone(guest: &str, deed: &str, status: u16, slug: &str) -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(guest)?;
    is_problem(&tenant.get(deed)?, status, slug)?;
    assert_eq!(tenant.get("/ok")?.expect(200)?.text(), "ok");
    Ok(())
}

fn a_guest_that_traps(guest: &str) -> Result<()> {
    fails_alone(guest, "/trap", 502, "guest-trap")
}

fn a_guest_that_spins(guest: &str) -> Result<()> {
    fails_alone(guest, "/spin", 502, "cpu-time-limit")
}

fn a_guest_that_allocates_without_end(guest: &str) -> Result<()> {
    fails_alone(guest, "/allocate", 502, "memory-limit")
}

fn a_guest_that_never_answers(guest: &str) -> Result<()> {
    fails_alone(guest, "/never", 504, "wall-time-limit")
}

fn waiting_costs_no_cpu_time(guest: &str) -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(guest)?;
    assert_eq!(tenant.get("/slow?ms=500")?.expect(200)?.text(), "slow");
    Ok(())
}
