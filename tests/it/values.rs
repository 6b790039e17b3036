//! Values at their limits, and every kind of error: what a guest is told, in either world, and what the operator is.

use anyhow::{Context, Result, ensure};
use dormouse_tests::Tenant;
use dormouse_tests::client::{Connection, Incoming};
use serde_json::{Value, json};

use crate::{SHIPPED, TIGHT};

in_both_worlds![
    a_value_has_a_largest_size,
    a_result_has_its_exact_size,
    a_result_that_is_too_large_leaves_nothing_written,
    text_that_is_not_utf8_is_an_error_and_its_bytes_can_be_read,
    nul_is_a_character_in_values_and_an_error_in_sql,
    numbers_keep_their_limits,
    an_empty_blob_is_not_null,
    a_statement_takes_999_parameters,
    errors_have_sqlites_words,
    a_transaction_that_read_before_another_wrote_is_told_so,
];

const MIB: usize = 1 << 20;

/// What one statement of a guest, with its parameters, came to.
fn run(tenant: &Tenant<'_>, sql: &str, params: &Value) -> Result<Value> {
    tenant.post("/sql", &json!({ "sql": sql, "params": params }))?.expect(200)?.json()
}

/// The first value of the first row.
fn scalar(answer: &Value) -> Result<&Value> {
    answer.pointer("/rows/0/0").with_context(|| answer.to_string().chars().take(200).collect::<String>())
}

/// The message of a failed statement.
fn io(answer: &Value) -> Result<&str> {
    let short = || answer.to_string().chars().take(200).collect::<String>();
    ensure!(answer.pointer("/error/variant") == Some(&json!("io")), "no such error: {}", short());
    answer.pointer("/error/message").and_then(Value::as_str).with_context(short)
}

/// What the operator is told of a failed statement.
fn detail(tenant: &Tenant<'_>, sql: &str, parameters: &Value) -> Result<String> {
    let problem = tenant.try_sql(sql, parameters)?.expect(422)?.json()?;
    Ok(problem.get("detail").and_then(Value::as_str).context("no detail")?.to_owned())
}

const TOO_BIG: &str =
    "string or blob too big: at most 1048576 bytes in a value or a row; split it over several rows";

fn a_value_has_a_largest_size(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let (largest, larger) = ("x".repeat(MIB), "x".repeat(MIB + 1));
    assert_eq!(scalar(&run(&tenant, "SELECT length(?)", &json!([largest]))?)?, &json!(MIB));
    ensure!(scalar(&run(&tenant, "SELECT ?", &json!([largest]))?)? == largest.as_str(), "another text");
    let blob = run(&tenant, "SELECT zeroblob(1048576)", &json!([]))?;
    assert_eq!(scalar(&blob)?.as_array().map(Vec::len), Some(MIB));

    tenant.sql("CREATE TABLE t(a)")?;
    for (sql, params) in [
        ("SELECT length(?)", json!([larger])),
        ("SELECT zeroblob(1048577)", json!([])),
        ("SELECT ? || 'x'", json!([largest])),
        ("INSERT INTO t VALUES (?)", json!([larger])),
        // A row has some bytes beside its values.
        ("INSERT INTO t VALUES (?)", json!([largest])),
    ] {
        assert_eq!(io(&run(&tenant, sql, &params)?)?, TOO_BIG, "{sql}");
        if params.as_array().is_some_and(Vec::is_empty) {
            assert_eq!(detail(&tenant, sql, &params)?, TOO_BIG, "{sql}");
        }
    }
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 0);
    Ok(())
}

/// Sixteen rows of a text; 16 MiB, with 56 bytes that each takes beside its text, when the last one is of this length.
const LAST_BYTES: usize = MIB - 16 * 56;

fn sixteen_rows(last: usize) -> String {
    format!(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 16) \
         SELECT substr(hex(zeroblob(524287)) || '00', 1, iif(x < 16, 1048576, {last})) FROM n"
    )
}

fn a_result_has_its_exact_size(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    // To the operator: the guest's own JSON of it would not fit into the guest.
    let answer = tenant.try_sql(&sixteen_rows(LAST_BYTES), &json!([]))?.expect(200)?.json()?;
    assert_eq!(answer.get("rows").and_then(Value::as_array).map(Vec::len), Some(16));
    let told =
        "the result is larger than 16 MiB (16777216 bytes); ask for fewer rows or columns, or use LIMIT";
    assert_eq!(io(&tenant.guest_sql(&sixteen_rows(LAST_BYTES + 1))?)?, told);
    assert_eq!(detail(&tenant, &sixteen_rows(LAST_BYTES + 1), &json!([]))?, told);
    // One row alone can be too large.
    let wide = format!("SELECT {}", vec!["zeroblob(1048576)"; 17].join(","));
    assert_eq!(io(&tenant.guest_sql(&wide)?)?, told);
    Ok(())
}

fn a_result_that_is_too_large_leaves_nothing_written(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    tenant.sql("CREATE TABLE t(a, b)")?;
    let insert = "INSERT INTO t(a) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 40) \
                  SELECT x FROM n RETURNING zeroblob(500000)";
    let told = tenant.guest_statements(&[insert, "SELECT count(*) FROM t"])?;
    let [failed, count] = told.as_slice() else { anyhow::bail!("{told:?}") };
    ensure!(io(failed)?.starts_with("the result is larger than 16 MiB"), "{failed}");
    assert_eq!(scalar(count)?, &json!(0), "a statement that failed was committed");

    // In a transaction, as any statement that is stopped: the transaction is gone, and the guest is told.
    let told = tenant.guest_statements(&[
        "BEGIN",
        "INSERT INTO t(a) VALUES (1)",
        "INSERT INTO t(a) VALUES (2) RETURNING CAST(x'ff' AS TEXT)",
        "INSERT INTO t(a) VALUES (3)",
        "ROLLBACK",
        "SELECT count(*) FROM t",
    ])?;
    let [_, _, failed, refused, _, count] = told.as_slice() else { anyhow::bail!("{told:?}") };
    ensure!(io(failed)?.contains("is not UTF-8"), "{failed}");
    ensure!(io(refused)?.starts_with("the transaction was rolled back"), "{refused}");
    assert_eq!(scalar(count)?, &json!(0));
    Ok(())
}

fn text_that_is_not_utf8_is_an_error_and_its_bytes_can_be_read(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    tenant.sql("CREATE TABLE t(name TEXT)")?;
    tenant.sql("INSERT INTO t VALUES (CAST(x'61ff' AS TEXT))")?;
    let told = r#"the text in column "name" is not UTF-8; read it as a blob: CAST(… AS BLOB)"#;
    assert_eq!(io(&tenant.guest_sql("SELECT name FROM t")?)?, told);
    assert_eq!(detail(&tenant, "SELECT name FROM t", &json!([]))?, told);
    for half in ["char(55296)", "CAST(x'c3' AS TEXT)", "CAST(x'00fe' AS TEXT)"] {
        ensure!(io(&tenant.guest_sql(&format!("SELECT {half}"))?)?.contains("is not UTF-8"), "{half}");
    }
    let read = tenant.guest_sql("SELECT CAST(name AS BLOB) FROM t")?;
    assert_eq!(scalar(&read)?, &json!([0x61, 0xff]));
    let bytes = json!([0xff, 0, 0xfe]);
    assert_eq!(scalar(&run(&tenant, "SELECT ?", &json!([bytes]))?)?, &bytes);
    assert_eq!(tenant.sql("SELECT x'ff00'")?, json!([[{ "base16": "ff00" }]]));
    Ok(())
}

fn nul_is_a_character_in_values_and_an_error_in_sql(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    tenant.sql("CREATE TABLE t(a)")?;
    run(&tenant, "INSERT INTO t VALUES (?)", &json!(["a\u{0}b"]))?;
    for sql in
        ["SELECT a FROM t", "SELECT 'a' || char(0) || 'b'", "SELECT a FROM t WHERE a = 'a' || char(0) || 'b'"]
    {
        assert_eq!(scalar(&tenant.guest_sql(sql)?)?, "a\u{0}b", "{sql}");
        assert_eq!(tenant.sql(sql)?, json!([["a\u{0}b"]]), "{sql}");
    }
    let told = "the SQL holds a NUL character; give text with NUL as a parameter, or write char(0)";
    for sql in [
        "SELECT 'a\u{0}b'",
        "SELECT 1 AS \"a\u{0}b\"",
        "SELECT 1 \u{0} garbage",
        "\u{0}",
        "DELETE FROM t\u{0}",
    ] {
        assert_eq!(io(&tenant.guest_sql(sql)?)?, told, "{sql:?}");
        assert_eq!(detail(&tenant, sql, &json!([]))?, told, "{sql:?}");
    }
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 1);
    Ok(())
}

fn numbers_keep_their_limits(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let real = |number: &str| json!({ "real": number });
    let numbers = json!([i64::MIN, i64::MAX, 5e-324, f64::MAX, 0.1, real("inf"), real("-inf")]);
    let answer = run(&tenant, "SELECT ?, ?, ?, ?, ?, ?, ?", &numbers)?;
    assert_eq!(answer.pointer("/rows/0"), Some(&numbers));
    // SQLite has no NaN: it is NULL.
    assert_eq!(scalar(&run(&tenant, "SELECT ?", &json!([real("NaN")]))?)?, &Value::Null);
    assert_eq!(scalar(&tenant.guest_sql("SELECT 9e999 - 9e999")?)?, &Value::Null);
    assert_eq!(scalar(&tenant.guest_sql("SELECT -9e999")?)?, &real("-inf"));
    assert_eq!(
        io(&tenant.guest_sql("SELECT sum(value) FROM json_each('[9223372036854775807, 1]')")?)?,
        "integer overflow"
    );
    assert_eq!(
        tenant.sql("SELECT 9e999, -9e999, -9223372036854775808, 5e-324, 0.1")?,
        json!([["Infinity", "-Infinity", i64::MIN, 5e-324, 0.1]])
    );
    let bits =
        tenant.try_sql("SELECT ?, ?", &json!([f64::MAX, 2.2250738585072014e-308]))?.expect(200)?.json()?;
    assert_eq!(bits.pointer("/rows/0"), Some(&json!([f64::MAX, 2.2250738585072014e-308])));
    let refused = tenant.try_sql("SELECT ?", &json!([u64::MAX]))?.expect(400)?.text();
    ensure!(refused.contains("an integer has 64 bits and a sign"), "{refused}");
    Ok(())
}

fn an_empty_blob_is_not_null(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let answer =
        run(&tenant, "SELECT typeof(?1), ?1, typeof(?2), ?2, typeof(?3), ?3", &json!([[], null, ""]))?;
    assert_eq!(answer.pointer("/rows/0"), Some(&json!(["blob", [], "null", null, "text", ""])));
    let parameters = json!([{ "base16": "" }, null, ""]);
    let answer =
        tenant.try_sql("SELECT typeof(?), typeof(?), typeof(?)", &parameters)?.expect(200)?.json()?;
    assert_eq!(answer.pointer("/rows/0"), Some(&json!(["blob", "null", "text"])));
    Ok(())
}

fn a_statement_takes_999_parameters(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    let sum = |number: usize| format!("SELECT count(*) FROM (VALUES {})", vec!["(?)"; number].join(","));
    let most = json!(vec![1; 999]);
    assert_eq!(scalar(&run(&tenant, &sum(999), &most)?)?, &json!(999));
    let told = "too many SQL variables: at most 999 parameters in a statement; write fewer rows with each";
    assert_eq!(io(&run(&tenant, &sum(1_000), &json!(vec![1; 1_000]))?)?, told);
    assert_eq!(io(&tenant.guest_sql("SELECT ?1000")?)?, "variable number must be between ?1 and ?999");
    assert_eq!(io(&run(&tenant, "SELECT ?", &most)?)?, "the statement takes 1 parameters, 999 were given");
    Ok(())
}

/// A statement and how the message of its error begins: the list of `docs/functions.md`.
const ERRORS: &[(&str, &str)] = &[
    ("SELEKT 1", "near \"SELEKT\": syntax error"),
    ("SELECT (1", "incomplete input"),
    ("SELECT 'a", "unrecognized token: \"'a\""),
    ("SELECT * FROM nowhere", "no such table: nowhere"),
    ("SELECT c FROM t", "no such column: c"),
    ("INSERT INTO t(c) VALUES (1)", "table t has no column named c"),
    ("SELECT unheard_of()", "no such function: unheard_of"),
    ("CREATE TABLE t(a)", "table t already exists"),
    ("INSERT INTO t VALUES (1, 1, 1)", "UNIQUE constraint failed: t.id"),
    ("INSERT INTO t VALUES (2, 1, 1)", "UNIQUE constraint failed: t.a"),
    ("INSERT INTO t VALUES (2, NULL, 1)", "NOT NULL constraint failed: t.a"),
    ("INSERT INTO t VALUES (2, -1, 1)", "CHECK constraint failed: a > 0"),
    ("INSERT INTO t VALUES (2, 2, 7)", "FOREIGN KEY constraint failed"),
    ("INSERT INTO t VALUES ('x', 2, 1)", "datatype mismatch"),
    ("INSERT INTO s VALUES ('x')", "cannot store TEXT value in INTEGER column s.a"),
    ("COMMIT", "cannot commit - no transaction is active"),
    ("ATTACH 'x' AS y", "not authorized: ATTACH, DETACH and VACUUM are not allowed"),
    ("PRAGMA journal_mode=DELETE", "not authorized: PRAGMA journal_mode is not allowed; these are: "),
    ("SELECT load_extension('x')", "not authorized to use function: load_extension"),
    ("UPDATE sqlite_schema SET sql = 1", "table sqlite_master may not be modified"),
    ("SELECT zeroblob(1048577)", TOO_BIG),
    (
        "SELECT 'x' LIKE hex(zeroblob(30))",
        "LIKE or GLOB pattern too complex: at most 50 bytes in a pattern; use instr()",
    ),
    (
        "SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION \
         SELECT 8 UNION SELECT 9 UNION SELECT 10 UNION SELECT 11",
        "too many terms in compound SELECT: at most 10 SELECTs joined by UNION and the like; use VALUES or IN",
    ),
    (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
        "the statement ran longer than 200 ms and was stopped",
    ),
];

/// The same, of a statement that a node with close bounds would end for its time.
const LARGE: &[(&str, &str)] = &[(
    "WITH RECURSIVE n(x, y) AS (SELECT 1, zeroblob(900000) UNION SELECT x + 1, y FROM n WHERE x < 200) \
     SELECT count(*) FROM n",
    "out of memory: one connection may take 64 MiB for its statements and temporary tables",
)];

/// Runs each statement by its guest and by the admin API.
fn all_say_so(tenant: &Tenant<'_>, errors: &[(&str, &str)]) -> Result<()> {
    let mut others = Vec::new();
    for (sql, beginning) in errors {
        let answer = tenant.guest_sql(sql)?;
        let told = [io(&answer).map(str::to_owned), detail(tenant, sql, &json!([]))];
        let is_other = |told: &Result<String>| !told.as_ref().is_ok_and(|told| told.starts_with(beginning));
        others.extend(told.into_iter().filter(is_other).map(|told| format!("{sql}: {told:?}")));
    }
    ensure!(others.is_empty(), "{}", others.join("\n"));
    Ok(())
}

fn errors_have_sqlites_words(guest: &str) -> Result<()> {
    let node = TIGHT.node()?;
    let tenant = node.tenant(guest)?;
    for sql in [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a INT NOT NULL UNIQUE CHECK (a > 0), b REFERENCES t(id))",
        "CREATE TABLE s(a INTEGER) STRICT",
        "INSERT INTO t VALUES (1, 1, 1)",
    ] {
        tenant.sql(sql)?;
    }
    all_say_so(&tenant, ERRORS)?;
    all_say_so(&SHIPPED.node()?.tenant(guest)?, LARGE)?;
    let many = format!("SELECT {}", vec!["1"; 101].join(","));
    assert_eq!(
        io(&tenant.guest_sql(&many)?)?,
        "too many columns in result set: at most 100 columns; split the table or the result"
    );
    let long = format!("SELECT 1 /* {} */", "x".repeat(50_000));
    ensure!(tenant.guest_sql(&long)?.get("error").is_none(), "a long text is refused");
    assert_eq!(tenant.number("SELECT count(*) FROM t")?, 1);
    Ok(())
}

/// A session whose statements are sent one by one.
struct Conversation {
    connection: Connection,
    incoming: Option<Incoming>,
}

impl Conversation {
    fn begin(tenant: &Tenant<'_>) -> Result<Self> {
        let mut connection = tenant.node.connect()?;
        connection.chunked_request("POST", &tenant.path("/session"), &[])?;
        Ok(Self { connection, incoming: None })
    }

    fn say(&mut self, sql: &str) -> Result<Value> {
        self.connection.chunk(sql.as_bytes())?;
        let mut incoming = match self.incoming.take() {
            Some(incoming) => incoming,
            None => self.connection.head("POST")?,
        };
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            line.extend(self.connection.next(&mut incoming)?.context("the body ended")?);
        }
        self.incoming = Some(incoming);
        Ok(serde_json::from_slice(&line)?)
    }
}

fn a_transaction_that_read_before_another_wrote_is_told_so(guest: &str) -> Result<()> {
    let node = SHIPPED.node()?;
    let tenant = node.tenant(guest)?;
    tenant.sql("CREATE TABLE t(a)")?;
    let mut reader = Conversation::begin(&tenant)?;
    reader.say("BEGIN")?;
    assert_eq!(scalar(&reader.say("SELECT count(*) FROM t")?)?, &json!(0));
    tenant.sql("INSERT INTO t VALUES (1)")?;
    let told = reader.say("INSERT INTO t VALUES (2)")?;
    ensure!(io(&told)?.starts_with("database is locked: another request wrote"), "{told}");
    ensure!(io(&told)?.contains("BEGIN IMMEDIATE"), "{told}");
    reader.say("ROLLBACK")?;
    ensure!(reader.say("INSERT INTO t VALUES (2)")?.get("error").is_none(), "the session is not usable");
    assert_eq!(tenant.sql("SELECT a FROM t")?, json!([[1], [2]]));
    Ok(())
}
