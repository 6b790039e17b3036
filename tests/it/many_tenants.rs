//! Many tenants, most of whom nobody calls: they cost no files and no memory, and a list shows each of them once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use dormouse_tests::{Stop, TestNode, eventually, guest};
use serde_json::Value;

use crate::idle::{for_each, tenants_of};
use crate::parking::files_below;

/// How many there are unless `DORMOUSE_TEST_TENANTS` says otherwise.
const TENANTS: usize = 2_000;

/// Resident memory of a node after a start, whatever the number of its tenants.
const RESIDENT_BYTES_MAX: f64 = 60e6;

/// All names, page by page, in the order in which they are listed.
fn listed(node: &TestNode, limit: usize) -> Result<Vec<String>> {
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/tenants?limit={limit}&after={after}");
        let page = node.admin("GET", &path, b"")?.expect(200)?.json()?;
        let tenants = page.get("tenants").and_then(Value::as_array).context("no tenants")?;
        let name = |tenant: &Value| tenant.get("name").and_then(Value::as_str).map(str::to_owned);
        names.extend(tenants.iter().filter_map(name));
        match page.get("next").and_then(Value::as_str) {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(names),
        }
    }
}

/// The names stand in order, each once, and all of `expected` are among them.
fn are_whole(names: &[String], expected: usize) -> Result<()> {
    ensure!(names.is_sorted_by(|one, next| one < next), "a name stands twice, or in the wrong place");
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let missing = (0..expected).map(|n| format!("idle-{n}")).find(|name| !names.contains(name.as_str()));
    ensure!(missing.is_none(), "{missing:?} is not listed");
    Ok(())
}

#[test]
fn creations_that_come_at_once_do_not_disturb_each_other() -> Result<()> {
    const CLIENTS: usize = 16;
    const ROUNDS: usize = 10;
    let mut node = TestNode::start()?;
    // In each round all clients want one name, and each another that is its own.
    let client = |client: usize| -> Result<usize> {
        let mut won = 0;
        for round in 0..ROUNDS {
            let body = format!(r#"{{"name":"wanted-{round}"}}"#);
            match node.admin("POST", "/v1/tenants", body.as_bytes())?.status {
                201 => won += 1,
                409 => {}
                status => bail!("{status}"),
            }
            node.create_tenant(&format!("own-{round}-{client}"))?;
        }
        Ok(won)
    };
    let client = &client;
    let won = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || client(n))).collect();
        clients
            .into_iter()
            .map(|client| client.join().ok().context("a client failed")?)
            .sum::<Result<usize>>()
    })?;
    assert_eq!(won, ROUNDS);
    node.restart(Stop::Kill)?;
    assert_eq!(listed(&node, 1_000)?.len(), ROUNDS * (CLIENTS + 1));
    Ok(())
}

#[test]
fn tenants_that_nobody_calls_cost_nothing() -> Result<()> {
    let tenants = tenants_of(TENANTS)?;
    let mut node = TestNode::start()?;
    for_each(tenants, |tenant| node.create_tenant(tenant))?;
    are_whole(&listed(&node, 1_000)?, tenants)?;

    // Whoever reads page by page misses none of those that were there, however many come meanwhile.
    let (done, node_ref) = (AtomicBool::new(false), &node);
    thread::scope(|scope| -> Result<()> {
        let others = scope.spawn(|| -> Result<()> {
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                node_ref.create_tenant(&format!("idle-{}-later-{n}", n % tenants))?;
            }
            Ok(())
        });
        let whole = (0..3).try_for_each(|_| are_whole(&listed(node_ref, 100)?, tenants));
        done.store(true, Ordering::Relaxed);
        others.join().ok().context("the other client failed")??;
        whole
    })?;

    node.restart(Stop::Kill)?;
    are_whole(&listed(&node, 1_000)?, tenants)?;
    let resident = node.metric("dormouse_resident_bytes")?;
    ensure!(resident < RESIDENT_BYTES_MAX, "{resident} bytes are resident");
    let folder = node.data().join("tenants");
    ensure!(!folder.exists() || files_below(&folder)?.is_empty(), "there are files");

    // One of them is called: it alone has files.
    let called = format!("idle-{}", tenants / 2);
    node.deploy(&called, "fn", &guest("guestbook")?)?;
    node.request("GET", &format!("/t/{called}/fn"), &[], b"")?.expect(200)?;
    ensure!(files_below(&folder)?.len() == 2, "{:?}", files_below(&folder)?);
    ensure!(node.metric("dormouse_components_mapped_bytes")? > 100e3, "what runs is not mapped");
    node.admin("DELETE", &format!("/v1/tenants/{called}"), b"")?.expect(204)?;
    eventually("its files are gone", || Ok(files_below(&folder)?.is_empty().then_some(())))?;
    println!("{tenants} tenants: {resident} bytes resident after a start");
    Ok(())
}
