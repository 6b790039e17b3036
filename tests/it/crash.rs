//! SIGKILL at any moment: what was acknowledged is there after the restart.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::Connection;
use dormouse_tests::{Stop, TestNode, eventually, guest};
use serde_json::{Value, json};

use crate::parking::leftovers;

const TENANTS: usize = 4;
const ROUNDS: usize = 4;

fn name(tenant: usize) -> String {
    format!("crash-{tenant}")
}

/// Posts until the node is gone. Gives each acknowledged entry's id and text.
fn post_until_the_end(
    address: std::net::SocketAddr,
    tenant: usize,
    round: usize,
    acknowledged: &AtomicUsize,
) -> BTreeMap<i64, String> {
    let mut entries = BTreeMap::new();
    for post in 0.. {
        let text = format!("round {round}, writer {:?}, post {post}", thread::current().id());
        let body = json!({ "name": "Ada", "message": text }).to_string();
        let one = || -> Result<i64> {
            let mut connection = Connection::open(address)?;
            connection.request("POST", &format!("/t/{}/fn", name(tenant)), &[], body.as_bytes())?;
            let entry = connection.response("POST")?.expect(201)?.json()?;
            entry.get("id").and_then(Value::as_i64).context("no id")
        };
        let Ok(id) = one() else { break };
        entries.insert(id, text);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    entries
}

fn entries(node: &TestNode, tenant: usize) -> Result<BTreeMap<i64, String>> {
    let body = json!({ "sql": "SELECT id, message FROM entries" }).to_string();
    let answer = node.admin("POST", &format!("/v1/tenants/{}/sql", name(tenant)), body.as_bytes())?;
    let answer = answer.expect(200)?.json()?;
    let rows = answer.get("rows").and_then(Value::as_array).context("no rows")?;
    let entry = |row: &Value| Some((row.pointer("/0")?.as_i64()?, row.pointer("/1")?.as_str()?.to_owned()));
    rows.iter().map(|row| entry(row).with_context(|| format!("no entry: {row}"))).collect()
}

#[test]
fn every_acknowledged_write_survives_a_kill() -> Result<()> {
    let mut node = TestNode::start()?;
    for tenant in 0..TENANTS {
        node.create_tenant(&name(tenant))?;
        node.deploy(&name(tenant), "fn", &guest("guestbook")?)?;
    }
    let mut expected = vec![BTreeMap::new(); TENANTS];
    for round in 0..ROUNDS {
        let address = node.public_address()?;
        let acknowledged = AtomicUsize::new(0);
        let written = thread::scope(|scope| -> Result<Vec<BTreeMap<i64, String>>> {
            let acknowledged = &acknowledged;
            // Two writers for each tenant: one may be killed while it waits for the other.
            let writer =
                |n: usize| scope.spawn(move || post_until_the_end(address, n % TENANTS, round, acknowledged));
            let writers: Vec<_> = (0..2 * TENANTS).map(writer).collect();
            eventually("some writes are acknowledged", || {
                Ok((acknowledged.load(Ordering::Relaxed) > 40 * (round + 1)).then_some(()))
            })?;
            node.restart(Stop::Kill)?;
            writers.into_iter().map(|writer| writer.join().ok().context("a writer failed")).collect()
        })?;
        for (n, entries) in written.into_iter().enumerate() {
            expected.get_mut(n % TENANTS).context("no such tenant")?.extend(entries);
        }
        for (tenant, expected) in expected.iter().enumerate() {
            let found = entries(&node, tenant)?;
            for (id, text) in expected {
                ensure!(
                    found.get(id) == Some(text),
                    "round {round}: {} lost entry {id}: {text}",
                    name(tenant)
                );
            }
        }
    }
    eventually("what the kills left in logs is swept", || Ok(leftovers(&node)?.is_empty().then_some(())))
}

#[test]
fn acknowledged_tenants_and_deploys_survive_a_kill() -> Result<()> {
    let mut node = TestNode::start()?;
    let token = node.token()?.to_owned();
    for n in 0..5 {
        let name = format!("kept-{n}");
        node.create_tenant(&name)?;
        node.deploy(&name, "fn", &guest("hello")?)?;
        node.restart(Stop::Kill)?;
        assert_eq!(node.token()?, token, "the token changed");
        for kept in 0..=n {
            let answer = node.request("GET", &format!("/t/kept-{kept}/fn"), &[], b"")?.expect(200)?;
            assert_eq!(answer.text(), "Hello from Dormouse\n");
        }
    }
    Ok(())
}

#[test]
fn a_tenant_that_was_deleted_stays_deleted() -> Result<()> {
    let mut node = TestNode::start()?;
    node.create_tenant("gone")?;
    node.deploy("gone", "fn", &guest("hello")?)?;
    node.admin("DELETE", "/v1/tenants/gone", b"")?.expect(204)?;
    node.restart(Stop::Kill)?;
    node.request("GET", "/t/gone/fn", &[], b"")?.expect(404)?;
    Ok(())
}
