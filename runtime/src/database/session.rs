//! One session: a connection, its limits, and what each command does with it. Runs on a database thread.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libsql::ffi;

use super::caps::{Cap, TENANT_CAPS};
use super::explain::{self, is_storage, on_file, on_open, storage};
use super::import::is_sound;
use super::memory::{Account, Held};
use super::message::{Change, DatabaseError, Executed, Extent, FilePart, Profile, Reply, Rows, Value};
use super::quota::{self, Quota};
use super::sqlite::{Connection, Purpose, SqliteError};
use super::statement::{Statement, Step};
use super::vfs::{Logged, LoggedVfs};
use super::worker::lock;
use crate::limits;

/// Memory of SQLite for one tenant session.
pub(super) const SESSION_MEMORY_BYTES_MAX: i64 = 64 << 20;

/// Marks the file as Dormouse's for `file(1)`: "DORM".
const APPLICATION_ID: i32 = 0x444f_524d;

/// How long a call waits for a lock of another session of the same tenant: recovery, mostly.
const LOCK_WAIT_MILLISECONDS: i32 = 2_000;

/// What the WAL's file grows by: room for several commits of a page or two.
static WAL_RESERVE: [u8; 64 << 10] = [0; 64 << 10];

/// The room that a statement which may write finds in the WAL's file.
const WAL_MARGIN_BYTES: u64 = 16 << 10;

/// What a session was opened with; a reset opens it again.
#[derive(Clone)]
pub(super) struct Opening {
    pub path: PathBuf,
    pub profile: Profile,
    pub bytes_max: u64,
    /// Where its commits are logged, if they are.
    pub log: Option<Arc<LoggedVfs>>,
}

pub(super) struct Session {
    connection: Connection,
    opening: Opening,
    cancelled: Arc<AtomicBool>,
    /// Rows that earlier leases of the session changed.
    changes_before_lease: i64,
    /// Its WAL in the commit log.
    logged: Option<Logged>,
    /// How long the WAL's file was when it was last looked at, in bytes.
    wal_reserved: u64,
}

/// A statement as its sender asked for it.
pub(super) struct Request {
    pub sql: String,
    pub parameters: Vec<Value>,
    pub result_bytes_max: usize,
    pub time_max: Duration,
    pub may_write: bool,
    pub in_transaction: bool,
}

impl Session {
    pub(super) fn open(opening: Opening, cancelled: Arc<AtomicBool>) -> Result<Self, DatabaseError> {
        let connection = connect(&opening, cancelled.clone())?;
        let path = wal_of(&opening.path);
        let find = |log| Logged::find(log, &path).map_err(|error| on_file(&path, &error));
        let logged = opening.log.as_ref().map(find).transpose()?.flatten();
        Ok(Self { connection, opening, cancelled, changes_before_lease: 0, logged, wal_reserved: 0 })
    }

    /// What has to be on disk before anything of this session may be told; none when it is.
    pub(super) fn unsettled(&self) -> Option<Logged> {
        self.logged.as_ref().filter(|logged| !logged.is_settled()).cloned()
    }

    /// The memory account that the session starts with.
    pub(super) fn account(profile: Profile) -> Account {
        match profile {
            Profile::Tenant => Account::up_to(SESSION_MEMORY_BYTES_MAX),
            Profile::Control => Account::UNLIMITED,
        }
    }

    pub(super) fn execute(&mut self, request: Request) -> Result<Reply, DatabaseError> {
        if request.in_transaction && !self.connection.in_transaction() {
            return Ok(Reply::Executed(self.executed(Err(DatabaseError::Cancelled))));
        }
        if request.may_write && self.logged.is_none() {
            self.reserve_wal();
        }
        self.connection.set_deadline(Some(Instant::now() + request.time_max));
        self.connection.set_may_write(request.may_write);
        let outcome = match run(&mut self.connection, &request) {
            Ok(None) => return Ok(Reply::NeedsWriter { sql: request.sql, parameters: request.parameters }),
            Ok(Some(rows)) => Ok(rows),
            Err(error) => match self.explain(error, request.time_max) {
                error if error.session_is_usable() => Err(error),
                error => return Err(error),
            },
        };
        if !self.connection.in_transaction() {
            if request.may_write {
                self.forget_unsynced();
            }
            self.give_back_pages();
        }
        Ok(Reply::Executed(self.executed(outcome)))
    }

    fn executed(&self, outcome: Result<Rows, DatabaseError>) -> Executed {
        let in_transaction = self.connection.in_transaction();
        let wal_bytes = self.connection.wal_pages() * u64::from(limits::DATABASE_PAGE_BYTES);
        // What a statement that failed has written lies in the file, behind what is committed.
        let may_be_tight =
            wal_bytes > limits::WAL_BYTES_MAX || matches!(outcome, Err(DatabaseError::Full(_)));
        Executed {
            outcome,
            wal_is_tight: may_be_tight && self.connection.wal_is_tight(),
            changes: self.changes(),
            last_insert_rowid: self.connection.last_insert_rowid(),
            in_transaction,
            needs_reset: in_transaction || self.connection.is_changed(),
            wal_bytes,
            memory_bytes: 0,
        }
    }

    /// Rows changed by the latest statement of this lease; what an earlier lease changed is not told.
    fn changes(&self) -> u64 {
        let lease_changed_nothing = self.connection.total_changes() == self.changes_before_lease;
        if lease_changed_nothing { 0 } else { self.connection.changes() }
    }

    pub(super) fn batch(&mut self, changes: &[Change]) -> Result<Reply, DatabaseError> {
        self.connection.set_deadline(None);
        let outcomes = self.make_all(changes).map_err(|error| {
            let error = self.explain(error, Duration::MAX);
            match self.rollback() {
                Ok(()) => error,
                Err(second) => second,
            }
        })?;
        Ok(Reply::Batched { outcomes })
    }

    fn make_all(&mut self, changes: &[Change]) -> Result<Vec<Result<(), DatabaseError>>, SqliteError> {
        plain(&mut self.connection, "BEGIN IMMEDIATE")?;
        let outcomes = changes.iter().map(|change| self.make(change)).collect::<Result<_, _>>()?;
        plain(&mut self.connection, "COMMIT")?;
        Ok(outcomes)
    }

    /// Makes one change of a transaction, or leaves it out. The outer error is one that ends the transaction.
    fn make(&mut self, change: &Change) -> Result<Result<(), DatabaseError>, SqliteError> {
        let connection = &mut self.connection;
        plain(connection, "SAVEPOINT change")?;
        let made = change.iter().try_for_each(|(sql, parameters)| step_through(connection, sql, parameters));
        match made {
            Ok(()) => plain(connection, "RELEASE change").map(Ok),
            Err(error) if is_storage(error.primary()) || !connection.in_transaction() => Err(error),
            Err(error) => {
                plain(connection, "ROLLBACK TO change")?;
                plain(connection, "RELEASE change")?;
                Ok(Err(self.explain(error, Duration::MAX)))
            }
        }
    }

    /// Has SQLite check all pages.
    pub(super) fn check(&mut self, time_max: Duration) -> Result<(), DatabaseError> {
        self.connection.set_deadline(Some(Instant::now() + time_max));
        is_sound(&mut self.connection).map_err(|error| self.explain(error, time_max))
    }

    /// Gives back the memory of writes that no commit followed.
    fn forget_unsynced(&self) {
        self.logged.iter().for_each(Logged::forget_unsynced);
    }

    /// Gives back the cache of a tenant's session: nearly a half of what a parked one takes, and up to 2 MB after long
    /// reads. The kernel mostly has its pages as well, so that the next statement has those it needs for a read each.
    fn give_back_pages(&mut self) {
        if self.opening.profile == Profile::Tenant {
            self.connection.give_back_pages();
        }
    }

    pub(super) fn rollback(&mut self) -> Result<(), DatabaseError> {
        self.connection.set_deadline(None);
        if self.connection.in_transaction() {
            plain(&mut self.connection, "ROLLBACK").map_err(|error| match error.primary() {
                // The storage is sound. Closing the session rolls back as well, and needs no memory.
                ffi::SQLITE_NOMEM => DatabaseError::Closed,
                _ => storage(&error),
            })?;
            self.forget_unsynced();
            self.give_back_pages();
        }
        Ok(())
    }

    /// Makes the session as good as new. One that holds temporary objects or switches is opened again: that is sure.
    pub(super) fn reset(&mut self) -> Result<(), DatabaseError> {
        self.rollback()?;
        if self.connection.is_changed() {
            self.connection = connect(&self.opening, self.cancelled.clone())?;
        }
        Ok(())
    }

    /// What an earlier lease of this session left to read.
    pub(super) fn forget_earlier_lease(&mut self) {
        self.connection.forget_last_insert_rowid();
        self.changes_before_lease = self.connection.total_changes();
    }

    /// Copies what can be copied of the WAL.
    pub(super) fn checkpoint(&mut self) -> Result<Extent, DatabaseError> {
        // A reader of the same tenant must not hold this thread: what can be copied is copied, the rest next time.
        self.connection.busy_timeout(0);
        let connection = &mut self.connection;
        let result = match &self.logged {
            Some(logged) => logged.checkpoint(|| connection.checkpoint()),
            None => connection.checkpoint(),
        };
        self.connection.busy_timeout(LOCK_WAIT_MILLISECONDS);
        result.map_err(|error| self.explain(error, Duration::MAX))
    }

    /// Reads from the database file.
    pub(super) fn read_file(&mut self, offset: u64, bytes_max: usize) -> Result<FilePart, DatabaseError> {
        self.connection.read_file(offset, bytes_max).map_err(|error| storage(&error))
    }

    /// Lengthens the WAL's file with zeros before its frames need the room: a commit into a file that is long enough
    /// flushes its data and nothing of the file system's. SQLite reads zeros as the end of the log.
    fn reserve_wal(&mut self) {
        let used = self.connection.wal_pages() * u64::from(limits::DATABASE_PAGE_BYTES);
        if used == 0 || used + WAL_MARGIN_BYTES <= self.wal_reserved {
            // Until the first commit after a truncation the disk may still hold the frames from before it. Zeros among
            // them would make an old log of a part of them.
            return;
        }
        // A full disk, or one that fails, is for the statement to find.
        self.wal_reserved = lengthen_wal(&self.opening.path, used).unwrap_or(0);
    }

    fn explain(&self, error: SqliteError, time_max: Duration) -> DatabaseError {
        let connection = &self.connection;
        explain::failed(error, connection.stopped(), connection.take_denied(), time_max)
    }
}

fn connect(opening: &Opening, cancelled: Arc<AtomicBool>) -> Result<Connection, DatabaseError> {
    let path = &opening.path;
    refuse_empty(path).map_err(|error| on_file(path, &error))?;
    let connection =
        Connection::open_with(opening.log.clone(), path, Purpose::Use, opening.profile, cancelled)
            .map_err(|error| on_open(path, &error))?;
    ensure_wal(path).map_err(|error| on_file(path, &error))?;
    set_up(connection, opening).map_err(|error| on_open(path, &error))
}

/// SQLite would take a file that was truncated to nothing for a new database.
fn refuse_empty(path: &Path) -> std::io::Result<()> {
    if path.metadata()?.len() == 0 {
        return Err(std::io::Error::other("the file is empty"));
    }
    Ok(())
}

fn set_up(mut connection: Connection, opening: &Opening) -> Result<Connection, SqliteError> {
    connection.busy_timeout(LOCK_WAIT_MILLISECONDS);
    connection.option(ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.option(ffi::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.option(ffi::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
    connection.keep_wal_file()?;
    let file_bytes_max = match opening.profile {
        Profile::Tenant => {
            guard(&mut connection)?;
            connection.hold_to(Quota::new(&opening.path, wal_of(&opening.path), opening.bytes_max));
            quota::file_bytes_max(opening.bytes_max)
        }
        Profile::Control => opening.bytes_max,
    };
    let pages_max = file_bytes_max / u64::from(limits::DATABASE_PAGE_BYTES);
    plain(&mut connection, "PRAGMA synchronous=FULL")?;
    plain(&mut connection, &format!("PRAGMA max_page_count={pages_max}"))?;
    connection.install_hooks()?;
    Ok(connection)
}

/// What holds for every connection that runs a tenant's SQL or reads a tenant's schema.
pub(super) fn guard(connection: &mut Connection) -> Result<(), SqliteError> {
    connection.option(ffi::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.option(ffi::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    for Cap { limit, value, .. } in TENANT_CAPS {
        connection.limit(*limit, *value);
    }
    Ok(())
}

/// Runs a statement of the room's own.
pub(super) fn plain(connection: &mut Connection, sql: &str) -> Result<(), SqliteError> {
    step_through(connection, sql, &[])
}

/// Runs a statement whose rows nobody wants.
pub(super) fn step_through(
    connection: &mut Connection,
    sql: &str,
    parameters: &[Value],
) -> Result<(), SqliteError> {
    if let Some(mut statement) = connection.prepare(sql)? {
        statement.bind(parameters)?;
        while statement.step()? == Step::Row {}
    }
    Ok(())
}

/// Runs the first statement of a text; `None` when it would write and may not.
fn run(connection: &mut Connection, request: &Request) -> Result<Option<Rows>, SqliteError> {
    // SQLite would take it for the end of the text, and leave the rest away.
    if memchr::memchr(0, request.sql.as_bytes()).is_some() {
        let message =
            "the SQL holds a NUL character; give text with NUL as a parameter, or write char(0)".to_owned();
        return Err(SqliteError { code: ffi::SQLITE_ERROR, message });
    }
    let Some(mut statement) = connection.prepare(&request.sql)? else { return Ok(Some(Rows::default())) };
    if !request.may_write && !statement.is_readonly() {
        return Ok(None);
    }
    // Outside of a transaction its commit is looked at.
    if request.in_transaction && statement.is_over_quota() {
        return Err(explain::over_quota());
    }
    statement.bind(&request.parameters)?;
    collect(&mut statement, request.result_bytes_max).map(Some)
}

fn collect(statement: &mut Statement<'_>, bytes_max: usize) -> Result<Rows, SqliteError> {
    let mut step = statement.step()?;
    let columns = statement.columns();
    let mut rows = Vec::new();
    let mut room = Room { bytes_left: bytes_max, held: Held::default() };
    while step == Step::Row {
        match row(statement, columns.len(), &mut room) {
            Ok(row) => rows.push(row),
            Err(RowError::TooLarge) => return Err(statement.fail(explain::too_large(bytes_max))),
            Err(RowError::Sqlite(error)) => return Err(statement.fail(error)),
        }
        step = statement.step()?;
    }
    Ok(Rows { columns, rows })
}

/// Why a row is not handed out.
enum RowError {
    TooLarge,
    Sqlite(SqliteError),
}

/// What the rows of a statement may still take.
struct Room {
    bytes_left: usize,
    held: Held,
}

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), RowError> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(RowError::TooLarge)?;
        if self.held.take(bytes) { Ok(()) } else { Err(RowError::Sqlite(explain::out_of_memory())) }
    }
}

/// Copies the current row, value by value as long as there is room for it.
fn row(statement: &Statement<'_>, columns: usize, room: &mut Room) -> Result<Vec<Value>, RowError> {
    room.take(Value::ROW_BYTES)?;
    (0..)
        .take(columns)
        .map(|index| {
            let value = statement.value(index).map_err(RowError::Sqlite)?;
            room.take(value.bytes())?;
            Ok(value)
        })
        .collect()
}

/// Makes a database file: under another name first, then renamed and synced, so that it is whole or not there. One that
/// is there stays as it is, and is synced with its name: whoever made it may not have come so far.
pub(super) fn create(path: &Path) -> Result<(), DatabaseError> {
    let io = |error: std::io::Error| on_file(path, &error);
    let folder = path.parent().ok_or_else(|| DatabaseError::Storage("the path has no folder".to_owned()))?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    if path.try_exists().map_err(io)? {
        return keep_names(path).map_err(io);
    }
    let unfinished = path.with_extension("new");
    for leftover in [&unfinished, &wal_of(&unfinished), &beside(&unfinished, "-journal")] {
        remove(leftover).map_err(io)?;
    }
    fill(&unfinished).map_err(|error| on_open(&unfinished, &error))?;
    keep(&unfinished, path).map_err(io)
}

/// Puts a finished database, and an empty WAL, under their names.
pub(super) fn keep(unfinished: &Path, path: &Path) -> std::io::Result<()> {
    sync(unfinished)?;
    std::fs::rename(unfinished, path)?;
    keep_names(path)
}

fn keep_names(path: &Path) -> std::io::Result<()> {
    make_wal(path)?;
    // Another database may have been made in a new folder that is not on disk yet: each is synced for each file.
    path.ancestors().skip(1).take(FOLDERS_SYNCED).try_for_each(|folder| match sync(folder) {
        // What is above the data folder is not this process's to open, and no name in it is new.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    })
}

/// Makes the empty WAL of a database. It stays for good, so that its name is synced once and not with each first
/// commit after an open, as SQLite would.
fn make_wal(database: &Path) -> std::io::Result<()> {
    match File::create_new(wal_of(database)) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

pub(super) fn wal_of(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Removes a file; none is fine.
fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Gives the WAL's file room for more than the `used` bytes, and tells its length. A file that is shorter has been
/// truncated by another session, and is left alone.
fn lengthen_wal(database: &Path, used: u64) -> std::io::Result<u64> {
    // Writes at the end of the file, wherever that is: no frame is ever overwritten.
    let mut wal = OpenOptions::new().append(true).open(wal_of(database))?;
    let length = wal.metadata()?.len();
    if length < used || length >= used + WAL_MARGIN_BYTES {
        return Ok(length);
    }
    wal.write_all(&WAL_RESERVE)?;
    Ok(length + WAL_RESERVE.len() as u64)
}

/// Makes sure that the WAL's name is on disk before the first commit. It is missing where a database was copied
/// without it.
fn ensure_wal(database: &Path) -> std::io::Result<()> {
    /// Nobody takes a name for good that another has not synced yet.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = lock(&MAKING);
    let wal = wal_of(database);
    if wal.exists() {
        return Ok(());
    }
    make_wal(database)?;
    let named = database.parent().map_or(Ok(()), sync);
    if named.is_err() {
        remove(&wal)?;
    }
    named
}

/// The folders of an environment, a tenant and a shard, the folder of tenants, and the one that this is in.
const FOLDERS_SYNCED: usize = 5;

/// Puts a file or a folder on disk. No session has the file open.
fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

fn fill(path: &Path) -> Result<(), SqliteError> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let mut connection = Connection::open(path, Purpose::Create, Profile::Control, cancelled)?;
    plain(&mut connection, &format!("PRAGMA page_size={}", limits::DATABASE_PAGE_BYTES))?;
    plain(&mut connection, "PRAGMA auto_vacuum=INCREMENTAL")?;
    settle(&mut connection)
}

/// Gives a new database what does not depend on what it holds.
pub(super) fn settle(connection: &mut Connection) -> Result<(), SqliteError> {
    // Whoever renames the file syncs it, once.
    plain(connection, "PRAGMA synchronous=OFF")?;
    plain(connection, "PRAGMA journal_mode=WAL")?;
    plain(connection, &format!("PRAGMA application_id={APPLICATION_ID}"))
}
