//! The tenant's database for async handlers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use serde::de::DeserializeOwned;

use super::row;
use crate::host::asynchronous::{Connection, Found, spawn};
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
    connection: Rc<Connection>,
}

impl Database {
    /// Opens the tenant's database. Every connection of a request joins the same session. [`Database`] has an example of
    /// this and the other methods.
    ///
    /// # Errors
    ///
    /// If this function may not use it, or has opened too many connections.
    pub async fn open() -> Result<Self, DatabaseError> {
        Ok(Self { connection: Rc::new(Connection::open().await?) })
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
        Ok(Rows { columns: mem::take(&mut found.columns).into(), found })
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
        let mut columns = mem::take(&mut found.columns);
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
        GivenUp::settled().await;
        let mut open = Begin::new(Open::begin(Rc::clone(&self.connection))).await?;
        let outcome = match work(self).await {
            Ok(value) => self.run("COMMIT", ()).await.map(|_| value).map_err(Into::into),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            // As in `Database::transaction`: the first error is the one that counts.
            let _ = self.run("ROLLBACK", ()).await;
        }
        // It has ended, so there is nothing left to roll back.
        open.0 = None;
        outcome
    }

    async fn run(&self, sql: &str, params: impl Params) -> Result<Found, DatabaseError> {
        let values = params.into_values(sql)?;
        GivenUp::settled().await;
        self.connection.execute(sql, values).await
    }
}

/// A transaction that is rolled back when whoever works in it is dropped.
struct Open(Option<Rc<Connection>>);

impl Open {
    async fn begin(connection: Rc<Connection>) -> Result<Self, DatabaseError> {
        connection.execute("BEGIN IMMEDIATE", Vec::new()).await?;
        Ok(Self(Some(connection)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.roll_back();
        }
    }
}

/// A transaction that begins. The host begins it even when nobody waits for it any more; then a task of its own waits
/// on, and rolls it back.
struct Begin(Option<Beginning>);

type Beginning = Pin<Box<dyn Future<Output = Result<Open, DatabaseError>>>>;

impl Begin {
    fn new(beginning: impl Future<Output = Result<Open, DatabaseError>> + 'static) -> Self {
        Self(Some(Box::pin(beginning)))
    }
}

impl Future for Begin {
    type Output = Result<Open, DatabaseError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(beginning) = &mut self.0 else { return Poll::Pending };
        let polled = beginning.as_mut().poll(context);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Begin {
    fn drop(&mut self) {
        let Some(beginning) = self.0.take() else { return };
        GIVEN_UP.with_borrow_mut(|given_up| given_up.beginnings += 1);
        spawn(async move {
            drop(beginning.await);
            GivenUp::settle_one();
        });
    }
}

thread_local! {
    /// All of an instance, and so of a request, whose connections share one transaction.
    static GIVEN_UP: RefCell<GivenUp> = const { RefCell::new(GivenUp { beginnings: 0, waiting: Vec::new() }) };
}

/// The beginnings that nobody waits for. Until they are rolled back no statement starts: it would be in the transaction.
struct GivenUp {
    beginnings: usize,
    waiting: Vec<Waker>,
}

impl GivenUp {
    /// Waits until no transaction is left that begins for nobody.
    async fn settled() {
        poll_fn(|context| {
            GIVEN_UP.with_borrow_mut(|given_up| {
                if given_up.beginnings == 0 {
                    return Poll::Ready(());
                }
                given_up.waiting.push(context.waker().clone());
                Poll::Pending
            })
        })
        .await;
    }

    fn settle_one() {
        let waiting = GIVEN_UP.with_borrow_mut(|given_up| {
            given_up.beginnings -= 1;
            mem::take(&mut given_up.waiting)
        });
        waiting.into_iter().for_each(Waker::wake);
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
    /// If the statement fails, or if an earlier read of a row was given up: some rows are lost then.
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

    /// Begins a transaction, and is dropped while the database is busy.
    fn give_up_beginning(db: &Database) {
        let connection = Rc::clone(&db.connection);
        let mut is_busy = true;
        let mut begin = Begin::new(async move {
            poll_fn(|_| if mem::take(&mut is_busy) { Poll::Pending } else { Poll::Ready(()) }).await;
            Open::begin(connection).await
        });
        assert!(Pin::new(&mut begin).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    #[test]
    fn a_beginning_that_is_given_up_takes_no_statement_along() {
        Tenant::new().enter_async(async {
            let db = numbers().await;
            give_up_beginning(&db);
            insert(&db).await.unwrap();
            assert_eq!(count(&db).await, 1);
            assert!(db.execute("ROLLBACK", ()).await.is_err(), "no transaction is open");
        });
    }

    #[test]
    fn a_beginning_that_is_given_up_leaves_the_transaction_of_another_alone() {
        Tenant::new().enter_async(async {
            let db = numbers().await;
            db.transaction(async |db| {
                insert(db).await?;
                give_up_beginning(db);
                insert(db).await
            })
            .await
            .unwrap();
            assert_eq!(count(&db).await, 2);
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
