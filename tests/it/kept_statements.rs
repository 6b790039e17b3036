//! Statements that a session keeps compiled from one request to the next: nobody can tell but by the time it takes.
//!
//! Each test is the only one to use its tenant and asks one thing after the other, so all of it runs on one session.

use anyhow::{Context, Result, ensure};
use dormouse_tests::{Tenant, eventually};
use serde_json::{Value, json};

use crate::SHIPPED;

/// What one statement answers to the operator: its columns and rows, or its problem.
fn ask(tenant: &Tenant<'_>, sql: &str) -> Result<Value> {
    let mut answer = tenant.try_sql(sql, &json!([]))?.json()?;
    let answer = answer.as_object_mut().with_context(|| format!("{sql}: no object"))?;
    answer.retain(|name, _| ["columns", "rows", "detail"].contains(&name.as_str()));
    Ok(Value::Object(answer.clone()))
}

fn expect(tenant: &Tenant<'_>, sql: &str, columns: &Value, rows: &Value) -> Result<()> {
    assert_eq!(ask(tenant, sql)?, json!({ "columns": columns, "rows": rows }), "{sql}");
    Ok(())
}

fn refused(tenant: &Tenant<'_>, sql: &str, reason: &str) -> Result<()> {
    let answer = ask(tenant, sql)?;
    let detail = answer.get("detail").and_then(Value::as_str).unwrap_or_default();
    ensure!(detail.contains(reason), "{sql}: {answer}");
    Ok(())
}

#[test]
fn a_changed_schema_is_seen() -> Result<()> {
    const ALL: &str = "SELECT * FROM pets";
    const ADD: &str = "INSERT INTO pets (name) VALUES ('Ada')";
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE pets (name)")?;
    for _ in 0..3 {
        expect(&tenant, ALL, &json!(["name"]), &json!([]))?;
    }
    tenant.sql(ADD)?;
    tenant.sql("ALTER TABLE pets ADD COLUMN age DEFAULT 3")?;
    expect(&tenant, ALL, &json!(["name", "age"]), &json!([["Ada", 3]]))?;
    tenant.sql("CREATE TABLE said (what)")?;
    tenant.sql("CREATE TRIGGER say AFTER INSERT ON pets BEGIN INSERT INTO said VALUES (new.name); END")?;
    tenant.sql(ADD)?;
    expect(&tenant, "SELECT * FROM said", &json!(["what"]), &json!([["Ada"]]))?;
    tenant.sql("DROP TABLE pets")?;
    refused(&tenant, ALL, "no such table: pets")?;
    tenant.sql("CREATE TABLE pets (kind)")?;
    expect(&tenant, ALL, &json!(["kind"]), &json!([]))
}

#[test]
fn what_is_denied_stays_denied() -> Result<()> {
    const ALL: &str = "SELECT * FROM pets";
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE pets (name)")?;
    tenant.sql(ALL)?;
    tenant.sql("DROP TABLE pets")?;
    tenant.sql("CREATE VIEW pets AS SELECT concat_ws(',', 'a', 'b') AS name")?;
    for _ in 0..2 {
        refused(&tenant, ALL, "not authorized")?;
    }
    Ok(())
}

#[test]
fn a_statement_that_failed_works_the_next_time() -> Result<()> {
    const ADD: &str = "INSERT INTO pets VALUES (1) RETURNING id";
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    tenant.sql("CREATE TABLE pets (id INTEGER PRIMARY KEY)")?;
    for _ in 0..3 {
        expect(&tenant, ADD, &json!(["id"]), &json!([[1]]))?;
        refused(&tenant, ADD, "UNIQUE constraint failed: pets.id")?;
        tenant.sql("DELETE FROM pets")?;
    }
    Ok(())
}

/// A kept statement that had not been reset would hold its snapshot, and the log behind it.
#[test]
fn a_statement_of_which_not_all_was_read_holds_nothing() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    let large = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) \
                 SELECT i, zeroblob(900000) FROM n";
    for _ in 0..2 {
        refused(&tenant, large, "the result is larger than 16 MiB")?;
    }
    tenant.sql("CREATE TABLE pets (name)")?;
    eventually("the log is copied", || {
        Ok((tenant.shown()?.pointer("/database/wal_bytes") == Some(&json!(0))).then_some(()))
    })
}

#[test]
fn more_texts_than_are_kept_run() -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant("misbehave")?;
    for number in (0..50).chain(0..50) {
        assert_eq!(tenant.number(&format!("SELECT {number}"))?, number);
    }
    Ok(())
}
