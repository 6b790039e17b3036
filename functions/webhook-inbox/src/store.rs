//! Messages in the tenant's database.

use dormouse_sdk::{Database, DatabaseError, Value, named};

use crate::message::{Message, Search, Summary};

type Result<T> = std::result::Result<T, DatabaseError>;

/// The trigger forgets what is too old within the statement that keeps a new message.
const SCHEMA: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS messages (
         id          INTEGER PRIMARY KEY AUTOINCREMENT,
         received_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
         source      TEXT NOT NULL,
         method      TEXT NOT NULL,
         query       TEXT NOT NULL,
         headers     TEXT NOT NULL,
         body        BLOB NOT NULL
     )",
    "CREATE INDEX IF NOT EXISTS messages_by_source ON messages (source, id)",
    "CREATE TRIGGER IF NOT EXISTS forget AFTER INSERT ON messages BEGIN
         DELETE FROM messages WHERE id <= new.id - 1000;
     END",
];

/// The tenant's database, with the tables of this function.
pub(crate) struct Store(Database);

impl Store {
    pub(crate) fn open() -> Result<Self> {
        Database::open().map(Self)
    }

    /// Does some work; if this is the first time ever, makes the tables and does it again.
    fn with_tables<T>(&self, work: impl Fn(&Database) -> Result<T>) -> Result<T> {
        match work(&self.0) {
            Err(DatabaseError::NoSuchTable(_)) => {
                for statement in SCHEMA {
                    self.0.execute(statement, ())?;
                }
                work(&self.0)
            }
            done => done,
        }
    }

    /// Keeps a message and tells its id.
    pub(crate) fn keep(&self, message: &Message) -> Result<i64> {
        let Message { source, method, query, headers, body, .. } = message;
        self.with_tables(|db| {
            db.execute(
                "INSERT INTO messages (source, method, query, headers, body)
                 VALUES (:source, :method, :query, :headers, :body)",
                named! { source: source, method: method, query: query, headers: headers, body: body },
            )?;
            Ok(db.last_insert_rowid())
        })
    }

    /// The latest messages that a search asks for.
    pub(crate) fn find(&self, search: &Search) -> Result<Vec<Summary>> {
        let limit = Value::Integer(i64::try_from(search.limit()).unwrap_or(1));
        self.with_tables(|db| {
            db.query_as(
                "SELECT id, received_at, source, method, length(body) AS bytes,
                   coalesce(substr(body, 1, 200), x'') AS preview
                 FROM messages
                 WHERE (:source IS NULL OR source = :source) AND (:before IS NULL OR id < :before)
                   AND (:q = '' OR instr(lower(CAST(body AS TEXT) || headers || query), lower(:q)) > 0)
                 ORDER BY id DESC LIMIT :limit",
                named! { source: search.source.as_deref(), before: search.before, q: &search.q, limit: limit.clone() },
            )
        })
    }

    pub(crate) fn message(&self, id: i64) -> Result<Option<Message>> {
        self.with_tables(|db| db.query_optional("SELECT * FROM messages WHERE id = ?", [id]))
    }

    /// Deletes a message; whether there was one.
    pub(crate) fn remove(&self, id: i64) -> Result<bool> {
        self.with_tables(|db| Ok(db.execute("DELETE FROM messages WHERE id = ?", [id])? == 1))
    }
}
