//! The tenant's database.
//!
//! A [`Database`] is a connection that belongs to this request alone, so a transaction, a temporary table and the
//! last inserted rowid are its own. A write is on disk when `execute` returns, or, inside a transaction, when the
//! transaction returns.

use std::rc::Rc;

use serde::de::DeserializeOwned;

use crate::bindings::spin::sqlite::sqlite::{Connection, Error as SqliteError, QueryResult};
use crate::row::{self, Row, RowError};
use crate::{Params, Result};

/// Why the database could not do what was asked. The first five are those of `spin:sqlite`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// There is no database of this name.
    #[error("there is no such database")]
    NoSuchDatabase,
    /// This function may not use the database.
    #[error("access to the database is denied")]
    AccessDenied,
    /// The connection is not valid, for example because the request had too many.
    #[error("the database connection is not valid")]
    InvalidConnection,
    /// The database has reached its size limit.
    #[error("the database is full")]
    DatabaseFull,
    /// Anything else, in SQLite's own words: a mistake in the statement, a broken constraint, a failed disk.
    #[error("{0}")]
    Io(String),
    /// [`Database::query_one`] found no row.
    #[error("the query returned no row")]
    NoRow,
    /// A row does not fit the type that was asked for.
    #[error("a row does not fit: {0}")]
    Row(#[from] RowError),
}

impl From<SqliteError> for DatabaseError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::NoSuchDatabase => Self::NoSuchDatabase,
            SqliteError::AccessDenied => Self::AccessDenied,
            SqliteError::InvalidConnection => Self::InvalidConnection,
            SqliteError::DatabaseFull => Self::DatabaseFull,
            SqliteError::Io(message) => Self::Io(message),
        }
    }
}

/// A connection to the tenant's SQLite database.
///
/// Statements take their parameters as a tuple or array, bound to the `?` in order; see [`Params`].
#[derive(Debug)]
pub struct Database {
    connection: Connection,
}

impl Database {
    /// Opens the tenant's database.
    ///
    /// # Errors
    ///
    /// If this function may not use it, or has opened too many connections.
    pub fn open() -> Result<Self, DatabaseError> {
        Ok(Self { connection: Connection::open("default")? })
    }

    /// Runs one statement and tells how many rows the latest INSERT, UPDATE or DELETE changed.
    ///
    /// # Errors
    ///
    /// If SQLite refuses the statement, in its own words.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<u64, DatabaseError> {
        self.run(sql, params)?;
        Ok(self.connection.changes())
    }

    /// Runs one statement and returns its rows.
    ///
    /// # Errors
    ///
    /// If SQLite refuses the statement, in its own words.
    pub fn query(&self, sql: &str, params: impl Params) -> Result<Vec<Row>, DatabaseError> {
        let QueryResult { columns, rows } = self.run(sql, params)?;
        let columns: Rc<[String]> = columns.into();
        Ok(rows.into_iter().map(|row| Row::new(Rc::clone(&columns), row.values)).collect())
    }

    /// Runs one statement and reads its rows into structs by column name, into tuples by position, or, if there is
    /// only one column, into its type.
    ///
    /// # Errors
    ///
    /// If SQLite refuses the statement, or a row does not fit `T`.
    pub fn query_as<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<Vec<T>, DatabaseError> {
        let QueryResult { columns, rows } = self.run(sql, params)?;
        rows.into_iter().map(|row| Ok(row::read(&columns, row.values)?)).collect()
    }

    /// Like [`query_as`](Self::query_as), for the first row of a query that has one.
    ///
    /// # Errors
    ///
    /// [`DatabaseError::NoRow`] if there is none, and as `query_as`.
    pub fn query_one<T: DeserializeOwned>(&self, sql: &str, params: impl Params) -> Result<T, DatabaseError> {
        let QueryResult { columns, rows } = self.run(sql, params)?;
        let first = rows.into_iter().next().ok_or(DatabaseError::NoRow)?;
        Ok(row::read(&columns, first.values)?)
    }

    /// The rowid of this connection's latest INSERT, or 0.
    pub fn last_insert_rowid(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// Runs `work` in a transaction that may write from its start: committed if it returns `Ok`, rolled back if it
    /// returns `Err`.
    ///
    /// ```no_run
    /// # fn main() -> dormouse_sdk::Result<()> {
    /// # use dormouse_sdk::{Database, Error, StatusCode};
    /// let db = Database::open()?;
    /// db.transaction(|db| {
    ///     let stock: i64 = db.query_one("SELECT stock FROM items WHERE id = ?", [1])?;
    ///     if stock == 0 {
    ///         return Err(Error::status(StatusCode::CONFLICT, "The item is sold out."));
    ///     }
    ///     db.execute("UPDATE items SET stock = stock - 1 WHERE id = ?", [1])?;
    ///     Ok(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `work`, or the database's if the transaction could not begin or commit; then nothing of it stays.
    pub fn transaction<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        in_transaction(|statement| self.run(statement, ()).map(drop), || work(self))
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<QueryResult, DatabaseError> {
        Ok(self.connection.execute(sql, &params.into_values())?)
    }
}

/// BEGIN, work, and COMMIT or ROLLBACK, through whatever executes statements.
fn in_transaction<T>(
    execute: impl Fn(&'static str) -> Result<(), DatabaseError>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    execute("BEGIN IMMEDIATE")?;
    let outcome = work().and_then(|value| {
        execute("COMMIT")?;
        Ok(value)
    });
    if outcome.is_err() {
        // Some errors make SQLite roll back by itself; this then says that no transaction is active. If it fails
        // for another reason, Dormouse rolls back at the end of the request. The first error is the one that counts.
        let _ = execute("ROLLBACK");
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::{Error, StatusCode};

    /// Runs `work` in a transaction on a pretended database that refuses the statement `refused`.
    fn statements_of(refused: &str, work: impl FnOnce() -> Result<u8>) -> (Vec<&'static str>, Result<u8>) {
        let statements = RefCell::new(Vec::new());
        let execute = |statement| {
            statements.borrow_mut().push(statement);
            if statement == refused { Err(DatabaseError::Io(format!("{statement} failed"))) } else { Ok(()) }
        };
        let outcome = in_transaction(execute, work);
        (statements.into_inner(), outcome)
    }

    fn message(outcome: Result<u8>) -> String {
        outcome.map_or_else(|error| error.to_string(), |value| value.to_string())
    }

    #[test]
    fn work_that_succeeds_is_committed() {
        let (statements, outcome) = statements_of("", || Ok(7));
        assert_eq!(statements, ["BEGIN IMMEDIATE", "COMMIT"]);
        assert_eq!(message(outcome), "7");
    }

    #[test]
    fn work_that_fails_is_rolled_back_and_its_error_kept() {
        let conflict = || Err(Error::status(StatusCode::CONFLICT, "sold out"));
        for refused in ["", "ROLLBACK"] {
            let (statements, outcome) = statements_of(refused, conflict);
            assert_eq!(statements, ["BEGIN IMMEDIATE", "ROLLBACK"]);
            assert_eq!(message(outcome), "sold out");
        }
    }

    #[test]
    fn a_failed_commit_is_an_error_and_rolled_back() {
        let (statements, outcome) = statements_of("COMMIT", || Ok(7));
        assert_eq!(statements, ["BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"]);
        assert_eq!(message(outcome), "COMMIT failed");
    }

    #[test]
    fn without_a_begin_the_work_is_not_done() {
        let (statements, outcome) = statements_of("BEGIN IMMEDIATE", || Ok(7));
        assert_eq!(statements, ["BEGIN IMMEDIATE"]);
        assert_eq!(message(outcome), "BEGIN IMMEDIATE failed");
    }
}
