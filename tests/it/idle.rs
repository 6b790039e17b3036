//! Thousands of tenants, each hit once: soon after, none of them costs anything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::Response;
use dormouse_tests::{Stop, TestNode, eventually, guest};
use serde_json::json;

use crate::parking::{leftovers, open_tenant_files};

/// How many tenants there are unless `DORMOUSE_TEST_TENANTS` says otherwise. The founding figure is 10,000.
const TENANTS: usize = 1_000;

/// Clients at once.
const CLIENTS: usize = 8;

/// What an idle node may have gained, beside what its pool says it keeps.
const GAIN_BYTES_MAX: f64 = 10e6;

/// Does something for every tenant, by several clients at once.
pub(crate) fn for_each(tenants: usize, work: impl Fn(&str) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let client = || -> Result<()> {
        loop {
            let tenant = next.fetch_add(1, Ordering::Relaxed);
            if tenant >= tenants {
                return Ok(());
            }
            work(&format!("idle-{tenant}"))?;
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|client| client.join().ok().context("a client failed")?)
    })
}

/// How many tenants a test has: what `DORMOUSE_TEST_TENANTS` says, or else its own number.
pub(crate) fn tenants_of(test: usize) -> Result<usize> {
    match std::env::var("DORMOUSE_TEST_TENANTS") {
        Ok(number) => number.parse().context("DORMOUSE_TEST_TENANTS is no number"),
        Err(_) => Ok(test),
    }
}

#[test]
fn tenants_that_were_hit_once_cost_nothing() -> Result<()> {
    let tenants = tenants_of(TENANTS)?;
    let mut node = TestNode::builder().flag("--component-park-time-max-ms", 500).start()?;
    let component = std::fs::read(guest("guestbook")?)?;
    for_each(tenants, |tenant| {
        node.create_tenant(tenant)?;
        node.upload(tenant, "fn", &component)?.expect(200)?;
        Ok(())
    })?;
    // The node that is measured is one that only ever answered requests.
    node.restart(Stop::Terminate)?;
    let body = json!({ "name": "Ada", "message": "x".repeat(1_000) }).to_string();
    let hit = |tenants| {
        for_each(tenants, |tenant| {
            node.request("POST", &format!("/t/{tenant}/fn"), &[], body.as_bytes())?.expect(201)?;
            Ok(())
        })
    };
    // The kernel maps the program as it is used.
    hit(CLIENTS)?;
    node.wait_for_metric("dormouse_tenants_present", 0.0)?;
    node.wait_for_metric("dormouse_components_mapped", 0.0)?;
    let before =
        node.metric("dormouse_resident_bytes")? - node.metric("dormouse_pool_unused_resident_bytes")?;
    hit(tenants)?;
    for metric in [
        "dormouse_requests_in_flight",
        "dormouse_instances",
        "dormouse_database_sessions",
        "dormouse_database_sessions_parked",
        "dormouse_database_parked_bytes",
        "dormouse_tenants_present",
        "dormouse_components_mapped",
        "dormouse_components_mapped_bytes",
        "dormouse_routes_remembered",
    ] {
        node.wait_for_metric(metric, 0.0)?;
    }
    let open = open_tenant_files(&node)?;
    ensure!(open.is_empty(), "{} files of tenants are open", open.len());
    let leftovers = leftovers(&node)?;
    ensure!(leftovers.is_empty(), "{} logs hold bytes: {:?}", leftovers.len(), leftovers.first());
    let mut last = String::new();
    eventually("its memory is given back", || {
        let after = node.metric("dormouse_resident_bytes")?;
        let pool = node.metric("dormouse_pool_unused_resident_bytes")?;
        last = format!("{before} bytes before, {after} after and {pool} of them in the pool");
        Ok((after - before - pool < GAIN_BYTES_MAX).then_some(()))
    })
    .with_context(|| last.clone())?;
    println!("{tenants} tenants: {last}");
    Ok(())
}

#[test]
fn what_the_pools_keep_stays_within_its_budget() -> Result<()> {
    const GUESTS: usize = 32;
    const BUDGET_BYTES: u32 = 8 << 20;
    let node = TestNode::builder()
        .flag("--concurrency-max", GUESTS)
        .flag("--tenant-concurrency-max", GUESTS)
        .flag("--pool-idle-bytes-max", BUDGET_BYTES)
        .start()?;
    let large = json!({ "sql": "SELECT 1", "padding": "x".repeat(1_000_000) });
    for guest in ["misbehave", "misbehave3"] {
        let tenant = &node.tenant(guest)?;
        // All slots are used, then those that come by the memory of large guests.
        let at_once = |ask: &(dyn Fn() -> Result<Response> + Sync)| {
            thread::scope(|scope| {
                let clients: Vec<_> = (0..GUESTS).map(|_| scope.spawn(ask)).collect();
                clients.into_iter().try_for_each(|client| {
                    client.join().ok().context("a client failed")??.expect(200)?;
                    anyhow::Ok(())
                })
            })
        };
        at_once(&|| tenant.get("/slow?ms=500"))?;
        at_once(&|| tenant.post("/sql", &large))?;
    }
    node.wait_for_metric("dormouse_instances", 0.0)?;
    let kept = node.metric("dormouse_pool_unused_resident_bytes")?;
    ensure!(kept > 0.0 && kept <= f64::from(BUDGET_BYTES), "{kept} bytes are kept");
    Ok(())
}
