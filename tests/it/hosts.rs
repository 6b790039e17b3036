//! Host addresses: below the base domain each tenant has a host, and so a browser origin, of its own.

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::Response;
use dormouse_tests::{Shared, SharedNode, Tenant, TestNode, problem_of};
use serde_json::Value;

use crate::cli::run;
use crate::config::refused;

/// A node whose tenants have hosts.
static HOSTS: Shared = Shared::new(&[("--base-domain", "Fn.Example.Test")]);

fn get(node: &TestNode, host: &str, path: &str) -> Result<Response> {
    node.request("GET", path, &[("host", host)], b"")
}

/// What the guest `misbehave` saw of a request to its tenant's host.
fn seen(tenant: &Tenant<'_>, host: &str, path: &str) -> Result<Value> {
    get(tenant.node, host, path)?.expect(200)?.json()
}

/// The first value of a header field that the guest `misbehave` saw.
pub(crate) fn header<'a>(seen: &'a Value, name: &str) -> Result<&'a str> {
    let headers = seen.get("headers").and_then(Value::as_array).context("no headers")?;
    let is_it = |header: &&Value| header.pointer("/0").and_then(Value::as_str) == Some(name);
    let value = headers.iter().find(is_it).and_then(|header| header.pointer("/1")?.as_str());
    value.with_context(|| format!("no {name} in {seen}"))
}

fn is_no_route(node: &SharedNode, host: &str, path: &str) -> Result<()> {
    let answer = get(node, host, path)?.expect(404)?;
    assert_eq!(problem_of(&answer)?, "no-route", "{host}");
    Ok(())
}

#[test]
fn a_tenants_host_reaches_its_default_function() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("misbehave")?;
    let host = format!("{}.fn.example.test", tenant.name);
    let seen = seen(&tenant, &host, "/headers?q=1")?;
    assert_eq!(seen.get("path_with_query"), Some(&Value::from("/headers?q=1")));
    assert_eq!(seen.get("authority"), Some(&Value::from(host.as_str())));
    assert_eq!(header(&seen, "spin-path-info")?, "/headers");
    assert_eq!(header(&seen, "spin-base-path")?, "/");
    assert_eq!(header(&seen, "spin-matched-route")?, "/...");
    assert_eq!(header(&seen, "spin-component-route")?, "");
    assert_eq!(header(&seen, "spin-full-url")?, format!("http://{host}/headers?q=1"));
    Ok(())
}

#[test]
fn a_host_is_compared_as_dns_does() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("misbehave")?;
    let host = format!("{}.fn.example.test", tenant.name);
    for same in [host.to_uppercase(), format!("{host}:8080"), format!("{host}."), format!("{host}.:80")] {
        assert_eq!(get(&node, &same, "/ok")?.expect(200)?.text(), "ok", "{same}");
    }
    // The host of an absolute target comes before the header (RFC 9112, 3.2.2).
    let target = format!("http://{host}/ok");
    assert_eq!(get(&node, "fn.example.test", &target)?.expect(200)?.text(), "ok");
    let target = format!("http://fn.example.test{}", tenant.path("/ok"));
    assert_eq!(get(&node, &host, &target)?.expect(200)?.text(), "ok");
    Ok(())
}

#[test]
fn every_path_of_a_tenants_host_is_its_own() -> Result<()> {
    let node = HOSTS.node()?;
    let (tenant, other) = (node.tenant("misbehave")?, node.tenant("hello")?);
    let host = format!("{}.fn.example.test", tenant.name);
    for path in ["/", "/t", &other.path(""), &tenant.path("/ok"), "/healthz", "/v1/tenants", "//a/../%2e%2e/"]
    {
        let answer = get(&node, &host, path)?.expect(404)?.json()?;
        assert_eq!(answer.get("no such deed"), Some(&Value::from(path)));
    }
    Ok(())
}

#[test]
fn other_hosts_have_path_addresses() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("hello")?;
    for host in
        ["fn.example.test", "FN.example.test:8080", "other.test", "127.0.0.1", "[::1]:80", "xfn.example.test"]
    {
        let answer = get(&node, host, &tenant.path(""))?.expect(200)?;
        assert_eq!(answer.text(), "Hello from Dormouse\n", "{host}");
        is_no_route(&node, host, "/")?;
    }
    Ok(())
}

#[test]
fn hosts_of_nobody_are_not_found() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("hello")?;
    // Not even at the path address of somebody.
    let path = tenant.path("");
    let nobody = get(&node, "nobody.fn.example.test", &path)?.expect(404)?;
    assert_eq!(problem_of(&nobody)?, "unknown-tenant");
    let staging = get(&node, &format!("staging.{}.fn.example.test", tenant.name), &path)?.expect(404)?;
    assert_eq!(problem_of(&staging)?, "unknown-tenant");
    let production = get(&node, &format!("production.{}.fn.example.test", tenant.name), "/")?;
    assert_eq!(production.expect(200)?.text(), "Hello from Dormouse\n");
    for labels in ["-a", "a_b", "a.b.c", "", ".", "*", "a..b"] {
        is_no_route(&node, &format!("{labels}.fn.example.test"), &path)?;
    }
    Ok(())
}

#[test]
fn a_host_without_the_default_function_says_so() -> Result<()> {
    let node = HOSTS.node()?;
    node.create_tenant("no-default")?;
    let answer = get(&node, "no-default.fn.example.test", "/")?.expect(404)?;
    assert_eq!(problem_of(&answer)?, "unknown-function");
    Ok(())
}

#[test]
fn without_a_base_domain_a_host_means_nothing() -> Result<()> {
    let node = crate::SHIPPED.node()?;
    let tenant = node.tenant("hello")?;
    get(&node, &format!("{}.fn.example.test", tenant.name), &tenant.path(""))?.expect(200)?;
    is_no_route(&node, &format!("{}.fn.example.test", tenant.name), "/")
}

#[test]
fn a_name_before_the_host_is_refused() -> Result<()> {
    let node = HOSTS.node()?;
    let tenant = node.tenant("hello")?;
    let host = format!("somebody@{}.fn.example.test", tenant.name);
    assert_eq!(problem_of(&get(&node, &host, "/")?.expect(400)?)?, "bad-request");
    Ok(())
}

#[test]
fn a_deploy_names_the_host() -> Result<()> {
    let node = HOSTS.node()?;
    node.create_tenant("with-host")?;
    let component = dormouse_tests::guest("hello")?.display().to_string();
    let port = node.public_address()?.port();
    let said = run(&node, &["deploy", "with-host", &component])?;
    ensure!(said.stderr.contains(&format!("http://with-host.fn.example.test:{port}/")), "{said:?}");
    ensure!(said.stdout.trim().ends_with("/t/with-host/fn"), "{said:?}");
    let said = run(&node, &["deploy", "with-host", &component, "--function", "other"])?;
    ensure!(!said.stderr.contains("fn.example.test"), "{said:?}");
    Ok(())
}

#[test]
fn a_base_domain_is_a_domain() -> Result<()> {
    for wrong in ["http://fn.example.test", "fn.example.test:80", "10.0.0.1", "a_b.test", ""] {
        let said = refused(
            TestNode::builder().env("DORMOUSE_BASE_DOMAIN", wrong).flag("--cpu-time-max-ms", "soon"),
        )?;
        ensure!(
            said.contains("DORMOUSE_BASE_DOMAIN: base_domain") && said.contains("--cpu-time-max-ms"),
            "{said}"
        );
    }
    Ok(())
}
