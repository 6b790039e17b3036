//! The C interface of SQLite, as far as tests need it: one in-memory database, used by one thread.
//!
//! This is the SDK's only unsafe file, and no component contains it. It follows `runtime/src/database/sqlite.rs`.
#![expect(unsafe_code, reason = "this file calls the C library")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use libsql::ffi;

use crate::Value;

/// A failed call: SQLite's extended result code and its text.
#[derive(Debug)]
pub(super) struct SqliteError {
    pub(super) code: c_int,
    pub(super) message: String,
}

type Result<T> = std::result::Result<T, SqliteError>;

/// The names of the columns, and the rows.
type Answer = (Vec<String>, Vec<Vec<Value>>);

/// A connection to an in-memory database of its own. The pointer keeps it on its thread.
pub(super) struct Sqlite(NonNull<ffi::sqlite3>);

impl Sqlite {
    pub(super) fn open_in_memory() -> Result<Self> {
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE | ffi::SQLITE_OPEN_EXRESCODE;
        let mut raw = ptr::null_mut();
        // SAFETY: the name is NUL-terminated, `raw` is a valid place, and a null VFS is the default one.
        let code = unsafe { ffi::sqlite3_open_v2(c":memory:".as_ptr(), &raw mut raw, flags, ptr::null()) };
        let Some(raw) = NonNull::new(raw) else {
            return Err(SqliteError { code: ffi::SQLITE_NOMEM, message: "out of memory".to_owned() });
        };
        let sqlite = Self(raw);
        sqlite.check(code)?;
        Ok(sqlite)
    }

    /// Sets one of SQLite's run-time limits (`SQLITE_LIMIT_…`).
    pub(super) fn limit(&self, limit: c_int, value: c_int) {
        // SAFETY: the connection is open; an unknown limit is ignored by SQLite.
        unsafe { ffi::sqlite3_limit(self.0.as_ptr(), limit, value) };
    }

    /// Switches on one of SQLite's connection options (`SQLITE_DBCONFIG_…`) that take a boolean.
    pub(super) fn enable(&self, option: c_int) -> Result<()> {
        let on: c_int = 1;
        // SAFETY: the boolean options take an int and a pointer to an int that may be null.
        self.check(unsafe { ffi::sqlite3_db_config(self.0.as_ptr(), option, on, ptr::null_mut::<c_int>()) })
    }

    /// Whether a transaction is open.
    pub(super) fn in_transaction(&self) -> bool {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_get_autocommit(self.0.as_ptr()) == 0 }
    }

    /// Rows changed by the latest INSERT, UPDATE or DELETE.
    pub(super) fn changes(&self) -> u64 {
        // SAFETY: the connection is open.
        u64::try_from(unsafe { ffi::sqlite3_changes64(self.0.as_ptr()) }).unwrap_or(0)
    }

    /// Rows changed by all statements so far.
    pub(super) fn total_changes(&self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_total_changes64(self.0.as_ptr()) }
    }

    /// Row id of the latest INSERT.
    pub(super) fn last_insert_rowid(&self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_last_insert_rowid(self.0.as_ptr()) }
    }

    /// Forgets the row id of the latest INSERT.
    pub(super) fn forget_last_insert_rowid(&mut self) {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_set_last_insert_rowid(self.0.as_ptr(), 0) };
    }

    /// Runs the first statement of `sql`; a text without one does nothing.
    pub(super) fn execute(&mut self, sql: &str, values: &[Value]) -> Result<Answer> {
        let Some(statement) = self.prepare(sql)? else { return Ok(Answer::default()) };
        statement.bind(values)?;
        let columns = statement.columns();
        let mut rows = Vec::new();
        while statement.step()? {
            rows.push(
                (0..statement.column_count()).map(|index| statement.value(index)).collect::<Result<_>>()?,
            );
        }
        Ok((columns, rows))
    }

    fn prepare(&mut self, sql: &str) -> Result<Option<Statement<'_>>> {
        if sql.contains('\0') {
            let message =
                "the SQL holds a NUL character; give text with NUL as a parameter, or write char(0)"
                    .to_owned();
            return Err(SqliteError { code: ffi::SQLITE_ERROR, message });
        }
        let mut raw = ptr::null_mut();
        let bytes = c_int::try_from(sql.len()).unwrap_or(c_int::MAX);
        let text = sql.as_ptr().cast::<c_char>();
        // SAFETY: `sql` is valid for `bytes` bytes and `raw` is a valid place; the end of the text is not asked for.
        let code =
            unsafe { ffi::sqlite3_prepare_v2(self.0.as_ptr(), text, bytes, &raw mut raw, ptr::null_mut()) };
        self.check(code)?;
        Ok(NonNull::new(raw).map(|raw| Statement { raw, sqlite: self }))
    }

    fn check(&self, code: c_int) -> Result<()> {
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.error(code)) }
    }

    fn error(&self, code: c_int) -> SqliteError {
        // SAFETY: the connection is open; the text is NUL-terminated and copied before any other call.
        let message = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(self.0.as_ptr())) };
        SqliteError { code, message: message.to_string_lossy().into_owned() }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // SAFETY: statements borrow the connection, so none is left; it is closed once. `close_v2` cannot fail.
        unsafe { ffi::sqlite3_close_v2(self.0.as_ptr()) };
    }
}

/// A compiled statement.
struct Statement<'c> {
    raw: NonNull<ffi::sqlite3_stmt>,
    sqlite: &'c Sqlite,
}

impl Statement<'_> {
    fn bind(&self, values: &[Value]) -> Result<()> {
        // SAFETY: the statement is live.
        let expected = unsafe { ffi::sqlite3_bind_parameter_count(self.raw.as_ptr()) };
        if usize::try_from(expected) != Ok(values.len()) {
            let message = format!("the statement takes {expected} parameters, {} were given", values.len());
            return Err(SqliteError { code: ffi::SQLITE_RANGE, message });
        }
        (1..).zip(values).try_for_each(|(index, value)| self.sqlite.check(self.bind_one(index, value)))
    }

    fn bind_one(&self, index: c_int, value: &Value) -> c_int {
        let raw = self.raw.as_ptr();
        let encoding = u8::try_from(ffi::SQLITE_UTF8).unwrap_or(1);
        let copied = ffi::SQLITE_TRANSIENT();
        // SAFETY: the statement is live; SQLite copies text and blobs from memory that is valid for the given length
        // during the call. An empty slice has a non-null pointer, so that an empty blob is not NULL.
        unsafe {
            match value {
                Value::Null => ffi::sqlite3_bind_null(raw, index),
                Value::Integer(number) => ffi::sqlite3_bind_int64(raw, index, *number),
                Value::Real(number) => ffi::sqlite3_bind_double(raw, index, *number),
                Value::Text(text) => {
                    let start = text.as_ptr().cast::<c_char>();
                    ffi::sqlite3_bind_text64(raw, index, start, text.len() as u64, copied, encoding)
                }
                Value::Blob(bytes) => {
                    let start = bytes.as_ptr().cast::<c_void>();
                    ffi::sqlite3_bind_blob64(raw, index, start, bytes.len() as u64, copied)
                }
            }
        }
    }

    /// Runs to the next row; whether there is one.
    fn step(&self) -> Result<bool> {
        // SAFETY: the statement is live.
        match unsafe { ffi::sqlite3_step(self.raw.as_ptr()) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            code => Err(self.sqlite.error(code)),
        }
    }

    fn column_count(&self) -> c_int {
        // SAFETY: the statement is live.
        unsafe { ffi::sqlite3_column_count(self.raw.as_ptr()) }
    }

    fn columns(&self) -> Vec<String> {
        (0..self.column_count()).map(|index| self.column_name(index)).collect()
    }

    fn column_name(&self, index: c_int) -> String {
        // SAFETY: `index` is in range; the name is NUL-terminated, or null when memory is out, and copied.
        unsafe {
            let name = ffi::sqlite3_column_name(self.raw.as_ptr(), index);
            if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
        }
    }

    fn value(&self, index: c_int) -> Result<Value> {
        let raw = self.raw.as_ptr();
        // SAFETY: the statement stands on a row and `index` is in range; pointer and length are asked for in the
        // documented order (pointer first) and the bytes are copied before any other call.
        unsafe {
            match ffi::sqlite3_column_type(raw, index) {
                ffi::SQLITE_INTEGER => Ok(Value::Integer(ffi::sqlite3_column_int64(raw, index))),
                ffi::SQLITE_FLOAT => Ok(Value::Real(ffi::sqlite3_column_double(raw, index))),
                ffi::SQLITE_TEXT => {
                    let text =
                        copy(ffi::sqlite3_column_text(raw, index), ffi::sqlite3_column_bytes(raw, index));
                    String::from_utf8(text).map(Value::Text).map_err(|_| self.not_utf8(index))
                }
                ffi::SQLITE_BLOB => {
                    let blob = ffi::sqlite3_column_blob(raw, index).cast::<u8>();
                    Ok(Value::Blob(copy(blob, ffi::sqlite3_column_bytes(raw, index))))
                }
                _ => Ok(Value::Null),
            }
        }
    }

    fn not_utf8(&self, index: c_int) -> SqliteError {
        let column = self.column_name(index);
        let message =
            format!("the text in column {column:?} is not UTF-8; read it as a blob: CAST(… AS BLOB)");
        SqliteError { code: ffi::SQLITE_MISMATCH, message }
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        // SAFETY: the statement is finalised once; the code repeats the error of the last step and is known already.
        unsafe { ffi::sqlite3_finalize(self.raw.as_ptr()) };
    }
}

/// Copies `length` bytes from `start`.
///
/// # Safety
///
/// `start` is null or valid for `length` bytes.
unsafe fn copy(start: *const u8, length: c_int) -> Vec<u8> {
    match usize::try_from(length) {
        // SAFETY: the caller's promise.
        Ok(length) if !start.is_null() => unsafe { std::slice::from_raw_parts(start, length) }.to_vec(),
        _ => Vec::new(),
    }
}
