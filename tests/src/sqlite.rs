//! Database files outside of a node: what an export holds, and what somebody might import.
//!
//! The SQLite is the node's own, because a process can have only one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dormouse::database::{self, Command, Database, Profile, Reply, Value};
use dormouse::memory::Budget;

/// Makes a database file with so many tables.
///
/// # Errors
/// When a statement fails.
pub fn make_tables(path: &Path, number: usize) -> Result<()> {
    let table = |n| format!("CREATE TABLE t{n} (a INTEGER PRIMARY KEY, b TEXT NOT NULL, c UNIQUE)");
    let tables: Vec<String> = (0..number).map(table).collect();
    let statements = tables.iter().map(String::as_str);
    make(path, &std::iter::once("BEGIN").chain(statements).chain(["COMMIT"]).collect::<Vec<_>>())
}

/// Makes a database file as a node does.
///
/// # Errors
/// When a statement fails.
pub fn make(path: &Path, statements: &[&str]) -> Result<()> {
    with_session(async |database, session| {
        database.call(session, Command::Create { path: path.to_owned() }).await?;
        Ok(())
    })?;
    run(path, statements).map(|_| ())
}

/// Runs statements on a file, with nothing forbidden, and gives the rows of the last.
///
/// # Errors
/// When one fails.
pub fn run(path: &Path, statements: &[&str]) -> Result<Vec<Vec<Value>>> {
    with_session(async |database, session| {
        let open = Command::Open { path: path.to_owned(), profile: Profile::Control, bytes_max: 1 << 40 };
        database.call(session, open).await?;
        let mut rows = Vec::new();
        for sql in statements {
            let command = Command::Execute {
                sql: (*sql).to_owned(),
                parameters: Vec::new(),
                result_bytes_max: 64 << 20,
                time_max: Duration::from_secs(60),
                may_write: true,
                first_of_lease: false,
                in_transaction: false,
            };
            let Reply::Executed(executed) = database.call(session, command).await? else {
                bail!("{sql}: not executed")
            };
            rows = executed.outcome.with_context(|| format!("{sql:?}"))?.rows;
        }
        database.call(session, Command::Checkpoint).await?;
        Ok(rows)
    })
}

/// The number in the first row of a statement.
///
/// # Errors
/// When there is none.
pub fn number(path: &Path, sql: &str) -> Result<i64> {
    let rows = run(path, &[sql])?;
    rows.first().and_then(|row| row.first()?.as_integer()).with_context(|| format!("{sql}: no number"))
}

/// Fails unless SQLite finds nothing wrong with a file.
///
/// # Errors
/// When it does.
pub fn is_sound(path: &Path) -> Result<()> {
    let verdict = run(path, &["PRAGMA integrity_check"])?;
    ensure!(verdict == [[Value::from("ok")]], "{}: {verdict:?}", path.display());
    Ok(())
}

fn with_session<T>(work: impl AsyncFnOnce(&Database, database::SessionId) -> Result<T>) -> Result<T> {
    database::start().map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let database = Database::start(1, 2, &Arc::new(Budget::unlimited()))?;
        let session = database.new_session(database::Owner::NODE);
        let outcome = work(&database, session).await;
        let _ = database.call(session, Command::Close).await;
        outcome
    })
}
