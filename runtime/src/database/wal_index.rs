//! Wal-indexes (<https://www.sqlite.org/walformat.html#the_wal_index_file_format>) without the pages that hold nothing.
//!
//! A wal-index has 32 KiB of this process's memory, and SQLite writes zeros over all of it for each new WAL. A WAL of a
//! few frames needs three of those pages; the others would be a quarter of a parked handle. So they go back to the
//! system when a writer's lock is given up, and read as zeros until something is written to them. Not at the first
//! commits: a handle that is opened for one request would pay for what it gives back soon.
#![expect(unsafe_code, reason = "this file stands between SQLite and its shared memory")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use libsql::ffi;

/// The files beneath: no shared-memory file, and no other process can open a database.
const PLAIN: &CStr = c"unix-excl";

/// The same files with lean wal-indexes.
pub(super) const LEAN: &CStr = c"dormouse-excl";

const PAGE_BYTES: usize = 4_096;

/// What is not only the writer's: both copies of the header, how far checkpoints have come, and the marks of readers.
const HEAD_BYTES: usize = 136;

/// Where the header has the number of the last frame, and the WAL's salts.
const LAST_FRAME_AT: usize = 16;
const SALTS_AT: usize = 32;

/// Giving back is worth it from this commit to a WAL on.
const COMMITS_MIN: u32 = 4;

/// The writer's lock: <https://www.sqlite.org/walformat.html#wal_locks>.
const WRITE_LOCK: c_int = 0;

/// What SQLite has beneath, and what is called instead.
struct Layer {
    vfs: NonNull<ffi::sqlite3_vfs>,
    /// The methods of files with a wal-index, and the same with three replaced.
    methods: OnceLock<Methods>,
}

struct Methods {
    plain: &'static ffi::sqlite3_io_methods,
    lean: ffi::sqlite3_io_methods,
}

// SAFETY: a registered VFS lives for ever, and may be called by any thread.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

static LAYER: OnceLock<Layer> = OnceLock::new();

/// What is known of a database's wal-index. It stands behind SQLite's own file.
struct Known {
    /// Its first part, of so many bytes.
    first: Option<(NonNull<u8>, usize)>,
    /// What it is of.
    content: Option<Content>,
    /// How often the writer's lock was given up since.
    commits: u32,
}

impl Known {
    const NOTHING: Self = Self { first: None, content: None, commits: 0 };
}

/// A WAL, and whether it has frames: SQLite writes zeros over its index when the first comes.
#[derive(PartialEq, Eq)]
struct Content {
    salts: [u8; 8],
    has_frames: bool,
}

/// Registers the files. SQLite has been started; later calls do nothing.
pub(super) fn register() -> Result<(), String> {
    // SAFETY: the name is NUL-terminated.
    let plain = unsafe { ffi::sqlite3_vfs_find(PLAIN.as_ptr()) };
    let plain = NonNull::new(plain).ok_or("SQLite has no unix-excl files")?;
    if LAYER.set(Layer { vfs: plain, methods: OnceLock::new() }).is_err() {
        return Ok(());
    }
    // SAFETY: a registered VFS lives for ever. None of its methods but `xOpen` looks at the VFS that it is called with,
    // so that the others are called as they are (`os_unix.c`).
    let mut vfs = unsafe { *plain.as_ptr() };
    vfs.szOsFile = (known_at(vfs.szOsFile) + size_of::<Known>()) as c_int;
    vfs.pNext = std::ptr::null_mut();
    vfs.zName = LEAN.as_ptr();
    vfs.xOpen = Some(open);
    // SAFETY: what is registered and its name live for ever.
    match unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0) } {
        ffi::SQLITE_OK => Ok(()),
        code => Err(format!("SQLite refused files with lean wal-indexes with result code {code}")),
    }
}

/// Where [`Known`] stands in a file whose plain part has so many bytes.
const fn known_at(plain_bytes: c_int) -> usize {
    (plain_bytes as usize).next_multiple_of(align_of::<Known>())
}

/// Opens a file as it is, and puts the methods below in place of a database's.
unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let Some(layer) = LAYER.get() else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: it lives for ever.
    let Some(open_plain) = (unsafe { layer.vfs.as_ref().xOpen }) else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: the arguments are SQLite's own, and `file` has room for more than a plain file.
    let code = unsafe { open_plain(layer.vfs.as_ptr(), name, file, flags, flags_out) };
    if code != ffi::SQLITE_OK || flags & ffi::SQLITE_OPEN_MAIN_DB == 0 {
        return code;
    }
    // SAFETY: the file is open, so that its methods are there, which are SQLite's own and live for ever.
    let Some(plain) = (unsafe { (*file).pMethods.as_ref::<'static>() }) else { return code };
    // A file that nobody changes has other methods, and no wal-index.
    if plain.xShmMap.is_some() {
        let methods = layer.methods.get_or_init(|| Methods { plain, lean: leaned(plain) });
        debug_assert!(std::ptr::eq(methods.plain, plain), "all files with a wal-index have the same methods");
        // SAFETY: there is room for it behind the plain file, and SQLite aligns files by eight bytes.
        unsafe {
            known_of(layer, file).write(Known::NOTHING);
            (*file).pMethods = &raw const methods.lean;
        }
    }
    code
}

fn leaned(plain: &ffi::sqlite3_io_methods) -> ffi::sqlite3_io_methods {
    ffi::sqlite3_io_methods { xShmMap: Some(map), xShmLock: Some(lock), xShmUnmap: Some(unmap), ..*plain }
}

fn known_of(layer: &Layer, file: *mut ffi::sqlite3_file) -> *mut Known {
    // SAFETY: it lives for ever.
    let plain_bytes = unsafe { layer.vfs.as_ref().szOsFile };
    file.wrapping_byte_add(known_at(plain_bytes)).cast()
}

/// What is known of an open file's wal-index, and SQLite's own methods.
///
/// # Safety
/// The file was opened by [`open`], and its methods are the lean ones.
unsafe fn parts<'a>(
    file: *mut ffi::sqlite3_file,
) -> Option<(&'a mut Known, &'static ffi::sqlite3_io_methods)> {
    let layer = LAYER.get()?;
    // SAFETY: `open` has written it, and no two threads use a file at the same time.
    Some((unsafe { &mut *known_of(layer, file) }, layer.methods.get()?.plain))
}

unsafe extern "C" fn map(
    file: *mut ffi::sqlite3_file,
    part: c_int,
    bytes: c_int,
    extend: c_int,
    mapped: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite calls the lean methods of files that have them.
    let Some((known, plain)) = (unsafe { parts(file) }) else { return ffi::SQLITE_MISUSE };
    let Some(map) = plain.xShmMap else { return ffi::SQLITE_MISUSE };
    // SAFETY: the arguments are SQLite's own.
    let code = unsafe { map(file, part, bytes, extend, mapped) };
    if code == ffi::SQLITE_OK && part == 0 {
        // SAFETY: SQLite gives a place for the address.
        let start = NonNull::new(unsafe { *mapped }.cast::<u8>());
        known.first = start.zip(usize::try_from(bytes).ok());
    }
    code
}

unsafe extern "C" fn unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: SQLite calls the lean methods of files that have them.
    let Some((known, plain)) = (unsafe { parts(file) }) else { return ffi::SQLITE_MISUSE };
    *known = Known::NOTHING;
    let Some(unmap) = plain.xShmUnmap else { return ffi::SQLITE_MISUSE };
    // SAFETY: the arguments are SQLite's own.
    unsafe { unmap(file, delete) }
}

/// Before the writer's lock is given up: only who holds it writes to what comes behind the head.
unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, first: c_int, locks: c_int, flags: c_int) -> c_int {
    // SAFETY: SQLite calls the lean methods of files that have them.
    let Some((known, plain)) = (unsafe { parts(file) }) else { return ffi::SQLITE_MISUSE };
    if first == WRITE_LOCK && flags == ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE {
        // SAFETY: SQLite gives up the writer's lock only when it has it, and the index is mapped until it is unmapped.
        unsafe { make_lean(known) };
    }
    let Some(lock) = plain.xShmLock else { return ffi::SQLITE_MISUSE };
    // SAFETY: the arguments are SQLite's own.
    unsafe { lock(file, first, locks, flags) }
}

/// Gives back the pages that hold nothing, once for each content of the index.
///
/// # Safety
/// What is known is mapped, and the caller has the writer's lock.
unsafe fn make_lean(known: &mut Known) {
    let Some((start, bytes)) = known.first else { return };
    // SAFETY: the header is there, and only the writer changes it.
    let content = unsafe {
        Content {
            salts: start.byte_add(SALTS_AT).cast().read(),
            has_frames: start.byte_add(LAST_FRAME_AT).cast::<u32>().read() != 0,
        }
    };
    if known.content.as_ref() != Some(&content) {
        (known.content, known.commits) = (Some(content), 0);
    }
    known.commits = known.commits.saturating_add(1);
    if known.commits != COMMITS_MIN {
        return;
    }
    let head = (start.addr().get() + HEAD_BYTES).next_multiple_of(PAGE_BYTES) - start.addr().get();
    // SAFETY: it lies within the index, and nobody writes to it meanwhile.
    let pages =
        unsafe { std::slice::from_raw_parts(start.byte_add(head).as_ptr(), bytes.saturating_sub(head)) };
    for run in pages.as_chunks::<PAGE_BYTES>().0.chunk_by(|one, next| is_empty(one) == is_empty(next)) {
        if run.first().is_some_and(is_empty) {
            // SAFETY: whole pages of memory that this process alone has, as all that SQLite allocates: what holds zeros
            // reads as zeros again. A page that stays costs memory only.
            unsafe { libc::madvise(run.as_ptr().cast_mut().cast(), size_of_val(run), libc::MADV_DONTNEED) };
        }
    }
}

fn is_empty(page: &[u8; PAGE_BYTES]) -> bool {
    static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    *page == ZEROS
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::database::message::{Profile, Value};
    use crate::database::session::{self, plain};
    use crate::database::sqlite::{self, Connection, Purpose};
    use crate::database::statement::Step;

    type Result<T> = std::result::Result<T, Box<dyn Error>>;

    fn open(path: &Path) -> Result<Connection> {
        let mut connection =
            Connection::open(path, Purpose::Use, Profile::Control, Arc::new(AtomicBool::new(false)))
                .map_err(|error| error.message)?;
        connection.keep_wal_file().map_err(|error| error.message)?;
        Ok(connection)
    }

    fn run(connection: &mut Connection, sql: &str) -> Result<()> {
        plain(connection, sql).map_err(|error| format!("{sql}: {}", error.message).into())
    }

    fn number(connection: &mut Connection, sql: &str) -> Result<i64> {
        let mut statement = connection.prepare(sql).map_err(|error| error.message)?.ok_or("no statement")?;
        if statement.step().map_err(|error| error.message)? != Step::Row {
            return Err("no row".into());
        }
        match statement.value(0).map_err(|error| error.message)? {
            Value::Integer(number) => Ok(number),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// How many pages of a connection's wal-index are in memory.
    fn resident_pages(connection: &Connection) -> Result<usize> {
        let mut file = std::ptr::null_mut::<ffi::sqlite3_file>();
        let mut resident = [0_u8; 16];
        // SAFETY: the connection is open, and the file it gives was opened by `open`.
        let (start, bytes) = unsafe {
            let operation = ffi::SQLITE_FCNTL_FILE_POINTER;
            ffi::sqlite3_file_control(
                connection.raw.as_ptr(),
                c"main".as_ptr(),
                operation,
                (&raw mut file).cast(),
            );
            parts(file).and_then(|(known, _)| known.first).ok_or("no wal-index")?
        };
        let first = start.addr().get() & !(PAGE_BYTES - 1);
        let bytes = start.addr().get() + bytes - first;
        // SAFETY: the index is mapped, and there is a place for each of its pages.
        let code =
            unsafe { libc::mincore(start.as_ptr().with_addr(first).cast(), bytes, resident.as_mut_ptr()) };
        assert_eq!(code, 0);
        Ok(resident.iter().filter(|page| **page & 1 == 1).count())
    }

    #[test]
    fn pages_that_hold_nothing_are_given_back_for_each_wal_and_nothing_else_is() -> Result<()> {
        sqlite::start()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.db");
        session::create(&path).map_err(|error| error.to_string())?;
        let (mut writer, mut reader) = (open(&path)?, open(&path)?);
        run(&mut writer, "CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)")?;
        let mut rows = 0;
        for _ in 0..3 {
            for _ in 0..COMMITS_MIN {
                run(&mut writer, "INSERT INTO t (b) VALUES (zeroblob(10))")?;
                rows += 1;
            }
            assert!(resident_pages(&writer)? <= 5, "{} pages", resident_pages(&writer)?);
            assert_eq!(number(&mut reader, "SELECT count(*) FROM t")?, rows);
            // Frames of many pages, each with a place of its own in the hash table.
            for _ in 0..20 {
                run(&mut writer, "INSERT INTO t (b) VALUES (randomblob(100000))")?;
                rows += 1;
                assert_eq!(number(&mut reader, "SELECT count(*) FROM t WHERE length(b) > 0")?, rows);
            }
            assert!(resident_pages(&writer)? > 5, "{} pages", resident_pages(&writer)?);
            assert_eq!(
                number(
                    &mut reader,
                    "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"
                )?,
                1
            );
            writer.checkpoint().map_err(|error| error.message)?;
        }
        Ok(())
    }
}
