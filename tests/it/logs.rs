//! The log: one request id on every line of a request, and a guest that cannot flood or forge it.

use anyhow::{Context, Result, ensure};
use dormouse_tests::logs::Line;
use dormouse_tests::{SharedNode, Tenant};

use crate::SHIPPED;

in_both_worlds![
    what_a_guest_prints_is_logged_with_its_request,
    the_servers_own_lines_carry_the_id_too,
    a_guest_cannot_forge_a_line,
    a_flood_is_cut_and_said_so,
];

/// What a response says its request's id is.
fn id_for(tenant: &Tenant<'_>, wanted: Option<&str>) -> Result<String> {
    let headers: Vec<(&str, &str)> = wanted.map(|id| ("x-request-id", id)).into_iter().collect();
    let response = tenant.request("GET", "", &headers, b"")?.expect(200)?;
    Ok(response.header("x-request-id").context("no x-request-id")?.to_owned())
}

#[test]
fn a_well_formed_request_id_is_kept() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    for id in ["0190f5f2-5c3e-7a54-9e1c-6f2f3b8a7d10", "abcdefgh", "REQ_1234.5678"] {
        assert_eq!(id_for(&tenant, Some(id))?, id);
    }
    Ok(())
}

#[test]
fn a_malformed_or_missing_request_id_is_replaced() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let long = "x".repeat(1000);
    let mut seen = vec![id_for(&tenant, None)?, id_for(&tenant, None)?];
    for id in ["", "has space", "{\"json\":1}", "quote\"", "caf\u{e9}", &long] {
        let given = id_for(&tenant, Some(id))?;
        assert_ne!(given, id);
        seen.push(given);
    }
    for id in &seen {
        ensure!(
            id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "{id}"
        );
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "an id was given twice");
    Ok(())
}

#[test]
fn several_request_ids_become_one() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    let headers = [("x-request-id", "first-0001"), ("x-request-id", "second-0002")];
    let response = tenant.request("GET", "", &headers, b"")?.expect(200)?;
    assert_eq!(response.headers.iter().filter(|(name, _)| name == "x-request-id").count(), 1);
    Ok(())
}

/// Lets a guest log a line and gives the lines of its request, once both streams are there.
fn log(node: &SharedNode, tenant: &Tenant<'_>, request_id: &str, line: &str) -> Result<Vec<Line>> {
    tenant.request("GET", &format!("/log?line={line}"), &[("x-request-id", request_id)], b"")?.expect(200)?;
    for stream in ["stdout", "stderr"] {
        let is_it = |line: &Line| {
            line.get("stream") == Some(stream) && line.request("request_id") == Some(request_id)
        };
        node.logs().wait_for(stream, is_it)?;
    }
    Ok(node.logs().of_request(request_id))
}

fn what_a_guest_prints_is_logged_with_its_request(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let lines = log(&node, &tenant, &format!("guest-prints-0001-{guest}"), "hello+log")?;
    for line in lines.iter().filter(|line| line.is_of_guest()) {
        assert_eq!(line.message(), "hello log");
        assert_eq!(line.get("level"), Some("INFO"));
        assert_eq!(line.request("tenant"), Some(tenant.name.as_str()));
        assert_eq!(line.request("function"), Some("fn"));
    }
    assert_eq!(lines.iter().filter(|line| line.is_of_guest()).count(), 2);
    Ok(())
}

fn the_servers_own_lines_carry_the_id_too(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let id: &str = &format!("own-lines-0001-{guest}");
    tenant.request("GET", "/trap", &[("x-request-id", id)], b"")?.expect(502)?;
    let is_it = |line: &Line| line.text.contains("trap") && line.request("request_id") == Some(id);
    let line = node.logs().wait_for("the trap, with its request", is_it)?;
    assert_eq!(line.request("tenant"), Some(tenant.name.as_str()));
    // A line that has the tenant's name has the request's id too.
    let of_tenant = node.logs().matching(|line| line.request("tenant") == Some(&tenant.name));
    for line in of_tenant {
        ensure!(line.request("request_id") == Some(id), "{line}");
    }
    Ok(())
}

#[test]
fn a_guest_whose_client_has_gone_is_still_named() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let connection = tenant.send("/log-and-wait")?;
    let says = |message| {
        let is_it = |line: &Line| line.message() == message && line.request("tenant") == Some(&tenant.name);
        node.logs().wait_for(message, is_it).map(drop)
    };
    says("begun")?;
    drop(connection);
    says("unfinished")
}

fn a_guest_cannot_forge_a_line(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    // A newline and an event; a quote that would end the text; an escape for the terminal.
    let forged = "a%0A%7B%22level%22%3A%22ERROR%22%2C%22message%22%3A%22forged%22%7D%0Ab%22%2C%22level%22%3A%22ERROR%1B%5B31m";
    let lines = log(&node, &tenant, &format!("forges-0001-{guest}"), forged)?;
    ensure!(!lines.is_empty(), "nothing was logged");
    for line in lines {
        assert_eq!(line.get("level"), Some("INFO"), "{line}");
        ensure!(!line.text.contains('\u{1b}'), "a raw escape: {line}");
    }
    Ok(())
}

fn a_flood_is_cut_and_said_so(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let id: &str = &format!("flood-0001-{guest}");
    tenant.request("GET", "/log-flood?lines=20000", &[("x-request-id", id)], b"")?.expect(200)?;
    let is_it =
        |line: &Line| line.request("request_id") == Some(id) && line.get("limit") == Some("log_bytes_max");
    node.logs().wait_for("the flood is said to be cut", is_it)?;
    let flood =
        node.logs().matching(|line| line.request("request_id") == Some(id) && line.get("stream").is_some());
    let bytes: usize = flood.iter().map(|line| line.message().len()).sum();
    ensure!(
        (32 << 10..=dormouse::limits::LOG_BYTES_MAX as usize).contains(&bytes),
        "{bytes} bytes in {} lines",
        flood.len()
    );
    assert_eq!(flood.first().map(Line::message), Some("line 0 of a flood"));
    Ok(())
}
