//! Compiled statements, and those that a connection keeps.
//!
//! Compiling a short statement costs more than running it, and a function runs the same few at each request. So a
//! connection keeps the latest that only read or write rows, and a parked handle keeps them with it: their memory is on
//! its account. SQLite compiles a kept statement anew when the schema has changed, and asks the authorizer again.
#![expect(unsafe_code, reason = "this file calls the C library")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;

use libsql::ffi;

use super::callbacks::view;
use super::message::Value;
use super::sqlite::{Connection, SqliteError};

type Result<T> = std::result::Result<T, SqliteError>;

/// Statements that one connection keeps.
const KEPT_MAX: usize = 8;

/// Largest statement that is kept, in bytes; one that inserts a row has some 3,000.
const KEPT_BYTES_MAX: c_int = 8 << 10;

/// The statements that a connection keeps, the one used last at the end.
#[derive(Default)]
pub(super) struct Kept(Vec<Compiled>);

/// A compiled statement; SQLite keeps the text that it came from.
struct Compiled(NonNull<ffi::sqlite3_stmt>);

// SAFETY: a statement may be used from any thread that may use its connection, which owns it.
unsafe impl Send for Compiled {}

impl Kept {
    /// The statement that was compiled from this text.
    pub(super) fn find(&mut self, sql: &str) -> Option<NonNull<ffi::sqlite3_stmt>> {
        let index = self.0.iter().rposition(|compiled| is_of(compiled.0, sql))?;
        self.0.get_mut(index..)?.rotate_left(1);
        self.0.last().map(|compiled| compiled.0)
    }

    /// Keeps a statement, unless it is too large or only the first of its text. The one that was used longest ago goes.
    pub(super) fn keep(&mut self, raw: NonNull<ffi::sqlite3_stmt>, sql: &str) -> bool {
        // SAFETY: the statement is live; nothing of it is reset.
        let bytes = unsafe { ffi::sqlite3_stmt_status(raw.as_ptr(), ffi::SQLITE_STMTSTATUS_MEMUSED, 0) };
        if bytes > KEPT_BYTES_MAX || !is_of(raw, sql) {
            return false;
        }
        if self.0.len() == KEPT_MAX {
            self.0.remove(0);
        }
        self.0.push(Compiled(raw));
        true
    }

    /// Finalises all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        finalize(self.0);
    }
}

/// Whether a statement was compiled from the whole of this text.
fn is_of(raw: NonNull<ffi::sqlite3_stmt>, sql: &str) -> bool {
    // SAFETY: the statement is live, and with it its copy of the text, which ends in NUL.
    unsafe {
        let text = ffi::sqlite3_sql(raw.as_ptr());
        !text.is_null() && CStr::from_ptr(text).to_bytes() == sql.as_bytes()
    }
}

fn finalize(raw: NonNull<ffi::sqlite3_stmt>) {
    // SAFETY: whoever owns the statement finalises it once; the code repeats the error of the last step.
    unsafe { ffi::sqlite3_finalize(raw.as_ptr()) };
}

/// A statement in use. Dropping it ends what it has begun.
pub(super) struct Statement<'c> {
    raw: NonNull<ffi::sqlite3_stmt>,
    connection: &'c mut Connection,
    is_kept: bool,
}

/// What a step of a statement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Row,
    Done,
}

impl<'c> Statement<'c> {
    /// A statement of `connection`, which keeps it or not.
    pub(super) fn new(
        raw: NonNull<ffi::sqlite3_stmt>,
        connection: &'c mut Connection,
        is_kept: bool,
    ) -> Self {
        Self { raw, connection, is_kept }
    }

    /// Whether it leaves the database file as it is.
    pub(super) fn is_readonly(&self) -> bool {
        // SAFETY: the statement is live.
        let says_so = unsafe { ffi::sqlite3_stmt_readonly(self.raw.as_ptr()) != 0 };
        says_so && !self.connection.hooks.writes_unsaid.get()
    }

    /// Whether it would write to a database that has used up its quota.
    pub(super) fn is_over_quota(&self) -> bool {
        !self.is_readonly() && self.connection.is_over_quota()
    }

    /// Binds `values` to the parameters 1, 2, … in order.
    pub(super) fn bind(&mut self, values: &[Value]) -> Result<()> {
        // SAFETY: the statement is live.
        let expected = unsafe { ffi::sqlite3_bind_parameter_count(self.raw.as_ptr()) };
        if usize::try_from(expected) != Ok(values.len()) {
            let message = format!("the statement takes {expected} parameters, {} were given", values.len());
            return Err(SqliteError { code: ffi::SQLITE_RANGE, message });
        }
        for (index, value) in (1..).zip(values) {
            let code = self.bind_one(index, value);
            self.connection.check(code)?;
        }
        Ok(())
    }

    fn bind_one(&mut self, index: c_int, value: &Value) -> c_int {
        let raw = self.raw.as_ptr();
        let encoding = u8::try_from(ffi::SQLITE_UTF8).unwrap_or(1);
        // SAFETY: the statement is live; SQLite copies text and blobs (TRANSIENT) from memory that is valid for the
        // given length during the call. An empty slice has a non-null pointer, so that an empty blob is not NULL.
        unsafe {
            match value {
                Value::Null => ffi::sqlite3_bind_null(raw, index),
                Value::Integer(number) => ffi::sqlite3_bind_int64(raw, index, *number),
                Value::Real(number) => ffi::sqlite3_bind_double(raw, index, *number),
                Value::Text(text) => ffi::sqlite3_bind_text64(
                    raw,
                    index,
                    text.as_ptr().cast::<c_char>(),
                    text.len() as u64,
                    ffi::SQLITE_TRANSIENT(),
                    encoding,
                ),
                Value::Blob(bytes) => ffi::sqlite3_bind_blob64(
                    raw,
                    index,
                    bytes.as_ptr().cast::<c_void>(),
                    bytes.len() as u64,
                    ffi::SQLITE_TRANSIENT(),
                ),
            }
        }
    }

    /// Runs to the next row or to the end.
    pub(super) fn step(&mut self) -> Result<Step> {
        // SAFETY: the statement is live.
        match unsafe { ffi::sqlite3_step(self.raw.as_ptr()) } {
            ffi::SQLITE_ROW => Ok(Step::Row),
            ffi::SQLITE_DONE => Ok(Step::Done),
            code => Err(self.connection.error(code)),
        }
    }

    /// Ends the statement with an error of the caller's, as if it had failed by itself: what it has written is taken
    /// back. One that is only finalised would be committed.
    pub(super) fn fail(&mut self, error: SqliteError) -> SqliteError {
        if !self.is_readonly() {
            // SAFETY: the connection is open and the statement is live; it is running, so that it is what is
            // interrupted, and its next step fails.
            unsafe {
                ffi::sqlite3_interrupt(ffi::sqlite3_db_handle(self.raw.as_ptr()));
                ffi::sqlite3_step(self.raw.as_ptr());
            }
        }
        error
    }

    /// Names of the result columns. They are known after the first step, which may compile the statement anew.
    pub(super) fn columns(&self) -> Vec<String> {
        (0..self.column_count()).map(|index| self.column_name(index)).collect()
    }

    fn column_count(&self) -> c_int {
        // SAFETY: the statement is live.
        unsafe { ffi::sqlite3_column_count(self.raw.as_ptr()) }
    }

    fn column_name(&self, index: c_int) -> String {
        // SAFETY: the statement is live; the name is NUL-terminated, or null when memory is out, and copied.
        unsafe {
            let name = ffi::sqlite3_column_name(self.raw.as_ptr(), index);
            if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
        }
    }

    /// The values of the current row.
    pub(super) fn row(&self) -> Result<Vec<Value>> {
        (0..self.column_count()).map(|index| self.value(index)).collect()
    }

    /// A value of the current row.
    pub(super) fn value(&self, index: c_int) -> Result<Value> {
        let raw = self.raw.as_ptr();
        // SAFETY: the statement stands on a row, and an index out of range gives NULL; pointer and length are asked
        // for in the documented order (pointer first) and the bytes are copied before any other call.
        unsafe {
            match ffi::sqlite3_column_type(raw, index) {
                ffi::SQLITE_INTEGER => Ok(Value::Integer(ffi::sqlite3_column_int64(raw, index))),
                ffi::SQLITE_FLOAT => Ok(Value::Real(ffi::sqlite3_column_double(raw, index))),
                ffi::SQLITE_TEXT => {
                    let text = ffi::sqlite3_column_text(raw, index);
                    let bytes = self.copy(text, ffi::sqlite3_column_bytes(raw, index))?;
                    String::from_utf8(bytes).map(Value::Text).map_err(|_| self.not_utf8(index))
                }
                ffi::SQLITE_BLOB => {
                    let blob = ffi::sqlite3_column_blob(raw, index).cast::<u8>();
                    Ok(Value::Blob(self.copy(blob, ffi::sqlite3_column_bytes(raw, index))?))
                }
                _ => Ok(Value::Null),
            }
        }
    }

    /// Copies `length` bytes from `start`. They are nowhere when SQLite had no memory to lay them out.
    ///
    /// # Safety
    /// `start` is null or valid for `length` bytes.
    unsafe fn copy(&self, start: *const u8, length: c_int) -> Result<Vec<u8>> {
        if start.is_null() && length != 0 {
            return Err(self.connection.error(ffi::SQLITE_NOMEM));
        }
        // SAFETY: the caller's promise.
        Ok(unsafe { view(start, length, PhantomData) }.to_vec())
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
        if !self.is_kept {
            return finalize(self.raw);
        }
        // SAFETY: the statement is live, in the connection's hands; the code repeats the error of the last step.
        unsafe {
            ffi::sqlite3_reset(self.raw.as_ptr());
            ffi::sqlite3_clear_bindings(self.raw.as_ptr());
        }
    }
}
