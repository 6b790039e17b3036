//! Why the database could not do what was asked, told apart.
//!
//! `spin:sqlite` gives most errors as SQLite's own words, without its result code. The words that SQLite and the host
//! use are stable, so [`DatabaseError::from_message`] tells them apart by how they begin.

use super::row::RowError;
use crate::StatusCode;

/// Why the database could not do what was asked.
///
/// ```
/// use dormouse_sdk::testing::Tenant;
/// use dormouse_sdk::{Constraint, DatabaseError};
///
/// let db = Tenant::new().database();
/// let error = db.execute("INSERT INTO guests VALUES (1)", ()).unwrap_err();
/// assert_eq!(error, DatabaseError::NoSuchTable("guests".into()));
///
/// db.execute("CREATE TABLE guests (id INTEGER PRIMARY KEY)", ())?;
/// db.execute("INSERT INTO guests VALUES (1)", ())?;
/// match db.execute("INSERT INTO guests VALUES (1)", ()) {
///     Err(DatabaseError::Constraint(Constraint::Unique, what)) => assert_eq!(what, "guests.id"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), DatabaseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// There is no database of this name.
    #[error("there is no such database")]
    NoSuchDatabase,
    /// This function may not use the database, or has opened it too often.
    #[error("access to the database is denied")]
    AccessDenied,
    /// The connection is not valid.
    #[error("the database connection is not valid")]
    InvalidConnection,
    /// The database has reached its size limit.
    #[error("the database is full")]
    DatabaseFull,
    /// A constraint of the schema is broken: which kind, and which columns or constraint, as SQLite names them.
    #[error("{0} constraint failed{separator}{1}", separator = if .1.is_empty() { "" } else { ": " })]
    Constraint(Constraint, String),
    /// There is no table or view of this name.
    #[error("no such table: {0}")]
    NoSuchTable(String),
    /// There is no column of this name.
    #[error("no such column: {0}")]
    NoSuchColumn(String),
    /// The text is no SQL, in SQLite's own words.
    #[error("{0}")]
    Syntax(String),
    /// Other requests write, or wrote what this transaction had read; the same may work when tried again.
    #[error("{0}")]
    Busy(String),
    /// The statement ran, or the transaction stayed open, for longer than it may. A transaction is rolled back.
    #[error("{0}")]
    TimedOut(String),
    /// The statement does what a function may not do.
    #[error("{0}")]
    NotAuthorized(String),
    /// A value, the statement, its result or the memory for it is larger than it may be: which of them, and how large it
    /// may be.
    #[error("{0}")]
    TooLarge(String),
    /// The host cannot read or write the database file; its operator's log says why.
    #[error("the database's storage failed")]
    Storage,
    /// Anything else, in SQLite's own words: mostly a mistake in the statement.
    #[error("{0}")]
    Statement(String),
    /// The parameters are not those of the statement.
    #[error("{0}")]
    Parameters(String),
    /// [`Database::query_one`](crate::Database::query_one) or
    /// [`query_scalar`](crate::Database::query_scalar) found no row.
    #[error("the query returned no row")]
    NoRow,
    /// A row does not fit the type that was asked for.
    #[error("a row does not fit: {0}")]
    Row(RowError),
}

/// Not by `#[from]`, which would also make it the source and so say it twice in the log.
impl From<RowError> for DatabaseError {
    fn from(error: RowError) -> Self {
        Self::Row(error)
    }
}

/// A kind of constraint.
///
/// ```
/// assert_eq!(dormouse_sdk::Constraint::NotNull.to_string(), "NOT NULL");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Constraint {
    /// `UNIQUE` or `PRIMARY KEY`.
    Unique,
    /// `NOT NULL`.
    NotNull,
    /// `CHECK`.
    Check,
    /// `REFERENCES`.
    ForeignKey,
    /// The column types of a `STRICT` table, or the integer of an `INTEGER PRIMARY KEY`.
    Type,
}

impl Constraint {
    const fn name(self) -> &'static str {
        match self {
            Self::Unique => "UNIQUE",
            Self::NotNull => "NOT NULL",
            Self::Check => "CHECK",
            Self::ForeignKey => "FOREIGN KEY",
            Self::Type => "type",
        }
    }
}

impl std::fmt::Display for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

type Beginning = (&'static str, fn(String) -> DatabaseError);

/// How a message begins, and what it then is.
const BEGINNINGS: &[Beginning] = &[
    ("no such table: ", |message| DatabaseError::NoSuchTable(after(&message, "no such table: "))),
    ("database is locked", DatabaseError::Busy),
    ("database table is locked", DatabaseError::Busy),
    ("not authorized", DatabaseError::NotAuthorized),
    ("the statement ran longer than ", DatabaseError::TimedOut),
    ("the transaction was ", DatabaseError::TimedOut),
    ("string or blob too big", DatabaseError::TooLarge),
    ("statement too long", DatabaseError::TooLarge),
    ("too many ", DatabaseError::TooLarge),
    ("LIKE or GLOB pattern too complex", DatabaseError::TooLarge),
    ("Expression tree is too large", DatabaseError::TooLarge),
    ("the result is larger than ", DatabaseError::TooLarge),
    ("statements of more than ", DatabaseError::TooLarge),
    ("out of memory", DatabaseError::TooLarge),
    ("no such column: ", |message| DatabaseError::NoSuchColumn(after(&message, "no such column: "))),
    ("unrecognized token", DatabaseError::Syntax),
    ("incomplete input", DatabaseError::Syntax),
    ("datatype mismatch", |message| DatabaseError::Constraint(Constraint::Type, message)),
    ("the statement takes ", DatabaseError::Parameters),
    ("the database's storage failed", |_| DatabaseError::Storage),
    ("cannot store ", |message| DatabaseError::Constraint(Constraint::Type, message)),
];

const CONSTRAINTS: &[Constraint] =
    &[Constraint::Unique, Constraint::NotNull, Constraint::Check, Constraint::ForeignKey];

fn after(message: &str, beginning: &str) -> String {
    message.strip_prefix(beginning).unwrap_or(message).to_owned()
}

impl DatabaseError {
    /// The error that a message of SQLite's, or of the host's, stands for.
    pub(crate) fn from_message(message: String) -> Self {
        if let Some((_, meaning)) = BEGINNINGS.iter().find(|(beginning, _)| message.starts_with(beginning)) {
            return meaning(message);
        }
        let broken = CONSTRAINTS.iter().find_map(|constraint| {
            let rest = message.strip_prefix(constraint.name())?.strip_prefix(" constraint failed")?;
            Some(Self::Constraint(*constraint, rest.strip_prefix(": ").unwrap_or(rest).to_owned()))
        });
        match broken {
            Some(broken) => broken,
            None if message.starts_with("near \"") && message.ends_with("syntax error") => {
                Self::Syntax(message)
            }
            None => Self::Statement(message),
        }
    }

    /// The status that a caller gets: 503 for what may work when tried again, otherwise 500.
    ///
    /// ```
    /// assert_eq!(dormouse_sdk::DatabaseError::DatabaseFull.status(), 500);
    /// ```
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_apart(message: &str) -> DatabaseError {
        DatabaseError::from_message(message.to_owned())
    }

    #[test]
    fn messages_are_told_apart() {
        let broken = |constraint, what: &str| DatabaseError::Constraint(constraint, what.to_owned());
        assert_eq!(told_apart("UNIQUE constraint failed: t.a, t.b"), broken(Constraint::Unique, "t.a, t.b"));
        assert_eq!(told_apart("NOT NULL constraint failed: t.a"), broken(Constraint::NotNull, "t.a"));
        assert_eq!(told_apart("CHECK constraint failed: a > 0"), broken(Constraint::Check, "a > 0"));
        assert_eq!(told_apart("FOREIGN KEY constraint failed"), broken(Constraint::ForeignKey, ""));
        let strict = "cannot store TEXT value in INTEGER column t.a";
        assert_eq!(told_apart(strict), broken(Constraint::Type, strict));
        assert_eq!(told_apart("no such table: main.t"), DatabaseError::NoSuchTable("main.t".into()));
        let busy = "database is locked: other requests wrote for 10 s";
        assert_eq!(told_apart(busy), DatabaseError::Busy(busy.into()));
        assert_eq!(told_apart(busy).status(), 503);
        assert_eq!(told_apart("the database's storage failed"), DatabaseError::Storage);
        assert_eq!(told_apart("no such column: b"), DatabaseError::NoSuchColumn("b".into()));
        for mistake in ["near \"SELEC\": syntax error", "incomplete input", "unrecognized token: \"'a\""] {
            assert_eq!(told_apart(mistake), DatabaseError::Syntax(mistake.into()));
        }
        let large =
            "too many SQL variables: at most 999 parameters in a statement; write fewer rows with each";
        assert_eq!(told_apart(large), DatabaseError::TooLarge(large.into()));
        let other = "table t already exists";
        assert_eq!(told_apart(other), DatabaseError::Statement(other.into()));
    }
}
