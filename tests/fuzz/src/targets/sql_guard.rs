//! A tenant's SQL: statements with a line `---` between them, run on a tenant's session over a file of its own.

use std::cell::OnceCell;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dormouse::database::{DatabaseError, Profile, Value};

use super::world::{BYTES_MAX, Session, World};

/// Statements of one input.
const STATEMENTS_MAX: usize = 16;

/// Far more than a statement may run: what ignores the deadline runs longer.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What every tenant has before its statements, a table of the node's among it.
const SCHEMA: &[&str] = &[
    "CREATE TABLE _dormouse_kv(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
    "INSERT INTO _dormouse_kv VALUES ('a', 'kept'), ('b', x'00ff')",
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT UNIQUE, c DEFAULT 1)",
    "CREATE TABLE u(a REFERENCES t(a) ON DELETE CASCADE, j TEXT CHECK (json_valid(j)), g AS (j ->> '$.a'))",
    "CREATE INDEX i ON t(c, lower(b)) WHERE c > 0",
    "CREATE VIEW v AS SELECT t.a, u.j FROM t LEFT JOIN u ON u.a = t.a",
    "CREATE TRIGGER g AFTER UPDATE ON t BEGIN INSERT INTO u VALUES (new.a, '{}'); END",
    "INSERT INTO t VALUES (1, 'one', 1), (2, 'zwei', 2), (3, NULL, x'ff')",
    "INSERT INTO u VALUES (1, '{\"a\": [1, 2]}'), (2, '[]')",
];

const RESERVED: &str = "SELECT name, sql, (SELECT json_group_array(k || quote(v)) FROM _dormouse_kv) \
                        FROM sqlite_schema WHERE lower(name) LIKE '\\_dormouse\\_%' ESCAPE '\\' ORDER BY name";

/// A database as a tenant's first request finds it.
struct Seed {
    world: World,
    file: Vec<u8>,
    reserved: Vec<Vec<Value>>,
    working_files: usize,
}

thread_local! {
    static SEED: OnceCell<Seed> = const { OnceCell::new() };
}

impl Seed {
    fn plant() -> Result<Self> {
        let world = World::start()?;
        world.create()?;
        let control = world.open(Profile::Control)?;
        for sql in SCHEMA {
            control.rows(sql)?;
        }
        let reserved = control.rows(RESERVED)?;
        control.checkpoint()?;
        control.close()?;
        let file = fs::read(world.file())?;
        Ok(Self { world, file, reserved, working_files: working_files()? })
    }
}

/// The number of files in the working folder, where one that a statement names without a folder would appear.
fn working_files() -> Result<usize> {
    Ok(fs::read_dir(".")?.count())
}

/// A statement ends in time, and reaches nothing but its tenant's own tables.
///
/// # Errors
/// When it does.
pub fn run(data: &[u8]) -> Result<()> {
    SEED.with(|seed| {
        if seed.get().is_none() {
            let planted = Seed::plant()?;
            ensure!(seed.set(planted).is_ok(), "planted twice");
        }
        check(seed.get().context("no seed")?, &String::from_utf8_lossy(data))
    })
}

fn check(seed: &Seed, text: &str) -> Result<()> {
    let world = &seed.world;
    fs::write(world.file(), &seed.file)?;
    fs::write(world.folder().join("tenant.db-wal"), b"")?;
    let tenant = world.open(Profile::Tenant)?;
    for sql in text.split("\n---\n").take(STATEMENTS_MAX) {
        let started = Instant::now();
        execute(&tenant, sql, world.folder()).with_context(|| sql.to_owned())?;
        ensure!(started.elapsed() < TIME_MAX, "{:?} for {sql}", started.elapsed());
    }
    tenant.reset()?;
    // Its limits are those that it was opened with.
    for (sql, refusal) in [
        ("SELECT zeroblob(1048577)", "string or blob too big"),
        ("PRAGMA max_page_count=1000000", "not authorized"),
        ("SELECT 1 FROM _dormouse_kv", "not authorized"),
    ] {
        match tenant.run(sql, Vec::new())? {
            Err(DatabaseError::Statement(message)) if message.starts_with(refusal) => {}
            other => bail!("{sql} came to {other:?}"),
        }
    }
    tenant.close()?;
    ensure!(fs::metadata(world.file())?.len() <= BYTES_MAX, "the file has outgrown its limit");
    ensure!(world.files()? == ["tenant.db", "tenant.db-wal"], "other files: {:?}", world.files()?);
    ensure!(working_files()? == seed.working_files, "a file in the working folder");
    let control = world.open(Profile::Control)?;
    ensure!(control.rows(RESERVED)? == seed.reserved, "the node's own tables were changed");
    for row in control.rows("PRAGMA quick_check")? {
        ensure!(row.iter().all(is_sound), "the database is damaged: {row:?}");
    }
    control.close()
}

/// Runs a statement, with as many parameters as it takes.
fn execute(tenant: &Session<'_>, sql: &str, folder: &Path) -> Result<()> {
    let mut outcome = tenant.run(sql, Vec::new())?;
    if let Err(DatabaseError::Statement(message)) = &outcome
        && let Some(number) = message.strip_prefix("the statement takes ")
        && let Some(number) = number.split(' ').next().and_then(|number| number.parse().ok())
    {
        outcome = tenant.run(sql, parameters(sql, number))?;
    }
    match outcome {
        Err(
            DatabaseError::Statement(message)
            | DatabaseError::Full(message)
            | DatabaseError::TimedOut(message),
        ) => {
            let path = folder.to_string_lossy();
            // A statement may be told what it has said itself.
            ensure!(sql.contains(&*path) || !message.contains(&*path), "a path is told: {message}");
            Ok(())
        }
        Err(other) => bail!("{other:?}"),
        Ok(rows) => {
            ensure!(rows.rows.iter().all(|row| row.len() == rows.columns.len()), "rows of other columns");
            Ok(())
        }
    }
}

fn parameters(sql: &str, number: usize) -> Vec<Value> {
    let values = [
        Value::Text(sql.to_owned()),
        Value::Integer(i64::MIN),
        Value::Null,
        Value::Real(f64::MAX),
        Value::Blob(vec![0xff, 0]),
        Value::Text("$[#-1]\0".to_owned()),
        Value::Integer(1),
    ];
    values.into_iter().cycle().take(number).collect()
}

/// Whether a line of `PRAGMA quick_check` tells of no damage. A tenant can give a column a constraint that its rows do
/// not fulfil, with a CHECK that depends on more than the row.
fn is_sound(line: &Value) -> bool {
    let says = |text: &str| line.as_text().is_some_and(|line| line.contains(text));
    line.as_text() == Some("ok") || says("CHECK constraint failed in") || says("NULL value in")
}
