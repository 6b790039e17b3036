//! The wrapper over SQLite's C interface: one owner for each connection, every return code checked, values as bytes.
//!
//! It knows C and nothing else: what is allowed stands in [`super::guard`], what happens when in
//! [`super::session`]. A [`Connection`] is used by one thread at a time and may move between threads; its statements
//! are finalised before it ([`super::statement`]).
#![expect(unsafe_code, reason = "this file calls the C library")]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use libsql::ffi;

use super::callbacks::{self, Hooks, Stopped};
use super::compiled;
use super::functions::{self, Function};
use super::guard;
use super::json::{self, Editor};
use super::memory;
use super::message::{Extent, Profile};
use super::quota::Quota;
use super::statement::{Kept, Statement};
use super::vfs::LoggedVfs;
use super::wal_index;

/// A failed call: SQLite's extended result code and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SqliteError {
    pub code: i32,
    pub message: String,
}

impl SqliteError {
    /// The primary result code.
    pub(super) fn primary(&self) -> i32 {
        self.code & 0xff
    }
}

type Result<T> = std::result::Result<T, SqliteError>;

/// A function that SQLite calls.
type Callback = unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Configures and starts SQLite. Must come before any other use of it in the process; later calls do nothing.
///
/// # Errors
/// When SQLite refuses a setting, because something in the process has used it before, or was compiled in a way that
/// the guard cannot rely on.
pub fn start() -> std::result::Result<(), String> {
    static STARTED: std::sync::OnceLock<std::result::Result<(), String>> = std::sync::OnceLock::new();
    STARTED
        .get_or_init(|| configure().and_then(|()| wal_index::register()).and_then(|()| compiled::check()))
        .clone()
}

fn configure() -> std::result::Result<(), String> {
    let methods = memory::methods();
    let none = std::ptr::null_mut::<c_void>();
    // SAFETY: nothing in this process has initialised SQLite (`libsql::Database` is never made and `start` runs
    // once), each option gets the arguments that its documentation names, and SQLite copies `methods`.
    let codes = unsafe {
        [
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_MALLOC, &raw const methods),
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_MULTITHREAD),
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0),
            // Each of these two would cost a handle some 60 KB.
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOOKASIDE, 0, 0),
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_PAGECACHE, none, 0, 0),
            ffi::sqlite3_initialize(),
        ]
    };
    match codes.iter().find(|code| **code != ffi::SQLITE_OK) {
        None => Ok(()),
        Some(code) => Err(format!("SQLite refused its configuration with result code {code}")),
    }
}

/// An open database connection.
pub(super) struct Connection {
    pub(super) raw: NonNull<ffi::sqlite3>,
    pub(super) hooks: Box<Hooks>,
    kept: Kept,
    /// Outlives the connection.
    _vfs: Option<Arc<LoggedVfs>>,
}

// SAFETY: SQLite runs in multi-thread mode, where a connection may be used from any thread as long as no two use it
// at the same time; `Connection` is not `Sync` and its methods borrow it. `Hooks` is only touched by callbacks that
// run inside those calls.
unsafe impl Send for Connection {}

/// What a connection is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Make a new file.
    Create,
    /// Use a file that must exist.
    Use,
    /// Read a file that nobody changes; no lock is taken and no file made beside it.
    Inspect,
}

/// The URI of a file that does not change: <https://www.sqlite.org/uri.html>.
fn immutable(path: &[u8]) -> Vec<u8> {
    let escaped: String = path.iter().map(|byte| format!("%{byte:02x}")).collect();
    format!("file:{}?immutable=1", escaped.replace("%2f", "/")).into_bytes()
}

impl Connection {
    /// Opens `path`, which must be absolute: no shared-memory file is made, and no other process can open it meanwhile.
    pub(super) fn open(
        path: &Path,
        purpose: Purpose,
        profile: Profile,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Self> {
        Self::open_with(None, path, purpose, profile, cancelled)
    }

    /// Opens `path` with the files of a commit log, where there is one.
    pub(super) fn open_with(
        vfs: Option<Arc<LoggedVfs>>,
        path: &Path,
        purpose: Purpose,
        profile: Profile,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Self> {
        use std::os::unix::ffi::OsStrExt as _;
        let path = path.as_os_str().as_bytes();
        let (path, access) = match purpose {
            Purpose::Create => (path.to_vec(), ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE),
            Purpose::Use => (path.to_vec(), ffi::SQLITE_OPEN_READWRITE),
            Purpose::Inspect => (immutable(path), ffi::SQLITE_OPEN_READONLY | ffi::SQLITE_OPEN_URI),
        };
        let path = CString::new(path).map_err(|_| SqliteError {
            code: ffi::SQLITE_CANTOPEN,
            message: "the path holds NUL".to_owned(),
        })?;
        let flags = access | ffi::SQLITE_OPEN_NOMUTEX | ffi::SQLITE_OPEN_EXRESCODE;
        let name = vfs.as_ref().map_or(wal_index::NAME, |vfs| vfs.name());
        let mut raw = std::ptr::null_mut();
        // SAFETY: `path` and the VFS name are NUL-terminated and outlive the call; `raw` is a valid place.
        let code = unsafe { ffi::sqlite3_open_v2(path.as_ptr(), &raw mut raw, flags, name.as_ptr()) };
        let Some(raw) = NonNull::new(raw) else {
            return Err(SqliteError { code: ffi::SQLITE_NOMEM, message: "out of memory".to_owned() });
        };
        let hooks = Box::new(Hooks {
            profile,
            denied: RefCell::default(),
            changed: Cell::new(false),
            writes_unsaid: Cell::new(false),
            alters: Cell::new(false),
            one_time: Cell::new(false),
            deadline: Cell::new(None),
            cancelled,
            stopped: Cell::new(Stopped::No),
            wal_pages: Cell::new(0),
            may_write: Cell::new(false),
            quota: None,
        });
        let connection = Self { raw, hooks, kept: Kept::default(), _vfs: vfs };
        connection.check(code)?;
        Ok(connection)
    }

    /// Holds the database to a quota. Before the callbacks are installed.
    pub(super) fn hold_to(&mut self, quota: Quota) {
        self.hooks.quota = Some(quota);
    }

    /// Whether the log should be copied before more is written.
    pub(super) fn wal_is_tight(&self) -> bool {
        self.hooks.quota.as_ref().is_some_and(Quota::is_tight)
    }

    /// Whether the statement that follows may write.
    pub(super) fn set_may_write(&mut self, may_write: bool) {
        self.hooks.may_write.set(may_write);
    }

    /// Whether nothing more may be written now.
    pub(super) fn is_over_quota(&self) -> bool {
        self.hooks.is_over_quota()
    }

    /// Installs the callbacks: the authorizer, the progress handler, the hooks of commits and the replaced functions.
    pub(super) fn install_hooks(&mut self) -> Result<()> {
        /// How many steps of SQLite's machine pass between two looks at the clock; one that calls no
        /// function takes under 1 µs.
        const STEPS_BETWEEN_LOOKS: c_int = 2_000;
        let hooks = (&raw const *self.hooks).cast_mut().cast::<c_void>();
        let raw = self.raw.as_ptr();
        // SAFETY: `hooks` points into the box that this connection owns and drops after closing, and each callback
        // reads it as `Hooks` again.
        let code = unsafe {
            ffi::sqlite3_progress_handler(raw, STEPS_BETWEEN_LOOKS, Some(callbacks::on_progress), hooks);
            ffi::sqlite3_commit_hook(raw, Some(callbacks::before_commit), hooks);
            ffi::sqlite3_wal_hook(raw, Some(callbacks::on_commit), hooks);
            ffi::sqlite3_set_authorizer(raw, Some(callbacks::on_question), hooks)
        };
        self.check(code)?;
        functions::FUNCTIONS.iter().try_for_each(|function| self.install_function(function))?;
        json::EDITORS.iter().try_for_each(|editor| self.install_editor(editor))
    }

    fn install_function(&mut self, function: &'static Function) -> Result<()> {
        let data = (&raw const *function).cast_mut().cast::<c_void>();
        // SAFETY: `data` points to a static, and `callbacks::call_function` reads it as `Function`.
        unsafe { self.install(function.name, function.arguments, 0, data, callbacks::call_function) }
    }

    fn install_editor(&mut self, editor: &'static Editor) -> Result<()> {
        let data = (&raw const *editor).cast_mut().cast::<c_void>();
        let marks = ffi::SQLITE_SUBTYPE | ffi::SQLITE_RESULT_SUBTYPE;
        // SAFETY: `data` points to a static, and `callbacks::call_editor` reads it as `Editor`.
        unsafe { self.install(editor.name, -1, marks, data, callbacks::call_editor) }
    }

    /// Puts a function in the place of a built-in one.
    ///
    /// # Safety
    /// `call` may be called with `data` as long as the connection is open.
    unsafe fn install(
        &mut self,
        name: &CStr,
        arguments: c_int,
        marks: c_int,
        data: *mut c_void,
        call: Callback,
    ) -> Result<()> {
        let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS | marks;
        let raw = self.raw.as_ptr();
        // SAFETY: the name is NUL-terminated and copied; the caller promises the rest.
        let code = unsafe {
            ffi::sqlite3_create_function_v2(
                raw,
                name.as_ptr(),
                arguments,
                flags,
                data,
                Some(call),
                None,
                None,
                None,
            )
        };
        self.check(code)
    }

    /// Sets one of SQLite's run-time limits (`SQLITE_LIMIT_…`).
    pub(super) fn limit(&mut self, limit: i32, value: i32) {
        // SAFETY: the connection is open; an unknown limit is ignored by SQLite.
        unsafe { ffi::sqlite3_limit(self.raw.as_ptr(), limit, value) };
    }

    /// Switches one of SQLite's connection options (`SQLITE_DBCONFIG_…`) that take a boolean.
    pub(super) fn option(&mut self, option: i32, on: bool) -> Result<()> {
        let nothing = std::ptr::null_mut::<c_int>();
        // SAFETY: the boolean options take an int and a pointer to an int that may be null.
        let code = unsafe { ffi::sqlite3_db_config(self.raw.as_ptr(), option, c_int::from(on), nothing) };
        self.check(code)
    }

    /// Keeps the WAL file when the connection closes: making and unlinking it is the dearest part of an open.
    pub(super) fn keep_wal_file(&mut self) -> Result<()> {
        let mut on: c_int = 1;
        // SAFETY: this file control reads and writes one int.
        let code = unsafe {
            ffi::sqlite3_file_control(
                self.raw.as_ptr(),
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_PERSIST_WAL,
                (&raw mut on).cast(),
            )
        };
        self.check(code)
    }

    /// How long a call waits for a lock of another connection.
    pub(super) fn busy_timeout(&mut self, milliseconds: i32) {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_busy_timeout(self.raw.as_ptr(), milliseconds) };
    }

    /// From now on, statements stop at `deadline` or when the cancel flag is raised.
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.hooks.stopped.set(Stopped::No);
        self.hooks.deadline.set(deadline);
    }

    /// Why the latest statement was stopped, if it was.
    pub(super) fn stopped(&self) -> Stopped {
        self.hooks.stopped.get()
    }

    /// What the authorizer refused since the last call, in words for the author of the SQL.
    pub(super) fn take_denied(&self) -> Option<String> {
        self.hooks.denied.take()
    }

    /// Whether SQL has changed the connection itself: temporary objects or switches.
    pub(super) fn is_changed(&self) -> bool {
        self.hooks.changed.get()
    }

    /// Pages in the WAL after the latest commit.
    pub(super) fn wal_pages(&self) -> u64 {
        u64::try_from(self.hooks.wal_pages.get()).unwrap_or(0)
    }

    /// Gives back the pages of the cache that nothing uses. Caches are not shared: [`super::compiled`] sees to that.
    pub(super) fn give_back_pages(&mut self) {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_db_release_memory(self.raw.as_ptr()) };
    }

    /// Whether a transaction is open.
    pub(super) fn in_transaction(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_get_autocommit(self.raw.as_ptr()) == 0 }
    }

    /// Rows changed by the latest INSERT, UPDATE or DELETE.
    pub(super) fn changes(&self) -> u64 {
        // SAFETY: the connection is open.
        let changes = unsafe { ffi::sqlite3_changes64(self.raw.as_ptr()) };
        u64::try_from(changes).unwrap_or(0)
    }

    /// Rows changed by all statements so far.
    pub(super) fn total_changes(&self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_total_changes64(self.raw.as_ptr()) }
    }

    /// Row id of the latest INSERT.
    pub(super) fn last_insert_rowid(&self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_last_insert_rowid(self.raw.as_ptr()) }
    }

    /// Forgets the row id of the latest INSERT.
    pub(super) fn forget_last_insert_rowid(&mut self) {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_set_last_insert_rowid(self.raw.as_ptr(), 0) };
    }

    /// Copies the WAL into the database, syncs it and truncates the WAL to nothing, as far as readers allow.
    pub(super) fn checkpoint(&mut self) -> Result<Extent> {
        let (mut frames, mut copied) = (-1, -1);
        // SAFETY: the connection is open and the two result places are valid.
        let code = unsafe {
            ffi::sqlite3_wal_checkpoint_v2(
                self.raw.as_ptr(),
                c"main".as_ptr(),
                ffi::SQLITE_CHECKPOINT_TRUNCATE,
                &raw mut frames,
                &raw mut copied,
            )
        };
        if code & 0xff == ffi::SQLITE_BUSY {
            return Ok(if frames >= 0 && frames == copied { Extent::Copied } else { Extent::Partial });
        }
        self.check(code)?;
        self.hooks.wal_pages.set(0);
        Ok(Extent::Emptied)
    }

    /// The first statement of `sql`, compiled now or kept from an earlier time; `None` when the text holds only white
    /// space and comments.
    pub(super) fn prepare(&mut self, sql: &str) -> Result<Option<Statement<'_>>> {
        self.hooks.begin_statement();
        if let Some(raw) = self.kept.find(sql) {
            return Ok(Some(Statement::new(raw, self, true)));
        }
        let Some(raw) = self.compile(sql)? else { return Ok(None) };
        let is_kept = !self.hooks.one_time.get() && self.kept.keep(raw, sql);
        let names_reserved =
            self.hooks.profile == Profile::Tenant && self.hooks.alters.get() && guard::mentions_reserved(sql);
        let statement = Statement::new(raw, self, is_kept);
        if names_reserved {
            let message = "not authorized: that name is reserved".to_owned();
            return Err(SqliteError { code: ffi::SQLITE_AUTH, message });
        }
        Ok(Some(statement))
    }

    fn compile(&mut self, sql: &str) -> Result<Option<NonNull<ffi::sqlite3_stmt>>> {
        let mut raw = std::ptr::null_mut();
        let bytes = c_int::try_from(sql.len()).unwrap_or(c_int::MAX);
        // SAFETY: `sql` is valid for `bytes` bytes and `raw` is a valid place; the end of the text is not asked for.
        let code = unsafe {
            ffi::sqlite3_prepare_v2(
                self.raw.as_ptr(),
                sql.as_ptr().cast::<c_char>(),
                bytes,
                &raw mut raw,
                std::ptr::null_mut(),
            )
        };
        self.check(code)?;
        Ok(NonNull::new(raw))
    }

    pub(super) fn check(&self, code: c_int) -> Result<()> {
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.error(code)) }
    }

    pub(super) fn error(&self, code: c_int) -> SqliteError {
        // SAFETY: the connection is open; the text is NUL-terminated and copied before any other call.
        let message = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(self.raw.as_ptr())) };
        let mut message = message.to_string_lossy().into_owned();
        if matches!(code & 0xff, ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN) {
            // SAFETY: the connection is open.
            let system = unsafe { ffi::sqlite3_system_errno(self.raw.as_ptr()) };
            message = format!("{message}: {}", std::io::Error::from_raw_os_error(system));
        }
        SqliteError { code, message }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.kept.clear();
        // SAFETY: statements borrow the connection and the kept ones are gone, so none is left; it is closed once.
        // `close_v2` cannot fail.
        unsafe { ffi::sqlite3_close_v2(self.raw.as_ptr()) };
    }
}
