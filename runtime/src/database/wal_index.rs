//! Wal-indexes (<https://www.sqlite.org/walformat.html#the_wal_index_file_format>) without the pages that hold nothing.
//!
//! A wal-index has 32 KiB of this process's memory, and SQLite writes zeros over all of it for each new WAL. A WAL of a
//! few frames needs three of those pages; the others would be a third of a parked handle. So they go back to the
//! system when the writer's lock is released, and read as zeros until something is written to them. Not at the first
//! releases: a handle that is opened for one request would pay for what it gives back soon.
#![expect(unsafe_code, reason = "this file stands between SQLite and its shared memory")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

use libsql::ffi;

/// The files beneath: no shared-memory file, and no other process can open a database.
const PLAIN: &CStr = c"unix-excl";

/// The same files, but for what their wal-indexes take.
pub(super) const NAME: &CStr = c"dormouse-excl";

/// The system's pages, where empty ones are given back.
const PAGE_BYTES: usize = 4_096;

/// What is not only the writer's: both copies of the header, how far checkpoints have come, and the marks of readers.
const HEAD_BYTES: usize = 136;

/// Where the header has the number of the last frame, and the WAL's salts.
const LAST_FRAME_AT: usize = 16;
const SALTS_AT: usize = 32;

/// The release by a connection, for one WAL, at which its empty pages are given back.
const GIVES_BACK_AT: u32 = 4;

/// The writer's lock: <https://www.sqlite.org/walformat.html#wal_locks>.
const WRITE_LOCK: c_int = 0;

/// What SQLite has beneath, and what is called instead.
struct Layer {
    vfs: NonNull<ffi::sqlite3_vfs>,
    /// The methods of a database's file, and the same with three replaced.
    methods: OnceLock<Methods>,
}

struct Methods {
    plain: &'static ffi::sqlite3_io_methods,
    own: ffi::sqlite3_io_methods,
}

// SAFETY: a registered VFS lives for ever, and may be called by any thread.
unsafe impl Send for Layer {}
// SAFETY: as above.
unsafe impl Sync for Layer {}

static LAYER: OnceLock<Layer> = OnceLock::new();

/// The wal-index of a database as one connection has it. It stands behind SQLite's own file.
struct WalIndex {
    /// Its first part, of so many bytes.
    first: Option<(NonNull<u8>, usize)>,
    /// What it is of.
    content: Option<Content>,
    /// How often the writer's lock was released since.
    releases: u32,
}

/// A WAL, and whether it has frames: SQLite writes zeros over its index when the first comes.
#[derive(PartialEq, Eq)]
struct Content {
    salts: [u8; 8],
    has_frames: bool,
}

/// Registers the files. Once, when SQLite has been started.
pub(super) fn register() -> Result<(), String> {
    // SAFETY: the name is NUL-terminated.
    let plain = unsafe { ffi::sqlite3_vfs_find(PLAIN.as_ptr()) };
    let plain = NonNull::new(plain).ok_or("SQLite has no unix-excl files")?;
    LAYER.get_or_init(|| Layer { vfs: plain, methods: OnceLock::new() });
    // SAFETY: a registered VFS lives for ever. None of its methods but `xOpen` looks at the VFS that it is called with,
    // so that the others are called as they are (`os_unix.c`).
    let mut vfs = unsafe { *plain.as_ptr() };
    vfs.szOsFile = (own_part_at(vfs.szOsFile) + size_of::<WalIndex>()) as c_int;
    vfs.pNext = std::ptr::null_mut();
    vfs.zName = NAME.as_ptr();
    vfs.xOpen = Some(open);
    vfs.xFullPathname = Some(full_pathname);
    // SAFETY: what is registered and its name live for ever.
    match unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0) } {
        ffi::SQLITE_OK => Ok(()),
        code => Err(format!("SQLite refused the node's files with result code {code}")),
    }
}

/// Where [`WalIndex`] stands in a file whose plain part has so many bytes.
const fn own_part_at(plain_bytes: c_int) -> usize {
    (plain_bytes as usize).next_multiple_of(align_of::<WalIndex>())
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
    // Files without shared memory have no wal-index.
    if plain.xShmMap.is_some() && rustix::param::page_size() == PAGE_BYTES {
        let methods = layer.methods.get_or_init(|| Methods { plain, own: replaced(plain) });
        debug_assert!(std::ptr::eq(methods.plain, plain), "all databases have the same methods");
        // SAFETY: there is room for it behind the plain file, and SQLite aligns files by eight bytes.
        unsafe {
            own_part(layer, file).write(WalIndex::UNMAPPED);
            (*file).pMethods = &raw const methods.own;
        }
    }
    code
}

/// Takes an absolute path as it is. SQLite's own method asks the system for each of its folders whether it is a link.
unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    bytes_max: c_int,
    full: *mut c_char,
) -> c_int {
    // SAFETY: SQLite's names are NUL-terminated.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if bytes.first() == Some(&b'/') && usize::try_from(bytes_max).is_ok_and(|max| bytes.len() <= max) {
        // SAFETY: `full` has room for `bytes_max`, and does not lie within the name.
        unsafe { full.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        return ffi::SQLITE_OK;
    }
    // SAFETY: the layer lives for ever.
    let plain = LAYER.get().map(|layer| (layer.vfs.as_ptr(), unsafe { layer.vfs.as_ref().xFullPathname }));
    let Some((vfs, Some(full_plain))) = plain else { return ffi::SQLITE_CANTOPEN };
    // SAFETY: the arguments are SQLite's own.
    unsafe { full_plain(vfs, name, bytes_max, full) }
}

fn replaced(plain: &ffi::sqlite3_io_methods) -> ffi::sqlite3_io_methods {
    ffi::sqlite3_io_methods { xShmMap: Some(map), xShmLock: Some(lock), xShmUnmap: Some(unmap), ..*plain }
}

fn own_part(layer: &Layer, file: *mut ffi::sqlite3_file) -> *mut WalIndex {
    // SAFETY: it lives for ever.
    let plain_bytes = unsafe { layer.vfs.as_ref().szOsFile };
    file.wrapping_byte_add(own_part_at(plain_bytes)).cast()
}

/// An open file's wal-index, and SQLite's own methods.
///
/// # Safety
/// The file was opened by [`open`], and its methods are this file's.
unsafe fn parts<'a>(
    file: *mut ffi::sqlite3_file,
) -> Option<(&'a mut WalIndex, &'static ffi::sqlite3_io_methods)> {
    let layer = LAYER.get()?;
    // SAFETY: `open` has written it, and no two threads use a file at the same time.
    Some((unsafe { &mut *own_part(layer, file) }, layer.methods.get()?.plain))
}

unsafe extern "C" fn map(
    file: *mut ffi::sqlite3_file,
    part: c_int,
    bytes: c_int,
    extend: c_int,
    mapped: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite calls the methods of files that have them.
    let Some((index, plain)) = (unsafe { parts(file) }) else { return ffi::SQLITE_MISUSE };
    let Some(map_plain) = plain.xShmMap else { return ffi::SQLITE_MISUSE };
    // SAFETY: the arguments are SQLite's own.
    let code = unsafe { map_plain(file, part, bytes, extend, mapped) };
    if code == ffi::SQLITE_OK && part == 0 {
        // SAFETY: SQLite gives a place for the address.
        let start = NonNull::new(unsafe { *mapped }.cast::<u8>());
        index.first = start.zip(usize::try_from(bytes).ok());
    }
    code
}

unsafe extern "C" fn unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: SQLite calls the methods of files that have them.
    let Some((index, plain)) = (unsafe { parts(file) }) else { return ffi::SQLITE_MISUSE };
    *index = WalIndex::UNMAPPED;
    let Some(unmap_plain) = plain.xShmUnmap else { return ffi::SQLITE_MISUSE };
    // SAFETY: the arguments are SQLite's own.
    unsafe { unmap_plain(file, delete) }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, first: c_int, locks: c_int, flags: c_int) -> c_int {
    // SAFETY: SQLite calls the methods of files that have them.
    let Some((index, plain)) = (unsafe { parts(file) }) else { return ffi::SQLITE_MISUSE };
    if first == WRITE_LOCK && flags == ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE {
        // SAFETY: SQLite releases the writer's lock only when it has it, and what was mapped is there until it is unmapped.
        unsafe { index.before_release() };
    }
    let Some(lock_plain) = plain.xShmLock else { return ffi::SQLITE_MISUSE };
    // SAFETY: the arguments are SQLite's own.
    unsafe { lock_plain(file, first, locks, flags) }
}

impl WalIndex {
    const UNMAPPED: Self = Self { first: None, content: None, releases: 0 };

    /// Counts the release, and gives back the empty pages when it is time.
    ///
    /// # Safety
    /// The index is mapped, and the caller has the writer's lock still.
    unsafe fn before_release(&mut self) {
        let Some((start, bytes)) = self.first else { return };
        // SAFETY: the header is there, and only the writer changes this part of it.
        let content = unsafe {
            Content {
                salts: start.byte_add(SALTS_AT).cast().read(),
                has_frames: start.byte_add(LAST_FRAME_AT).cast::<u32>().read() != 0,
            }
        };
        if self.content.as_ref() != Some(&content) {
            (self.content, self.releases) = (Some(content), 0);
        }
        self.releases = self.releases.saturating_add(1);
        if self.releases == GIVES_BACK_AT {
            let head = (start.addr().get() + HEAD_BYTES).next_multiple_of(PAGE_BYTES) - start.addr().get();
            // SAFETY: it lies within the index, and only the writer writes to it.
            give_back_empty(unsafe {
                std::slice::from_raw_parts(start.byte_add(head).as_ptr(), bytes.saturating_sub(head))
            });
        }
    }
}

/// Gives back the empty pages of memory that SQLite has allocated, and nobody writes to meanwhile.
fn give_back_empty(index: &[u8]) {
    for run in index.as_chunks::<PAGE_BYTES>().0.chunk_by(|one, next| is_empty(one) == is_empty(next)) {
        if run.first().is_some_and(is_empty) {
            // SAFETY: whole pages that only this process maps: what holds zeros reads as zeros again. A page that stays
            // costs memory only.
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
    use std::path::{Path, PathBuf};
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
        run(&mut connection, "PRAGMA synchronous=OFF")?;
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
        let (raw, name) = (connection.raw.as_ptr(), c"main".as_ptr());
        // SAFETY: the connection is open, and the operation writes the address of its file.
        let code = unsafe {
            ffi::sqlite3_file_control(raw, name, ffi::SQLITE_FCNTL_FILE_POINTER, (&raw mut file).cast())
        };
        assert_eq!(code, ffi::SQLITE_OK);
        // SAFETY: the file was opened above.
        let (start, bytes) =
            unsafe { parts(file) }.and_then(|(index, _)| index.first).ok_or("no wal-index")?;
        let first = start.addr().get() & !(PAGE_BYTES - 1);
        let bytes = start.addr().get() + bytes - first;
        let mut resident = [0_u8; 16];
        // SAFETY: the index is mapped, and there is a place for each of its pages.
        let code =
            unsafe { libc::mincore(start.as_ptr().with_addr(first).cast(), bytes, resident.as_mut_ptr()) };
        assert_eq!(code, 0);
        Ok(resident.iter().filter(|page| **page & 1 == 1).count())
    }

    fn database() -> Result<(tempfile::TempDir, PathBuf)> {
        sqlite::start()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.db");
        session::create(&path).map_err(|error| error.to_string())?;
        run(&mut open(&path)?, "CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB)")?;
        Ok((folder, path))
    }

    /// Pages of an index of few frames: one or two of its beginning, and of the hash table for the first pages of a database.
    const FEW: usize = 4;

    const COUNT: &str = "SELECT count(*) FROM t WHERE length(b) > 0";

    #[test]
    fn empty_pages_are_given_back_once_for_each_wal() -> Result<()> {
        let (_folder, path) = database()?;
        let (mut writer, mut reader) = (open(&path)?, open(&path)?);
        let mut rows = number(&mut writer, COUNT)?;
        for _ in 0..3 {
            writer.checkpoint().map_err(|error| error.message)?;
            for release in 1..=GIVES_BACK_AT {
                run(&mut writer, "INSERT INTO t (b) VALUES (zeroblob(10))")?;
                rows += 1;
                let resident = resident_pages(&writer)?;
                assert_eq!(
                    resident <= FEW,
                    release == GIVES_BACK_AT,
                    "{resident} pages after release {release}"
                );
            }
            assert_eq!(number(&mut reader, COUNT)?, rows);
            // Frames of many pages, each with a place of its own in the hash table.
            for _ in 0..20 {
                run(&mut writer, "INSERT INTO t (b) VALUES (randomblob(100000))")?;
                rows += 1;
                assert_eq!(number(&mut reader, COUNT)?, rows);
            }
            assert!(resident_pages(&writer)? > FEW);
        }
        assert_eq!(
            number(&mut reader, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'")?,
            1
        );
        Ok(())
    }

    #[test]
    fn readers_and_another_writer_see_all_that_is_written_meanwhile() -> Result<()> {
        const EACH: i64 = 200;
        let (_folder, path) = database()?;
        std::thread::scope(|threads| {
            let write = || -> std::result::Result<(), String> {
                let mut writer = open(&path).map_err(|error| error.to_string())?;
                writer.busy_timeout(60_000);
                for row in 0..EACH {
                    run(&mut writer, "INSERT INTO t (b) VALUES (randomblob(5000))")
                        .map_err(|error| error.to_string())?;
                    // As far as the others allow; the next row begins a new WAL when they have.
                    if row % 8 == 0 {
                        writer.busy_timeout(0);
                        writer.checkpoint().map_err(|error| error.message)?;
                        writer.busy_timeout(60_000);
                    }
                }
                Ok(())
            };
            let writers = [threads.spawn(write), threads.spawn(write)];
            let mut reader = open(&path)?;
            let mut seen = 0;
            while writers.iter().any(|writer| !writer.is_finished()) {
                let rows = number(&mut reader, COUNT)?;
                assert!(rows >= seen, "{rows} rows after {seen}");
                seen = rows;
            }
            for writer in writers {
                writer.join().map_err(|_| "a writer panicked")??;
            }
            assert_eq!(number(&mut reader, COUNT)?, 2 * EACH);
            assert_eq!(
                number(
                    &mut reader,
                    "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"
                )?,
                1
            );
            Ok(())
        })
    }
}
