//! Hostile SQL: what is denied, what is bounded, and what must work all the same.

use anyhow::{Context, Result, ensure};
use dormouse_tests::{Tenant, TestNode};
use serde_json::{Value, json};

use crate::{SHIPPED, TIGHT};

mod attacks;

in_both_worlds![
    a_result_has_a_largest_size,
    a_statement_that_does_not_end_is_stopped,
    a_client_that_goes_away_stops_its_statement,
    a_full_database_says_so_and_still_reads,
];

fn message(answer: &Value) -> Result<&str> {
    let error = answer.get("error").with_context(|| format!("it was allowed: {answer}"))?;
    error.get("message").and_then(Value::as_str).with_context(|| format!("no message: {answer}"))
}

#[test]
fn a_schema_cannot_hide_what_is_denied() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let denied = |sql: &str| -> Result<()> {
        let answer = tenant.guest_sql(sql)?;
        let message = message(&answer).with_context(|| sql.to_owned())?;
        ensure!(
            message.contains("not authorized") || message.contains("no such function"),
            "{sql}: {message}"
        );
        Ok(())
    };
    tenant.sql("CREATE TABLE t(a)")?;
    // SQLite looks into a view or a trigger when it is used, not when it is made.
    tenant.guest_sql("CREATE VIEW v AS SELECT concat_ws(',', 'a', 'b')")?;
    denied("SELECT * FROM v")?;
    tenant.guest_sql("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT json_patch('{}', '{}'); END")?;
    denied("INSERT INTO t VALUES (1)")?;
    denied("CREATE TABLE u(a, b AS (concat_ws(',', a, a)))")?;
    denied("CREATE TABLE w(a CHECK (concat_ws(',', a, a) = 'x'))")
        .or_else(|_| denied("INSERT INTO w VALUES (1)"))?;
    denied("CREATE INDEX i ON t(concat_ws(',', a, a))")?;
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 0);
    Ok(())
}

#[test]
fn a_default_reaches_no_function_that_is_not_allowed() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    // The authorizer is not asked about a default, neither when the table is made nor when a row is.
    for (number, call) in ["concat_ws('-', 'a', 'b')", "json_patch('{}', '{}')", "jsonb_patch('{}', '{}')"]
        .into_iter()
        .enumerate()
    {
        tenant.guest_sql(&format!("CREATE TABLE d{number} (a, b DEFAULT ({call}))"))?;
        let answer = tenant.guest_sql(&format!("INSERT INTO d{number} (a) VALUES (1)"))?;
        ensure!(message(&answer).context(call)?.contains("not allowed"), "{answer}");
    }
    Ok(())
}

#[test]
fn bound_values_do_not_open_what_text_cannot() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let answer =
        tenant.post("/sql", &json!({ "sql": "ATTACH ? AS other", "params": ["/tmp/x.db"] }))?.expect(200)?;
    ensure!(message(&answer.json()?)?.contains("not authorized"));
    let answer =
        tenant.post("/sql", &json!({ "sql": "VACUUM INTO ?", "params": ["/tmp/x.db"] }))?.expect(200)?;
    ensure!(message(&answer.json()?)?.contains("not authorized"));
    Ok(())
}

#[test]
fn ordinary_sql_works() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let statements = [
        "CREATE TABLE author(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE) STRICT",
        "CREATE TABLE book(id INTEGER PRIMARY KEY, author REFERENCES author(id) ON DELETE CASCADE, title TEXT, \
         tags TEXT DEFAULT '[]', year INT CHECK (year > 0), slug TEXT AS (lower(title)) STORED)",
        "CREATE INDEX book_by_slug ON book(slug) WHERE slug IS NOT NULL",
        "CREATE UNIQUE INDEX book_by_expression ON book(lower(title), year)",
        "CREATE VIEW shelf AS SELECT a.name, b.title FROM book b JOIN author a ON a.id = b.author",
        "CREATE TABLE history(what, at DEFAULT CURRENT_TIMESTAMP)",
        "CREATE TRIGGER noted AFTER INSERT ON book BEGIN INSERT INTO history(what) VALUES (new.title); END",
        "INSERT INTO author(name) VALUES ('Ada') ON CONFLICT(name) DO UPDATE SET name = excluded.name RETURNING id",
        "INSERT INTO book(author, title, tags, year) VALUES (1, 'Notes', json_array('a', 'b'), 1843)",
        "SELECT name, title FROM shelf",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 10) SELECT sum(x) FROM n",
        "SELECT title, row_number() OVER (PARTITION BY author ORDER BY year) FROM book",
        "SELECT tags ->> '$[0]', json_extract(tags, '$[1]'), json_group_array(title) FROM book",
        "SELECT value FROM json_each('[1,2,3]')",
        "SELECT key, atom FROM json_tree('{\"a\":[1]}')",
        "SELECT strftime('%Y', '2025-01-02'), unixepoch('2025-01-02'), printf('%05.1f|%s', 1.25, 'x'), hex('a')",
        "SELECT instr('abc', 'c'), replace('abc', 'b', 'x'), trim('  x '), ltrim('xxa', 'x'), upper('a'), substr('abc', 2)",
        "SELECT group_concat(title, ', '), string_agg(title, ';'), avg(year), total(year) FROM book",
        "ALTER TABLE book ADD COLUMN pages INT",
        "ALTER TABLE book RENAME COLUMN pages TO leaves",
        "ALTER TABLE book DROP COLUMN leaves",
        "ALTER TABLE history RENAME TO log_of_changes",
        "REINDEX",
        "ANALYZE",
        "PRAGMA table_info(book)",
        "SELECT name FROM pragma_table_info('book')",
        "PRAGMA user_version = 3",
        "PRAGMA user_version",
        "PRAGMA foreign_keys = ON",
        "DELETE FROM author",
        "SELECT count(*) FROM book",
        "EXPLAIN QUERY PLAN SELECT * FROM book WHERE slug = 'x'",
        "DROP TRIGGER noted",
        "DROP VIEW shelf",
        "DROP TABLE book",
        "PRAGMA integrity_check",
    ];
    let answers = tenant.guest_statements(&statements)?;
    for (sql, answer) in statements.iter().zip(&answers) {
        ensure!(answer.get("error").is_none(), "{sql}: {answer}");
    }
    let rows = |wanted: &str| statements.iter().zip(&answers).find(|(sql, _)| **sql == wanted)?.1.get("rows");
    assert_eq!(rows("SELECT name, title FROM shelf"), Some(&json!([["Ada", "Notes"]])));
    assert_eq!(rows("SELECT count(*) FROM book"), Some(&json!([[0]])), "the foreign key did not cascade");
    assert_eq!(rows("PRAGMA user_version"), Some(&json!([[3]])));
    assert_eq!(rows("PRAGMA integrity_check"), Some(&json!([["ok"]])));
    Ok(())
}

#[test]
fn values_and_texts_have_a_largest_size() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t(a)")?;
    let long = format!("SELECT 1 /* {} */", "x".repeat(100_000));
    let terms = ["SELECT 1"; 12].join(" UNION ALL ");
    let deep = format!("SELECT {}1{}", "(1+".repeat(200), ")".repeat(200));
    let many = format!("SELECT {}", vec!["1"; 200].join(","));
    for sql in [
        "INSERT INTO t VALUES (zeroblob(2000000))",
        "INSERT INTO t VALUES (randomblob(2000000))",
        "SELECT replace(hex(zeroblob(200000)), '0', '0123456789')",
        &long,
        &terms,
        &deep,
        &many,
    ] {
        let answer = tenant.guest_sql(sql)?;
        message(&answer).with_context(|| sql.chars().take(60).collect::<String>())?;
    }
    let value = "x".repeat(1_100_000);
    let answer =
        tenant.post("/sql", &json!({ "sql": "INSERT INTO t VALUES (?)", "params": [value] }))?.expect(200)?;
    message(&answer.json()?)?;
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 0, "something of them was stored");
    Ok(())
}

fn a_result_has_a_largest_size(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let endless =
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT zeroblob(500000) FROM n";
    let answer = tenant.guest_sql(endless)?;
    let message = message(&answer)?;
    ensure!(message.contains("the result is larger than 16 MiB"), "{message}");
    assert_eq!(tenant.guest_sql("SELECT 1")?.get("rows"), Some(&json!([[1]])));
    Ok(())
}

/// A statement that would run for hours.
const ENDLESS: &str =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n WHERE x < 0";

fn a_statement_that_does_not_end_is_stopped(guest: &str) -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(guest)?;
    let told = tenant.guest_statements(&["CREATE TABLE t(a)", ENDLESS, "INSERT INTO t VALUES (1)"])?;
    let [_, endless, next] = told.as_slice() else { anyhow::bail!("{told:?}") };
    let message = message(endless)?;
    ensure!(message.contains("200 ms"), "{message}");
    ensure!(next.get("error").is_none(), "{next}");
    let detail = tenant.try_sql(ENDLESS, &json!([]))?.expect(422)?.text();
    ensure!(detail.contains("200 ms"), "{detail}");
    Ok(())
}

#[test]
fn a_writing_statement_that_does_not_end_leaves_nothing() -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE t(a)")?;
    let endless = "INSERT INTO t WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT x FROM n WHERE x < 0";
    message(&tenant.guest_sql(endless)?)?;
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 0);
    tenant.sql("INSERT INTO t VALUES (1)")?;
    Ok(())
}

fn a_client_that_goes_away_stops_its_statement(guest: &str) -> Result<()> {
    let node = TestNode::builder().flag("--statement-time-max-ms", 600_000).start()?;
    let tenant = node.tenant(guest)?;
    let mut connection = node.connect()?;
    let body = json!({ "sql": ENDLESS }).to_string();
    connection.request("POST", &tenant.path("/sql"), &[], body.as_bytes())?;
    tenant.wait_for_state("leased")?;
    drop(connection);
    tenant.wait_for_state("closed")?;
    Ok(())
}

fn a_full_database_says_so_and_still_reads(guest: &str) -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(guest)?;
    tenant.sql("CREATE TABLE t(a)")?;
    let insert = || tenant.guest_sql("INSERT INTO t VALUES (zeroblob(20000))");
    let mut stored = 0;
    let full = loop {
        let answer = insert()?;
        if answer.get("error").is_some() {
            break answer;
        }
        stored += 1;
        ensure!(stored < 20, "256 KiB took {stored} rows of 20 kB");
    };
    assert_eq!(full.pointer("/error/variant"), Some(&json!("database-full")), "{full}");
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, stored);
    tenant.sql("DELETE FROM t")?;
    ensure!(insert()?.get("error").is_none(), "a row does not fit into the emptied table");
    Ok(())
}

#[test]
fn a_greedy_query_fails_alone() -> Result<()> {
    let node = SHIPPED.node()?;
    let (greedy, modest): (Tenant<'_>, Tenant<'_>) = (node.tenant("misbehave")?, node.tenant("misbehave")?);
    let before = node.metric("dormouse_resident_bytes")?;
    let sql = "WITH RECURSIVE n(x, y) AS (SELECT 1, randomblob(500000) UNION ALL SELECT x + 1, randomblob(500000) FROM n \
               WHERE x < 2000) SELECT count(*) FROM (SELECT x FROM n ORDER BY y)";
    let mut peak = before;
    std::thread::scope(|scope| -> Result<()> {
        let query = scope.spawn(|| greedy.guest_sql(sql));
        while !query.is_finished() {
            assert_eq!(modest.guest_sql("SELECT 1")?.get("rows"), Some(&json!([[1]])));
            peak = peak.max(node.metric("dormouse_resident_bytes")?);
        }
        let answer = query.join().ok().context("the thread failed")??;
        let message = message(&answer)?;
        ensure!(message.contains("out of memory"), "{message}");
        Ok(())
    })?;
    // One gigabyte was asked for. Other tests run beside this one, so the bound is generous.
    ensure!(peak - before < 400e6, "from {before} to {peak} bytes resident");
    assert_eq!(greedy.guest_sql("SELECT 1")?.get("rows"), Some(&json!([[1]])));
    Ok(())
}
