//! Idle zero: what a request opened is closed soon after it, and nothing is left in a log of SQLite's.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, ensure};
use dormouse_tests::{Stop, Tenant, TestNode, eventually};
use serde_json::json;

in_both_worlds![a_reader_is_parked_and_closed_too,];

/// Every file below a folder, with its size.
pub(crate) fn files_below(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                found.push((entry.path(), metadata.len()));
            }
        }
    }
    Ok(found)
}

/// The files of tenants that the node has open.
pub(crate) fn open_tenant_files(node: &TestNode) -> Result<Vec<PathBuf>> {
    let folder = node.data().join("tenants");
    Ok(node.open_files()?.into_iter().filter(|file| file.starts_with(&folder)).collect())
}

/// Write-ahead logs, and what else SQLite puts beside a database, that hold bytes.
pub(crate) fn leftovers(node: &TestNode) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = files_below(&node.data().join("tenants"))?;
    files.retain(|(path, bytes)| *bytes > 0 && path.extension().is_none_or(|extension| extension != "db"));
    Ok(files)
}

fn nothing_is_open(node: &TestNode) -> Result<()> {
    for metric in ["dormouse_database_sessions", "dormouse_database_parked_bytes", "dormouse_tenants_present"]
    {
        node.wait_for_metric(metric, 0.0)?;
    }
    let open = open_tenant_files(node)?;
    ensure!(open.is_empty(), "still open: {open:?}");
    let leftovers = leftovers(node)?;
    ensure!(leftovers.is_empty(), "still there: {leftovers:?}");
    Ok(())
}

#[test]
fn after_its_park_time_a_tenant_is_a_file_and_nothing_else() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 150).start()?;
    let tenant = node.tenant("guestbook")?;
    for round in 1..=3_usize {
        tenant.post("", &json!({ "name": "Ada", "message": "x".repeat(10_000) }))?.expect(201)?;
        let shown = tenant.wait_for_state("closed")?;
        assert_eq!(shown.pointer("/database/wal_bytes"), Some(&json!(0)));
        nothing_is_open(&node)?;
        assert_eq!(tenant.json("")?.as_array().map(Vec::len), Some(round));
    }
    Ok(())
}

fn a_reader_is_parked_and_closed_too(guest: &str) -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 150).start()?;
    let tenant = node.tenant(guest)?;
    tenant.guest_sql("SELECT 1")?;
    tenant.guest_sql("SELEKT 1")?;
    tenant.get("/leave-transaction")?.expect(200)?;
    tenant.get("/transaction-then-trap")?.expect(502)?;
    tenant.wait_for_state("closed")?;
    nothing_is_open(&node)
}

#[test]
fn a_parked_session_keeps_none_of_the_pages_that_it_has_read() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 3_600_000).start()?;
    let tenant = node.tenant("guestbook")?;
    for _ in 0..50 {
        tenant.post("", &json!({ "name": "Ada", "message": "x".repeat(10_000) }))?.expect(201)?;
    }
    assert_eq!(tenant.json("")?.as_array().map(Vec::len), Some(50));
    has_no_pages(&tenant)
}

#[test]
fn a_session_that_was_left_in_a_transaction_is_parked_without_pages_and_counted_so() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 3_600_000).start()?;
    let tenant = node.tenant("misbehave")?;
    tenant.guest_statements(&["CREATE TABLE blobs AS SELECT randomblob(1 << 19) AS content"])?;
    let answers = tenant.guest_statements(&["BEGIN", "SELECT instr(content, 'not there') FROM blobs"])?;
    ensure!(answers.iter().all(|answer| answer.get("error").is_none()), "{answers:?}");
    has_no_pages(&tenant)
}

/// Checks that a session which has read half a megabyte is parked without it.
fn has_no_pages(tenant: &Tenant<'_>) -> Result<()> {
    tenant.wait_for_state("parked")?;
    let bytes = tenant.node.metric("dormouse_database_parked_bytes")?;
    ensure!(bytes > 0.0 && bytes < f64::from(100 << 10), "{bytes} bytes for a session that read 500 KB");
    Ok(())
}

#[test]
fn with_a_park_time_of_zero_nothing_stays_open() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 0).start()?;
    let tenant = node.tenant("guestbook")?;
    for _ in 0..3 {
        tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
        node.wait_for_metric("dormouse_database_sessions", 0.0)?;
        ensure!(open_tenant_files(&node)?.is_empty(), "a file is open");
    }
    assert_eq!(tenant.number("SELECT count(*) FROM entries")?, 3);
    tenant.wait_for_state("closed")?;
    nothing_is_open(&node)
}

#[test]
fn parked_databases_keep_within_their_memory_under_load() -> Result<()> {
    const ROUNDS: u32 = 20;
    for (bytes_max, parks) in [(0_u32, false), (300_000, true)] {
        let node = TestNode::builder()
            .flag("--park-memory-bytes-max", bytes_max)
            .flag("--park-time-max-ms", 3_600_000)
            .start()?;
        let tenants: Vec<_> = (0..16).map(|_| node.tenant("guestbook")).collect::<Result<_>>()?;
        let load = |some: &[Tenant<'_>]| -> Result<()> {
            for tenant in (0..ROUNDS).flat_map(|_| some) {
                tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let clients: Vec<_> = tenants.chunks(2).map(|some| scope.spawn(|| load(some))).collect();
            while !clients.iter().all(|client| client.is_finished()) {
                let parked = node.metric("dormouse_database_parked_bytes")?;
                ensure!(parked <= f64::from(bytes_max), "{parked} bytes are parked, and {bytes_max} may be");
            }
            clients
                .into_iter()
                .try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
        })?;
        ensure!((node.metric("dormouse_database_sessions_parked")? > 0.0) == parks);
        for tenant in &tenants {
            assert_eq!(tenant.number("SELECT count(*) FROM entries")?, i64::from(ROUNDS));
        }
    }
    Ok(())
}

#[test]
fn a_parked_database_is_closed_by_the_drain() -> Result<()> {
    let mut node = TestNode::builder().flag("--park-time-max-ms", 3_600_000).start()?;
    let tenant = node.tenant("guestbook")?;
    let name = tenant.name.clone();
    tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
    tenant.wait_for_state("parked")?;
    ensure!(!open_tenant_files(&node)?.is_empty(), "parked, and yet no file is open");
    ensure!(node.metric("dormouse_database_sessions_parked")? >= 1.0);
    ensure!(node.stop(Stop::Terminate)?.success());
    let leftovers = leftovers(&node)?;
    ensure!(leftovers.is_empty(), "the drain left {leftovers:?}");
    ensure!(!name.is_empty());
    Ok(())
}

fn named<'a>(node: &'a TestNode, name: &str) -> Tenant<'a> {
    Tenant { node, name: name.to_owned() }
}

/// A node whose lot has no room, so that every session is closed when its request ends.
fn crowded(park_time_max_ms: u32) -> Result<TestNode> {
    TestNode::builder()
        .flag("--park-memory-bytes-max", 1)
        .flag("--park-time-max-ms", park_time_max_ms)
        .start()
}

#[test]
fn a_crowded_lot_closes_at_once_and_copies_the_log_when_the_tenant_has_rested() -> Result<()> {
    let node = crowded(150)?;
    let tenant = node.tenant("guestbook")?;
    for round in 1..=3_usize {
        tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
        let shown = tenant.wait_for_state("closed")?;
        assert_eq!(shown.pointer("/database/wal_bytes"), Some(&json!(0)));
        nothing_is_open(&node)?;
        assert_eq!(tenant.json("")?.as_array().map(Vec::len), Some(round));
    }
    Ok(())
}

#[test]
fn a_crowded_lot_leaves_no_large_log() -> Result<()> {
    let node = crowded(3_600_000)?;
    let tenant = node.tenant("guestbook")?;
    for round in 1..=3_usize {
        tenant.post("", &json!({ "name": "Ada", "message": "x".repeat(100_000) }))?.expect(201)?;
        tenant.wait_for_state("closed")?;
        nothing_is_open(&node)?;
        assert_eq!(tenant.number("SELECT count(*) FROM entries")?, i64::try_from(round)?);
    }
    Ok(())
}

#[test]
fn a_checkpoint_that_was_put_off_survives_kill_and_drain() -> Result<()> {
    let mut node = crowded(3_600_000)?;
    let name = node.tenant("guestbook")?.name;
    for (round, stop) in [Stop::Kill, Stop::Terminate].into_iter().enumerate() {
        let tenant = named(&node, &name);
        tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
        let shown = tenant.wait_for_state("checkpoint-pending")?;
        ensure!(shown.pointer("/database/wal_bytes") != Some(&json!(0)), "the log is empty: {shown}");
        node.wait_for_metric("dormouse_database_sessions", 0.0)?;
        ensure!(open_tenant_files(&node)?.is_empty(), "a file is open");
        if stop == Stop::Terminate {
            ensure!(node.stop(stop)?.success());
            let leftovers = leftovers(&node)?;
            ensure!(leftovers.is_empty(), "the drain left {leftovers:?}");
            node.restart_after_stop()?;
        } else {
            node.restart(stop)?;
        }
        assert_eq!(named(&node, &name).json("")?.as_array().map(Vec::len), Some(round + 1));
    }
    Ok(())
}

#[test]
fn a_tenant_is_deleted_while_its_checkpoint_is_put_off() -> Result<()> {
    let mut node = crowded(3_600_000)?;
    let tenant = node.tenant("guestbook")?;
    tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
    tenant.wait_for_state("checkpoint-pending")?;
    let path = format!("/v1/tenants/{}", tenant.name);
    node.admin("DELETE", &path, b"")?.expect(204)?;
    ensure!(node.stop(Stop::Terminate)?.success());
    let files = files_below(&node.data().join("tenants"))?;
    ensure!(files.is_empty(), "still there: {files:?}");
    Ok(())
}

#[test]
fn a_database_without_its_empty_log_is_opened() -> Result<()> {
    let mut node = TestNode::start()?;
    let name = node.tenant("guestbook")?.name;
    named(&node, &name).post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
    ensure!(node.stop(Stop::Terminate)?.success());
    for (path, bytes) in files_below(&node.data().join("tenants"))? {
        if path.extension().is_none_or(|extension| extension != "db") {
            assert_eq!(bytes, 0, "{}", path.display());
            std::fs::remove_file(path)?;
        }
    }
    node.restart_after_stop()?;
    let tenant = named(&node, &name);
    tenant.post("", &json!({ "name": "Bob", "message": "Hello" }))?.expect(201)?;
    assert_eq!(tenant.json("")?.as_array().map(Vec::len), Some(2));
    Ok(())
}

#[test]
fn a_tenant_that_never_rests_is_checkpointed() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 3_600_000).start()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t(a)")?;
    // 60 MB of writes without a pause.
    for _ in 0..60 {
        let statements = vec!["UPDATE t SET a = randomblob(900000)"; 1];
        tenant.sql("INSERT INTO t VALUES (NULL)")?;
        tenant.guest_statements(&statements)?;
        tenant.sql("DELETE FROM t")?;
    }
    eventually("the log is small again", || {
        let largest = leftovers(&node)?.into_iter().map(|(_, bytes)| bytes).max().unwrap_or(0);
        Ok((largest < 2 * dormouse::limits::WAL_BYTES_MAX).then_some(()))
    })?;
    Ok(())
}
