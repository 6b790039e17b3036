//! A guest and its database: what is kept, what is rolled back, and whose session is whose.

use std::collections::BTreeSet;
use std::thread;

use anyhow::{Context, Result, ensure};
use dormouse_tests::{Tenant, guest};
use serde_json::{Value, json};

use crate::{SHIPPED, TIGHT};

in_both_worlds![
    what_was_written_before_a_trap_is_kept,
    a_transaction_that_traps_is_rolled_back,
    a_transaction_left_open_is_rolled_back,
    a_transaction_held_too_long_is_rolled_back_and_others_go_on,
    two_requests_at_once_have_their_own_transaction_and_rowid,
    two_connections_of_a_guest_are_one_session,
    a_guest_may_open_256_connections,
    there_is_one_database_and_it_is_the_default,
    only_the_first_statement_of_a_text_runs,
    values_come_back_as_they_went_in,
    too_few_or_too_many_parameters_are_refused,
    a_request_finds_nothing_of_the_one_before,
    changes_and_row_ids_are_told,
    a_failed_statement_leaves_nothing_and_the_next_one_runs,
    savepoints_and_concurrent_readers_work,
];

fn rows_in_log(tenant: &Tenant<'_>) -> Result<i64> {
    tenant.number("SELECT count(*) FROM log")
}

/// The message of a failed statement, with its variant before it.
fn error_of(answer: &Value) -> Result<String> {
    let text = |path| answer.pointer(path).and_then(Value::as_str);
    let variant = text("/error/variant").with_context(|| format!("no error: {answer}"))?;
    Ok(format!("{variant}: {}", text("/error/message").unwrap_or_default()))
}

fn succeeded(answer: &Value) -> Result<()> {
    ensure!(answer.get("error").is_none(), "{answer}");
    Ok(())
}

fn what_was_written_before_a_trap_is_kept(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    tenant.get("/write-then-trap")?.expect(502)?;
    assert_eq!(tenant.sql("SELECT note FROM log")?, json!([["committed at once"]]));
    Ok(())
}

fn a_transaction_that_traps_is_rolled_back(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    tenant.get("/transaction-then-trap")?.expect(502)?;
    assert_eq!(rows_in_log(&tenant)?, 0);
    // The writer is free, and the session that was in the transaction is as good as new.
    for _ in 0..8 {
        succeeded(&tenant.guest_sql("INSERT INTO log(note) VALUES ('next')")?)?;
    }
    assert_eq!(rows_in_log(&tenant)?, 8);
    Ok(())
}

fn a_transaction_left_open_is_rolled_back(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let steps = tenant.json("/leave-transaction")?;
    for step in ["begin", "insert"] {
        succeeded(steps.get(step).context("no such step")?)?;
    }
    for _ in 0..8 {
        succeeded(&tenant.guest_sql("INSERT INTO log(note) VALUES ('next')")?)?;
    }
    assert_eq!(tenant.sql("SELECT DISTINCT note FROM log")?, json!([["next"]]));
    Ok(())
}

fn a_transaction_held_too_long_is_rolled_back_and_others_go_on(guest: &str) -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(guest)?;
    tenant.guest_sql("CREATE TABLE IF NOT EXISTS log(id INTEGER PRIMARY KEY, note TEXT)")?;
    let mut holder = tenant.send("/hold-transaction?ms=900")?;
    tenant.wait_for_state("leased")?;
    // It waits behind the transaction, and gets its turn when that is over.
    succeeded(&tenant.guest_sql("INSERT INTO log(note) VALUES ('another')")?)?;
    let held = holder.response("GET")?.expect(200)?.json()?;
    succeeded(held.get("insert").context("no insert")?)?;
    let told = error_of(held.get("commit").context("no commit")?)?;
    ensure!(
        told.contains("transaction") && told.contains("300 ms") && told.contains("rolled back"),
        "{told}"
    );
    assert_eq!(tenant.sql("SELECT note FROM log")?, json!([["another"]]));
    Ok(())
}

fn two_requests_at_once_have_their_own_transaction_and_rowid(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let answers = thread::scope(|scope| {
        let request = || scope.spawn(|| tenant.json("/insert-and-rowid?ms=10"));
        let requests: Vec<_> = (0..12).map(|_| request()).collect();
        requests
            .into_iter()
            .map(|request| request.join().ok().context("a thread failed")?)
            .collect::<Result<Vec<_>>>()
    })?;
    let mut rowids = BTreeSet::new();
    for answer in answers {
        for step in ["begin", "insert", "commit"] {
            succeeded(answer.get(step).context("no such step")?)?;
        }
        assert_eq!(answer.get("value"), answer.get("value_at_rowid"), "{answer}");
        rowids.insert(answer.get("rowid").and_then(Value::as_i64).context("no rowid")?);
    }
    assert_eq!(rowids, (1..=12).collect());
    assert_eq!(rows_in_log(&tenant)?, 12);
    Ok(())
}

fn two_connections_of_a_guest_are_one_session(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let told = tenant.json("/two-connections")?;
    assert_eq!(told.get("before"), Some(&json!(0)));
    assert_eq!(told.get("seen_by_one"), Some(&json!(1)));
    assert_eq!(
        told.get("seen_by_two"),
        Some(&json!(1)),
        "the second connection does not see the transaction"
    );
    assert_eq!(told.get("rowid_on_two"), Some(&json!(1)));
    let begin_again = error_of(told.get("begin_on_two").context("no begin_on_two")?)?;
    ensure!(begin_again.contains("within a transaction"), "{begin_again}");
    succeeded(told.get("rollback_on_two").context("no rollback_on_two")?)?;
    assert_eq!(told.get("after"), Some(&json!(0)));
    Ok(())
}

fn a_guest_may_open_256_connections(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let told = tenant.json("/open-many?n=256")?;
    assert_eq!(told, json!({ "opened": 256, "error": null }));
    let told = tenant.json("/open-many?n=300")?;
    assert_eq!(told.get("opened"), Some(&json!(256)));
    error_of(&told)?;
    Ok(())
}

fn there_is_one_database_and_it_is_the_default(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    assert_eq!(tenant.json("/open?name=default")?, json!({ "opened": "default" }));
    for name in ["other", "", "Default", "..%2Fcontrol.db", "%3Amemory%3A", "file%3Ax", "default%00"] {
        let told = error_of(&tenant.json(&format!("/open?name={name}"))?)?;
        ensure!(told.starts_with("no-such-database") || told.starts_with("access-denied"), "{name}: {told}");
    }
    Ok(())
}

fn only_the_first_statement_of_a_text_runs(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    tenant.sql("CREATE TABLE t(a)")?;
    succeeded(&tenant.guest_sql("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); DROP TABLE t")?)?;
    assert_eq!(tenant.sql("SELECT a FROM t; SELECT 3")?, json!([[1]]));
    Ok(())
}

fn values_come_back_as_they_went_in(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    // Numbers in a list are a blob to this guest.
    let values = json!([
        null,
        0,
        i64::MIN,
        i64::MAX,
        0.5,
        -1e300,
        "",
        "caf\u{e9} \u{1f42d}",
        "a\u{0}b",
        "'; DROP TABLE t; --",
        [],
        [0, 1, 254, 255, 0]
    ]);
    let count = values.as_array().map_or(0, Vec::len);
    let marks = vec!["?"; count].join(",");
    let answer =
        tenant.post("/sql", &json!({ "sql": format!("SELECT {marks}"), "params": values }))?.expect(200)?;
    assert_eq!(answer.json()?.pointer("/rows/0"), Some(&values));
    Ok(())
}

fn too_few_or_too_many_parameters_are_refused(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    for (sql, params) in [("SELECT ?, ?", json!([1])), ("SELECT ?", json!([1, 2])), ("SELECT 1", json!([1]))]
    {
        let answer = tenant.post("/sql", &json!({ "sql": sql, "params": params }))?.expect(200)?.json()?;
        error_of(&answer).with_context(|| sql.to_owned())?;
    }
    Ok(())
}

fn a_request_finds_nothing_of_the_one_before(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let first = tenant.guest_statements(&[
        "CREATE TABLE kept(a INTEGER PRIMARY KEY)",
        "INSERT INTO kept VALUES (41), (42)",
        "CREATE TEMP TABLE secret(a)",
        "INSERT INTO secret VALUES ('s3cret')",
        "PRAGMA foreign_keys=OFF",
        "PRAGMA foreign_keys",
    ])?;
    first.iter().try_for_each(succeeded)?;
    assert_eq!(first.last().and_then(|pragma| pragma.pointer("/rows/0/0")), Some(&json!(0)));
    for _ in 0..8 {
        let next = tenant.guest_statements(&["SELECT 1", "SELECT * FROM secret", "PRAGMA foreign_keys"])?;
        let [select, secret, pragma] = next.as_slice() else { anyhow::bail!("{next:?}") };
        assert_eq!(select.get("last_insert_rowid"), Some(&json!(0)), "another request's row id");
        assert_eq!(select.get("changes"), Some(&json!(0)), "another request's changes");
        ensure!(error_of(secret)?.contains("no such table"), "{secret}");
        // libSQL's own default: foreign keys are enforced.
        assert_eq!(pragma.pointer("/rows/0/0"), Some(&json!(1)));
    }
    Ok(())
}

fn changes_and_row_ids_are_told(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let told = tenant.guest_statements(&[
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
        "INSERT INTO t(b) VALUES (1), (2), (3)",
        "UPDATE t SET b = b + 1 WHERE a > 1",
        "SELECT count(*) FROM t",
        "DELETE FROM t WHERE a = 3",
    ])?;
    let changes: Vec<_> = told.iter().filter_map(|step| step.get("changes")?.as_i64()).collect();
    assert_eq!(changes, [0, 3, 2, 2, 1]);
    let rowids: Vec<_> = told.iter().filter_map(|step| step.get("last_insert_rowid")?.as_i64()).collect();
    assert_eq!(rowids, [0, 3, 3, 3, 3]);
    Ok(())
}

fn a_failed_statement_leaves_nothing_and_the_next_one_runs(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    tenant.sql("CREATE TABLE t(a INTEGER PRIMARY KEY)")?;
    tenant.sql("INSERT INTO t VALUES (3)")?;
    let told = tenant.guest_statements(&[
        "INSERT INTO t VALUES (1), (2), (3)",
        "SELEKT",
        "BEGIN",
        "INSERT INTO t VALUES (4)",
        "INSERT INTO t VALUES (3)",
        "INSERT INTO t VALUES (5)",
        "COMMIT",
    ])?;
    let failed: Vec<bool> = told.iter().map(|step| step.get("error").is_some()).collect();
    assert_eq!(failed, [true, true, false, false, true, false, false]);
    assert_eq!(tenant.sql("SELECT a FROM t ORDER BY a")?, json!([[3], [4], [5]]));
    Ok(())
}

fn savepoints_and_concurrent_readers_work(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    tenant.sql("CREATE TABLE t(a)")?;
    let told = tenant.guest_statements(&[
        "SAVEPOINT one",
        "INSERT INTO t VALUES (1)",
        "SAVEPOINT two",
        "INSERT INTO t VALUES (2)",
        "ROLLBACK TO two",
        "RELEASE one",
    ])?;
    told.iter().try_for_each(succeeded)?;
    assert_eq!(tenant.sql("SELECT a FROM t")?, json!([[1]]));

    // A reader is served while a writer holds its transaction.
    let mut writer = tenant.send("/hold-transaction?ms=400")?;
    tenant.wait_for_state("leased")?;
    assert_eq!(tenant.guest_sql("SELECT a FROM t")?.get("rows"), Some(&json!([[1]])));
    writer.response("GET")?.expect(200)?;
    Ok(())
}

#[test]
fn the_older_interface_works_too() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("spin2")?;
    tenant.get("")?.expect(200)?;
    let told = tenant.json("")?;
    assert_eq!(told, json!({ "columns": ["id", "note"], "rows": [[1, "from spin 2"], [2, "from spin 2"]] }));
    assert_eq!(tenant.number("SELECT count(*) FROM spin2")?, 2);

    // Both interfaces are views of the same database.
    node.deploy(&tenant.name, "other", &guest("misbehave")?)?;
    let body = json!({ "sql": "SELECT count(*) FROM spin2" }).to_string();
    let answer =
        node.request("POST", &format!("/t/{}/other/sql", tenant.name), &[], body.as_bytes())?.expect(200)?;
    assert_eq!(answer.json()?.pointer("/rows/0/0"), Some(&json!(2)));
    Ok(())
}
