//! A tenant costs no file until its database is used; then it is made once, and a lost one is never made again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dormouse_tests::faults::{Call, Faults};
use dormouse_tests::{Stop, Tenant, TestNode, eventually, guest};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::cli;
use crate::parking::files_below;

/// The folder of a tenant's files, there or not.
fn folder_of(tenant: &Tenant<'_>) -> Result<PathBuf> {
    let id = tenant.id()?;
    let shard = id.get(..2).context("no shard")?;
    Ok(tenant.node.data().join("tenants").join(shard).join(&id))
}

/// The files of a tenant, by their last name.
fn files_of(tenant: &Tenant<'_>) -> Result<Vec<String>> {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let mut names: Vec<_> =
        files_below(&folder_of(tenant)?)?.iter().filter_map(|(path, _)| name(path)).collect();
    names.sort();
    Ok(names)
}

fn is_unused(tenant: &Tenant<'_>) -> Result<()> {
    let shown = tenant.shown()?;
    assert_eq!(shown.pointer("/database/state"), Some(&json!("unused")), "{shown}");
    assert_eq!(shown.pointer("/database/bytes"), Some(&json!(0)), "{shown}");
    ensure!(!folder_of(tenant)?.exists(), "it has a folder");
    Ok(())
}

fn named<'a>(node: &'a TestNode, name: &str) -> Tenant<'a> {
    Tenant { node, name: name.to_owned() }
}

fn sign(tenant: &Tenant<'_>, message: &str) -> Result<u16> {
    Ok(tenant.post("", &json!({ "name": "Ada", "message": message }))?.status)
}

#[test]
fn a_tenant_has_no_file_before_its_database_is_used() -> Result<()> {
    let mut node = TestNode::builder().flag("--park-time-max-ms", 50).start()?;
    let (silent, talker) = (node.tenant("hello")?.name, node.tenant("guestbook")?.name);
    for stop in [Stop::Kill, Stop::Terminate] {
        let (silent, talker) = (named(&node, &silent), named(&node, &talker));
        is_unused(&talker)?;
        silent.get("")?.expect(200)?;
        is_unused(&silent)?;
        node.restart(stop)?;
    }
    let talker = named(&node, &talker);
    assert_eq!(talker.json("")?, json!([]));
    assert_eq!(files_of(&talker)?, ["1.db", "1.db-wal"]);
    let shown = talker.wait_for_state("closed")?;
    ensure!(shown.pointer("/database/bytes").and_then(Value::as_u64) > Some(0), "{shown}");
    is_unused(&named(&node, &silent))
}

#[test]
fn an_unused_tenant_is_deleted() -> Result<()> {
    let node = TestNode::start()?;
    let tenant = node.tenant("guestbook")?;
    node.admin("DELETE", &format!("/v1/tenants/{}", tenant.name), b"")?.expect(204)?;
    ensure!(tenant.get("")?.status == 404);
    ensure!(files_below(&node.data())?.iter().all(|(path, _)| !path.to_string_lossy().contains("/tenants/")));
    Ok(())
}

#[test]
fn an_operator_may_be_the_first_to_use_a_database() -> Result<()> {
    let node = TestNode::start()?;
    node.create_tenant("fresh")?;
    let fresh = named(&node, "fresh");
    is_unused(&fresh)?;
    let said = cli::run(&node, &["tenant", "show", "fresh"])?.stdout;
    ensure!(said.contains("unused, it has no file"), "{said}");
    cli::run(&node, &["sql", "fresh", "CREATE TABLE t (a)"])?;
    let said = cli::run(&node, &["sql", "fresh", "SELECT count(*) FROM t"])?.stdout;
    ensure!(said.contains('0'), "{said}");
    assert_eq!(files_of(&fresh)?, ["1.db", "1.db-wal"]);
    let said = cli::run(&node, &["tenant", "show", "fresh"])?.stdout;
    ensure!(!said.contains("unused"), "{said}");
    Ok(())
}

#[test]
fn first_requests_at_once_make_one_database() -> Result<()> {
    const CLIENTS: usize = 8;
    let node = TestNode::start()?;
    for _ in 0..5 {
        let tenant = node.tenant("guestbook")?;
        // An address of its own, so that what one of them has learned is news to the other.
        node.deploy(&tenant.name, "other", &guest("guestbook")?)?;
        let other = format!("/t/{}/other", tenant.name);
        let body = json!({ "name": "Ada", "message": "Hello" }).to_string();
        std::thread::scope(|scope| -> Result<()> {
            let client = |n: usize| {
                let (tenant, other, body) = (&tenant, &other, &body);
                scope.spawn(move || {
                    let path = if n.is_multiple_of(2) { tenant.path("") } else { other.clone() };
                    tenant.node.request("POST", &path, &[], body.as_bytes())?.expect(201)
                })
            };
            let clients: Vec<_> = (0..CLIENTS).map(client).collect();
            clients.into_iter().try_for_each(|client| {
                client.join().ok().context("a client failed")??;
                Ok(())
            })
        })?;
        assert_eq!(tenant.number("SELECT count(*) FROM entries")?, i64::try_from(CLIENTS)?);
        assert_eq!(files_of(&tenant)?, ["1.db", "1.db-wal"]);
    }
    Ok(())
}

#[test]
fn a_tenant_is_deleted_while_its_database_is_made() -> Result<()> {
    let node = TestNode::start()?;
    for n in 0..20 {
        let tenant = node.tenant("guestbook")?;
        let folder = folder_of(&tenant)?;
        std::thread::scope(|scope| -> Result<()> {
            let caller = scope.spawn(|| tenant.get(""));
            // Each round lets it come a little further, without waiting for anything.
            (0..n).try_for_each(|_| node.metrics().map(drop))?;
            node.admin("DELETE", &format!("/v1/tenants/{}", tenant.name), b"")?.expect(204)?;
            let status = caller.join().ok().context("the caller failed")??.status;
            ensure!([200, 404, 500].contains(&status), "{status}");
            Ok(())
        })?;
        ensure!(!folder.exists(), "round {n}: files of a deleted tenant are there");
    }
    Ok(())
}

#[test]
fn a_lost_file_is_never_made_again() -> Result<()> {
    let mut node = TestNode::builder().flag("--park-time-max-ms", 0).start()?;
    node.expect_log("is in quarantine");
    let name = node.tenant("guestbook")?.name;
    let file = {
        let tenant = named(&node, &name);
        assert_eq!(sign(&tenant, "one")?, 201);
        tenant.wait_for_state("closed")?;
        let files = files_below(&folder_of(&tenant)?)?;
        files.into_iter().map(|(path, _)| path).find(|path| path.ends_with("1.db")).context("no file")?
    };
    let aside = file.with_extension("aside");
    fs::rename(&file, &aside)?;
    for stop in [Stop::Terminate, Stop::Kill] {
        let tenant = named(&node, &name);
        assert_eq!(sign(&tenant, "two")?, 500);
        tenant.wait_for_state("quarantined")?;
        ensure!(!file.exists(), "a lost file was made again");
        node.restart(stop)?;
    }
    fs::rename(&aside, &file)?;
    let tenant = named(&node, &name);
    assert_eq!(tenant.number("SELECT count(*) FROM entries")?, 1);
    Ok(())
}

#[test]
fn a_kill_between_file_and_mark_leaves_a_database_to_be_taken() -> Result<()> {
    let faults = Faults::new()?;
    let mut node = faults.node().start()?;
    node.expect_log("cannot be marked as made");
    let name = node.tenant("guestbook")?.name;
    // The mark is one write to the log of the control data.
    faults.begin(Call::Write, Errno::IO, "control", ".db-wal")?;
    {
        let tenant = named(&node, &name);
        assert_eq!(sign(&tenant, "one")?, 500);
        assert_eq!(files_of(&tenant)?, ["1.db", "1.db-wal"]);
        ensure!(files_below(&folder_of(&tenant)?)?.iter().all(|(path, bytes)| {
            path.extension().is_some_and(|extension| extension == "db") || *bytes == 0
        }));
    }
    faults.end()?;
    node.restart(Stop::Kill)?;
    let tenant = named(&node, &name);
    let shown = tenant.shown()?;
    assert_eq!(shown.pointer("/database/state"), Some(&json!("unused")), "{shown}");
    assert_eq!(sign(&tenant, "two")?, 201);
    assert_eq!(tenant.number("SELECT count(*) FROM entries")?, 1);
    assert_eq!(node.metric("dormouse_databases_quarantined")?, 0.0);
    Ok(())
}

#[test]
fn a_database_that_cannot_be_made_is_made_later() -> Result<()> {
    let faults = Faults::new()?;
    let node = faults.node().start()?;
    node.expect_log("cannot be made");
    node.expect_log("cannot be marked as made");
    for (call, what, end) in [
        (Call::Write, None, "1.new"),
        (Call::Sync, None, "1.new"),
        (Call::Sync, Some("tenants"), "tenants"),
        (Call::Sync, Some("control"), ".db-wal"),
    ] {
        let tenant = node.tenant("guestbook")?;
        let id = tenant.id()?;
        faults.begin(call, Errno::IO, what.unwrap_or(&id), end)?;
        assert_eq!(sign(&tenant, "one")?, 500, "{call:?} {end}");
        assert_eq!(node.metric("dormouse_databases_quarantined")?, 0.0);
        faults.end()?;
        assert_eq!(sign(&tenant, "two")?, 201);
        assert_eq!(tenant.number("SELECT count(*) FROM entries")?, 1);
    }
    Ok(())
}

#[test]
fn a_full_disk_is_told_to_the_first_who_uses_a_database() -> Result<()> {
    let faults = Faults::new()?;
    let node = faults.node().start()?;
    let tenant = node.tenant("misbehave")?;
    faults.begin(Call::Write, Errno::NOSPC, &tenant.id()?, "1.new")?;
    let full = tenant.guest_sql("SELECT 1")?;
    assert_eq!(full.pointer("/error/variant"), Some(&json!("database-full")), "{full}");
    faults.end()?;
    let answer = tenant.guest_sql("SELECT 1")?;
    ensure!(answer.get("error").is_none_or(Value::is_null), "{answer}");
    Ok(())
}

#[test]
fn a_caller_that_leaves_does_not_stop_the_making() -> Result<()> {
    let node = TestNode::start()?;
    for _ in 0..20 {
        let tenant = node.tenant("guestbook")?;
        drop(tenant.send("")?);
        assert_eq!(tenant.json("")?, json!([]));
        eventually("it is made", || {
            let shown = tenant.shown()?;
            Ok((shown.pointer("/database/state") != Some(&json!("unused"))).then_some(()))
        })?;
        assert_eq!(files_of(&tenant)?, ["1.db", "1.db-wal"]);
    }
    Ok(())
}
