//! A tenant's database as a file: exported under load, imported, and taken back.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use dormouse::database::Value as Stored;
use dormouse_tests::client::{Connection, Response};
use dormouse_tests::{Stop, Tenant, TestNode, eventually, problem_of, sqlite};
use serde_json::{Value, json};

use crate::cli::{command, fails, run};
use crate::disk::database_of;
use crate::{SHIPPED, TIGHT};

fn export(tenant: &Tenant<'_>) -> Result<Response> {
    tenant.node.admin("GET", &format!("/v1/tenants/{}/database", tenant.name), b"")
}

/// An export, in a file.
fn exported(tenant: &Tenant<'_>, folder: &Path) -> Result<std::path::PathBuf> {
    let answer = export(tenant)?.expect(200)?;
    ensure!(answer.header("content-type") == Some("application/vnd.sqlite3"), "{:?}", answer.headers);
    let file = folder.join("exported.db");
    fs::write(&file, answer.body)?;
    Ok(file)
}

/// Two rows for each number, written together.
fn write_pair(tenant: &Tenant<'_>, number: i64) -> Result<()> {
    let insert = |table: &str| format!("INSERT INTO {table} VALUES ({number}, '{}')", "x".repeat(500));
    let answers =
        tenant.guest_statements(&["BEGIN IMMEDIATE", &insert("one"), &insert("other"), "COMMIT"])?;
    let failed = answers.iter().find(|answer| answer.get("error").is_some_and(|error| !error.is_null()));
    ensure!(failed.is_none(), "{failed:?}");
    Ok(())
}

fn pairs(tenant: &Tenant<'_>) -> Result<()> {
    for table in ["one", "other"] {
        tenant.sql(&format!("CREATE TABLE {table} (number INTEGER PRIMARY KEY, filling TEXT)"))?;
    }
    Ok(())
}

#[test]
fn an_export_under_load_is_consistent_and_whole() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 30).start()?;
    let tenant = node.tenant("misbehave")?;
    pairs(&tenant)?;
    let (next, stop, acknowledged) = (AtomicI64::new(1), AtomicBool::new(false), AtomicI64::new(0));
    let folder = tempfile::tempdir()?;
    thread::scope(|scope| -> Result<()> {
        let writer = || -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                write_pair(&tenant, next.fetch_add(1, Ordering::SeqCst))?;
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        };
        let writers: Vec<_> = (0..3).map(|_| scope.spawn(writer)).collect();
        let checked = (0..12).try_for_each(|_| {
            let before = acknowledged.load(Ordering::SeqCst);
            let file = exported(&tenant, folder.path())?;
            sqlite::is_sound(&file)?;
            let (one, other) = (
                sqlite::number(&file, "SELECT count(*) FROM one")?,
                sqlite::number(&file, "SELECT count(*) FROM other")?,
            );
            let apart = sqlite::number(
                &file,
                "SELECT count(*) FROM one FULL JOIN other USING (number) WHERE one.filling IS NULL OR other.filling IS NULL",
            )?;
            ensure!(one == other && apart == 0, "half of a transaction: {one} and {other}, {apart} alone");
            ensure!(one >= before, "{before} were acknowledged before, {one} are there");
            fs::remove_file(&file)?;
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().ok().context("a writer failed")??;
        }
        checked
    })?;
    // The checkpoints that were kept off are made in the end.
    let shown = tenant.wait_for_state("closed")?;
    assert_eq!(shown.pointer("/database/wal_bytes"), Some(&json!(0)), "{shown}");
    assert_eq!(tenant.number("SELECT count(*) FROM one")?, acknowledged.load(Ordering::SeqCst));
    Ok(())
}

#[test]
fn new_parked_and_closed_databases_are_exported() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 1_500).start()?;
    let folder = tempfile::tempdir()?;
    let tenant = node.tenant("misbehave")?;
    let file = exported(&tenant, folder.path())?;
    sqlite::is_sound(&file)?;
    assert_eq!(sqlite::number(&file, "SELECT count(*) FROM sqlite_schema")?, 0);
    fs::remove_file(&file)?;

    tenant.sql("CREATE TABLE t AS SELECT 7 AS n")?;
    tenant.wait_for_state("parked")?;
    let file = exported(&tenant, folder.path())?;
    assert_eq!(sqlite::number(&file, "SELECT n FROM t")?, 7);
    fs::remove_file(&file)?;

    tenant.wait_for_state("closed")?;
    let file = exported(&tenant, folder.path())?;
    assert_eq!(sqlite::number(&file, "SELECT n FROM t")?, 7);
    tenant.wait_for_state("closed")?;
    Ok(())
}

#[test]
fn an_unchanged_database_is_not_sent_again() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t AS SELECT 7 AS n")?;
    let path = format!("/v1/tenants/{}/database", tenant.name);
    let bearer = format!("Bearer {}", node.token()?);
    let ask = |tag: &str| {
        node.admin_request("GET", &path, &[("authorization", &bearer), ("if-none-match", tag)], b"")
    };
    let tag = |answer: &Response| answer.header("etag").map(str::to_owned).context("no tag");
    let first = export(&tenant)?.expect(200)?;
    let known = tag(&first)?;
    let same = ask(&known)?.expect(304)?;
    assert_eq!(tag(&same)?, known);
    assert_eq!(same.header("dormouse-database"), first.header("dormouse-database"));

    tenant.sql("UPDATE t SET n = 8")?;
    let second = ask(&known)?.expect(200)?;
    ensure!(tag(&second)? != known);
    tenant.wait_for_state("closed")?;
    // Of the same size, and nothing in the log.
    tenant.sql("UPDATE t SET n = 9")?;
    tenant.wait_for_state("closed")?;
    ask(&tag(&second)?)?.expect(200)?;
    Ok(())
}

#[test]
fn a_reader_that_does_not_end_is_told_of() -> Result<()> {
    let node = TestNode::start()?;
    let tenant = node.tenant("misbehave")?;
    pairs(&tenant)?;
    // A read transaction from before the next commit keeps that out of the database file.
    let mut reader = tenant.node.connect()?;
    let statements = json!({ "statements": [
        { "sql": "BEGIN" }, { "sql": "SELECT count(*) FROM one" },
        { "sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n" },
        { "sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n" },
        { "sql": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n" },
    ] });
    reader.request("POST", &tenant.path("/sql"), &[], statements.to_string().as_bytes())?;
    tenant.wait_for_state("leased")?;
    // The first commits may come before it reads.
    let number = AtomicI64::new(0);
    let refused = eventually("an export is refused", || {
        write_pair(&tenant, number.fetch_add(1, Ordering::SeqCst))?;
        let answer = export(&tenant)?;
        Ok((answer.status != 200).then_some(answer))
    })?
    .expect(503)?;
    assert_eq!(problem_of(&refused)?, "database-busy");
    ensure!(refused.header("retry-after").is_some());
    reader.response("POST")?.expect(200)?;
    export(&tenant)?.expect(200)?;
    Ok(())
}

#[test]
fn a_slow_download_holds_up_nobody() -> Result<()> {
    let node = TestNode::start()?;
    let tenant = node.tenant("misbehave")?;
    pairs(&tenant)?;
    tenant.sql("CREATE TABLE large AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 24) SELECT randomblob(1000000) AS b FROM n")?;
    let mut slow = Connection::open(node.admin_address()?)?;
    let bearer = format!("Bearer {}", node.token()?);
    let path = format!("/v1/tenants/{}/database", tenant.name);
    slow.request("GET", &path, &[("authorization", &bearer)], b"")?;
    let mut head = slow.head("GET")?;
    for number in 0..50 {
        write_pair(&tenant, number)?;
    }
    // One at a time: the next one's checkpoint would change what the first one reads.
    let refused = export(&tenant)?.expect(503)?;
    assert_eq!(problem_of(&refused)?, "database-busy");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("slow.db");
    fs::write(&file, slow.rest(&mut head)?)?;
    sqlite::is_sound(&file)?;
    assert_eq!(sqlite::number(&file, "SELECT count(*) FROM one")?, 0);
    let file = exported(&tenant, folder.path())?;
    assert_eq!(sqlite::number(&file, "SELECT count(*) FROM one")?, 50);
    // A client that goes away lets go of the checkpoints.
    slow.request("GET", &path, &[("authorization", &bearer)], b"")?;
    slow.head("GET")?;
    drop(slow);
    write_pair(&tenant, 50)?;
    let shown = tenant.wait_for_state("closed")?;
    assert_eq!(shown.pointer("/database/wal_bytes"), Some(&json!(0)), "{shown}");
    Ok(())
}

#[test]
fn a_database_in_quarantine_is_not_exported() -> Result<()> {
    let node = TestNode::builder().flag("--park-time-max-ms", 10).start()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t (a)")?;
    tenant.wait_for_state("closed")?;
    node.expect_log("is in quarantine");
    fs::write(database_of(&tenant)?, b"noise".repeat(1_000))?;
    let refused = export(&tenant)?;
    assert_eq!(problem_of(&refused)?, "database-quarantined");
    Ok(())
}

#[test]
fn the_command_exports_to_a_file() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t AS SELECT 7 AS n")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("acme.db");
    let path = file.display().to_string();
    let arguments = ["tenant", "export-db", &tenant.name, &path];
    let said = run(&node, &arguments)?;
    ensure!(said.stdout.contains(&path), "{}", said.stdout);
    assert_eq!(sqlite::number(&file, "SELECT n FROM t")?, 7);

    tenant.sql("UPDATE t SET n = 8")?;
    let said = fails(&command(&node, &arguments)?.output()?)?;
    ensure!(said.contains("--force"), "{said}");
    run(&node, &["tenant", "export-db", &tenant.name, &path, "--force"])?;
    assert_eq!(sqlite::number(&file, "SELECT n FROM t")?, 8);

    let missing = folder.path().join("missing.db").display().to_string();
    fails(&command(&node, &["tenant", "export-db", "nobody", &missing])?.output()?)?;
    let left: Vec<_> = fs::read_dir(folder.path())?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left.iter().all(|name| name.to_string_lossy().starts_with("acme.db")), "{left:?}");
    Ok(())
}

fn import(tenant: &Tenant<'_>, file: &Path) -> Result<Response> {
    tenant.node.admin("PUT", &format!("/v1/tenants/{}/database", tenant.name), &fs::read(file)?)
}

fn revert(tenant: &Tenant<'_>) -> Result<Response> {
    tenant.node.admin("POST", &format!("/v1/tenants/{}/database/revert", tenant.name), b"")
}

/// Makes a file as another program would, with pages of another size and no log.
fn foreign(path: &Path, statements: &[&str]) -> Result<()> {
    sqlite::make(path, &[])?;
    sqlite::run(
        path,
        &["PRAGMA journal_mode=DELETE", "PRAGMA page_size=512", "PRAGMA auto_vacuum=NONE", "VACUUM"],
    )?;
    sqlite::run(path, statements)?;
    Ok(())
}

#[test]
fn what_is_imported_is_what_requests_see() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t AS SELECT 1 AS n")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("foreign.db");
    foreign(
        &file,
        &[
            "CREATE TABLE t (n INTEGER CHECK (n > 0), d AS (n * 2) STORED)",
            "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE) STRICT",
            "CREATE INDEX upper_names ON counted (upper(name)) WHERE name IS NOT NULL",
            "CREATE VIEW doubled AS SELECT d FROM t",
            "CREATE TRIGGER count_them AFTER INSERT ON t BEGIN INSERT INTO counted (name) VALUES (new.n); END",
            "INSERT INTO t (n) VALUES (7), (8)",
            "ANALYZE",
            "PRAGMA user_version = 5",
        ],
    )?;
    import(&tenant, &file)?.expect(200)?;
    let answer = tenant.guest_sql("SELECT n, d FROM t ORDER BY n")?;
    ensure!(answer.to_string().contains("14"), "{answer}");
    assert_eq!(tenant.sql("SELECT d FROM doubled")?, json!([[14], [16]]));
    assert_eq!(tenant.sql("PRAGMA user_version")?, json!([[5]]));
    assert_eq!(tenant.sql("PRAGMA integrity_check")?, json!([["ok"]]));
    tenant.sql("INSERT INTO t (n) VALUES (9)")?;
    assert_eq!(tenant.number("SELECT max(id) FROM counted")?, 3);

    // A file of the node's own making comes back as it was.
    let export = exported(&tenant, folder.path())?;
    assert_eq!(sqlite::run(&export, &["PRAGMA page_size"])?, [[Stored::Integer(4_096)]]);
    assert_eq!(sqlite::run(&export, &["PRAGMA auto_vacuum"])?, [[Stored::Integer(2)]]);
    tenant.sql("DELETE FROM t")?;
    import(&tenant, &export)?.expect(200)?;
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 3);
    Ok(())
}

#[test]
fn many_tables_are_imported() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("many.db");
    sqlite::make_tables(&file, 800)?;
    import(&tenant, &file)?.expect(200)?;
    assert_eq!(tenant.number("SELECT count(*) FROM sqlite_schema WHERE type = 'table'")?, 800);
    Ok(())
}

#[test]
fn an_import_is_taken_back_and_again() -> Result<()> {
    let mut node = TestNode::start()?;
    let folder = tempfile::tempdir()?;
    let (one, two) = (folder.path().join("one.db"), folder.path().join("two.db"));
    sqlite::make(&one, &["CREATE TABLE t AS SELECT 1 AS n"])?;
    sqlite::make(&two, &["CREATE TABLE t AS SELECT 2 AS n"])?;
    let name = {
        let tenant = node.tenant("misbehave")?;
        tenant.sql("CREATE TABLE t AS SELECT 0 AS n")?;
        assert_eq!(problem_of(&revert(&tenant)?.expect(409)?)?, "no-previous-database");
        import(&tenant, &one)?.expect(200)?;
        assert_eq!(tenant.number("SELECT n FROM t")?, 1);
        revert(&tenant)?.expect(200)?;
        assert_eq!(tenant.number("SELECT n FROM t")?, 0);
        tenant.sql("UPDATE t SET n = 10")?;
        revert(&tenant)?.expect(200)?;
        assert_eq!(tenant.number("SELECT n FROM t")?, 1);
        import(&tenant, &two)?.expect(200)?;
        assert_eq!(tenant.number("SELECT n FROM t")?, 2);
        tenant.name
    };
    node.restart(Stop::Terminate)?;
    let tenant = Tenant { node: &node, name };
    revert(&tenant)?.expect(200)?;
    assert_eq!(tenant.number("SELECT n FROM t")?, 1);
    tenant.guest_sql("UPDATE t SET n = 11")?;
    assert_eq!(tenant.number("SELECT n FROM t")?, 11);
    // Two files, and nothing else, are kept.
    let id = tenant.id()?;
    let files = crate::parking::files_below(&node.data().join("tenants"))?;
    let files: Vec<_> = files.into_iter().filter(|(file, _)| file.to_string_lossy().contains(&id)).collect();
    let is_database = |(file, _): &&(std::path::PathBuf, u64)| file.extension().is_some_and(|e| e == "db");
    ensure!(files.iter().filter(is_database).count() == 2, "{files:?}");
    ensure!(files.len() <= 4, "{files:?}");
    Ok(())
}

/// A refusal with 422 that says `reason`, after which the tenant has what it had.
fn is_refused(tenant: &Tenant<'_>, file: &Path, reason: &str) -> Result<()> {
    let refused = import(tenant, file)?.expect(422).with_context(|| reason.to_owned())?;
    assert_eq!(problem_of(&refused)?, "bad-database");
    ensure!(refused.text().contains(reason), "{reason:?} is not in {}", refused.text());
    assert_eq!(tenant.number("SELECT n FROM t")?, 1);
    Ok(())
}

#[test]
fn what_is_no_database_is_refused() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t AS SELECT 1 AS n")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file.db");
    let sound = folder.path().join("sound.db");
    sqlite::make(
        &sound,
        &["CREATE TABLE t AS SELECT 2 AS n", "CREATE TABLE u AS SELECT randomblob(20000) AS b"],
    )?;
    let sound = fs::read(&sound)?;
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(20_000).collect();
    let cut = sound.get(..sound.len() - 4_096).context("too small")?;
    let mut damaged = sound.clone();
    damaged.get_mut(4_096..8_192).context("too small")?.fill(0xff);
    for (bytes, reason) in [
        (b"".as_slice(), "no SQLite database"),
        (b"SQLite format 3\0", "no SQLite database"),
        (&noise, "encrypted"),
        (cut, "cut off"),
        (&damaged, "damaged"),
    ] {
        fs::write(&file, bytes)?;
        if reason == "damaged" {
            import(&tenant, &file)?.expect(422)?;
        } else {
            is_refused(&tenant, &file, reason)?;
        }
    }
    let utf16 = folder.path().join("utf16.db");
    sqlite::make(&utf16, &["PRAGMA journal_mode=DELETE"])?;
    let mut bytes = fs::read(&utf16)?;
    *bytes.get_mut(59).context("no header")? = 2;
    fs::write(&file, bytes)?;
    is_refused(&tenant, &file, "UTF-16")?;
    // Nothing stays behind.
    let id = tenant.id()?;
    let files = crate::parking::files_below(&node.data().join("tenants"))?;
    let mut left = files.iter().filter(|(file, _)| file.to_string_lossy().contains(&id));
    ensure!(
        left.all(|(file, _)| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("1.db")))
    );
    Ok(())
}

#[test]
fn a_schema_that_sql_could_not_have_made_is_refused() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t AS SELECT 1 AS n")?;
    let folder = tempfile::tempdir()?;
    let row = |kind: &str, name: &str, page: u32, sql: &str| {
        format!("INSERT INTO sqlite_schema VALUES ('{kind}', '{name}', '{name}', {page}, '{sql}')")
    };
    let written =
        |row: String| vec!["CREATE TABLE t (n)".to_owned(), "PRAGMA writable_schema=ON".to_owned(), row];
    let made = |sql: &str| vec![sql.to_owned()];
    for (number, (statements, reason)) in [
        (made("CREATE TABLE _dormouse_kv (k)"), "reserved"),
        (made("CREATE TABLE _DORMOUSE_Other (k)"), "reserved"),
        (made("CREATE TABLE a (b CHECK (json_patch(b, b) > 1))"), "json_patch"),
        (made("CREATE TABLE a (b, c AS (concat_ws(b, b, b)))"), "concat_ws"),
        (
            vec!["CREATE TABLE a (b)".to_owned(), "CREATE INDEX i ON a (json_patch(b, b))".to_owned()],
            "json_patch",
        ),
        (
            vec![
                "CREATE TABLE a (b)".to_owned(),
                "CREATE INDEX i ON a (b) WHERE concat_ws('', b, b) > 'b'".to_owned(),
            ],
            "concat_ws",
        ),
        (
            vec![
                "CREATE TABLE a (b)".to_owned(),
                "CREATE TRIGGER _dormouse_t AFTER INSERT ON a BEGIN SELECT 1; END".to_owned(),
            ],
            "reserved",
        ),
        (written(row("table", "v", 0, "CREATE VIRTUAL TABLE v USING fts5(a)")), "virtual table"),
        (written(row("table", "v", 0, "CREATE VIRTUAL TABLE v USING dbstat(a)")), "virtual table"),
        (written(row("table", "other", 2, "CREATE TABLE _dormouse_kv (k)")), "schema"),
        (written(row("table", "other", 2, "CREATE TABLE another (k)")), "schema"),
        (written(row("table", "sqlite_own", 2, "CREATE TABLE sqlite_own (k)")), "sqlite_own"),
        (written(row("view", "v", 0, "CREATE TABLE v (k)")), "schema"),
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.path().join(format!("{number}.db"));
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        sqlite::make(&file, &statements).with_context(|| format!("{statements:?}"))?;
        is_refused(&tenant, &file, reason).with_context(|| format!("{statements:?}"))?;
    }
    Ok(())
}

#[test]
fn an_imported_default_reaches_no_function_that_is_not_allowed() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file.db");
    // SQLite asks nobody about it before it runs.
    sqlite::make(&file, &["CREATE TABLE t (a, b DEFAULT (concat_ws('-', 'a', 'b')))"])?;
    import(&tenant, &file)?.expect(200)?;
    let refused = tenant.try_sql("INSERT INTO t (a) VALUES (1)", &json!([]))?.expect(422)?;
    ensure!(refused.text().contains("not allowed"), "{}", refused.text());
    Ok(())
}

#[test]
fn what_is_too_large_is_refused() -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t AS SELECT 1 AS n")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("large.db");
    sqlite::make(&file, &["CREATE TABLE large AS SELECT randomblob(300000) AS b"])?;
    let bearer = format!("Bearer {}", node.token()?);
    let path = format!("/v1/tenants/{}/database", tenant.name);
    let mut connection = Connection::open(node.admin_address()?)?;
    connection.send(format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\ncontent-length: 262145\r\n\r\n"
    ))?;
    let refused = connection.response("PUT")?.expect(413)?;
    assert_eq!(problem_of(&refused)?, "database-too-large");
    ensure!(refused.text().contains("229376"), "{}", refused.text());
    // In chunks, its size comes as a surprise.
    let mut connection = Connection::open(node.admin_address()?)?;
    connection.chunked_request("PUT", &path, &[("authorization", &bearer)])?;
    for part in fs::read(&file)?.chunks(32 << 10).take(9) {
        connection.chunk(part)?;
    }
    connection.response("PUT")?.expect(413)?;
    // Many small tables take a page each, and pages here are larger.
    let small = folder.path().join("small.db");
    let tables: Vec<String> = (0..100).map(|n| format!("CREATE TABLE t{n} (a)")).collect();
    foreign(&small, &tables.iter().map(String::as_str).collect::<Vec<_>>())?;
    is_refused(&tenant, &small, "229376")?;
    Ok(())
}

#[test]
fn what_is_acknowledged_during_an_import_is_in_the_new_database_or_came_before() -> Result<()> {
    let node = TestNode::start()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE w (generation, number)")?;
    tenant.sql("CREATE TABLE g AS SELECT 0 AS generation")?;
    let folder = tempfile::tempdir()?;
    let (next, stop) = (AtomicI64::new(1), AtomicBool::new(false));
    let rounds = 8;
    let acknowledged = thread::scope(|scope| -> Result<Vec<(i64, i64)>> {
        // Each says which generation it meets, in the transaction that writes.
        let writer = || -> Result<Vec<(i64, i64)>> {
            let mut acknowledged = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::SeqCst);
                let insert = format!("INSERT INTO w SELECT generation, {number} FROM g");
                let read = format!("SELECT generation FROM w WHERE number = {number}");
                let answers = tenant.guest_statements(&["BEGIN IMMEDIATE", &insert, &read, "COMMIT"])?;
                let failed =
                    answers.iter().any(|answer| answer.get("error").is_some_and(|error| !error.is_null()));
                if !failed {
                    let found =
                        answers.get(2).and_then(|answer| answer.pointer("/rows/0/0")).and_then(Value::as_i64);
                    acknowledged.push((found.with_context(|| format!("{answers:?}"))?, number));
                }
            }
            Ok(acknowledged)
        };
        let writers: Vec<_> = (0..4).map(|_| scope.spawn(writer)).collect();
        let imported = (1..=rounds).try_for_each(|round| {
            let file = folder.path().join(format!("{round}.db"));
            sqlite::make(
                &file,
                &[
                    "CREATE TABLE w (generation, number)",
                    &format!("CREATE TABLE g AS SELECT {round} AS generation"),
                ],
            )?;
            import(&tenant, &file)?.expect(200)?;
            Ok::<_, anyhow::Error>(())
        });
        stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for writer in writers {
            all.extend(writer.join().ok().context("a writer failed")??);
        }
        imported.map(|()| all)
    })?;
    // The last database has all that was acknowledged in it, and the one before too.
    for generation in [rounds, rounds - 1] {
        let rows = tenant.sql("SELECT number FROM w")?;
        let found: std::collections::BTreeSet<i64> = rows
            .as_array()
            .context("no rows")?
            .iter()
            .filter_map(|row| row.pointer("/0")?.as_i64())
            .collect();
        for (_, number) in acknowledged.iter().filter(|(of, _)| *of == generation) {
            ensure!(found.contains(number), "generation {generation} has lost {number}");
        }
        revert(&tenant)?.expect(200)?;
    }
    ensure!(acknowledged.len() > 20, "hardly anything was written: {}", acknowledged.len());
    Ok(())
}

#[test]
fn an_import_that_is_killed_leaves_one_or_the_other() -> Result<()> {
    let mut node = TestNode::start()?;
    let folder = tempfile::tempdir()?;
    let name = {
        let tenant = node.tenant("misbehave")?;
        tenant.sql("CREATE TABLE t AS SELECT 0 AS n")?;
        tenant.name
    };
    let mut last = 0;
    for round in 1..=12_u64 {
        let file = folder.path().join("next.db");
        let _ = fs::remove_file(&file);
        sqlite::make(
            &file,
            &[
                &format!("CREATE TABLE t AS SELECT {round} AS n"),
                "CREATE TABLE filling AS SELECT randomblob(900000) AS b",
            ],
        )?;
        let answered = thread::scope(|scope| -> Result<bool> {
            let tenant = Tenant { node: &node, name: name.clone() };
            let import = scope.spawn(move || import(&tenant, &file).is_ok_and(|answer| answer.status == 200));
            // Not a wait for a state: the moment is what is drawn.
            thread::sleep(std::time::Duration::from_millis(fastrand::u64(0..60)));
            rustix::process::kill_process(node.pid()?, rustix::process::Signal::KILL)?;
            import.join().ok().context("the client failed")
        })?;
        node.restart(Stop::Kill)?;
        let tenant = Tenant { node: &node, name: name.clone() };
        let found = tenant.number("SELECT n FROM t")?;
        let round = i64::try_from(round)?;
        ensure!(found == round || (found == last && !answered), "{last}, then {round}: {found}, {answered}");
        last = found;
        assert_eq!(tenant.sql("PRAGMA integrity_check")?, json!([["ok"]]));
        let id = tenant.id()?;
        let files = crate::parking::files_below(&node.data().join("tenants"))?;
        let of_tenant = files.iter().filter(|(file, _)| file.to_string_lossy().contains(&id));
        let names: Vec<_> = of_tenant.filter_map(|(file, _)| file.file_name()?.to_str()).collect();
        ensure!(names.len() <= 4 && !names.iter().any(|name| name.ends_with("upload")), "{names:?}");
    }
    Ok(())
}

#[test]
fn the_command_imports_and_reverts() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t AS SELECT 1 AS n")?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("acme.db");
    sqlite::make(&file, &["CREATE TABLE t AS SELECT 2 AS n"])?;
    let path = file.display().to_string();
    let said = run(&node, &["tenant", "import-db", &tenant.name, &path])?;
    ensure!(said.stdout.contains("imported") && said.stderr.contains("revert-db"), "{said:?}");
    assert_eq!(tenant.number("SELECT n FROM t")?, 2);
    let shown = run(&node, &["tenant", "show", &tenant.name])?.stdout;
    ensure!(shown.contains("revert-db"), "{shown}");
    let unused = format!("{}-unused", tenant.name);
    node.create_tenant(&unused)?;
    let said = run(&node, &["tenant", "import-db", &unused, &path])?;
    ensure!(said.stdout.contains("imported") && !said.stderr.contains("revert-db"), "{said:?}");
    run(&node, &["tenant", "revert-db", &tenant.name])?;
    assert_eq!(tenant.number("SELECT n FROM t")?, 1);
    fs::write(&file, b"no database")?;
    let said = fails(&command(&node, &["tenant", "import-db", &tenant.name, &path])?.output()?)?;
    ensure!(said.contains("no SQLite database"), "{said}");
    Ok(())
}
