//! `spin:sqlite`.

use std::vec;

use super::bindings::spin::sqlite::sqlite as wit;
use crate::{DatabaseError, Value};

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
    pub(crate) fn open() -> Result<Self, DatabaseError> {
        Ok(Self(wit::Connection::open("default")?))
    }

    /// Runs the first statement of `sql`.
    pub(crate) fn execute(&self, sql: &str, values: Vec<Value>) -> Result<Found, DatabaseError> {
        let values: Vec<wit::Value> = values.into_iter().map(Into::into).collect();
        let wit::QueryResult { columns, rows } = self.0.execute(sql, &values)?;
        Ok(Found { columns, rows: rows.into_iter() })
    }

    pub(crate) fn changes(&self) -> u64 {
        self.0.changes()
    }

    pub(crate) fn last_insert_rowid(&self) -> i64 {
        self.0.last_insert_rowid()
    }
}

/// What a statement returned. Its values are converted row by row, as they are asked for.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) columns: Vec<String>,
    rows: vec::IntoIter<wit::RowResult>,
}

impl Iterator for Found {
    type Item = Vec<Value>;

    fn next(&mut self) -> Option<Vec<Value>> {
        let row = self.rows.next()?;
        Some(row.values.into_iter().map(Into::into).collect())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}
