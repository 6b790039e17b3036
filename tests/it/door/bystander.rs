//! Somebody else, at another address, who must be answered all along while a node is attacked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use dormouse_tests::client::Connection;
use dormouse_tests::{Tenant, TestNode};

/// What stands in the way when there is nobody left: everything that the node counts for a request is back at zero.
const COUNTERS: &[&str] = &[
    "dormouse_connections",
    "dormouse_requests_in_flight",
    "dormouse_instances",
    "dormouse_clients_present",
];

/// Attacks a node while its other tenant is asked again and again from 127.0.0.2, each time on a new connection; the first
/// time before the attack begins, the last time when it is over.
///
/// # Errors
/// When the attack fails in itself, a request of the other's is not answered with 200, or something is left counted.
pub(crate) fn attacked<T>(node: &TestNode, attack: impl FnOnce() -> Result<T>) -> Result<T> {
    let other = node.tenant("hello")?;
    let is_over = Arc::new(AtomicBool::new(false));
    let outcome = thread::scope(|scope| -> Result<T> {
        ask(&other)?;
        let asking = scope.spawn(|| ask_on(&other, &is_over));
        let outcome = attack();
        is_over.store(true, Ordering::Relaxed);
        asking.join().map_err(|_| anyhow::anyhow!("the bystander panicked"))??;
        outcome
    })?;
    for counter in COUNTERS {
        node.wait_for_metric(counter, 0.0)?;
    }
    Ok(outcome)
}

fn ask_on(tenant: &Tenant<'_>, is_over: &AtomicBool) -> Result<()> {
    let mut answered = 0;
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        ask(tenant).with_context(|| format!("after {answered} answers"))?;
        answered += 1;
        if is_last {
            return Ok(());
        }
    }
}

fn ask(tenant: &Tenant<'_>) -> Result<()> {
    let mut connection = Connection::open_from([127, 0, 0, 2].into(), tenant.node.public_address()?)?;
    connection.request("GET", &tenant.path(""), &[("connection", "close")], b"")?;
    connection.response("GET")?.expect(200)?;
    Ok(())
}
