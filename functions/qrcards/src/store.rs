//! Cards and scans in the tenant's database.
//!
//! Scans are counted by card and day, so that the table grows with time and not with success, and says nothing of who
//! scanned.

use dormouse_sdk::{Database, DatabaseError, named};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, DatabaseError>;

const SCHEMA: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS cards (
         id         TEXT PRIMARY KEY,
         title      TEXT NOT NULL,
         link       TEXT NOT NULL,
         created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
     ) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS scans (
         card  TEXT NOT NULL REFERENCES cards (id) ON DELETE CASCADE,
         day   TEXT NOT NULL,
         count INTEGER NOT NULL,
         PRIMARY KEY (card, day)
     ) WITHOUT ROWID",
];

/// A card and how often it was scanned.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) link: String,
    pub(crate) created_at: String,
    pub(crate) scans: i64,
}

/// The scans of a card on one day (UTC).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Day {
    day: String,
    count: i64,
}

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
                for table in SCHEMA {
                    self.0.execute(table, ())?;
                }
                work(&self.0)
            }
            done => done,
        }
    }

    /// An id at random. It is not looked for whether it is taken: eight digits hardly ever are, and then the card is
    /// refused.
    pub(crate) fn draw_id(&self) -> Result<String> {
        self.0.query_scalar("SELECT lower(hex(randomblob(4)))", ())
    }

    pub(crate) fn create(&self, id: &str, title: &str, link: &str) -> Result<Card> {
        self.with_tables(|db| {
            db.query_one(
                "INSERT INTO cards (id, title, link) VALUES (:id, :title, :link)
                 RETURNING id, title, link, created_at, 0 AS scans",
                named! { id: id, title: title, link: link },
            )
        })
    }

    /// All cards, the latest first.
    pub(crate) fn cards(&self) -> Result<Vec<Card>> {
        self.with_tables(|db| {
            db.query_as(
                "SELECT cards.*, coalesce(sum(scans.count), 0) AS scans
                 FROM cards LEFT JOIN scans ON scans.card = cards.id
                 GROUP BY cards.id ORDER BY created_at DESC, id LIMIT 1000",
                (),
            )
        })
    }

    pub(crate) fn card(&self, id: &str) -> Result<Option<Card>> {
        self.with_tables(|db| {
            db.query_optional(
                "SELECT *, (SELECT coalesce(sum(count), 0) FROM scans WHERE card = id) AS scans FROM cards WHERE id = ?",
                [id],
            )
        })
    }

    pub(crate) fn link(&self, id: &str) -> Result<Option<String>> {
        self.with_tables(|db| db.query_optional("SELECT link FROM cards WHERE id = ?", [id]))
    }

    /// Gives a card another title and link.
    pub(crate) fn change(&self, id: &str, title: &str, link: &str) -> Result<Option<Card>> {
        let sql = "UPDATE cards SET title = :title, link = :link WHERE id = :id";
        self.with_tables(|db| db.execute(sql, named! { id: id, title: title, link: link }))?;
        self.card(id)
    }

    /// Deletes a card and its scans; whether there was one.
    pub(crate) fn remove(&self, id: &str) -> Result<bool> {
        self.with_tables(|db| Ok(db.execute("DELETE FROM cards WHERE id = ?", [id])? == 1))
    }

    pub(crate) fn count_scan(&self, id: &str) -> Result<()> {
        let sql = "INSERT INTO scans (card, day, count) VALUES (?, date('now'), 1)
                   ON CONFLICT DO UPDATE SET count = count + 1";
        self.0.execute(sql, [id]).map(drop)
    }

    /// The scans of a card by day, the latest first, of at most a year.
    pub(crate) fn days(&self, id: &str) -> Result<Vec<Day>> {
        let sql = "SELECT day, count FROM scans WHERE card = ? ORDER BY day DESC LIMIT 366";
        self.0.query_as(sql, [id])
    }
}
