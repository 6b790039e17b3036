//! A session with an in-memory database that behaves as the host's: the same limits, the same words in its errors.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::vec;

use libsql::ffi;

use super::sqlite::{Sqlite, SqliteError};
use crate::{DatabaseError, Value};

/// One of SQLite's run-time limits for tenants: which, how much, how SQLite's messages begin that mean it, and what the
/// host adds to them.
type Cap = (i32, i32, &'static [&'static str], &'static str);

/// All of them, as Dormouse sets and tells them.
#[rustfmt::skip]
const CAPS: &[Cap] = &[
    (ffi::SQLITE_LIMIT_LENGTH, 1 << 20, &["string or blob too big"],
        "bytes in a value or a row; split it over several rows"),
    (ffi::SQLITE_LIMIT_SQL_LENGTH, 100_000, &["statement too long"],
        "bytes of SQL; give values as parameters"),
    (ffi::SQLITE_LIMIT_COLUMN, 100, &["too many columns", "too many terms in ORDER BY", "too many terms in GROUP BY"],
        "columns; split the table or the result"),
    (ffi::SQLITE_LIMIT_EXPR_DEPTH, 100, &[], ""),
    (ffi::SQLITE_LIMIT_COMPOUND_SELECT, 10, &["too many terms in compound SELECT"],
        "SELECTs joined by UNION and the like; use VALUES or IN"),
    (ffi::SQLITE_LIMIT_VDBE_OP, 25_000, &[], ""),
    (ffi::SQLITE_LIMIT_FUNCTION_ARG, 32, &["too many arguments on function"],
        "arguments; nest calls"),
    (ffi::SQLITE_LIMIT_ATTACHED, 0, &[], ""),
    (ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50, &["LIKE or GLOB pattern too complex"],
        "bytes in a pattern; use instr()"),
    (ffi::SQLITE_LIMIT_VARIABLE_NUMBER, 999, &["too many SQL variables"],
        "parameters in a statement; write fewer rows with each"),
    (ffi::SQLITE_LIMIT_TRIGGER_DEPTH, 10, &["too many levels of trigger recursion"],
        "triggers that set each other off"),
];

/// What the requests of one tenant share. Every connection of a request joins it.
pub(super) struct Session {
    sqlite: RefCell<Sqlite>,
    /// Whether the function believes in a transaction that is no more.
    lost_transaction: Cell<bool>,
    /// Rows that earlier requests changed.
    changes_before: Cell<i64>,
}

impl Session {
    pub(super) fn open() -> Result<Self, DatabaseError> {
        let sqlite = Sqlite::open_in_memory().map_err(explain)?;
        for (limit, value, ..) in CAPS {
            sqlite.limit(*limit, *value);
        }
        sqlite.enable(ffi::SQLITE_DBCONFIG_ENABLE_FKEY).map_err(explain)?;
        sqlite.enable(ffi::SQLITE_DBCONFIG_DEFENSIVE).map_err(explain)?;
        Ok(Self {
            sqlite: RefCell::new(sqlite),
            lost_transaction: Cell::new(false),
            changes_before: Cell::new(0),
        })
    }

    /// Makes the session as good as new for the next request.
    pub(super) fn end_request(&self) {
        let mut sqlite = self.sqlite.borrow_mut();
        if sqlite.in_transaction() {
            // Nothing can keep an in-memory database from rolling back.
            let _ = sqlite.execute("ROLLBACK", &[]);
        }
        sqlite.forget_last_insert_rowid();
        self.lost_transaction.set(false);
        self.changes_before.set(sqlite.total_changes());
    }

    fn execute(&self, sql: &str, values: &[Value]) -> Result<Found, DatabaseError> {
        let ends_transaction =
            sql.trim_start().get(..8).is_some_and(|word| word.eq_ignore_ascii_case("ROLLBACK"));
        if self.lost_transaction.get() {
            if ends_transaction {
                self.lost_transaction.set(false);
                return Ok(Found::default());
            }
            return Err(DatabaseError::from_message(LOST_TRANSACTION.to_owned()));
        }
        let mut sqlite = self.sqlite.borrow_mut();
        let was_in_transaction = sqlite.in_transaction();
        let outcome = sqlite.execute(sql, values);
        let is_lost = was_in_transaction && !sqlite.in_transaction() && !ends_transaction && outcome.is_err();
        self.lost_transaction.set(is_lost);
        let (columns, rows) = outcome.map_err(explain)?;
        Ok(Found { columns, rows: rows.into_iter() })
    }
}

const LOST_TRANSACTION: &str = "the transaction was rolled back after an error or because it was open for too long; \
                                ROLLBACK, then begin again";

/// What the host makes of SQLite's errors.
fn explain(error: SqliteError) -> DatabaseError {
    match error.code & 0xff {
        ffi::SQLITE_FULL => DatabaseError::DatabaseFull,
        ffi::SQLITE_IOERR
        | ffi::SQLITE_CORRUPT
        | ffi::SQLITE_NOTADB
        | ffi::SQLITE_CANTOPEN
        | ffi::SQLITE_READONLY
        | ffi::SQLITE_INTERNAL => DatabaseError::Storage,
        _ => DatabaseError::from_message(with_figure(error.message)),
    }
}

fn with_figure(message: String) -> String {
    let is_about = |cap: &&Cap| cap.2.iter().any(|beginning| message.starts_with(beginning));
    match CAPS.iter().find(is_about) {
        Some((_, value, _, advice)) => format!("{message}: at most {value} {advice}"),
        None => message,
    }
}

/// A connection to the tenant's database.
#[derive(Clone)]
pub(crate) struct Connection(Rc<Session>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection(in memory)")
    }
}

impl Connection {
    pub(super) fn of(session: &Rc<Session>) -> Self {
        Self(Rc::clone(session))
    }

    /// Runs the first statement of `sql`.
    pub(crate) fn execute(&self, sql: &str, values: Vec<Value>) -> Result<Found, DatabaseError> {
        self.0.execute(sql, &values)
    }

    pub(crate) fn changes(&self) -> u64 {
        let sqlite = self.0.sqlite.borrow();
        if sqlite.total_changes() == self.0.changes_before.get() { 0 } else { sqlite.changes() }
    }

    pub(crate) fn last_insert_rowid(&self) -> i64 {
        self.0.sqlite.borrow().last_insert_rowid()
    }
}

/// What a statement returned.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) columns: Vec<String>,
    rows: vec::IntoIter<Vec<Value>>,
}

impl Iterator for Found {
    type Item = Vec<Value>;

    fn next(&mut self) -> Option<Vec<Value>> {
        self.rows.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use crate::testing::{Tenant, TestRequest};
    use crate::{Database, DatabaseError, Value};

    #[test]
    fn values_of_every_type_come_back_as_they_went() {
        let db = Tenant::new().database();
        let values = || {
            vec![
                Value::Integer(i64::MIN),
                Value::Real(0.5),
                Value::Text("a\0ü".into()),
                Value::Blob(vec![]),
                Value::Null,
            ]
        };
        let row = db.query("SELECT ?, ?, ?, ?, ?", values()).unwrap().next().unwrap();
        assert_eq!(row.values(), values());
    }

    #[test]
    fn only_the_first_statement_runs_and_an_empty_one_is_fine() {
        let db = Tenant::new().database();
        assert_eq!(db.query_scalar::<i64>("SELECT 1; SELECT 2", ()).unwrap(), 1);
        assert_eq!(db.query(" -- nothing", ()).unwrap().count(), 0);
    }

    #[test]
    fn the_number_of_parameters_counts() {
        let error = Tenant::new().database().execute("SELECT ?", (1, 2)).unwrap_err();
        assert_eq!(error.to_string(), "the statement takes 1 parameters, 2 were given");
    }

    #[test]
    fn limits_hold() {
        let db = Tenant::new().database();
        let error = db.execute("SELECT zeroblob(?)", [2 << 20]).unwrap_err();
        assert!(matches!(&error, DatabaseError::TooLarge(_)), "{error:?}");
        assert!(error.to_string().starts_with("string or blob too big: at most 1048576 bytes"), "{error}");
    }

    #[test]
    fn what_no_string_can_hold_is_an_error() {
        let db = Tenant::new().database();
        let error = db.query("SELECT CAST(x'ff' AS TEXT) AS t", ()).err().unwrap();
        assert!(error.to_string().starts_with("the text in column \"t\" is not UTF-8"), "{error}");
        let error = db.execute("SELECT 1 \0, 2", ()).unwrap_err();
        assert!(error.to_string().starts_with("the SQL holds a NUL character"), "{error}");
    }

    #[test]
    fn a_request_leaves_no_transaction_and_no_rowid_behind() {
        let tenant = Tenant::new();
        let db = tenant.database();
        db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)", ()).unwrap();
        let leave = || {
            let db = Database::open().unwrap();
            db.execute("BEGIN", ()).unwrap();
            db.execute("INSERT INTO t VALUES (7)", ()).unwrap();
            db.last_insert_rowid().to_string()
        };
        assert_eq!(tenant.call(leave, TestRequest::get("/")).text(), "7");
        assert_eq!(db.query_scalar::<i64>("SELECT count(*) FROM t", ()).unwrap(), 0);
        assert_eq!(db.last_insert_rowid(), 0);
        assert_eq!(db.execute("SELECT 1", ()).unwrap(), 0);
    }

    #[test]
    fn what_follows_a_lost_transaction_is_refused_until_it_is_rolled_back() {
        let db = Tenant::new().database();
        db.execute("CREATE TABLE t (a INTEGER UNIQUE ON CONFLICT ROLLBACK)", ()).unwrap();
        db.execute("BEGIN", ()).unwrap();
        db.execute("INSERT INTO t VALUES (1)", ()).unwrap();
        db.execute("INSERT INTO t VALUES (1)", ()).unwrap_err();
        assert!(matches!(db.execute("INSERT INTO t VALUES (2)", ()), Err(DatabaseError::TimedOut(_))));
        db.execute("ROLLBACK", ()).unwrap();
        assert_eq!(db.query_scalar::<i64>("SELECT count(*) FROM t", ()).unwrap(), 0);
    }

    #[test]
    fn tenants_do_not_see_each_other_and_there_is_none_outside() {
        let (one, other) = (Tenant::new(), Tenant::new());
        one.database().execute("CREATE TABLE t (a)", ()).unwrap();
        assert!(other.database().execute("SELECT * FROM t", ()).is_err());
        one.enter(|| {
            other.enter(|| assert!(Database::open().unwrap().execute("SELECT * FROM t", ()).is_err()));
            assert!(Database::open().unwrap().execute("SELECT * FROM t", ()).is_ok());
        });
        assert!(Database::open().unwrap_err().to_string().contains("outside of a tenant"));
    }
}
