//! Disks that fail, are full, cannot be written or hold damage: nothing is acknowledged that is not on disk, a failed
//! database is left alone until it is recovered, and other tenants notice nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use dormouse_tests::client::Response;
use dormouse_tests::faults::{Call, Faults};
use dormouse_tests::logs::Line;
use dormouse_tests::{Builder, Stop, Tenant, TestNode, eventually, guest, problem_of, sqlite};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::cli;
use crate::parking::{files_below, open_tenant_files};

const DATABASE: &str = ".db";
const LOG: &str = ".db-wal";

pub(crate) fn named<'a>(node: &'a TestNode, name: &str) -> Tenant<'a> {
    Tenant { node, name: name.to_owned() }
}

/// A node without a commit log, whose commits flush their tenant's own.
fn flushing_each(faults: &Faults) -> Builder {
    faults.node().flag("--commit-log-bytes", 0)
}

pub(crate) fn sign(tenant: &Tenant<'_>, message: &str) -> Result<Response> {
    tenant.post("", &json!({ "name": "Ada", "message": message }))
}

pub(crate) fn messages(tenant: &Tenant<'_>) -> Result<Vec<String>> {
    let rows = tenant.sql("SELECT message FROM entries ORDER BY id")?;
    let rows = rows.as_array().context("no rows")?.iter();
    Ok(rows.filter_map(|row| Some(row.pointer("/0")?.as_str()?.to_owned())).collect())
}

/// The messages are those that were acknowledged, and perhaps, whole, one that was not.
pub(crate) fn are_there(tenant: &Tenant<'_>, acknowledged: &[&str], unacknowledged: &str) -> Result<()> {
    let found = messages(tenant)?;
    let (kept, more) = found.split_at(acknowledged.len().min(found.len()));
    ensure!(kept == acknowledged, "acknowledged: {acknowledged:?}, found: {found:?}");
    ensure!(more.is_empty() || more == [unacknowledged], "found: {found:?}");
    Ok(())
}

fn recover(tenant: &Tenant<'_>) -> Result<Response> {
    tenant.node.admin("POST", &format!("/v1/tenants/{}/recover", tenant.name), b"")
}

/// Waits for the quarantine, and checks everything that holds in one. Gives the reason.
pub(crate) fn is_in_quarantine(tenant: &Tenant<'_>) -> Result<String> {
    let shown = tenant.wait_for_state("quarantined")?;
    let reason = shown.pointer("/database/quarantine/reason").and_then(Value::as_str);
    let reason = reason.filter(|reason| !reason.is_empty()).with_context(|| format!("no reason: {shown}"))?;
    ensure!(shown.pointer("/database/quarantine/since").is_some_and(Value::is_u64), "{shown}");
    let node = tenant.node;
    ensure!(node.metric("dormouse_databases_quarantined")? >= 1.0);
    let answer = tenant.get("")?;
    ensure!(answer.status == 500, "a quarantined database was read: {}", answer.status);
    ensure!(sign(tenant, "in quarantine")?.status == 500, "a quarantined database was written");
    let refused = tenant.try_sql("SELECT 1", &json!([]))?.expect(503)?;
    assert_eq!(problem_of(&refused)?, "database-quarantined");
    let id = tenant.id()?;
    eventually("its files are closed", || {
        let is_of_tenant = |file: &PathBuf| file.to_string_lossy().contains(&id);
        Ok((!open_tenant_files(node)?.iter().any(is_of_tenant)).then_some(()))
    })?;
    let tells = |line: &Line| line.text.contains("in quarantine") && line.text.contains(&id);
    node.logs().wait_for("the quarantine", tells)?;
    let lines = node.logs().matching(tells);
    ensure!(lines.len() == 1, "the quarantine is logged {} times: {lines:?}", lines.len());
    Ok(reason.to_owned())
}

fn stays_in_quarantine(tenant: &Tenant<'_>) -> Result<()> {
    let refused = recover(tenant)?.expect(503)?;
    assert_eq!(problem_of(&refused)?, "database-quarantined");
    tenant.wait_for_state("quarantined")?;
    Ok(())
}

pub(crate) fn comes_back(tenant: &Tenant<'_>) -> Result<()> {
    let answer = recover(tenant)?.expect(200)?.json()?;
    assert_eq!(answer.get("recovered"), Some(&json!(true)));
    ensure!(answer.pointer("/quarantine/reason").is_some_and(Value::is_string), "{answer}");
    let shown = tenant.shown()?;
    ensure!(shown.pointer("/database/quarantine") == Some(&Value::Null), "{shown}");
    assert_eq!(tenant.sql("PRAGMA integrity_check")?, json!([["ok"]]));
    Ok(())
}

/// A guestbook that somebody has signed with `one`, and one of a tenant that goes on whatever happens.
pub(crate) fn two_tenants(node: &TestNode) -> Result<(Tenant<'_>, Tenant<'_>)> {
    let (tenant, other) = (node.tenant("guestbook")?, node.tenant("guestbook")?);
    for tenant in [&tenant, &other] {
        sign(tenant, "one")?.expect(201)?;
    }
    node.expect_log("is in quarantine");
    Ok((tenant, other))
}

#[test]
fn a_commit_that_does_not_reach_the_disk_is_not_acknowledged() -> Result<()> {
    for call in [Call::Sync, Call::Write] {
        let faults = Faults::new()?;
        let node = flushing_each(&faults).start()?;
        let (tenant, other) = two_tenants(&node)?;
        faults.begin(call, Errno::IO, &tenant.id()?, LOG)?;
        sign(&tenant, "two")?.expect(500)?;
        let reason = is_in_quarantine(&tenant)?;
        ensure!(reason.contains("Input/output error"), "{reason}");
        sign(&other, "two")?.expect(201)?;
        stays_in_quarantine(&tenant)?;

        faults.end()?;
        comes_back(&tenant)?;
        are_there(&tenant, &["one"], "two")?;
        sign(&tenant, "three")?.expect(201)?;
        ensure!(messages(&tenant)?.last().is_some_and(|last| last == "three"));
        assert_eq!(messages(&other)?, ["one", "two"]);
        assert_eq!(node.metric("dormouse_databases_quarantined")?, 0.0);
    }
    Ok(())
}

/// Sixteen who sign at once; nobody is told that it went well.
pub(crate) fn all_fail(tenant: &Tenant<'_>) -> Result<()> {
    std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(|| sign(tenant, "two"))).collect();
        for client in clients {
            client.join().ok().context("a client failed")??.expect(500)?;
        }
        Ok(())
    })
}

#[test]
fn those_who_wait_for_the_writer_do_not_build_on_what_failed() -> Result<()> {
    let faults = Faults::new()?;
    let node = flushing_each(&faults).start()?;
    let (tenant, other) = two_tenants(&node)?;
    faults.once(Call::Sync, Errno::IO, &tenant.id()?, LOG)?;
    all_fail(&tenant)?;
    is_in_quarantine(&tenant)?;
    comes_back(&tenant)?;
    are_there(&tenant, &["one"], "two")?;
    sign(&other, "two")?.expect(201)?;
    Ok(())
}

/// Bytes of a file that the kernel holds in memory.
fn cached_bytes(file: &Path) -> Result<u64> {
    let told =
        Command::new("fincore").args(["--bytes", "--noheadings", "--output", "RES"]).arg(file).output()?;
    Ok(String::from_utf8(told.stdout)?.trim().parse()?)
}

#[test]
fn what_the_kernel_holds_after_a_failed_flush_is_not_believed() -> Result<()> {
    let faults = Faults::new()?;
    let node = flushing_each(&faults).start()?;
    let (tenant, _) = two_tenants(&node)?;
    let files = [database_of(&tenant)?, database_of(&tenant)?.with_extension("db-wal")];
    if rustix::fs::statfs(node.data())?.f_type == libc::TMPFS_MAGIC || cached_bytes(&files[1]).is_err() {
        println!("skipped: a test of the page cache needs a disk, and fincore");
        return Ok(());
    }
    faults.once(Call::Sync, Errno::IO, &tenant.id()?, LOG)?;
    sign(&tenant, "two")?.expect(500)?;
    is_in_quarantine(&tenant)?;
    for file in &files {
        eventually("its pages are forgotten", || Ok((cached_bytes(file)? == 0).then_some(())))?;
    }
    comes_back(&tenant)?;
    are_there(&tenant, &["one"], "two")
}

#[test]
fn a_failed_read_is_told_and_nothing_is_lost() -> Result<()> {
    let faults = Faults::new()?;
    let node = faults.node().flag("--park-time-max-ms", 0).start()?;
    let (tenant, other) = two_tenants(&node)?;
    tenant.wait_for_state("closed")?;
    faults.begin(Call::Read, Errno::IO, &tenant.id()?, DATABASE)?;
    tenant.get("")?.expect(500)?;
    is_in_quarantine(&tenant)?;
    sign(&other, "two")?.expect(201)?;
    stays_in_quarantine(&tenant)?;
    faults.end()?;
    comes_back(&tenant)?;
    assert_eq!(messages(&tenant)?, ["one"]);
    Ok(())
}

#[test]
fn a_failed_checkpoint_off_the_path_loses_nothing() -> Result<()> {
    const EVICTED: &[(&str, u32)] = &[("--park-time-max-ms", 0)];
    const PUT_OFF: &[(&str, u32)] = &[("--park-memory-bytes-max", 1), ("--park-time-max-ms", 50)];
    for (flags, call, file) in [
        (EVICTED, Call::Sync, DATABASE),
        (EVICTED, Call::Write, DATABASE),
        (EVICTED, Call::Truncate, LOG),
        (PUT_OFF, Call::Sync, DATABASE),
    ] {
        let faults = Faults::new()?;
        let builder = flags.iter().fold(faults.node(), |builder, (name, value)| builder.flag(name, value));
        let node = builder.start()?;
        let (tenant, other) = two_tenants(&node)?;
        tenant.wait_for_state("closed")?;
        faults.begin(call, Errno::IO, &tenant.id()?, file)?;
        sign(&tenant, "two")?.expect(201)?;
        is_in_quarantine(&tenant)?;
        sign(&other, "two")?.expect(201)?;
        stays_in_quarantine(&tenant)?;
        faults.end()?;
        comes_back(&tenant)?;
        assert_eq!(messages(&tenant)?, ["one", "two"]);
    }
    Ok(())
}

#[test]
fn a_failed_checkpoint_of_a_busy_tenant_loses_nothing() -> Result<()> {
    let faults = Faults::new()?;
    let node = faults.node().flag("--park-time-max-ms", 3_600_000).start()?;
    let (tenant, _) = two_tenants(&node)?;
    tenant.sql("CREATE TABLE t(a)")?;
    faults.begin(Call::Sync, Errno::IO, &tenant.id()?, DATABASE)?;
    let mut stored = 0;
    let refused = loop {
        let answer = tenant.try_sql("INSERT INTO t VALUES (randomblob(900000))", &json!([]))?;
        if answer.status != 200 {
            break answer;
        }
        stored += 1;
        ensure!(stored < 100, "{stored} MB of log were never copied");
    };
    assert_eq!(problem_of(&refused)?, "database-quarantined");
    is_in_quarantine(&tenant)?;
    faults.end()?;
    comes_back(&tenant)?;
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, stored);
    assert_eq!(messages(&tenant)?, ["one"]);
    Ok(())
}

#[test]
fn a_killed_node_comes_back_without_the_quarantine() -> Result<()> {
    for stop in [Stop::Kill, Stop::Terminate] {
        let faults = Faults::new()?;
        let mut node = flushing_each(&faults).start()?;
        let name = {
            let (tenant, _) = two_tenants(&node)?;
            faults.begin(Call::Sync, Errno::IO, &tenant.id()?, LOG)?;
            sign(&tenant, "two")?.expect(500)?;
            is_in_quarantine(&tenant)?;
            tenant.name
        };
        faults.end()?;
        node.restart(stop)?;
        let tenant = named(&node, &name);
        assert_eq!(node.metric("dormouse_databases_quarantined")?, 0.0);
        are_there(&tenant, &["one"], "two")?;
        sign(&tenant, "three")?.expect(201)?;
    }
    Ok(())
}

#[test]
fn a_quarantined_tenant_can_be_deleted() -> Result<()> {
    let faults = Faults::new()?;
    let node = flushing_each(&faults).start()?;
    let (tenant, _) = two_tenants(&node)?;
    let id = tenant.id()?;
    faults.begin(Call::Sync, Errno::IO, &id, LOG)?;
    sign(&tenant, "two")?.expect(500)?;
    is_in_quarantine(&tenant)?;
    node.admin("DELETE", &format!("/v1/tenants/{}", tenant.name), b"")?.expect(204)?;
    let files = files_below(&node.data().join("tenants"))?;
    ensure!(!files.iter().any(|(path, _)| path.to_string_lossy().contains(&id)), "still there: {files:?}");
    assert_eq!(node.metric("dormouse_databases_quarantined")?, 0.0);
    Ok(())
}

#[test]
fn an_operator_recovers_a_tenant_by_command() -> Result<()> {
    let faults = Faults::new()?;
    let node = flushing_each(&faults).start()?;
    let (tenant, _) = two_tenants(&node)?;
    let name = tenant.name.as_str();
    let said = cli::run(&node, &["tenant", "recover", name])?.stdout;
    ensure!(said.contains("not in quarantine"), "{said}");
    let answer = recover(&tenant)?.expect(200)?.json()?;
    assert_eq!(answer, json!({ "recovered": false, "quarantine": null, "suspension": null }));

    faults.begin(Call::Sync, Errno::IO, &tenant.id()?, LOG)?;
    sign(&tenant, "two")?.expect(500)?;
    is_in_quarantine(&tenant)?;
    let shown = cli::run(&node, &["tenant", "show", name])?.stdout;
    ensure!(shown.contains("quarantined") && shown.contains("Input/output error"), "{shown}");
    let listed = cli::run(&node, &["tenant", "list"])?.stdout;
    let is_listed = |line: &str| line.contains(name) && line.contains("quarantined");
    assert_eq!(listed.lines().filter(|line| line.contains("quarantined")).count(), 1, "{listed}");
    ensure!(listed.lines().any(is_listed), "{listed}");
    let said = cli::fails(&cli::command(&node, &["tenant", "recover", name])?.output()?)?;
    ensure!(said.contains("quarantine"), "{said}");
    faults.end()?;
    let said = cli::run(&node, &["tenant", "recover", name])?.stdout;
    ensure!(said.contains("recovered") && said.contains("Input/output error"), "{said}");
    are_there(&tenant, &["one"], "two")?;
    let said = cli::fails(&cli::command(&node, &["tenant", "recover", "nobody"])?.output()?)?;
    ensure!(said.contains("nobody"), "{said}");
    Ok(())
}

#[test]
fn a_write_without_room_fails_alone() -> Result<()> {
    let faults = Faults::new()?;
    let node = faults.node().start()?;
    let (tenant, other) = (node.tenant("misbehave")?, node.tenant("guestbook")?);
    tenant.sql("CREATE TABLE t(a)")?;
    let insert = || tenant.guest_sql("INSERT INTO t VALUES (randomblob(200000))");
    insert()?;
    faults.begin(Call::Write, Errno::NOSPC, &tenant.id()?, LOG)?;
    let full = insert()?;
    assert_eq!(full.pointer("/error/variant"), Some(&json!("database-full")), "{full}");
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 1);
    sign(&other, "one")?.expect(201)?;
    faults.end()?;
    ensure!(insert()?.get("error").is_none());
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 2);
    assert_eq!(node.metric("dormouse_databases_quarantined")?, 0.0);
    Ok(())
}

#[test]
fn a_checkpoint_without_room_is_made_when_there_is_some() -> Result<()> {
    let faults = Faults::new()?;
    let node = faults.node().flag("--park-time-max-ms", 0).start()?;
    node.expect_log("write-ahead log cannot be copied");
    let tenant = node.tenant("guestbook")?;
    sign(&tenant, "one")?.expect(201)?;
    tenant.wait_for_state("closed")?;
    faults.begin(Call::Write, Errno::NOSPC, &tenant.id()?, DATABASE)?;
    sign(&tenant, "two")?.expect(201)?;
    let shown = tenant.wait_for_state("closed")?;
    ensure!(shown.pointer("/database/wal_bytes") != Some(&json!(0)), "{shown}");
    faults.end()?;
    sign(&tenant, "three")?.expect(201)?;
    let shown = tenant.wait_for_state("closed")?;
    assert_eq!(shown.pointer("/database/wal_bytes"), Some(&json!(0)));
    assert_eq!(messages(&tenant)?, ["one", "two", "three"]);
    Ok(())
}

/// The file of a tenant's database.
pub(crate) fn database_of(tenant: &Tenant<'_>) -> Result<PathBuf> {
    let id = tenant.id()?;
    let is_it = |path: &Path| {
        path.to_string_lossy().contains(&id) && path.extension().is_some_and(|extension| extension == "db")
    };
    let files = files_below(&tenant.node.data().join("tenants"))?;
    files.into_iter().map(|(path, _)| path).find(|path| is_it(path)).context("it has no file")
}

/// What happens to the bytes of a database.
type Damage = (&'static str, fn(&[u8]) -> Vec<u8>);

const DAMAGES: [Damage; 4] = [
    ("emptied", |_| Vec::new()),
    ("cut in the first page", |bytes| bytes.iter().take(1_000).copied().collect()),
    ("cut after the first page", |bytes| bytes.iter().take(4_096).copied().collect()),
    ("noise", |bytes| {
        (1..=bytes.len() as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }),
];

#[test]
fn a_damaged_file_is_noticed_and_can_be_put_back() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 0).start()?;
    for (damage, spoil) in DAMAGES {
        let (tenant, other) = two_tenants(&node)?;
        tenant.wait_for_state("closed")?;
        let file = database_of(&tenant)?;
        let bytes = fs::read(&file)?;
        fs::write(&file, spoil(&bytes))?;
        tenant.get("")?.expect(500).context(damage)?;
        is_in_quarantine(&tenant).context(damage)?;
        stays_in_quarantine(&tenant)?;
        sign(&other, "two")?.expect(201)?;
        fs::write(&file, bytes)?;
        comes_back(&tenant)?;
        assert_eq!(messages(&tenant)?, ["one"]);
    }
    Ok(())
}

#[test]
fn a_file_that_was_damaged_while_the_node_was_down_concerns_its_tenant_alone() -> Result<()> {
    for (damage, spoil) in DAMAGES {
        let mut node = TestNode::start()?;
        let (name, other, file) = {
            let (tenant, other) = two_tenants(&node)?;
            (tenant.name.clone(), other.name, database_of(&tenant)?)
        };
        ensure!(node.stop(Stop::Terminate)?.success());
        let bytes = fs::read(&file)?;
        fs::write(&file, spoil(&bytes))?;
        node.restart_after_stop()?;
        sign(&named(&node, &other), "two")?.expect(201)?;
        sign(&named(&node, &name), "two")?.expect(500).context(damage)?;
        is_in_quarantine(&named(&node, &name))?;
        ensure!(node.stop(Stop::Terminate)?.success());
        fs::write(&file, bytes)?;
        node.restart_after_stop()?;
        assert_eq!(messages(&named(&node, &name))?, ["one"]);
    }
    Ok(())
}

#[test]
fn a_missing_file_is_no_new_database() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 0).start()?;
    let (tenant, _) = two_tenants(&node)?;
    tenant.wait_for_state("closed")?;
    let file = database_of(&tenant)?;
    let aside = file.with_extension("aside");
    fs::rename(&file, &aside)?;
    sign(&tenant, "two")?.expect(500)?;
    is_in_quarantine(&tenant)?;
    fs::rename(&aside, &file)?;
    comes_back(&tenant)?;
    assert_eq!(messages(&tenant)?, ["one"]);
    Ok(())
}

/// A file system of its own.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// An empty disk over a folder; nothing where that is not allowed.
    pub(crate) fn over(folder: &Path, size: &str) -> Result<Option<Self>> {
        let options = format!("size={size},mode=700");
        if !rustix::process::geteuid().is_root() || !mount(&["-t", "tmpfs", "-o", &options, "none"], folder)?
        {
            println!("skipped: a test that mounts a disk of {size} needs root and leave to mount");
            return Ok(None);
        }
        Ok(Some(Self(folder.to_owned())))
    }

    /// Moves the files of a tenant, none of which is open, to a new disk; nothing where that is not allowed.
    fn under(tenant: &Tenant<'_>, size: &str) -> Result<Option<Self>> {
        let file = database_of(tenant)?;
        let folder = file.parent().context("no folder")?.to_owned();
        let files: Vec<_> = files_below(&folder)?.into_iter().map(|(path, _)| path).collect();
        let contents = files.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
        let Some(disk) = Self::over(&folder, size)? else { return Ok(None) };
        for (file, bytes) in files.iter().zip(contents) {
            fs::write(file, bytes)?;
        }
        Ok(Some(disk))
    }

    fn remount(&self, option: &str) -> Result<()> {
        // What is being closed keeps it from becoming read-only.
        eventually("the disk is mounted anew", || {
            Ok(mount(&["-o", &format!("remount,{option}")], &self.0)?.then_some(()))
        })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

fn mount(arguments: &[&str], folder: &Path) -> Result<bool> {
    Ok(Command::new("mount").args(arguments).arg(folder).output()?.status.success())
}

#[test]
fn a_full_disk_is_told_and_its_tenant_goes_on_when_there_is_room() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 0).start()?;
    node.expect_log("write-ahead log cannot be copied");
    let (tenant, other) = (node.tenant("guestbook")?, node.tenant("guestbook")?);
    sign(&tenant, "one")?.expect(201)?;
    tenant.wait_for_state("closed")?;
    let Some(disk) = SmallDisk::under(&tenant, "400k")? else { return Ok(()) };
    let mut acknowledged = vec!["one".to_owned()];
    loop {
        let message = format!("{} {}", acknowledged.len(), "x".repeat(20_000));
        let answer = sign(&tenant, &message)?;
        if answer.status != 201 {
            answer.expect(500)?;
            break;
        }
        acknowledged.push(message);
        ensure!(acknowledged.len() < 100, "the disk is never full");
    }
    assert_eq!(messages(&tenant)?, acknowledged);
    sign(&other, "one")?.expect(201)?;
    assert_eq!(node.metric("dormouse_databases_quarantined")?, 0.0);
    disk.remount("size=8m")?;
    sign(&tenant, "last")?.expect(201)?;
    acknowledged.push("last".to_owned());
    assert_eq!(messages(&tenant)?, acknowledged);
    let shown = tenant.wait_for_state("closed")?;
    assert_eq!(shown.pointer("/database/wal_bytes"), Some(&json!(0)));
    Ok(())
}

#[test]
fn a_read_only_disk_puts_its_tenant_in_quarantine() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 0).start()?;
    let (tenant, other) = two_tenants(&node)?;
    tenant.wait_for_state("closed")?;
    let Some(disk) = SmallDisk::under(&tenant, "8m")? else { return Ok(()) };
    sign(&tenant, "two")?.expect(201)?;
    tenant.wait_for_state("closed")?;
    disk.remount("ro")?;
    sign(&tenant, "three")?.expect(500)?;
    is_in_quarantine(&tenant)?;
    stays_in_quarantine(&tenant)?;
    sign(&other, "two")?.expect(201)?;
    disk.remount("rw")?;
    comes_back(&tenant)?;
    assert_eq!(messages(&tenant)?, ["one", "two"]);
    Ok(())
}

#[test]
fn a_change_of_the_control_data_that_does_not_reach_the_disk_is_not_acknowledged() -> Result<()> {
    let faults = Faults::new()?;
    let mut node = faults.node().start()?;
    node.expect_log("an admin request failed");
    let component = fs::read(guest("hello")?)?;
    node.create_tenant("before")?;
    faults.begin(Call::Sync, Errno::IO, "control", LOG)?;
    let refused = node.admin("POST", "/v1/tenants", br#"{"name":"unsure"}"#)?.expect(500)?;
    assert_eq!(problem_of(&refused)?, "internal");
    let refused = node.upload("before", "fn", &component)?.expect(500)?;
    assert_eq!(problem_of(&refused)?, "internal");
    faults.end()?;
    for life in 1..=2 {
        // It is there as a whole, or not at all.
        match node.admin("POST", "/v1/tenants", br#"{"name":"unsure"}"#)?.status {
            201 if life == 1 => {}
            409 => {}
            status => bail!("{status} in life {life}"),
        }
        for tenant in ["before", "unsure"] {
            node.upload(tenant, "fn", &component)?.expect(200)?;
            node.request("GET", &format!("/t/{tenant}/fn"), &[], b"")?.expect(200)?;
        }
        node.restart(Stop::Kill)?;
    }
    Ok(())
}

fn database(tenant: &Tenant<'_>, method: &str, path: &str, body: &[u8]) -> Result<Response> {
    tenant.node.admin(method, &format!("/v1/tenants/{}/database{path}", tenant.name), body)
}

/// A guestbook with one message, and a way back to the same.
fn imported(node: &TestNode) -> Result<Tenant<'_>> {
    let tenant = node.tenant("guestbook")?;
    sign(&tenant, "one")?.expect(201)?;
    let copy = database(&tenant, "GET", "", b"")?.expect(200)?.body;
    database(&tenant, "PUT", "", &copy)?.expect(200)?;
    Ok(tenant)
}

#[test]
fn a_switch_that_does_not_reach_the_disk_is_not_acknowledged() -> Result<()> {
    for begin in [Faults::once, Faults::begin] {
        let faults = Faults::new()?;
        let mut node = faults.node().start()?;
        node.expect_log("an admin request failed");
        let (name, found) = {
            let tenant = imported(&node)?;
            begin(&faults, Call::Sync, Errno::IO, "control", LOG)?;
            let refused = database(&tenant, "POST", "/revert", b"")?.expect(500)?;
            assert_eq!(problem_of(&refused)?, "internal");
            // The single fault is over.
            let _ = faults.end();
            sign(&tenant, "two")?.expect(201)?;
            let found = messages(&tenant)?;
            assert_eq!(found, ["one", "two"]);
            (tenant.name, found)
        };
        node.restart(Stop::Kill)?;
        let tenant = named(&node, &name);
        assert_eq!(messages(&tenant)?, found);
        database(&tenant, "POST", "/revert", b"")?.expect(200)?;
        assert_eq!(messages(&tenant)?, ["one"]);
        sign(&tenant, "three")?.expect(201)?;
    }
    Ok(())
}

#[test]
fn a_way_back_in_quarantine_is_recovered_before_it_is_taken() -> Result<()> {
    let faults = Faults::new()?;
    let node = flushing_each(&faults).start()?;
    node.expect_log("is in quarantine");
    let tenant = node.tenant("guestbook")?;
    sign(&tenant, "one")?.expect(201)?;
    let copy = database(&tenant, "GET", "", b"")?.expect(200)?.body;
    faults.once(Call::Sync, Errno::IO, &tenant.id()?, LOG)?;
    sign(&tenant, "two")?.expect(500)?;
    is_in_quarantine(&tenant)?;
    database(&tenant, "PUT", "", &copy)?.expect(200)?;
    sign(&tenant, "three")?.expect(201)?;
    let listed = node.admin("GET", "/v1/tenants", b"")?.expect(200)?.json()?;
    assert_eq!(listed.pointer("/tenants/0/quarantined"), Some(&json!(false)));
    assert_eq!(node.metric("dormouse_databases_quarantined")?, 1.0);
    let refused = database(&tenant, "POST", "/revert", b"")?.expect(503)?;
    assert_eq!(problem_of(&refused)?, "database-quarantined");
    comes_back(&tenant)?;
    database(&tenant, "POST", "/revert", b"")?.expect(200)?;
    are_there(&tenant, &["one"], "two")?;
    assert_eq!(node.metric("dormouse_databases_quarantined")?, 0.0);
    Ok(())
}

#[test]
fn a_database_with_many_tables_is_recovered() -> Result<()> {
    let faults = Faults::new()?;
    let node = flushing_each(&faults).start()?;
    node.expect_log("is in quarantine");
    let tenant = node.tenant("guestbook")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("many.db");
    sqlite::make_tables(&file, 800)?;
    database(&tenant, "PUT", "", &fs::read(&file)?)?.expect(200)?;
    faults.once(Call::Sync, Errno::IO, &tenant.id()?, LOG)?;
    tenant.try_sql("INSERT INTO t0 (b) VALUES ('x')", &json!([]))?.expect(503)?;
    tenant.wait_for_state("quarantined")?;
    let answer = recover(&tenant)?.expect(200)?.json()?;
    assert_eq!(answer.get("recovered"), Some(&json!(true)));
    tenant.sql("INSERT INTO t0 (b) VALUES ('x')")?;
    Ok(())
}
