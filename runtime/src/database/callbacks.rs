//! What SQLite calls back: the authorizer, the progress handler, the hooks of commits and the replaced functions.
//!
//! Each turns C pointers into Rust values and asks a pure function; none can fail or panic.
#![expect(unsafe_code, reason = "SQLite calls these functions with C pointers")]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use libsql::ffi;

use super::caps::VALUE_BYTES_MAX;
use super::functions::{Answer, Argument, Function};
use super::guard::{self, Question, Verdict};
use super::json::{self, Editor};
use super::message::{Profile, Value};
use super::quota::Quota;
use super::watch;

/// Why the progress handler stopped a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    No,
    Deadline,
    Cancelled,
    Quota,
}

/// What the callbacks of one connection read and write. It lives in a box, so that its address is fixed.
pub(super) struct Hooks {
    pub profile: Profile,
    pub denied: RefCell<Option<String>>,
    pub changed: Cell<bool>,
    /// Whether the statement that is being prepared writes though SQLite says it does not.
    pub writes_unsaid: Cell<bool>,
    /// Whether the statement that is being prepared is an ALTER TABLE.
    pub alters: Cell<bool>,
    /// Whether it does more than read and write rows, and so is not worth keeping.
    pub one_time: Cell<bool>,
    pub deadline: Cell<Option<Instant>>,
    pub cancelled: Arc<AtomicBool>,
    pub stopped: Cell<Stopped>,
    pub wal_pages: Cell<i32>,
    /// Whether the statement that runs may write.
    pub may_write: Cell<bool>,
    pub quota: Option<Quota>,
}

impl Hooks {
    /// Forgets what the statement before has left.
    pub(super) fn begin_statement(&self) {
        self.denied.take();
        self.alters.set(false);
        self.writes_unsaid.set(false);
        self.one_time.set(false);
    }

    /// Whether the database may not write on. What asks stops the statement.
    pub(super) fn is_over_quota(&self) -> bool {
        let is_over = self.may_write.get() && self.quota.as_ref().is_some_and(Quota::is_used_up);
        if is_over {
            self.stopped.set(Stopped::Quota);
        }
        is_over
    }
}

/// Views `length` bytes from `start`; null is empty.
///
/// # Safety
/// `start` is null or valid for `length` bytes during the lifetime.
pub(super) unsafe fn view(start: *const u8, length: c_int, _lifetime: PhantomData<&()>) -> &[u8] {
    match usize::try_from(length) {
        // SAFETY: the caller's promise.
        Ok(length) if !start.is_null() => unsafe { std::slice::from_raw_parts(start, length) },
        _ => &[],
    }
}

/// Reads a C string that SQLite passes to the authorizer.
///
/// # Safety
/// `text` is null or NUL-terminated and valid during `'a`.
unsafe fn name<'a>(text: *const c_char) -> Option<&'a str> {
    // SAFETY: the caller's promise. A name that is not UTF-8 is on no list.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("\u{fffd}"))
}

pub(super) unsafe extern "C" fn on_question(
    hooks: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    _database: *const c_char,
    _trigger: *const c_char,
) -> c_int {
    // SAFETY: SQLite passes the pointer of `install_hooks`, which outlives the connection, and C strings that live
    // for the call.
    let (hooks, first, second) = unsafe { (&*hooks.cast::<Hooks>(), name(first), name(second)) };
    match (action, first) {
        (ffi::SQLITE_ALTER_TABLE, _) => hooks.alters.set(true),
        // It runs ANALYZE through a statement of its own, which `sqlite3_stmt_readonly` does not see.
        (ffi::SQLITE_PRAGMA, Some(name)) if name.eq_ignore_ascii_case("optimize") => {
            hooks.writes_unsaid.set(true);
        }
        _ => {}
    }
    if !guard::is_of_rows(action) {
        hooks.one_time.set(true);
    }
    match guard::decide(hooks.profile, Question { action, first, second }) {
        Verdict::Allow => ffi::SQLITE_OK,
        Verdict::AllowAndRemember => {
            hooks.changed.set(true);
            ffi::SQLITE_OK
        }
        Verdict::Deny(reason) => {
            hooks.denied.replace(Some(reason));
            ffi::SQLITE_DENY
        }
    }
}

pub(super) unsafe extern "C" fn on_progress(hooks: *mut c_void) -> c_int {
    // SAFETY: as in `on_question`.
    let hooks = unsafe { &*hooks.cast::<Hooks>() };
    if hooks.cancelled.load(Ordering::Relaxed) {
        hooks.stopped.set(Stopped::Cancelled);
    } else if hooks.deadline.get().is_some_and(|deadline| Instant::now() >= deadline) {
        hooks.stopped.set(Stopped::Deadline);
    } else {
        watch::between_steps();
        hooks.is_over_quota();
    }
    c_int::from(hooks.stopped.get() != Stopped::No)
}

pub(super) unsafe extern "C" fn on_commit(
    hooks: *mut c_void,
    _connection: *mut ffi::sqlite3,
    _database: *const c_char,
    pages: c_int,
) -> c_int {
    // SAFETY: as in `on_question`.
    let hooks = unsafe { &*hooks.cast::<Hooks>() };
    hooks.wal_pages.set(pages);
    ffi::SQLITE_OK
}

/// Before a commit is written: what is not 0 makes a rollback of it.
pub(super) unsafe extern "C" fn before_commit(hooks: *mut c_void) -> c_int {
    // SAFETY: as in `on_question`.
    let hooks = unsafe { &*hooks.cast::<Hooks>() };
    c_int::from(hooks.is_over_quota())
}

pub(super) unsafe extern "C" fn call_function(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    values: *mut *mut ffi::sqlite3_value,
) {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: SQLite passes the static of `install_function` as user data and `count` live values.
    let (function, values) = unsafe {
        let function = &*ffi::sqlite3_user_data(context).cast::<Function>();
        (function, std::slice::from_raw_parts(values, count))
    };
    let mut arguments = Vec::with_capacity(count);
    for value in values {
        // SAFETY: the values live for the call. Text is asked for before its length, so that it is converted first.
        arguments.push(unsafe {
            match ffi::sqlite3_value_type(*value) {
                ffi::SQLITE_NULL => Argument::Null,
                ffi::SQLITE_BLOB => {
                    let blob = ffi::sqlite3_value_blob(*value).cast::<u8>();
                    Argument::Blob(view(blob, ffi::sqlite3_value_bytes(*value), PhantomData))
                }
                _ => {
                    let text = ffi::sqlite3_value_text(*value);
                    Argument::Text(view(text, ffi::sqlite3_value_bytes(*value), PhantomData))
                }
            }
        });
    }
    let answer = (function.call)(&arguments, VALUE_BYTES_MAX);
    let encoding = u8::try_from(ffi::SQLITE_UTF8).unwrap_or(1);
    // SAFETY: `context` lives for the call; SQLite copies the text and checks its length limit.
    unsafe {
        match answer {
            Answer::Null => ffi::sqlite3_result_null(context),
            Answer::Integer(number) => ffi::sqlite3_result_int64(context, number),
            Answer::Text(text) => ffi::sqlite3_result_text64(
                context,
                text.as_ptr().cast::<c_char>(),
                text.len() as u64,
                ffi::SQLITE_TRANSIENT(),
                encoding,
            ),
            Answer::Blob(bytes) => ffi::sqlite3_result_blob64(
                context,
                bytes.as_ptr().cast::<c_void>(),
                bytes.len() as u64,
                ffi::SQLITE_TRANSIENT(),
            ),
            Answer::TooBig => ffi::sqlite3_result_error_toobig(context),
            // The text is NUL-terminated and copied.
            Answer::Refused => {
                ffi::sqlite3_result_error(context, c"the function is not allowed".as_ptr(), -1)
            }
        }
    }
}

/// What SQLite marks JSON text with.
const JSON: u32 = b'J' as u32;

pub(super) unsafe extern "C" fn call_editor(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    values: *mut *mut ffi::sqlite3_value,
) {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: SQLite passes the static of `install_editor` as user data and `count` live values; without any there may
    // be no list.
    let (editor, values) = unsafe {
        let editor = &*ffi::sqlite3_user_data(context).cast::<Editor>();
        let values = if count == 0 { &[][..] } else { std::slice::from_raw_parts(values, count) };
        (editor, values)
    };
    // SAFETY: the values live for the call.
    let arguments: Result<Vec<_>, _> = values.iter().map(|value| unsafe { json_argument(*value) }).collect();
    let answer = arguments.and_then(|arguments| json::edit(editor, arguments));
    let length = |bytes: &[u8]| c_int::try_from(bytes.len()).unwrap_or(c_int::MAX);
    // SAFETY: `context` lives for the call; SQLite copies what it is given.
    unsafe {
        match answer {
            Ok(Value::Text(text)) => {
                let copied = ffi::SQLITE_TRANSIENT();
                ffi::sqlite3_result_text(context, text.as_ptr().cast(), length(text.as_bytes()), copied);
                ffi::sqlite3_result_subtype(context, JSON);
            }
            Ok(Value::Blob(blob)) => {
                let copied = ffi::SQLITE_TRANSIENT();
                ffi::sqlite3_result_blob(context, blob.as_ptr().cast(), length(&blob), copied);
            }
            Ok(Value::Null | Value::Integer(_) | Value::Real(_)) => ffi::sqlite3_result_null(context),
            Err(message) => {
                ffi::sqlite3_result_error(context, message.as_ptr().cast(), length(message.as_bytes()));
            }
        }
    }
}

/// Copies an argument of a function.
///
/// # Safety
/// `value` is live.
unsafe fn json_argument(value: *mut ffi::sqlite3_value) -> Result<json::Argument, String> {
    // SAFETY: the caller's promise. Text is asked for before its length.
    let value_and_mark = unsafe {
        let copied = match ffi::sqlite3_value_type(value) {
            ffi::SQLITE_NULL => Value::Null,
            ffi::SQLITE_INTEGER => Value::Integer(ffi::sqlite3_value_int64(value)),
            ffi::SQLITE_FLOAT => Value::Real(ffi::sqlite3_value_double(value)),
            ffi::SQLITE_BLOB => {
                let blob = ffi::sqlite3_value_blob(value).cast::<u8>();
                Value::Blob(view(blob, ffi::sqlite3_value_bytes(value), PhantomData).to_vec())
            }
            _ => {
                let text = ffi::sqlite3_value_text(value);
                let text = view(text, ffi::sqlite3_value_bytes(value), PhantomData);
                Value::Text(std::str::from_utf8(text).map_err(|_| "a text is not UTF-8")?.to_owned())
            }
        };
        (copied, ffi::sqlite3_value_subtype(value))
    };
    let (value, mark) = value_and_mark;
    Ok(json::Argument { is_json: mark == JSON && value.as_text().is_some(), value })
}
