//! Somebody else, at another address, who must be answered all along while a node is attacked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use dormouse_tests::client::Connection;
use dormouse_tests::{Tenant, TestNode};

/// What stands in the way when there is nobody left: everything that the node counts for a request is back at zero.
const COUNTERS: &[&str] = &[
    "dormouse_connections",
    "dormouse_requests_in_flight",
    "dormouse_instances",
    "dormouse_clients_present",
];

/// Attacks a node while its other tenant is asked again and again from 127.0.0.2, each time on a new connection.
///
/// # Errors
/// When the attack fails in itself, a request of the other's is not answered with 200, or something is left counted.
pub(crate) fn attacked<T>(node: &TestNode, attack: impl FnOnce() -> Result<T>) -> Result<T> {
    let other = node.tenant("hello")?;
    let is_over = Arc::new(AtomicBool::new(false));
    let outcome = thread::scope(|scope| -> Result<T> {
        let asking = scope.spawn(|| ask(&other, &is_over));
        let outcome = attack();
        is_over.store(true, Ordering::Relaxed);
        let answered = asking.join().map_err(|_| anyhow::anyhow!("the bystander panicked"))??;
        ensure!(answered > 0, "nobody was answered meanwhile");
        outcome
    })?;
    for counter in COUNTERS {
        node.wait_for_metric(counter, 0.0)?;
    }
    Ok(outcome)
}

fn ask(tenant: &Tenant<'_>, is_over: &AtomicBool) -> Result<u32> {
    let mut answered = 0;
    while !is_over.load(Ordering::Relaxed) || answered == 0 {
        let mut connection = Connection::open_from([127, 0, 0, 2].into(), tenant.node.public_address()?)?;
        connection.request("GET", &tenant.path(""), &[("connection", "close")], b"")?;
        let answer = connection.response("GET").with_context(|| format!("after {answered} answers"))?;
        answer.expect(200).with_context(|| format!("after {answered} answers"))?;
        answered += 1;
    }
    Ok(answered)
}
