//! Taking over a database file that somebody has uploaded. Every byte of it is theirs.
//!
//! The file itself is never used. Its schema is made anew under the guard, so that it holds nothing that the tenant
//! could not have made with SQL: no table of the node, no virtual table, no function that is not on the list in a
//! check, a generated column or an index. SQLite checks all pages. Then `VACUUM INTO` writes what the tables hold into
//! a new file, with the page size and the vacuum mode of all databases of the node.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use libsql::ffi;

use super::explain::{self, on_file};
use super::memory::{self, Held};
use super::message::{DatabaseError, Profile, Value};
use super::session::{self, plain, step_through};
use super::sqlite::{Connection, Purpose, SqliteError};
use super::statement::Step;
use crate::limits;

/// The first bytes of every SQLite database: <https://www.sqlite.org/fileformat2.html#the_database_header>.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Bytes of the header.
const HEADER_BYTES: usize = 100;

/// What is read of a schema, and compared.
const SCHEMA: &str = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid";

/// Tables that SQLite makes itself.
const INTERNAL_TABLES: &[(&str, &str)] = &[
    ("sqlite_sequence", "CREATE TABLE sqlite_sequence(name,seq)"),
    ("sqlite_stat1", "CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
    ("sqlite_stat4", "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"),
];

/// What SQLite's check says of rows that break the constraints of their table.
const BROKEN_CONSTRAINTS: &[&str] = &["NULL value in ", "CHECK constraint failed in "];

/// The order in which a schema is made.
const KINDS: &[&str] = &["table", "index", "view", "trigger"];

/// An uploaded file, and where the database that it becomes goes.
pub(super) struct Import {
    pub upload: PathBuf,
    pub path: PathBuf,
    pub bytes_max: u64,
    pub time_max: Duration,
}

impl Import {
    /// Makes a database of the upload, under its name and on disk, or nothing.
    pub(super) fn carry_out(&self, cancelled: &Arc<AtomicBool>) -> Result<(), DatabaseError> {
        let file = |path| move |error| on_file(path, &error);
        prepare(&self.upload).map_err(file(&self.upload))??;
        let deadline = Instant::now() + self.time_max;
        check(&self.upload, deadline, cancelled).map_err(|error| self.explain(error))?;
        let unfinished = self.path.with_extension("new");
        rebuild(&self.upload, &unfinished, deadline, cancelled).map_err(|error| self.explain(error))?;
        let bytes = unfinished.metadata().map_err(file(&unfinished))?.len();
        if bytes > self.bytes_max {
            let most = self.bytes_max;
            return Err(rejected(format!("it takes {bytes} bytes here, and {most} is the most")));
        }
        session::keep(&unfinished, &self.path).map_err(file(&self.path))
    }

    fn explain(&self, error: SqliteError) -> DatabaseError {
        match error.primary() {
            ffi::SQLITE_INTERRUPT => took_too_long(self.time_max),
            ffi::SQLITE_FULL => DatabaseError::Full(error.message),
            ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN => DatabaseError::Storage(error.message),
            ffi::SQLITE_NOMEM if memory::node_was_short() => DatabaseError::NodeMemory,
            ffi::SQLITE_NOMEM => {
                rejected("its schema needs more memory than a connection may take".to_owned())
            }
            _ => rejected(error.message),
        }
    }
}

fn rejected(reason: String) -> DatabaseError {
    DatabaseError::Rejected(reason)
}

fn took_too_long(time_max: Duration) -> DatabaseError {
    DatabaseError::TimedOut(format!("checking the database took longer than {} s", time_max.as_secs()))
}

/// Reads the header, and sets what the tenant must not choose: the journal's mode, and how much memory a cache takes.
fn prepare(upload: &Path) -> std::io::Result<Result<(), DatabaseError>> {
    let file = OpenOptions::new().read(true).write(true).open(upload)?;
    let mut header = [0; HEADER_BYTES];
    let length = file.metadata()?.len();
    if length >= HEADER_BYTES as u64 {
        file.read_exact_at(&mut header, 0)?;
    }
    if let Err(reason) = check_header(&header, length) {
        return Ok(Err(rejected(reason)));
    }
    file.write_all_at(&[1, 1], 18)?;
    file.write_all_at(&[0; 4], 48)?;
    Ok(Ok(()))
}

fn check_header(header: &[u8; HEADER_BYTES], length: u64) -> Result<(), String> {
    let number =
        |at: usize| header.iter().skip(at).take(4).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    if !header.starts_with(MAGIC) {
        return Err(
            "it is no SQLite database, or an encrypted one: the file does not begin as they do".into()
        );
    }
    // The size of a page has two bytes, of which 1 stands for 65,536.
    let page_bytes = match number(16) >> 16 {
        1 => 65_536,
        bytes => bytes,
    };
    let pages = number(28);
    if !page_bytes.is_power_of_two() || page_bytes < 512 {
        return Err(format!("its header is damaged: pages of {page_bytes} bytes"));
    }
    // What SQLite before 3.7 wrote does not tell its pages.
    let tells_pages = number(24) == number(92) && pages > 0;
    if tells_pages && pages * page_bytes > length {
        return Err(format!(
            "it is cut off: {pages} pages of {page_bytes} bytes are more than its {length} bytes"
        ));
    }
    if number(56) > 1 {
        return Err(
            "its texts are UTF-16, and databases here are UTF-8: dump it and read the dump into a new file"
                .into(),
        );
    }
    Ok(())
}

/// Whether a file holds a sound database with a schema that the guard allows.
fn check(upload: &Path, deadline: Instant, cancelled: &Arc<AtomicBool>) -> Result<(), SqliteError> {
    let mut source = guarded(upload, Purpose::Inspect, deadline, cancelled)?;
    let mut held = Held::default();
    let schema = rows(&mut source, SCHEMA, &mut held)?;
    check_schema(&schema, deadline, cancelled)?;
    is_sound(&mut source)
}

/// Has SQLite check all pages. Its program grows with the number of tables, and ends at the deadline. Rows that break
/// their table's constraints are no damage: what a CHECK says may change with the clock or the connection.
pub(super) fn is_sound(connection: &mut Connection) -> Result<(), SqliteError> {
    connection.limit(ffi::SQLITE_LIMIT_VDBE_OP, i32::MAX);
    let mut held = Held::default();
    let verdict = rows(connection, "PRAGMA integrity_check", &mut held)?;
    let is_damage = |text: &&str| {
        *text != "ok" && !BROKEN_CONSTRAINTS.iter().any(|constraint| text.starts_with(constraint))
    };
    match verdict.iter().filter_map(|row| row.first()?.as_text()).find(is_damage) {
        None => Ok(()),
        Some(damage) => {
            // The pages' faults come as one text, below the name of the database.
            let first = damage.lines().find(|line| !line.starts_with("***")).unwrap_or_default();
            Err(wrong(format!("it is damaged: {first}")))
        }
    }
}

/// Checks a database that nobody uses, and reads from it. Nothing is written, not even beside it.
pub(super) fn verify(
    path: &Path,
    queries: &[String],
    time_max: Duration,
    cancelled: &Arc<AtomicBool>,
) -> Result<Vec<Vec<Vec<Value>>>, DatabaseError> {
    let deadline = Instant::now() + time_max;
    let work = || -> Result<_, SqliteError> {
        let mut connection = guarded(path, Purpose::Inspect, deadline, cancelled)?;
        is_sound(&mut connection)?;
        let mut held = Held::default();
        queries.iter().map(|sql| rows(&mut connection, sql, &mut held)).collect()
    };
    work().map_err(|error| match error.primary() {
        ffi::SQLITE_INTERRUPT => took_too_long(time_max),
        _ => DatabaseError::Storage(error.message),
    })
}

/// A connection to a file that is not trusted.
fn guarded(
    path: &Path,
    purpose: Purpose,
    deadline: Instant,
    cancelled: &Arc<AtomicBool>,
) -> Result<Connection, SqliteError> {
    let mut connection = Connection::open(path, purpose, Profile::Tenant, cancelled.clone())?;
    session::guard(&mut connection)?;
    plain(&mut connection, "PRAGMA cell_size_check=ON")?;
    plain(&mut connection, "PRAGMA ignore_check_constraints=ON")?;
    connection.install_hooks()?;
    connection.set_deadline(Some(deadline));
    Ok(connection)
}

fn rows(connection: &mut Connection, sql: &str, held: &mut Held) -> Result<Vec<Vec<Value>>, SqliteError> {
    let mut rows = Vec::new();
    if let Some(mut statement) = connection.prepare(sql)? {
        while statement.step()? == Step::Row {
            let row = statement.row()?;
            if !held.take(Value::row_bytes(&row)) {
                return Err(explain::out_of_memory());
            }
            rows.push(row);
        }
    }
    Ok(rows)
}

fn wrong(message: String) -> SqliteError {
    SqliteError { code: ffi::SQLITE_ERROR, message }
}

/// Makes a schema anew in memory, as its tenant's SQL would, and compares.
fn check_schema(
    schema: &[Vec<Value>],
    deadline: Instant,
    cancelled: &Arc<AtomicBool>,
) -> Result<(), SqliteError> {
    let mut scratch = guarded(Path::new(":memory:"), Purpose::Create, deadline, cancelled)?;
    for kind in KINDS {
        for row in schema.iter().filter(|row| text(row, 0) == *kind && !is_internal(row)) {
            let (name, sql) = (text(row, 1), text(row, 3));
            // An index that a constraint makes has no SQL.
            if !sql.is_empty() {
                let made = step_through(&mut scratch, sql, &[]);
                made.map_err(|error| refusal(&scratch, kind, name, error))?;
            }
        }
    }
    let mut held = Held::default();
    let made = rows(&mut scratch, SCHEMA, &mut held)?;
    let (wanted, made) = (sorted(schema), sorted(&made));
    if wanted == made {
        return Ok(());
    }
    let pairs = wanted.iter().zip(&made).find(|(wanted, made)| wanted != made);
    let different = pairs.map(|(wanted, made)| wanted.min(made));
    let longer = || wanted.get(made.len()).or_else(|| made.get(wanted.len()));
    let [kind, name, ..] = different.or_else(longer).copied().unwrap_or_default();
    Err(wrong(format!("its schema is not what its SQL makes: {kind} {name:?}")))
}

fn text(row: &[Value], index: usize) -> &str {
    row.get(index).and_then(Value::as_text).unwrap_or_default()
}

fn is_internal(row: &[Value]) -> bool {
    INTERNAL_TABLES.contains(&(text(row, 1), text(row, 3)))
}

fn sorted(schema: &[Vec<Value>]) -> Vec<[&str; 4]> {
    let own = schema.iter().filter(|row| !is_internal(row));
    let mut own: Vec<_> = own.map(|row| [0, 1, 2, 3].map(|index| text(row, index))).collect();
    own.sort_unstable();
    own
}

fn refusal(connection: &Connection, kind: &str, name: &str, error: SqliteError) -> SqliteError {
    let reason = connection.take_denied().unwrap_or_else(|| error.message.clone());
    SqliteError { message: format!("the {kind} {name:?} cannot be had here: {reason}"), ..error }
}

/// Writes what a database holds into a new file, with all that the node fixes about its databases.
fn rebuild(
    upload: &Path,
    target: &Path,
    deadline: Instant,
    cancelled: &Arc<AtomicBool>,
) -> Result<(), SqliteError> {
    let path = target.to_str().ok_or_else(|| wrong("the data folder's name is not UTF-8".to_owned()))?;
    let mut source = Connection::open(upload, Purpose::Use, Profile::Control, cancelled.clone())?;
    source.option(ffi::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    source.install_hooks()?;
    source.set_deadline(Some(deadline));
    plain(&mut source, "PRAGMA cell_size_check=ON")?;
    // The upload itself is thrown away.
    plain(&mut source, "PRAGMA synchronous=OFF")?;
    plain(&mut source, &format!("PRAGMA page_size={}", limits::DATABASE_PAGE_BYTES))?;
    plain(&mut source, "PRAGMA auto_vacuum=INCREMENTAL")?;
    step_through(&mut source, "VACUUM INTO ?", &[path.into()])?;
    drop(source);
    let mut made = Connection::open(target, Purpose::Use, Profile::Control, cancelled.clone())?;
    session::settle(&mut made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(page_bytes: [u8; 2], pages: u8, encoding: u8) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        for (place, byte) in header.iter_mut().zip(MAGIC) {
            *place = *byte;
        }
        for (at, byte) in [(16, page_bytes[0]), (17, page_bytes[1]), (31, pages), (59, encoding)] {
            if let Some(place) = header.get_mut(at) {
                *place = byte;
            }
        }
        header
    }

    fn refusal(header: [u8; HEADER_BYTES], length: u64) -> String {
        check_header(&header, length).err().unwrap_or_default()
    }

    #[test]
    fn headers_are_read() {
        assert_eq!(refusal(header([16, 0], 2, 1), 8_192), "");
        assert_eq!(refusal(header([0, 1], 1, 0), 65_536), "");
        assert!(refusal([0; HEADER_BYTES], 8_192).contains("no SQLite database"));
        assert!(refusal(header([16, 0], 3, 1), 8_192).contains("cut off"));
        assert!(refusal(header([0, 3], 1, 1), 8_192).contains("damaged"));
        assert!(refusal(header([16, 0], 2, 2), 8_192).contains("UTF-16"));
    }
}
