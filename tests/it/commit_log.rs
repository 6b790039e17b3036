//! The log that commits of all tenants share: what it was told is there after a kill, a disk that fails or has lost what
//! it was not asked to keep, and nothing else is.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use dormouse_tests::faults::{Call, Faults};
use dormouse_tests::{Builder, Stop, Tenant, TestNode, eventually};
use rustix::io::Errno;
use serde_json::json;

use crate::disk::{
    all_fail, are_there, comes_back, database_of, is_in_quarantine, messages, named, sign, two_tenants,
};

const FOLDER: &str = "commits";

/// What a tenant's log is cut to by a power cut at the wrong moment.
fn lose(wal: &PathBuf) -> Result<()> {
    Ok(OpenOptions::new().write(true).open(wal)?.set_len(0)?)
}

fn wal_of(tenant: &Tenant<'_>) -> Result<PathBuf> {
    Ok(database_of(tenant)?.with_extension("db-wal"))
}

fn files(node: &TestNode) -> Result<Vec<String>> {
    let names =
        fs::read_dir(node.data().join(FOLDER))?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    let mut names: Vec<String> = names.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    names.sort_unstable();
    Ok(names)
}

/// Nothing is copied out of a tenant's log by the way.
fn at_rest(builder: Builder) -> Builder {
    builder.flag("--park-time-max-ms", 3_600_000)
}

/// Rows that are more than the smallest commit log holds.
const FILLING: i64 = 80;

/// Makes the commit log turn over, so that all of it is written anew.
fn turn_over(tenant: &Tenant<'_>) -> Result<()> {
    tenant.sql("CREATE TABLE IF NOT EXISTS filling(a)")?;
    for _ in 0..FILLING {
        tenant.sql("INSERT INTO filling VALUES (randomblob(40000))")?;
    }
    Ok(())
}

#[test]
fn what_a_tenants_log_has_lost_comes_out_of_the_commit_log() -> Result<()> {
    let mut node = at_rest(TestNode::builder()).start()?;
    let (name, wal) = {
        let tenant = node.tenant("guestbook")?;
        sign(&tenant, "one")?.expect(201)?;
        sign(&tenant, "two")?.expect(201)?;
        let wal = wal_of(&tenant)?;
        (tenant.name, wal)
    };
    node.stop(Stop::Kill)?;
    ensure!(fs::metadata(&wal)?.len() > 0);
    lose(&wal)?;
    node.restart_after_stop()?;
    let tenant = named(&node, &name);
    assert_eq!(messages(&tenant)?, ["one", "two"]);
    assert_eq!(tenant.sql("PRAGMA integrity_check")?, json!([["ok"]]));
    sign(&tenant, "three")?.expect(201)?;
    node.stop(Stop::Terminate)?;
    assert_eq!(files(&node)?, Vec::<String>::new(), "a node that was stopped leaves a commit log");
    Ok(())
}

#[test]
fn a_log_that_has_turned_over_says_nothing_of_what_is_on_disk() -> Result<()> {
    let mut node = at_rest(TestNode::builder()).flag("--commit-log-bytes", 2 << 20).start()?;
    let (name, other, wal) = {
        let (tenant, other) = (node.tenant("guestbook")?, node.tenant("guestbook")?);
        sign(&tenant, "one")?.expect(201)?;
        turn_over(&other)?;
        sign(&tenant, "two")?.expect(201)?;
        let wal = wal_of(&tenant)?;
        (tenant.name, other.name, wal)
    };
    ensure!(fs::metadata(&wal)?.len() > 0);
    node.restart(Stop::Kill)?;
    assert_eq!(messages(&named(&node, &name))?, ["one", "two"]);
    assert_eq!(named(&node, &other).number("SELECT count(*) FROM filling")?, FILLING);
    Ok(())
}

#[test]
fn transactions_of_any_size_follow_each_other() -> Result<()> {
    let mut node = at_rest(TestNode::builder()).start()?;
    let tenant = node.tenant("guestbook")?;
    let name = tenant.name.clone();
    tenant.sql("CREATE TABLE t(a)")?;
    for bytes in [10, 900_000, 10, 300_000, 10] {
        tenant.sql(&format!("INSERT INTO t VALUES (randomblob({bytes}))"))?;
    }
    drop(tenant);
    node.restart(Stop::Kill)?;
    let tenant = named(&node, &name);
    assert_eq!(tenant.sql("SELECT length(a) FROM t")?, json!([[10], [900_000], [10], [300_000], [10]]));
    assert_eq!(tenant.sql("PRAGMA integrity_check")?, json!([["ok"]]));
    Ok(())
}

#[test]
fn commits_share_flushes() -> Result<()> {
    let node = TestNode::start()?;
    let tenants = (0..8).map(|_| node.tenant("guestbook")).collect::<Result<Vec<_>>>()?;
    // However the machine is loaded, some of many that are under way at once come together.
    eventually("two commits share a flush", || {
        std::thread::scope(|scope| -> Result<()> {
            let clients: Vec<_> = tenants.iter().map(|tenant| scope.spawn(|| sign(tenant, "one"))).collect();
            clients
                .into_iter()
                .try_for_each(|client| client.join().ok().context("a client failed")??.expect(201).map(drop))
        })?;
        let (records, flushes) =
            (node.metric("dormouse_commit_log_records")?, node.metric("dormouse_commit_log_flushes")?);
        ensure!(records >= flushes && flushes > 0.0, "{records} records, {flushes} flushes");
        Ok((records > flushes).then_some(()))
    })
}

#[test]
fn a_commit_that_does_not_reach_the_log_is_not_acknowledged() -> Result<()> {
    for call in [Call::Sync, Call::Write] {
        let faults = Faults::new()?;
        let mut node = at_rest(faults.node()).start()?;
        node.expect_log("commits have failed");
        let (name, other) = {
            let (tenant, other) = two_tenants(&node)?;
            faults.once(call, Errno::IO, FOLDER, ".log")?;
            sign(&tenant, "two")?.expect(500)?;
            let reason = is_in_quarantine(&tenant)?;
            ensure!(reason.contains("commit log") && reason.contains("Input/output error"), "{reason}");
            sign(&other, "two")?.expect(201)?;
            comes_back(&tenant)?;
            are_there(&tenant, &["one"], "two")?;
            sign(&tenant, "three")?.expect(201)?;
            (tenant.name, other.name)
        };
        node.restart(Stop::Kill)?;
        ensure!(messages(&named(&node, &name))?.last().is_some_and(|last| last == "three"));
        assert_eq!(messages(&named(&node, &other))?, ["one", "two"]);
    }
    Ok(())
}

#[test]
fn writers_of_one_tenant_do_not_build_on_what_failed() -> Result<()> {
    let faults = Faults::new()?;
    let node = at_rest(faults.node()).start()?;
    node.expect_log("commits have failed");
    let (tenant, other) = two_tenants(&node)?;
    faults.once(Call::Sync, Errno::IO, FOLDER, ".log")?;
    all_fail(&tenant)?;
    is_in_quarantine(&tenant)?;
    comes_back(&tenant)?;
    ensure!(messages(&tenant)?.iter().filter(|message| *message == "one").count() == 1);
    sign(&other, "two")?.expect(201)?;
    Ok(())
}

/// What the commit log holds of a tenant whose own log cannot be put on disk is kept, however often it turns over.
#[test]
fn what_cannot_be_put_on_disk_is_kept() -> Result<()> {
    for is_killed in [false, true] {
        let faults = Faults::new()?;
        let mut node = at_rest(faults.node()).flag("--commit-log-bytes", 2 << 20).start()?;
        node.expect_log("the file system cannot be synced");
        let (name, wal) = {
            let (tenant, other) = two_tenants(&node)?;
            sign(&tenant, "two")?.expect(201)?;
            let wal = wal_of(&tenant)?;
            faults.begin(Call::SyncAll, Errno::IO, &tenant.id()?, ".db-wal")?;
            turn_over(&other)?;
            eventually("it is kept", || {
                Ok(files(&node)?.iter().any(|name| name.ends_with(".kept")).then_some(()))
            })?;
            sign(&tenant, "three")?.expect(500)?;
            is_in_quarantine(&tenant)?;
            faults.end()?;
            (tenant.name, wal)
        };
        if is_killed {
            node.stop(Stop::Kill)?;
            lose(&wal)?;
            node.restart_after_stop()?;
        } else {
            lose(&wal)?;
            comes_back(&named(&node, &name))?;
        }
        let tenant = named(&node, &name);
        are_there(&tenant, &["one", "two"], "three")?;
        assert_eq!(tenant.sql("PRAGMA integrity_check")?, json!([["ok"]]));
        ensure!(!files(&node)?.iter().any(|name| name.ends_with(".kept")), "{:?}", files(&node)?);
        sign(&tenant, "four")?.expect(201)?;
    }
    Ok(())
}
