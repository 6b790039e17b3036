//! Idle zero: what a request opened is closed soon after it, and nothing is left in a log of SQLite's.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use dormouse_tests::{Stop, TestNode, eventually};
use serde_json::json;

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

#[test]
fn a_reader_is_parked_and_closed_too() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 150).start()?;
    let tenant = node.tenant("misbehave")?;
    tenant.guest_sql("SELECT 1")?;
    tenant.guest_sql("SELEKT 1")?;
    tenant.get("/leave-transaction")?.expect(200)?;
    tenant.get("/transaction-then-trap")?.expect(502)?;
    tenant.wait_for_state("closed")?;
    nothing_is_open(&node)
}

#[test]
fn with_a_park_time_of_zero_nothing_stays_open() -> Result<()> {
    for flag in ["--park-time-max-ms", "--park-memory-bytes-max"] {
        let node = TestNode::builder().flag(flag, 0).start()?;
        let tenant = node.tenant("guestbook")?;
        for _ in 0..5 {
            tenant.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
            tenant.wait_for_state("closed")?;
            nothing_is_open(&node)?;
        }
        assert_eq!(tenant.number("SELECT count(*) FROM entries")?, 5);
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
