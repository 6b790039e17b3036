//! Reading a database file through the descriptor that SQLite has of it.
//!
//! Whoever opens the file anew and closes it drops SQLite's POSIX locks, which belong to the process
//! (<https://www.sqlite.org/howtocorrupt.html>).
#![expect(unsafe_code, reason = "this file calls the methods of a SQLite file")]

use std::ffi::{CStr, c_int};

use libsql::ffi;

use super::message::FilePart;
use super::sqlite::{Connection, SqliteError};

impl Connection {
    /// Reads from the database file; nothing behind its end.
    pub(super) fn read_file(&mut self, offset: u64, bytes_max: usize) -> Result<FilePart, SqliteError> {
        let mut file = std::ptr::null_mut::<ffi::sqlite3_file>();
        let mut size: ffi::sqlite3_int64 = 0;
        // SAFETY: this file control writes one pointer, to a file that lives as long as the connection.
        let code = unsafe {
            ffi::sqlite3_file_control(
                self.raw.as_ptr(),
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_FILE_POINTER,
                (&raw mut file).cast(),
            )
        };
        self.check(code)?;
        // SAFETY: `file` is null or valid; so are its methods, which are null while the file is not open.
        let methods = unsafe { file.as_ref().and_then(|file| file.pMethods.as_ref()) };
        let methods = methods.and_then(|methods| Some((methods.xFileSize?, methods.xRead?)));
        let Some((size_of, read)) = methods else { return Err(self.error(ffi::SQLITE_CANTOPEN)) };
        // SAFETY: the method is called as SQLite calls it; `size` is a valid place.
        check(unsafe { size_of(file, &raw mut size) })?;
        let file_bytes = u64::try_from(size).unwrap_or(0);
        let left = usize::try_from(file_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(bytes_max)];
        let (amount, start) = (c_int::try_from(bytes.len()), ffi::sqlite3_int64::try_from(offset));
        if let (Ok(amount), Ok(start)) = (amount, start)
            && amount > 0
        {
            // SAFETY: as above; `bytes` has room for `amount`.
            check(unsafe { read(file, bytes.as_mut_ptr().cast(), amount, start) })?;
        }
        Ok(FilePart { bytes, file_bytes })
    }
}

/// The methods of a file leave no message with the connection.
fn check(code: c_int) -> Result<(), SqliteError> {
    if code == ffi::SQLITE_OK {
        return Ok(());
    }
    // SAFETY: the text is static and NUL-terminated, whatever the code.
    let message = unsafe { CStr::from_ptr(ffi::sqlite3_errstr(code)) };
    Err(SqliteError { code, message: message.to_string_lossy().into_owned() })
}
