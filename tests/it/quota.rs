//! Quotas: what a tenant's database and its log may take of the disk, and what stays free of it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use dormouse_tests::{Tenant, TestNode, guest, problem_of};
use serde_json::{Value, json};

use crate::disk::{SmallDisk, database_of};

const MIB: u64 = 1 << 20;

/// Some 2 MB of rows.
const INSERT: &str =
    "INSERT INTO t(b) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 4000)
    SELECT randomblob(500) FROM n";

fn is_full(answer: &Value) -> bool {
    answer.pointer("/error/variant") == Some(&json!("database-full"))
}

/// What a statement of the guest's came to: whether it was carried out, or the database was full.
fn runs(tenant: &Tenant<'_>, sql: &str) -> Result<bool> {
    let answer = tenant.guest_sql(sql)?;
    ensure!(answer.get("error").is_none_or(Value::is_null) || is_full(&answer), "{sql}: {answer}");
    Ok(!is_full(&answer))
}

/// Bytes of a tenant's database and its log.
fn bytes_on_disk(tenant: &Tenant<'_>) -> Result<u64> {
    let file = database_of(tenant)?;
    let log = PathBuf::from(format!("{}-wal", file.display()));
    Ok(fs::metadata(file)?.len() + fs::metadata(log)?.len())
}

/// Fills a table of a tenant to the last row that fits, and gives how many there are.
fn fill(tenant: &Tenant<'_>, quota: u64) -> Result<i64> {
    tenant.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)")?;
    let mut rows = 0;
    while runs(tenant, INSERT)? {
        rows += 4_000;
        ensure!(bytes_on_disk(tenant)? <= quota, "{} bytes after {rows} rows", bytes_on_disk(tenant)?);
        ensure!(rows < 1_000_000, "the database is never full");
    }
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, rows);
    Ok(rows)
}

#[test]
fn a_full_tenant_can_delete_its_way_out() -> Result<()> {
    let quota = 64 * MIB;
    let node = TestNode::builder().flag("--database-bytes-max", quota).start()?;
    let (tenant, neighbour) = (node.tenant("misbehave")?, node.tenant("guestbook")?);
    let rows = fill(&tenant, quota)?;
    ensure!(rows > 80_000, "{rows} rows of 500 bytes fill {quota} bytes");
    neighbour.post("", &json!({ "name": "Ada", "message": "Hello" }))?.expect(201)?;
    let line =
        node.logs().wait_for("the full database", |line| line.get("limit") == Some("database_bytes_max"))?;
    assert_eq!(line.request("tenant"), Some(tenant.name.as_str()));
    assert_eq!(line.number("allowed"), Some(quota));
    ensure!(node.metric("dormouse_limits_exceeded_total{limit=\"database_bytes_max\"}")? >= 1.0);

    // More than the log has room for, in one statement and in one transaction. Nothing of it stays.
    ensure!(!runs(&tenant, "UPDATE t SET b = randomblob(500)")?, "50 MB were changed at once");
    let parts = [
        "BEGIN",
        "UPDATE t SET b = zeroblob(500) WHERE id % 3 = 0",
        "UPDATE t SET b = zeroblob(500) WHERE id % 3 = 1",
        "COMMIT",
    ];
    let answers = tenant.guest_statements(&parts)?;
    ensure!(answers.iter().any(is_full), "{answers:?}");
    assert_eq!(tenant.number("SELECT count(*) FROM t WHERE b = zeroblob(500)")?, 0);
    ensure!(bytes_on_disk(&tenant)? <= quota, "{} bytes", bytes_on_disk(&tenant)?);

    // A part of the rows, then all of them.
    let half = rows / 2;
    for first in (0..half).step_by(4_000) {
        let sql = format!("DELETE FROM t WHERE id > {first} AND id <= {}", first + 4_000);
        ensure!(runs(&tenant, &sql)?, "{sql}: a full tenant cannot delete");
        ensure!(bytes_on_disk(&tenant)? <= quota, "{} bytes", bytes_on_disk(&tenant)?);
    }
    ensure!(runs(&tenant, INSERT)?, "there is no room after the rows were deleted");
    ensure!(runs(&tenant, "DELETE FROM t")?, "the whole table cannot be deleted");
    ensure!(runs(&tenant, INSERT)?);
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 4_000);
    assert_eq!(tenant.sql("PRAGMA quick_check")?, json!([["ok"]]));
    Ok(())
}

#[test]
fn a_log_that_a_reader_holds_back_counts_too() -> Result<()> {
    let quota = 32 * MIB;
    let node = TestNode::builder().flag("--database-bytes-max", quota).start()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)")?;
    for _ in 0..5 {
        ensure!(runs(&tenant, INSERT)?);
    }
    // An export holds the copies of the log off for as long as it is read.
    let bearer = format!("Bearer {}", node.token()?);
    let mut export = dormouse_tests::client::Connection::open(node.admin_address()?)?;
    let path = format!("/v1/tenants/{}/database", tenant.name);
    export.request("GET", &path, &[("authorization", &bearer)], b"")?;
    let mut incoming = export.head("GET")?;
    ensure!(incoming.status == 200, "{}", incoming.status);
    let mut acknowledged = 20_000;
    while runs(&tenant, INSERT)? {
        acknowledged += 4_000;
        ensure!(bytes_on_disk(&tenant)? <= quota, "{} bytes", bytes_on_disk(&tenant)?);
    }
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, acknowledged);
    export.rest(&mut incoming)?;
    Ok(())
}

#[test]
fn writes_are_turned_away_before_the_disk_is_full() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(_disk) = SmallDisk::over(folder.path(), "96m")? else { return Ok(()) };
    let node = TestNode::builder().flag("--disk-free-bytes-min", 32 * MIB).start_in(folder.path())?;
    node.expect_log("the disk is nearly full");
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)")?;
    ensure!(runs(&tenant, INSERT)?);
    let component = fs::read(guest("hello")?)?;
    node.wait_for_metric("dormouse_disk_is_low", 0.0)?;

    let filler = folder.path().join("filler");
    let free = |node: &TestNode| -> Result<u64> { Ok(node.metric("dormouse_disk_free_bytes")? as u64) };
    let room = usize::try_from(free(&node)?.checked_sub(24 * MIB).context("the disk is too small")?)?;
    fs::write(&filler, vec![0; room])?;
    node.wait_for_metric("dormouse_disk_is_low", 1.0)?;
    ensure!(!runs(&tenant, INSERT)?, "a write was taken");
    ensure!(!runs(&tenant, "DELETE FROM t")?, "a delete, which writes, was taken");
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 4_000);
    for refused in [
        node.upload(&tenant.name, "other", &component)?,
        node.upload(&tenant.name, "sql", &component)?,
        node.admin("POST", "/v1/tenants", br#"{"name":"another"}"#)?,
    ] {
        assert_eq!(problem_of(&refused.expect(507)?)?, "node-disk-full");
    }
    node.admin("GET", "/v1/tenants", b"")?.expect(200)?;

    // A little more room than the mark does not lift it.
    fs::File::options().write(true).open(&filler)?.set_len(room as u64 - 12 * MIB)?;
    let before = free(&node)?;
    dormouse_tests::eventually("the node looks again", || Ok((free(&node)? > 32 * MIB).then_some(())))?;
    ensure!(node.metric("dormouse_disk_is_low")? > 0.0, "it was {before}");
    fs::remove_file(&filler)?;
    node.wait_for_metric("dormouse_disk_is_low", 0.0)?;
    ensure!(runs(&tenant, "DELETE FROM t")?);
    node.upload(&tenant.name, "other", &component)?.expect(200)?;
    node.logs().wait_for("the end of it", |line| line.message() == "the disk has room again")?;
    Ok(())
}
