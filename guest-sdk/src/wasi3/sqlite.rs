//! `spin:sqlite@3.1.0`.

use std::{mem, vec};

use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};

use super::bindings::spin::sqlite::sqlite as wit;
use crate::{DatabaseError, Value};

/// The most rows that one read asks for.
const ROWS_AT_ONCE_MAX: usize = 64;

impl From<wit::Error> for DatabaseError {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::NoSuchDatabase => Self::NoSuchDatabase,
            wit::Error::AccessDenied => Self::AccessDenied,
            wit::Error::InvalidConnection => Self::InvalidConnection,
            wit::Error::DatabaseFull => Self::DatabaseFull,
            wit::Error::Io(message) => Self::from_message(message),
        }
    }
}

impl From<wit::Value> for Value {
    fn from(value: wit::Value) -> Self {
        match value {
            wit::Value::Integer(integer) => Self::Integer(integer),
            wit::Value::Real(real) => Self::Real(real),
            wit::Value::Text(text) => Self::Text(text),
            wit::Value::Blob(bytes) => Self::Blob(bytes),
            wit::Value::Null => Self::Null,
        }
    }
}

impl From<Value> for wit::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Integer(integer) => Self::Integer(integer),
            Value::Real(real) => Self::Real(real),
            Value::Text(text) => Self::Text(text),
            Value::Blob(bytes) => Self::Blob(bytes),
            Value::Null => Self::Null,
        }
    }
}

/// A connection to the tenant's database.
#[derive(Debug)]
pub(crate) struct Connection(wit::Connection);

impl Connection {
    pub(crate) async fn open() -> Result<Self, DatabaseError> {
        Ok(Self(wit::Connection::open_async("default".to_owned()).await?))
    }

    /// Runs the first statement of `sql`.
    pub(crate) async fn execute(&self, sql: &str, values: Vec<Value>) -> Result<Found, DatabaseError> {
        let values = values.into_iter().map(Into::into).collect();
        let (columns, rows, ended) = self.0.execute_async(sql.to_owned(), values).await?;
        if columns.is_empty() {
            // Nothing is to come but how it went: also what is wrong with the statement is told there.
            drop(rows);
            ended.await?;
            return Ok(Found { columns, read: Vec::new().into_iter(), unread: Unread::Nothing });
        }
        Ok(Found { columns, read: Vec::new().into_iter(), unread: Unread::Rows(rows, ended) })
    }

    /// Ends a transaction that nobody waits for any more.
    pub(crate) fn roll_back(&self) {
        // If it fails, Dormouse rolls back at the end of the request.
        let _ = self.0.execute("ROLLBACK", &[]);
    }

    pub(crate) async fn changes(&self) -> u64 {
        self.0.changes_async().await
    }

    pub(crate) async fn last_insert_rowid(&self) -> i64 {
        self.0.last_insert_rowid_async().await
    }
}

/// How a statement ended.
type Ended = FutureReader<Result<(), wit::Error>>;

/// What a statement returns, as it comes.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) columns: Vec<String>,
    read: vec::IntoIter<wit::RowResult>,
    unread: Unread,
}

/// What is still with the host.
#[derive(Debug)]
enum Unread {
    Rows(StreamReader<wit::RowResult>, Ended),
    /// Whoever finds it so comes after a read that was given up, whose rows are lost.
    BeingRead,
    Nothing,
}

fn given_up() -> DatabaseError {
    DatabaseError::Statement("a read of the rows was given up, so some are lost".to_owned())
}

impl Found {
    /// The next row; `None` when the statement has ended well.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Value>>, DatabaseError> {
        loop {
            if let Some(row) = self.read.next() {
                return Ok(Some(row.values.into_iter().map(Into::into).collect()));
            }
            let (mut rows, ended) = match mem::replace(&mut self.unread, Unread::BeingRead) {
                Unread::Rows(rows, ended) => (rows, ended),
                Unread::BeingRead => return Err(given_up()),
                Unread::Nothing => {
                    self.unread = Unread::Nothing;
                    return Ok(None);
                }
            };
            let (result, read) = rows.read(Vec::with_capacity(ROWS_AT_ONCE_MAX)).await;
            self.read = read.into_iter();
            if matches!(result, StreamResult::Complete(_)) || !self.read.as_slice().is_empty() {
                self.unread = Unread::Rows(rows, ended);
            } else {
                let ended = ended.await;
                self.unread = Unread::Nothing;
                ended?;
            }
        }
    }

    /// Leaves the rows that are still to come, and waits for the end of the statement.
    pub(crate) async fn finish(self) -> Result<(), DatabaseError> {
        match self.unread {
            Unread::Rows(rows, ended) => {
                drop(rows);
                Ok(ended.await?)
            }
            Unread::BeingRead => Err(given_up()),
            Unread::Nothing => Ok(()),
        }
    }
}
