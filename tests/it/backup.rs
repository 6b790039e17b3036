//! Backups of a node under load, and the node that comes back from one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use dormouse_tests::{Stop, Tenant, TestNode, binary, guest, sqlite};
use serde_json::{Value, json};

use crate::cli::{command, fails};
use crate::disk::database_of;
use crate::parking::files_below;

fn backup(node: &TestNode, folder: &Path, more: &[&str]) -> Result<Command> {
    let mut command = command(node, &["backup"])?;
    command.arg(folder).arg("--data").arg(node.data()).args(more);
    Ok(command)
}

fn backed_up(node: &TestNode, folder: &Path, more: &[&str]) -> Result<String> {
    let ended = backup(node, folder, more)?.output()?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(String::from_utf8(ended.stdout)?)
}

fn restore(folder: &Path, data: &Path) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.arg("restore").arg(folder).arg("--data").arg(data);
    Ok(command)
}

fn restored(folder: &Path, data: &Path) -> Result<String> {
    let ended = restore(folder, data)?.output()?;
    ensure!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Ok(String::from_utf8(ended.stderr)?)
}

fn manifest(folder: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(folder.join("backup.json"))?)?)
}

/// The file of a tenant's database in a backup.
fn copy_of(folder: &Path, tenant: &str) -> Result<PathBuf> {
    let manifest = manifest(folder)?;
    let databases = manifest.get("databases").and_then(Value::as_array).context("no databases")?;
    let of_tenant = |entry: &&Value| entry.get("tenant").and_then(Value::as_str) == Some(tenant);
    let file = databases.iter().find(of_tenant).and_then(|entry| entry.get("file")?.as_str());
    Ok(folder.join(file.with_context(|| format!("no {tenant}"))?))
}

fn named<'a>(node: &'a TestNode, name: &str) -> Tenant<'a> {
    Tenant { node, name: name.to_owned() }
}

fn sign(tenant: &Tenant<'_>, message: &str) -> Result<()> {
    tenant.post("", &json!({ "name": "Ada", "message": message }))?.expect(201)?;
    Ok(())
}

#[test]
fn a_node_comes_back_from_a_backup_that_was_made_under_load() -> Result<()> {
    let node = TestNode::start()?;
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy");
    let books: Vec<String> = (0..4).map(|n| format!("book-{n}")).collect();
    for book in &books {
        node.create_tenant(book)?;
        node.deploy(book, "fn", &guest("guestbook")?)?;
        (0..5).try_for_each(|n| sign(&named(&node, book), &format!("before {n}")))?;
    }
    let secret = node.tenant("spin2")?;
    secret.set_variable("key", &json!({ "value": "unsealed", "secret": true }))?;
    let stop = AtomicBool::new(false);
    let said = thread::scope(|scope| -> Result<String> {
        let writers: Vec<_> = books
            .iter()
            .map(|book| {
                scope.spawn(|| -> Result<()> {
                    while !stop.load(Ordering::Relaxed) {
                        sign(&named(&node, book), "meanwhile")?;
                    }
                    Ok(())
                })
            })
            .collect();
        let comings = scope.spawn(|| -> Result<()> {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("coming-{n}");
                node.create_tenant(&name)?;
                if n % 2 == 0 {
                    node.admin("DELETE", &format!("/v1/tenants/{name}"), b"")?.expect(204)?;
                }
                thread::sleep(std::time::Duration::from_millis(40));
            }
            Ok(())
        });
        let said = backed_up(&node, &copy, &[]);
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().ok().context("a writer failed")??;
        }
        comings.join().ok().context("a thread failed")??;
        said
    })?;
    ensure!(said.contains("copied") && said.contains("checked"), "{said}");
    for (path, _) in files_below(&copy)?.iter().filter(|(path, _)| path.starts_with(copy.join("keys"))) {
        assert_eq!(fs::metadata(path)?.permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    assert_eq!(fs::metadata(&copy)?.permissions().mode() & 0o777, 0o700);

    let place = tempfile::tempdir()?;
    let told = restored(&copy, &place.path().join("data"))?;
    ensure!(told.contains("dormouse serve --data"), "{told}");
    let back = TestNode::builder().start_in(place.path())?;
    assert_eq!(back.token()?, node.token()?);
    for book in &books {
        let tenant = named(&back, book);
        let rows = tenant.sql("SELECT message FROM entries ORDER BY id LIMIT 5")?;
        assert_eq!(rows, json!((0..5).map(|n| [format!("before {n}")]).collect::<Vec<_>>()));
        assert_eq!(tenant.sql("PRAGMA integrity_check")?, json!([["ok"]]));
        sign(&tenant, "afterwards")?;
        ensure!(tenant.get("")?.expect(200)?.text().contains("afterwards"));
    }
    let variable = named(&back, &secret.name).json("/variable/key")?;
    ensure!(variable.to_string().contains("unsealed"), "{variable}");
    let compiled = back.logs().matching(|line| line.text.contains("compiling for this version"));
    ensure!(compiled.is_empty(), "a request waited for the compiler: {compiled:?}");
    Ok(())
}

#[test]
fn the_next_backup_copies_what_has_changed() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 30).start()?;
    let folder = tempfile::tempdir()?;
    for n in 0..6 {
        node.create_tenant(&format!("tenant-{n}"))?;
        named(&node, &format!("tenant-{n}")).sql("CREATE TABLE t AS SELECT 1 AS n")?;
    }
    node.deploy("tenant-0", "fn", &guest("hello")?)?;
    let said = backed_up(&node, folder.path(), &[])?;
    ensure!(said.contains("6 databases copied") && said.contains("0 unchanged"), "{said}");
    let before = copy_of(folder.path(), "tenant-3")?;

    named(&node, "tenant-3").sql("UPDATE t SET n = 2")?;
    node.create_tenant("tenant-6")?;
    named(&node, "tenant-6").sql("CREATE TABLE t AS SELECT 1 AS n")?;
    node.create_tenant("unused")?;
    node.admin("DELETE", "/v1/tenants/tenant-5", b"")?.expect(204)?;
    let said = backed_up(&node, folder.path(), &["--verify", "all"])?;
    ensure!(said.contains("2 databases copied") && said.contains("4 unchanged"), "{said}");
    let after = copy_of(folder.path(), "tenant-3")?;
    assert_eq!(sqlite::number(&after, "SELECT n FROM t")?, 2);
    ensure!(!before.exists(), "what the first backup alone needs is still there");
    ensure!(copy_of(folder.path(), "tenant-5").is_err());

    for n in [0, 1, 2, 3, 4, 6] {
        named(&node, &format!("tenant-{n}")).wait_for_state("closed")?;
    }
    let said = backed_up(&node, folder.path(), &[])?;
    ensure!(said.contains("0 databases copied") && said.contains("6 unchanged"), "{said}");
    Ok(())
}

#[test]
fn an_import_is_backed_up_and_its_way_back_is_not() -> Result<()> {
    let node = TestNode::start()?;
    let folder = tempfile::tempdir()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t AS SELECT 1 AS n")?;
    let file = folder.path().join("import.db");
    sqlite::make(&file, &["CREATE TABLE t AS SELECT 2 AS n"])?;
    let path = format!("/v1/tenants/{}/database", tenant.name);
    node.admin("PUT", &path, &fs::read(&file)?)?.expect(200)?;
    let copy = folder.path().join("copy");
    backed_up(&node, &copy, &[])?;
    restored(&copy, &folder.path().join("data"))?;
    let back = TestNode::builder().start_in(folder.path())?;
    assert_eq!(named(&back, &tenant.name).number("SELECT n FROM t")?, 2);
    back.admin("POST", &format!("{path}/revert"), b"")?.expect(409)?;
    back.admin("PUT", &path, &fs::read(&file)?)?.expect(200)?;
    back.admin("POST", &format!("{path}/revert"), b"")?.expect(200)?;
    Ok(())
}

#[test]
fn a_backup_that_is_killed_leaves_the_one_before() -> Result<()> {
    let node = TestNode::start()?;
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy");
    for n in 0..8 {
        let tenant = format!("tenant-{n}");
        node.create_tenant(&tenant)?;
        named(&node, &tenant).sql("CREATE TABLE t AS SELECT 1 AS n, randomblob(900000) AS b")?;
    }
    backed_up(&node, &copy, &[])?;
    for round in 0..6 {
        for n in 0..8 {
            named(&node, &format!("tenant-{n}")).sql("UPDATE t SET n = n + 1, b = randomblob(900000)")?;
        }
        let mut running = backup(&node, &copy, &[])?.stdout(std::process::Stdio::null()).spawn()?;
        // Not a wait for a state: the moment is what is drawn.
        thread::sleep(std::time::Duration::from_millis(fastrand::u64(0..150)));
        running.kill()?;
        running.wait()?;
        let place = folder.path().join(format!("restored-{round}"));
        restored(&copy, &place)?;
    }
    let said = backed_up(&node, &copy, &["--verify", "all"])?;
    ensure!(said.contains("databases copied") || said.contains("unchanged"), "{said}");
    let unfinished =
        files_below(&copy)?.into_iter().any(|(path, _)| path.to_string_lossy().contains("unfinished"));
    ensure!(!unfinished, "what was interrupted stays behind");
    Ok(())
}

#[test]
fn a_tenant_in_quarantine_keeps_its_copy_and_the_others_get_theirs() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 10).start()?;
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy");
    let (acme, other) = (named(&node, "acme"), named(&node, "other"));
    for tenant in [&acme, &other] {
        node.create_tenant(&tenant.name)?;
        tenant.sql("CREATE TABLE t AS SELECT 1 AS n")?;
    }
    backed_up(&node, &copy, &[])?;
    for tenant in [&acme, &other] {
        tenant.sql("UPDATE t SET n = 2")?;
    }
    acme.wait_for_state("closed")?;
    node.expect_log("is in quarantine");
    fs::write(database_of(&acme)?, b"noise".repeat(1_000))?;

    let said = fails(&backup(&node, &copy, &[])?.output()?)?;
    ensure!(said.contains("acme") && said.contains("quarantine"), "{said}");
    assert_eq!(sqlite::number(&copy_of(&copy, "acme")?, "SELECT n FROM t")?, 1);
    assert_eq!(sqlite::number(&copy_of(&copy, "other")?, "SELECT n FROM t")?, 2);
    // Its copy is also the way out: it is imported.
    let path = copy_of(&copy, "acme")?;
    node.admin("PUT", "/v1/tenants/acme/database", &fs::read(path)?)?.expect(200)?;
    assert_eq!(acme.number("SELECT n FROM t")?, 1);
    Ok(())
}

#[test]
fn a_check_constraint_keeps_no_node_from_being_backed_up_and_restored() -> Result<()> {
    let node = TestNode::start()?;
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy");
    let (acme, other) = (named(&node, "acme"), named(&node, "other"));
    for tenant in [&acme, &other] {
        node.create_tenant(&tenant.name)?;
        tenant.sql("CREATE TABLE u (n)")?;
        tenant.sql("INSERT INTO u VALUES (1)")?;
    }
    node.deploy("acme", "fn", &guest("misbehave")?)?;
    // True where a row was written before, false for whoever reads it later.
    let statements = json!({ "statements": [
        { "sql": "CREATE TABLE t (n CHECK (last_insert_rowid() <> 0))" },
        { "sql": "INSERT INTO u VALUES (2)" }, { "sql": "INSERT INTO t VALUES (1)" },
    ] });
    acme.post("/sql", &statements)?.expect(200)?;
    assert_eq!(acme.number("SELECT count(*) FROM t")?, 1);
    backed_up(&node, &copy, &[])?;
    restored(&copy, &folder.path().join("data"))?;
    let back = TestNode::builder().start_in(folder.path())?;
    assert_eq!(named(&back, "acme").number("SELECT n FROM t")?, 1);
    assert_eq!(named(&back, "other").number("SELECT n FROM u")?, 1);
    Ok(())
}

#[test]
fn a_database_that_was_damaged_before_its_backup_is_named_and_the_others_come_back() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 30).start()?;
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy");
    for name in ["acme", "other"] {
        node.create_tenant(name)?;
        named(&node, name).sql("CREATE TABLE t AS SELECT 1 AS n, randomblob(20000) AS b")?;
    }
    backed_up(&node, &copy, &[])?;
    let path = copy_of(&copy, "acme")?;
    let mut bytes = fs::read(&path)?;
    let (before, _) = dormouse::backup::copy(&mut bytes.as_slice(), &mut std::io::sink())?;
    bytes.get_mut(8_192..12_288).context("too small")?.fill(0xff);
    let (after, _) = dormouse::backup::copy(&mut bytes.as_slice(), &mut std::io::sink())?;
    fs::write(&path, &bytes)?;
    let list = copy.join("backup.json");
    fs::write(&list, fs::read_to_string(&list)?.replace(&before, &after))?;

    let said = fails(&restore(&copy, &folder.path().join("data"))?.output()?)?;
    ensure!(said.contains("acme") && !said.contains("other:"), "{said}");
    let back = TestNode::builder().start_in(folder.path())?;
    assert_eq!(named(&back, "other").number("SELECT n FROM t")?, 1);

    named(&node, "acme").wait_for_state("closed")?;
    let said = fails(&backup(&node, &copy, &["--verify", "all"])?.output()?)?;
    ensure!(said.contains("acme") && !said.contains("other:"), "{said}");
    let said = backed_up(&node, &copy, &["--verify", "all"])?;
    ensure!(said.contains("copied"), "{said}");
    Ok(())
}

#[test]
fn a_damaged_backup_is_refused_by_name() -> Result<()> {
    let node = TestNode::start()?;
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy");
    node.create_tenant("acme")?;
    named(&node, "acme").sql("CREATE TABLE t AS SELECT randomblob(50000) AS b")?;
    node.deploy("acme", "fn", &guest("hello")?)?;
    backed_up(&node, &copy, &[])?;
    let place = |n: usize| folder.path().join(format!("restored-{n}"));
    for (n, (path, _)) in files_below(&copy)?.into_iter().enumerate() {
        if path.ends_with("lock") {
            continue;
        }
        let sound = fs::read(&path)?;
        let mut damaged = sound.clone();
        let middle = damaged.len() / 2;
        *damaged.get_mut(middle).context("an empty file")? ^= 0x40;
        if path.ends_with("backup.json") {
            damaged.truncate(middle);
        }
        fs::write(&path, &damaged)?;
        let said = fails(&restore(&copy, &place(n))?.output()?)?;
        let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
        ensure!(said.contains(&name), "{name} is not named: {said}");
        // What a restore has not finished is no data folder.
        if place(n).exists() {
            let (status, said) = TestNode::builder().run_to_its_end(&place(n))?;
            ensure!(!status.success() && said.contains("restore"), "{said}");
        }
        fs::remove_file(&path)?;
        fails(&restore(&copy, &place(n + 100))?.output()?)?;
        fs::write(&path, &sound)?;
    }
    restored(&copy, &place(1_000))?;
    Ok(())
}

#[test]
fn a_backup_removes_nothing_that_is_not_its_own() -> Result<()> {
    let node = TestNode::start()?;
    let folder = tempfile::tempdir()?;
    node.create_tenant("acme")?;
    let copy = folder.path().join("copy");
    fs::create_dir_all(copy.join("lost+found"))?;
    fs::write(copy.join("notes.txt"), "mine")?;
    let said = fails(&backup(&node, &copy, &[])?.output()?)?;
    ensure!(said.contains("notes.txt") && said.contains("a folder of its own"), "{said}");
    assert_eq!(fs::read_dir(&copy)?.count(), 2);

    fs::remove_file(copy.join("notes.txt"))?;
    backed_up(&node, &copy, &[])?;
    let beside = ["notes.txt", "databases/mine.db", "components/mine.wasm", "keys/id_ed25519"];
    beside.iter().try_for_each(|name| fs::write(copy.join(name), "mine"))?;
    let left = copy.join("databases/acme-0123456789abcdef.db");
    fs::write(&left, "of a backup that was interrupted")?;
    backed_up(&node, &copy, &[])?;
    for name in beside {
        ensure!(copy.join(name).exists(), "{name} is gone");
    }
    ensure!(!left.exists());
    Ok(())
}

#[test]
fn a_restore_touches_nothing_that_is_in_use() -> Result<()> {
    let mut node = TestNode::start()?;
    let folder = tempfile::tempdir()?;
    node.create_tenant("acme")?;
    backed_up(&node, folder.path(), &[])?;
    let said = fails(&restore(folder.path(), &node.data())?.output()?)?;
    ensure!(said.contains("not empty"), "{said}");
    node.stop(Stop::Terminate)?;
    fails(&restore(folder.path(), &node.data())?.output()?)?;
    node.restart_after_stop()?;
    named(&node, "acme").sql("SELECT 1")?;
    let nothing = tempfile::tempdir()?;
    let said = fails(&restore(nothing.path(), &nothing.path().join("data"))?.output()?)?;
    ensure!(said.contains("backup.json"), "{said}");
    // A fresh file system is not empty either.
    let fresh = tempfile::tempdir()?;
    fs::create_dir(fresh.path().join("lost+found"))?;
    restored(folder.path(), fresh.path())?;
    Ok(())
}
