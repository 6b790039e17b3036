//! Many requests at once: every row that was acknowledged is there, once, and in the right database.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use dormouse_tests::{Tenant, TestNode};
use serde_json::{Value, json};

use crate::SHIPPED;

/// Posts from several threads at once, and gives the ids that were acknowledged.
fn post_in_parallel(tenants: &[Tenant<'_>], threads: usize, posts: usize) -> Result<Vec<Vec<i64>>> {
    let writer = |tenant: &Tenant<'_>, thread: usize| -> Result<Vec<i64>> {
        (0..posts)
            .map(|post| {
                let body = json!({ "name": format!("{thread}/{post}"), "message": tenant.name });
                let entry = tenant.post("", &body)?.expect(201)?.json()?;
                entry.get("id").and_then(Value::as_i64).context("no id")
            })
            .collect()
    };
    let writer = &writer;
    thread::scope(|scope| {
        let of_tenant = |tenant| -> Vec<_> {
            (0..threads).map(|thread| scope.spawn(move || writer(tenant, thread))).collect()
        };
        let all: Vec<_> = tenants.iter().map(of_tenant).collect();
        let join = |writers: Vec<thread::ScopedJoinHandle<'_, Result<Vec<i64>>>>| -> Result<Vec<i64>> {
            let ids: Result<Vec<Vec<i64>>> =
                writers.into_iter().map(|writer| writer.join().ok().context("a thread failed")?).collect();
            Ok(ids?.into_iter().flatten().collect())
        };
        all.into_iter().map(join).collect()
    })
}

#[test]
fn many_writers_of_one_tenant() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("guestbook")?;
    let ids = post_in_parallel(std::slice::from_ref(&tenant), 16, 25)?.into_iter().flatten();
    let ids: BTreeSet<i64> = ids.collect();
    assert_eq!(ids, (1..=400).collect(), "an id is missing, or was acknowledged twice");
    assert_eq!(tenant.number("SELECT count(DISTINCT name) FROM entries")?, 400);
    assert_eq!(tenant.number("SELECT count(*) FROM entries")?, 400);
    Ok(())
}

#[test]
fn many_tenants_with_few_sessions() -> Result<()> {
    // Fewer database sessions than tenants, and no parking: each request opens and closes.
    let node = TestNode::builder()
        .flag("--sessions-max", 4)
        .flag("--sessions-per-tenant", 2)
        .flag("--park-time-max-ms", 0)
        .start()?;
    let tenants: Vec<_> = (0..10).map(|_| node.tenant("guestbook")).collect::<Result<_>>()?;
    for (tenant, ids) in tenants.iter().zip(post_in_parallel(&tenants, 3, 8)?) {
        assert_eq!(ids.iter().copied().collect::<BTreeSet<_>>(), (1..=24).collect());
        assert_eq!(
            tenant.sql("SELECT DISTINCT message FROM entries")?,
            json!([[tenant.name]]),
            "another tenant's rows"
        );
        assert_eq!(tenant.number("SELECT count(*) FROM entries")?, 24);
    }
    ensure!(node.metric("dormouse_database_sessions")? <= 4.0);
    Ok(())
}

#[test]
fn a_tenant_that_waits_for_a_handle_is_not_starved_by_one_that_is_busy() -> Result<()> {
    const REQUESTS_MAX: u32 = 1_000;
    // So long that somebody always waits for the busy tenant's session, and for less than it is waited for.
    const SQL: &str =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 4000) SELECT sum(i) FROM n";
    let node = TestNode::builder().flag("--sessions-max", 1).start()?;
    let (busy, other) = (node.tenant("misbehave")?, node.tenant("guestbook")?);
    let entry = json!({ "name": "Ada", "message": "Hello" });
    let is_done = AtomicBool::new(false);
    let load = || -> Result<u32> {
        let mut requests = 0;
        while !is_done.load(Ordering::Relaxed) && requests < REQUESTS_MAX {
            busy.guest_sql(SQL)?;
            requests += 1;
        }
        Ok(requests)
    };
    let requests = thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        let answers = (0..5).try_for_each(|_| other.post("", &entry)?.expect(201).map(drop));
        is_done.store(true, Ordering::Relaxed);
        let requests: Result<Vec<u32>> = clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
            .collect();
        answers.and(requests)
    })?;
    ensure!(requests.iter().all(|number| *number < REQUESTS_MAX), "{requests:?} of a busy tenant came first");
    assert_eq!(other.number("SELECT count(*) FROM entries")?, 5);
    Ok(())
}
