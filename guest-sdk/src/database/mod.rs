//! The tenant's database.
//!
//! A [`Database`] is a connection that belongs to this request alone, so a transaction, a temporary table and the
//! last inserted rowid are its own. A write is on disk when `execute` returns, or, inside a transaction, when the
//! transaction returns.

#[cfg(feature = "async")]
pub(crate) mod asynchronous;
mod error;
mod named;
mod params;
mod row;
mod rows;
mod value;

use serde::de::DeserializeOwned;

pub use self::error::{Constraint, DatabaseError};
pub use self::params::{Named, Params};
pub use self::row::{ColumnIndex, Row, RowError};
pub use self::rows::Rows;
pub use self::value::Value;
use crate::Result;
use crate::host::{Connection, Found};

/// A connection to the tenant's SQLite database.
///
/// Statements take their parameters as a tuple or array, bound to the `?` in order, or by name; see [`Params`]. Only
/// the first statement of a text is run.
///
/// ```
/// use dormouse_sdk::testing::Tenant;
/// use dormouse_sdk::Database;
///
/// # Tenant::new().enter(|| {
/// let db = Database::open()?;
/// db.execute("CREATE TABLE guests (id INTEGER PRIMARY KEY, name TEXT NOT NULL)", ())?;
/// db.execute("INSERT INTO guests (name) VALUES (?)", ["Ada"])?;
/// let guests: Vec<(i64, String)> = db.query_as("SELECT id, name FROM guests", ())?;
/// assert_eq!(guests, [(1, "Ada".to_owned())]);
/// # Ok::<(), dormouse_sdk::DatabaseError>(())
/// # })?;
/// # Ok::<(), dormouse_sdk::DatabaseError>(())
/// ```
#[derive(Debug)]
pub struct Database {
    connection: Connection,
}

impl Database {
    /// Opens the tenant's database. Every connection of a request joins the same session.
    ///
    /// ```
    /// # dormouse_sdk::testing::Tenant::new().enter(|| {
    /// let db = dormouse_sdk::Database::open()?;
    /// assert_eq!(db.query_scalar::<i64>("SELECT 1", ())?, 1);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// # })?;
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If this function may not use it, or has opened too many connections.
    pub fn open() -> Result<Self, DatabaseError> {
        Ok(Self { connection: Connection::open()? })
    }

    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn on(connection: Connection) -> Self {
        Self { connection }
    }

    /// Runs one statement and tells how many rows the latest INSERT, UPDATE or DELETE changed.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// db.execute("CREATE TABLE guests (name TEXT)", ())?;
    /// assert_eq!(db.execute("INSERT INTO guests VALUES (?), (?)", ("Ada", "Bob"))?, 2);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If SQLite refuses the statement.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<u64, DatabaseError> {
        self.run(sql, params)?;
        Ok(self.connection.changes())
    }

    /// Runs one statement and returns its rows, each to be read when it is asked for.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// for row in db.query("SELECT 7 AS id, 'Ada' AS name", ())? {
    ///     assert_eq!(row.get::<u8>("id")?, 7);
    ///     assert_eq!(row.get::<String>(1)?, "Ada");
    /// }
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If SQLite refuses the statement.
    pub fn query(&self, sql: &str, params: impl Params) -> Result<Rows, DatabaseError> {
        Ok(Rows::new(self.run(sql, params)?))
    }

    /// Runs one statement and reads its rows into structs by column name, into tuples by position, or, if there is
    /// only one column, into its type.
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// struct Guest { id: i64, name: String }
    ///
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// let guests: Vec<Guest> = db.query_as("SELECT 7 AS id, 'Ada' AS name", ())?;
    /// assert_eq!((guests[0].id, guests[0].name.as_str()), (7, "Ada"));
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If SQLite refuses the statement, or a row does not fit `T`.
    pub fn query_as<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<Vec<T>, DatabaseError> {
        let mut found = self.run(sql, params)?;
        let columns = std::mem::take(&mut found.columns);
        found.map(|values| Ok(row::read(&columns, values)?)).collect()
    }

    /// Like [`query_as`](Self::query_as), for the first row of a query that has one.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// let (id, name): (i64, String) = db.query_one("SELECT 7, 'Ada'", ())?;
    /// assert_eq!((id, name.as_str()), (7, "Ada"));
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`DatabaseError::NoRow`] if there is none, and as `query_as`.
    pub fn query_one<T: DeserializeOwned>(&self, sql: &str, params: impl Params) -> Result<T, DatabaseError> {
        self.query_optional(sql, params)?.ok_or(DatabaseError::NoRow)
    }

    /// Like [`query_as`](Self::query_as), for the first row of a query that may have none.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// assert_eq!(db.query_optional::<i64>("SELECT 1 WHERE 1 = 2", ())?, None);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As `query_as`.
    pub fn query_optional<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<Option<T>, DatabaseError> {
        let mut found = self.run(sql, params)?;
        let columns = std::mem::take(&mut found.columns);
        Ok(found.next().map(|values| row::read(&columns, values)).transpose()?)
    }

    /// The first column of the first row, however many there are.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// assert_eq!(db.query_scalar::<i64>("SELECT count(*), 'the rest' FROM sqlite_schema", ())?, 0);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`DatabaseError::NoRow`] if there is no row, or if SQLite refuses the statement or the value does not fit `T`.
    pub fn query_scalar<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<T, DatabaseError> {
        let mut found = self.run(sql, params)?;
        let mut columns = std::mem::take(&mut found.columns);
        let mut values = found.next().ok_or(DatabaseError::NoRow)?;
        columns.truncate(1);
        values.truncate(1);
        Ok(row::read(&columns, values)?)
    }

    /// The rowid of this connection's latest INSERT, or 0.
    ///
    /// ```
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// db.execute("CREATE TABLE guests (id INTEGER PRIMARY KEY, name TEXT)", ())?;
    /// db.execute("INSERT INTO guests (name) VALUES (?)", ["Ada"])?;
    /// assert_eq!(db.last_insert_rowid(), 1);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    pub fn last_insert_rowid(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// Runs `work` in a transaction that may write from its start: committed if it returns `Ok`, rolled back if it
    /// returns `Err` or does not return.
    ///
    /// ```
    /// use dormouse_sdk::{Error, StatusCode};
    ///
    /// # let db = dormouse_sdk::testing::Tenant::new().database();
    /// # db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, stock INTEGER)", ())?;
    /// # db.execute("INSERT INTO items VALUES (1, 1)", ())?;
    /// let sell = || db.transaction(|db| {
    ///     db.execute("UPDATE items SET stock = stock - 1 WHERE id = ?", [1])?;
    ///     if db.query_scalar::<i64>("SELECT stock FROM items WHERE id = ?", [1])? < 0 {
    ///         return Err(Error::status(StatusCode::CONFLICT, "The item is sold out."));
    ///     }
    ///     Ok(())
    /// });
    /// assert!(sell().is_ok());
    /// assert!(sell().is_err());
    /// assert_eq!(db.query_scalar::<i64>("SELECT stock FROM items WHERE id = ?", [1])?, 0);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `work`, or the database's if the transaction could not begin or commit; then nothing of it stays.
    pub fn transaction<T>(&self, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.run("BEGIN IMMEDIATE", ())?;
        let outcome = work(self).and_then(|value| {
            self.run("COMMIT", ())?;
            Ok(value)
        });
        if outcome.is_err() {
            // Some errors make SQLite roll back by itself; this then says that no transaction is active. If it fails
            // for another reason, Dormouse rolls back at the end of the request. The first error is the one that
            // counts.
            let _ = self.run("ROLLBACK", ());
        }
        outcome
    }

    fn run(&self, sql: &str, params: impl Params) -> Result<Found, DatabaseError> {
        self.connection.execute(sql, params.into_values(sql)?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use crate::testing::Tenant;
    use crate::{Database, DatabaseError, Error, Result, StatusCode};

    fn numbers() -> Database {
        let db = Tenant::new().database();
        db.execute("CREATE TABLE numbers (n INTEGER UNIQUE, of INTEGER REFERENCES numbers (n) DEFERRABLE INITIALLY DEFERRED)", ())
            .unwrap();
        db
    }

    fn sum(db: &Database) -> Option<i64> {
        db.query_scalar("SELECT sum(n) FROM numbers", ()).unwrap()
    }

    fn message(outcome: Result<u8>) -> String {
        outcome.map_or_else(|error| error.to_string(), |value| value.to_string())
    }

    #[test]
    fn work_that_succeeds_is_committed() {
        let db = numbers();
        let outcome = db.transaction(|db| {
            db.execute("INSERT INTO numbers (n) VALUES (7)", ())?;
            Ok(7)
        });
        assert_eq!(message(outcome), "7");
        assert_eq!(sum(&db), Some(7));
        assert!(db.execute("ROLLBACK", ()).is_err(), "no transaction is open");
    }

    #[test]
    fn work_that_fails_is_rolled_back_and_its_error_kept() {
        let db = numbers();
        let outcome = db.transaction(|db| {
            db.execute("INSERT INTO numbers (n) VALUES (7)", ())?;
            Err::<u8, _>(Error::status(StatusCode::CONFLICT, "sold out"))
        });
        assert_eq!(message(outcome), "sold out");
        assert_eq!(sum(&db), None);
        assert!(db.execute("ROLLBACK", ()).is_err(), "no transaction is open");
    }

    #[test]
    fn a_failed_commit_is_an_error_and_rolled_back() {
        let db = numbers();
        let outcome = db.transaction(|db| {
            db.execute("INSERT INTO numbers VALUES (7, 8)", ())?;
            Ok(7)
        });
        assert_eq!(message(outcome), "FOREIGN KEY constraint failed");
        assert_eq!(sum(&db), None);
        assert!(db.execute("ROLLBACK", ()).is_err(), "no transaction is open");
    }

    #[test]
    fn without_a_begin_the_work_is_not_done() {
        let db = numbers();
        let outcome = db.transaction(|db| {
            db.transaction(|db| {
                db.execute("INSERT INTO numbers (n) VALUES (7)", ())?;
                Ok(7)
            })
        });
        assert_eq!(message(outcome), "cannot start a transaction within a transaction");
        assert_eq!(sum(&db), None);
    }

    #[test]
    fn scalars_optional_rows_and_missing_ones() {
        let db = numbers();
        assert_eq!(db.query_scalar::<String>("SELECT 'first', 'second'", ()).unwrap(), "first");
        assert_eq!(db.query_optional::<i64>("SELECT n FROM numbers", ()).unwrap(), None);
        assert_eq!(db.query_one::<i64>("SELECT n FROM numbers", ()), Err(DatabaseError::NoRow));
        assert_eq!(db.query_scalar::<i64>("SELECT n FROM numbers", ()), Err(DatabaseError::NoRow));
    }

    #[test]
    fn rows_are_read_one_by_one() {
        let db = numbers();
        db.execute("INSERT INTO numbers (n) VALUES (1), (2), (300)", ()).unwrap();
        let mut rows = db.query("SELECT n FROM numbers ORDER BY n", ()).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows.next().unwrap().get::<u8>("n").unwrap(), 1);
        let rest: Vec<_> = rows.read::<u8>().map(|number| number.ok()).collect();
        assert_eq!(rest, [Some(2), None]);
    }
}
