//! Tenants: uploading them to Dormouse, calling each once, and counting their rows at the end.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, bail, ensure};
use hyper::{Method, StatusCode, body::Bytes};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    client::{Client, expect_success},
    fleet::{Fleet, Server},
    load::DOCUMENT,
    slices::Row,
};

/// Requests that are under way at once while tenants are made.
const WORKERS: usize = 8;

/// The admin door of a Dormouse.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The operator's token.
    pub(crate) token: String,
}

/// The name of the n-th tenant of the webhook; `load.lua` writes the same.
pub(crate) fn tenant(n: u64) -> String {
    format!("bench-{n:04}")
}

/// The name of the n-th tenant that has been called once, before the first slice.
pub(crate) fn sleeping_tenant(n: u64) -> String {
    format!("sleeping-{n:04}")
}

/// The name of the n-th tenant that only the measurement of first requests calls.
pub(crate) fn new_tenant(n: u64) -> String {
    format!("new-{n:04}")
}

/// The address of a tenant's function.
pub(crate) fn path(tenant: &str) -> String {
    format!("/t/{tenant}/fn")
}

/// Makes each tenant and uploads its component as function `fn`.
pub(crate) async fn upload(door: &Door, tenants: Vec<(String, Bytes)>) -> Result<()> {
    let total = tenants.len();
    let (tenants, next) = (Arc::new(tenants), Arc::new(AtomicUsize::new(0)));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (door, tenants, next) = (door.clone(), Arc::clone(&tenants), Arc::clone(&next));
        workers.spawn(async move {
            let mut client = Client::connect(door.address, Some(door.token)).await?;
            while let Some((name, component)) = tenants.get(next.fetch_add(1, Ordering::Relaxed)) {
                make(&mut client, name, component.clone()).await?;
            }
            anyhow::Ok(())
        });
    }
    watch(workers, "uploaded", total, &next).await
}

async fn make(client: &mut Client, name: &str, component: Bytes) -> Result<()> {
    client.post_json("/v1/tenants", &format!(r#"{{"name":"{name}"}}"#)).await?;
    let path = format!("/v1/tenants/{name}/functions/fn");
    let (status, answer) = client.send(Method::PUT, &path, "application/wasm", component).await?;
    expect_success(&path, status, &answer)
}

/// Calls each of these tenants once, so that its database exists before anything is measured.
pub(crate) async fn touch(server: &Server, tenants: u64, name: fn(u64) -> String) -> Result<()> {
    let total = usize::try_from(tenants)?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (next, mut client) = (Arc::clone(&next), server.client().await?);
        workers.spawn(async move {
            loop {
                let n = u64::try_from(next.fetch_add(1, Ordering::Relaxed))?;
                if n >= tenants {
                    return Ok(());
                }
                client.post_json(&path(&name(n)), DOCUMENT).await?;
            }
        });
    }
    watch(workers, "called", total, &next).await.with_context(|| server.process.log_tail())
}

/// Waits for the workers and says from time to time how far they are.
async fn watch(mut workers: JoinSet<Result<()>>, what: &str, total: usize, next: &AtomicUsize) -> Result<()> {
    let mut interval = tokio::time::interval(std::time::Duration::from_secs(2));
    interval.tick().await;
    loop {
        tokio::select! {
            ended = workers.join_next() => match ended {
                Some(result) => result??,
                None => break,
            },
            _ = interval.tick() => {
                eprintln!("  {what} {} of {total} tenants", next.load(Ordering::Relaxed).min(total));
            }
        }
    }
    eprintln!("  {what} {total} tenants");
    Ok(())
}

/// Counts the rows that the run has left with the tenants: every insert that was acknowledged must be
/// there. What is there beyond them was carried out without an answer, and is noted in `rows` as such.
pub(crate) async fn count_rows(fleet: &Fleet, tenants: u64, rows: &mut [Row]) -> Result<()> {
    for server in fleet.servers.iter().filter(|server| server.spec.webhook) {
        let name = server.spec.name;
        let own = |row: &&mut Row| row.workload.inserts() && row.server == name;
        let slices = rows.iter_mut().filter(own).count();
        let answered = tenants + rows.iter_mut().filter(own).map(|row| row.sample.requests).sum::<u64>();
        let mut client = server.client().await?;
        let mut stored = 0;
        for n in 0..tenants {
            stored += newest_row(&mut client, &tenant(n)).await.with_context(|| name)?;
        }
        eprintln!("{name}: {answered} inserts acknowledged, {stored} rows stored");
        ensure!(stored >= answered, "{name} has lost {} acknowledged rows", answered.saturating_sub(stored));
        let unanswered = stored.saturating_sub(answered) as f64 / slices.max(1) as f64;
        rows.iter_mut().filter(own).for_each(|row| row.unanswered = unanswered);
    }
    Ok(())
}

/// The id of the newest entry. Nothing is ever deleted, so it is the number of the tenant's rows.
pub(crate) async fn newest_row(client: &mut Client, tenant: &str) -> Result<u64> {
    let (status, body) = client.get(&path(tenant)).await?;
    if status != StatusCode::OK {
        bail!("GET {}: {status}: {}", path(tenant), String::from_utf8_lossy(&body));
    }
    let answer: Value = serde_json::from_slice(&body)?;
    let id = answer.pointer("/0/id").and_then(Value::as_u64);
    id.with_context(|| format!("{tenant} has no rows: {answer}"))
}
