//! SQLite's way to files (<https://www.sqlite.org/vfs.html>) for tenants' databases whose commits are logged: the syncs of
//! write-ahead logs become records of the [`CommitLog`].
#![expect(unsafe_code, reason = "this file stands between SQLite and its files")]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libsql::ffi;

use super::commit_log::{CommitLog, LoggedWal, Lost, Synced};
use super::wal_index;

/// A VFS whose write-ahead logs are in a commit log. It is there until this is dropped, after all connections that use it.
pub(super) struct LoggedVfs {
    vfs: Box<ffi::sqlite3_vfs>,
    name: CString,
    /// What [`open`] reads.
    app: Box<App>,
}

struct App {
    plain: NonNull<ffi::sqlite3_vfs>,
    log: CommitLog,
}

// SAFETY: SQLite calls a VFS from any thread; what is here is not changed after the start, and the log is `Sync`.
unsafe impl Send for LoggedVfs {}
// SAFETY: as above.
unsafe impl Sync for LoggedVfs {}

impl LoggedVfs {
    /// Registers the VFS of a log. SQLite has been started.
    pub(super) fn register(log: CommitLog) -> Result<Self, String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // SAFETY: the name is NUL-terminated.
        let plain = NonNull::new(unsafe { ffi::sqlite3_vfs_find(wal_index::NAME.as_ptr()) });
        let plain = plain.ok_or("SQLite has not been started")?;
        let name = format!("dormouse-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).map_err(|error| error.to_string())?;
        let app = Box::new(App { plain, log });
        // SAFETY: a registered VFS lives for ever. None of its methods but `xOpen` looks at the VFS that it is
        // called with, so that the others are called as they are (`os_unix.c`).
        let mut vfs = Box::new(unsafe { *plain.as_ptr() });
        vfs.szOsFile += HEAD_BYTES;
        vfs.pNext = std::ptr::null_mut();
        vfs.zName = name.as_ptr();
        vfs.pAppData = (&raw const *app).cast_mut().cast();
        vfs.xOpen = Some(open);
        // SAFETY: the VFS and its name are in boxes that outlive the registration.
        match unsafe { ffi::sqlite3_vfs_register(&raw mut *vfs, 0) } {
            ffi::SQLITE_OK => Ok(Self { vfs, name, app }),
            code => Err(format!("SQLite refused the commit log with result code {code}")),
        }
    }

    pub(super) fn name(&self) -> &CStr {
        &self.name
    }

    pub(super) fn log(&self) -> &CommitLog {
        &self.app.log
    }
}

impl Drop for LoggedVfs {
    fn drop(&mut self) {
        // SAFETY: it is registered, and no connection uses it any more.
        unsafe { ffi::sqlite3_vfs_unregister(&raw mut *self.vfs) };
    }
}

/// A WAL and the log that its commits are in.
#[derive(Clone)]
pub(super) struct Logged {
    vfs: Arc<LoggedVfs>,
    wal: Arc<LoggedWal>,
}

impl Logged {
    pub(super) fn find(vfs: &Arc<LoggedVfs>, wal: &Path) -> std::io::Result<Option<Self>> {
        Ok(vfs.log().wal(wal)?.map(|wal| Self { vfs: vfs.clone(), wal }))
    }

    /// Whether what was committed to it by now is on disk.
    pub(super) fn is_settled(&self) -> bool {
        self.vfs.log().is_settled(&self.wal)
    }

    /// Waits until that is on disk.
    ///
    /// # Errors
    /// When the WAL has failed.
    pub(super) fn settle(&self) -> Result<(), Lost> {
        self.vfs.log().settle(&self.wal)
    }

    /// Gives back the memory of writes that no commit followed.
    pub(super) fn forget_unsynced(&self) {
        self.wal.forget_unsynced();
    }

    /// Does what copies the WAL into the database.
    pub(super) fn checkpoint<T>(&self, checkpoint: impl FnOnce() -> T) -> T {
        self.wal.set_in_checkpoint(true);
        let copied = checkpoint();
        self.wal.set_in_checkpoint(false);
        copied
    }

    /// Tells when that is on disk.
    pub(super) fn when_settled(&self, then: impl FnOnce(Result<(), Lost>) + Send + 'static) {
        self.vfs.log().when_settled(&self.wal, then);
    }
}

/// A WAL as SQLite has it. The plain file follows it.
#[repr(C)]
struct WalFile {
    base: ffi::sqlite3_file,
    open: *mut Open,
}

struct Open {
    app: NonNull<App>,
    wal: Arc<LoggedWal>,
}

const HEAD_BYTES: c_int = size_of::<WalFile>() as c_int;

static WAL_METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Opens a file: a WAL with the methods above, every other as it is.
unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls with the VFS that was registered, whose data is an `App`.
    let app = unsafe { NonNull::new_unchecked((*vfs).pAppData.cast::<App>()) };
    // SAFETY: the plain VFS lives for ever.
    let plain = unsafe { app.as_ref().plain };
    // SAFETY: as above.
    let Some(open_plain) = (unsafe { plain.as_ref().xOpen }) else { return ffi::SQLITE_CANTOPEN };
    let is_wal = flags & ffi::SQLITE_OPEN_WAL != 0 && !name.is_null();
    // SAFETY: the name is NUL-terminated, the app lives as long as the VFS.
    let wal = if is_wal { unsafe { app.as_ref().log.wal(path_of(name)) } } else { Ok(None) };
    let Ok(wal) = wal else { return ffi::SQLITE_CANTOPEN };
    let Some(wal) = wal else {
        // SAFETY: `file` has room for more than a plain file.
        return unsafe { open_plain(plain.as_ptr(), name, file, flags, flags_out) };
    };
    let this = file.cast::<WalFile>();
    // SAFETY: `file` has room for a `WalFile` and a plain file behind it; SQLite has aligned and zeroed it.
    unsafe {
        (*this).base.pMethods = std::ptr::null();
        let code = open_plain(plain.as_ptr(), name, plain_of(file), flags, flags_out);
        if code == ffi::SQLITE_OK {
            (*this).open = Box::into_raw(Box::new(Open { app, wal }));
            (*this).base.pMethods = &raw const WAL_METHODS;
        }
        code
    }
}

/// # Safety
/// The name is NUL-terminated.
unsafe fn path_of<'a>(name: *const c_char) -> &'a Path {
    // SAFETY: the caller promises it.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()))
}

/// The plain file behind a WAL.
fn plain_of(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    file.cast::<WalFile>().wrapping_add(1).cast()
}

/// Calls a method of the plain file.
macro_rules! call {
    ($file:ident . $method:ident ( $($argument:expr),* )) => {{
        let plain = plain_of($file);
        // SAFETY: SQLite calls the methods of an open file only, whose plain file is open as well.
        match unsafe { (*(*plain).pMethods).$method } {
            // SAFETY: the arguments are SQLite's own.
            Some(method) => unsafe { method(plain $(, $argument)*) },
            None => ffi::SQLITE_MISUSE,
        }
    }};
}

/// What belongs to a WAL.
///
/// # Safety
/// The file is open.
unsafe fn open_of<'a>(file: *mut ffi::sqlite3_file) -> &'a Open {
    // SAFETY: it was made by `open` and lives until `close`.
    unsafe { &*(*file.cast::<WalFile>()).open }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let code = call!(file.xClose());
    // SAFETY: `open` made the box, and SQLite closes a file once.
    unsafe { drop(Box::from_raw((*file.cast::<WalFile>()).open)) };
    code
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    call!(file.xRead(to, amount, offset))
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    let code = call!(file.xWrite(from, amount, offset));
    if code == ffi::SQLITE_OK
        && let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset))
    {
        // SAFETY: SQLite gives as many bytes as it says.
        let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), amount) };
        // SAFETY: the file is open.
        unsafe { open_of(file) }.wal.note(offset, bytes);
    }
    code
}

/// SQLite truncates a WAL to nothing, after a checkpoint.
unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    if size != 0 {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    let code = call!(file.xTruncate(size));
    // SAFETY: the file is open.
    let Open { app, wal } = unsafe { open_of(file) };
    // SAFETY: the app lives as long as the VFS, which lives as long as its files.
    let log = unsafe { &app.as_ref().log };
    if code == ffi::SQLITE_OK && log.note_emptied(wal).is_err() {
        return ffi::SQLITE_IOERR_TRUNCATE;
    }
    code
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: the file is open.
    let Open { app, wal } = unsafe { open_of(file) };
    // SAFETY: the app lives as long as the VFS, which lives as long as its files.
    let log = unsafe { &app.as_ref().log };
    let synced = match log.sync(wal) {
        Ok(Synced::Logged) => return ffi::SQLITE_OK,
        Ok(synced) => synced,
        Err(Lost(_)) => return ffi::SQLITE_IOERR_FSYNC,
    };
    let code = call!(file.xSync(flags));
    if code != ffi::SQLITE_OK {
        log.fail(wal, &std::io::Error::other("a flush of it failed"));
        return code;
    }
    match synced {
        // What stands in the log is older now than the file.
        Synced::TooLarge if log.note_synced(wal).is_err() => ffi::SQLITE_IOERR_FSYNC,
        Synced::TooLarge | Synced::Settled | Synced::Logged => ffi::SQLITE_OK,
    }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    call!(file.xFileSize(size))
}

/// A WAL is never locked.
unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    call!(file.xLock(level))
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, is_locked: *mut c_int) -> c_int {
    call!(file.xCheckReservedLock(is_locked))
}

unsafe extern "C" fn file_control(
    file: *mut ffi::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    call!(file.xFileControl(operation, argument))
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    call!(file.xSectorSize())
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    call!(file.xDeviceCharacteristics())
}
