//! The tenant's database for async handlers.

use std::rc::Rc;

use serde::de::DeserializeOwned;

use super::row;
use crate::host::asynchronous::{Connection, Found};
use crate::{DatabaseError, Params, Result, Row};

/// A connection to the tenant's SQLite database, in an async handler.
///
/// It is [`Database`](crate::Database) with `.await`: statements take their parameters in the same way, and rows are
/// read into the same types. Statements that are started together run one after the other.
///
/// ```
/// use dormouse_sdk::asynchronous::Database;
///
/// # dormouse_sdk::testing::Tenant::new().enter_async(async {
/// let db = Database::open().await?;
/// db.execute("CREATE TABLE guests (id INTEGER PRIMARY KEY, name TEXT NOT NULL)", ()).await?;
/// assert_eq!(db.execute("INSERT INTO guests (name) VALUES (?)", ["Ada"]).await?, 1);
/// assert_eq!(db.last_insert_rowid().await, 1);
/// let guests: Vec<(i64, String)> = db.query_as("SELECT id, name FROM guests", ()).await?;
/// assert_eq!(guests, [(1, "Ada".to_owned())]);
/// # Ok::<(), dormouse_sdk::DatabaseError>(()) })?;
/// # Ok::<(), dormouse_sdk::DatabaseError>(())
/// ```
#[derive(Debug)]
pub struct Database {
    connection: Connection,
}

impl Database {
    /// Opens the tenant's database. Every connection of a request joins the same session. [`Database`] has an example of
    /// this and the other methods.
    ///
    /// # Errors
    ///
    /// If this function may not use it, or has opened too many connections.
    pub async fn open() -> Result<Self, DatabaseError> {
        Ok(Self { connection: Connection::open().await? })
    }

    /// Runs one statement and tells how many rows the latest INSERT, UPDATE or DELETE changed.
    ///
    /// # Errors
    ///
    /// If SQLite refuses the statement.
    pub async fn execute(&self, sql: &str, params: impl Params) -> Result<u64, DatabaseError> {
        self.run(sql, params).await?.finish().await?;
        Ok(self.connection.changes().await)
    }

    /// Runs one statement and returns its rows, each of which is awaited on its own.
    ///
    /// ```
    /// # use dormouse_sdk::asynchronous::Database;
    /// # dormouse_sdk::testing::Tenant::new().enter_async(async {
    /// # let db = Database::open().await?;
    /// let mut rows = db.query("SELECT 7 AS id, 'Ada' AS name", ()).await?;
    /// while let Some(row) = rows.next().await? {
    ///     assert_eq!(row.get::<u8>("id")?, 7);
    /// }
    /// # Ok::<(), dormouse_sdk::DatabaseError>(()) })?;
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If SQLite refuses the statement.
    pub async fn query(&self, sql: &str, params: impl Params) -> Result<Rows, DatabaseError> {
        let mut found = self.run(sql, params).await?;
        Ok(Rows { columns: std::mem::take(&mut found.columns).into(), found })
    }

    /// Runs one statement and reads its rows into structs by column name, into tuples by position, or, if there is
    /// only one column, into its type.
    ///
    /// # Errors
    ///
    /// If SQLite refuses the statement, or a row does not fit `T`.
    pub async fn query_as<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<Vec<T>, DatabaseError> {
        let mut rows = self.query(sql, params).await?;
        let mut all = Vec::new();
        while let Some(row) = rows.next_as().await? {
            all.push(row);
        }
        Ok(all)
    }

    /// Like [`query_as`](Self::query_as), for the first row of a query that has one.
    ///
    /// ```
    /// # use dormouse_sdk::asynchronous::Database;
    /// # dormouse_sdk::testing::Tenant::new().enter_async(async {
    /// # let db = Database::open().await?;
    /// let (id, name): (i64, String) = db.query_one("SELECT 7, 'Ada'", ()).await?;
    /// assert_eq!((id, name.as_str()), (7, "Ada"));
    /// assert_eq!(db.query_optional::<i64>("SELECT 1 WHERE 1 = 2", ()).await?, None);
    /// assert_eq!(db.query_scalar::<i64>("SELECT count(*), 'the rest' FROM sqlite_schema", ()).await?, 0);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(()) })?;
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`DatabaseError::NoRow`] if there is none, and as `query_as`.
    pub async fn query_one<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<T, DatabaseError> {
        self.query_optional(sql, params).await?.ok_or(DatabaseError::NoRow)
    }

    /// Like [`query_as`](Self::query_as), for the first row of a query that may have none.
    ///
    /// # Errors
    ///
    /// As `query_as`.
    pub async fn query_optional<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<Option<T>, DatabaseError> {
        let mut rows = self.query(sql, params).await?;
        let first = rows.next_as().await?;
        rows.found.finish().await?;
        Ok(first)
    }

    /// The first column of the first row, however many there are.
    ///
    /// # Errors
    ///
    /// [`DatabaseError::NoRow`] if there is no row, or if SQLite refuses the statement or the value does not fit `T`.
    pub async fn query_scalar<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: impl Params,
    ) -> Result<T, DatabaseError> {
        let mut found = self.run(sql, params).await?;
        let mut columns = std::mem::take(&mut found.columns);
        let mut values = found.next().await?.ok_or(DatabaseError::NoRow)?;
        found.finish().await?;
        columns.truncate(1);
        values.truncate(1);
        Ok(row::read(&columns, values)?)
    }

    /// The rowid of this connection's latest INSERT, or 0.
    pub async fn last_insert_rowid(&self) -> i64 {
        self.connection.last_insert_rowid().await
    }

    /// Runs `work` in a transaction that may write from its start: committed if it returns `Ok`, rolled back if it
    /// returns `Err`, or if nobody waits for it any more.
    ///
    /// ```
    /// use dormouse_sdk::asynchronous::Database;
    /// use dormouse_sdk::{Error, StatusCode};
    ///
    /// # dormouse_sdk::testing::Tenant::new().enter_async(async {
    /// # let db = Database::open().await?;
    /// # db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, stock INTEGER)", ()).await?;
    /// # db.execute("INSERT INTO items VALUES (1, 1)", ()).await?;
    /// let sell = async || {
    ///     db.transaction(async |db| {
    ///         db.execute("UPDATE items SET stock = stock - 1 WHERE id = ?", [1]).await?;
    ///         if db.query_scalar::<i64>("SELECT stock FROM items WHERE id = ?", [1]).await? < 0 {
    ///             return Err(Error::status(StatusCode::CONFLICT, "The item is sold out."));
    ///         }
    ///         Ok(())
    ///     })
    ///     .await
    /// };
    /// assert!(sell().await.is_ok());
    /// assert!(sell().await.is_err());
    /// assert_eq!(db.query_scalar::<i64>("SELECT stock FROM items WHERE id = ?", [1]).await?, 0);
    /// # Ok::<(), dormouse_sdk::DatabaseError>(()) })?;
    /// # Ok::<(), dormouse_sdk::DatabaseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `work`, or the database's if the transaction could not begin or commit; then nothing of it stays.
    pub async fn transaction<T>(&self, work: impl AsyncFnOnce(&Self) -> Result<T>) -> Result<T> {
        self.run("BEGIN IMMEDIATE", ()).await?;
        let open = Open(&self.connection);
        let outcome = match work(self).await {
            Ok(value) => self.run("COMMIT", ()).await.map(|_| value).map_err(Into::into),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            // As in `Database::transaction`: the first error is the one that counts.
            let _ = self.run("ROLLBACK", ()).await;
        }
        // It has ended, so there is nothing left to roll back.
        std::mem::forget(open);
        outcome
    }

    async fn run(&self, sql: &str, params: impl Params) -> Result<Found, DatabaseError> {
        self.connection.execute(sql, params.into_values(sql)?).await
    }
}

/// A transaction that is rolled back when whoever works in it is dropped.
struct Open<'c>(&'c Connection);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.roll_back();
    }
}

/// The rows that a query returns, as they come.
///
/// ```
/// # use dormouse_sdk::asynchronous::Database;
/// # dormouse_sdk::testing::Tenant::new().enter_async(async {
/// # let db = Database::open().await?;
/// let mut rows = db.query("SELECT 1 AS id, 'Ada' AS name UNION SELECT 2, 'Bob'", ()).await?;
/// assert_eq!(rows.columns(), ["id", "name"]);
/// while let Some((id, name)) = rows.next_as::<(u32, String)>().await? {
///     assert_eq!(name, if id == 1 { "Ada" } else { "Bob" });
/// }
/// # Ok::<(), dormouse_sdk::DatabaseError>(()) })?;
/// # Ok::<(), dormouse_sdk::DatabaseError>(())
/// ```
#[derive(Debug)]
pub struct Rows {
    columns: Rc<[String]>,
    found: Found,
}

impl Rows {
    /// The names of the columns. [`Rows`] has an example of this and the other methods.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The next row, or `None` after the last.
    ///
    /// # Errors
    ///
    /// If the statement fails.
    pub async fn next(&mut self) -> Result<Option<Row>, DatabaseError> {
        let values = self.found.next().await?;
        Ok(values.map(|values| Row::new(Rc::clone(&self.columns), values)))
    }

    /// The next row as a struct, a map, a tuple or a single value.
    ///
    /// # Errors
    ///
    /// If the statement fails, or the row does not fit `T`.
    pub async fn next_as<T: DeserializeOwned>(&mut self) -> Result<Option<T>, DatabaseError> {
        let values = self.found.next().await?;
        Ok(values.map(|values| row::read(&self.columns, values)).transpose()?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::future::pending;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::testing::Tenant;
    use crate::{Error, StatusCode};

    async fn numbers() -> Database {
        let db = Database::open().await.unwrap();
        db.execute("CREATE TABLE numbers (n INTEGER)", ()).await.unwrap();
        db
    }

    async fn insert(db: &Database) -> Result<()> {
        db.execute("INSERT INTO numbers VALUES (7)", ()).await?;
        Ok(())
    }

    async fn count(db: &Database) -> i64 {
        db.query_scalar("SELECT count(*) FROM numbers", ()).await.unwrap()
    }

    #[test]
    fn work_that_fails_is_rolled_back_and_its_error_kept() {
        Tenant::new().enter_async(async {
            let db = numbers().await;
            db.transaction(insert).await.unwrap();
            let failed = db.transaction(async |db| {
                insert(db).await?;
                Err::<(), _>(Error::status(StatusCode::CONFLICT, "sold out"))
            });
            assert_eq!(failed.await.unwrap_err().to_string(), "sold out");
            assert_eq!(count(&db).await, 1);
            assert!(db.execute("ROLLBACK", ()).await.is_err(), "no transaction is open");
        });
    }

    #[test]
    fn work_that_is_given_up_is_rolled_back() {
        Tenant::new().enter_async(async {
            let db = numbers().await;
            {
                let mut given_up = pin!(db.transaction(async |db| {
                    insert(db).await?;
                    pending::<Result<()>>().await
                }));
                let polled = given_up.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_pending());
            }
            assert_eq!(count(&db).await, 0);
            assert!(db.execute("ROLLBACK", ()).await.is_err(), "no transaction is open");
        });
    }

    #[test]
    fn missing_rows_are_told() {
        Tenant::new().enter_async(async {
            let db = numbers().await;
            let sql = "SELECT n FROM numbers";
            assert_eq!(db.query_one::<i64>(sql, ()).await, Err(DatabaseError::NoRow));
            assert_eq!(db.query_scalar::<i64>(sql, ()).await, Err(DatabaseError::NoRow));
            assert!(db.query("SELEKT", ()).await.is_err());
        });
    }
}
