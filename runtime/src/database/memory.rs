//! The memory of SQLite: an account for each session, so that a greedy statement fails alone.
//!
//! SQLite asks for memory through these functions. A database thread sets the account of the session it works for;
//! an allocation beyond the account's limit fails with `SQLITE_NOMEM`, and SQLite rolls the statement back. Memory
//! that SQLite takes on other threads is on no account. What a session holds is the balance of its account.
#![expect(unsafe_code, reason = "SQLite calls these functions through C pointers")]

use std::cell::Cell;
use std::ffi::{c_int, c_void};

use libsql::ffi;

/// What a session holds, and what it may hold, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub used: i64,
    pub limit: i64,
}

const UNLIMITED: Account = Account { used: 0, limit: i64::MAX };

thread_local! {
    static CURRENT: Cell<Account> = const { Cell::new(UNLIMITED) };
}

/// Runs `work` on `account`: what SQLite takes and gives back in it is booked there.
pub(super) fn on_account<T>(account: &mut Account, work: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(*account);
    let result = work();
    *account = CURRENT.replace(before);
    result
}

fn book(bytes: i64) {
    let account = CURRENT.get();
    CURRENT.set(Account { used: account.used.saturating_add(bytes), ..account });
}

fn may_take(bytes: i64) -> bool {
    let account = CURRENT.get();
    account.used.saturating_add(bytes) <= account.limit
}

fn size_of(memory: *mut c_void) -> i64 {
    // SAFETY: `memory` is null or a live block of `malloc`, as SQLite guarantees to its xSize, xFree and xRealloc.
    let bytes = unsafe { libc::malloc_usable_size(memory) };
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

extern "C" fn take(bytes: c_int) -> *mut c_void {
    let Ok(size) = usize::try_from(bytes) else { return std::ptr::null_mut() };
    if !may_take(i64::from(bytes)) {
        return std::ptr::null_mut();
    }
    // SAFETY: malloc may be called with any size; a null result is passed on as SQLITE_NOMEM.
    let memory = unsafe { libc::malloc(size) };
    book(size_of(memory));
    memory
}

extern "C" fn give_back(memory: *mut c_void) {
    book(-size_of(memory));
    // SAFETY: `memory` is null or came from `take` or `resize` and is given back once, as SQLite guarantees.
    unsafe { libc::free(memory) }
}

extern "C" fn resize(memory: *mut c_void, bytes: c_int) -> *mut c_void {
    let Ok(size) = usize::try_from(bytes) else { return std::ptr::null_mut() };
    let before = size_of(memory);
    if !may_take(i64::from(bytes).saturating_sub(before)) {
        return std::ptr::null_mut();
    }
    // SAFETY: `memory` came from `take` or `resize` and is live; on failure realloc leaves it as it was.
    let resized = unsafe { libc::realloc(memory, size) };
    if !resized.is_null() {
        book(size_of(resized) - before);
    }
    resized
}

extern "C" fn size(memory: *mut c_void) -> c_int {
    c_int::try_from(size_of(memory)).unwrap_or(c_int::MAX)
}

extern "C" fn round_up(bytes: c_int) -> c_int {
    bytes.checked_add(7).map_or(bytes, |sum| sum & !7)
}

extern "C" fn begin(_: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

extern "C" fn end(_: *mut c_void) {}

/// The table that `SQLITE_CONFIG_MALLOC` copies.
pub(super) fn methods() -> ffi::sqlite3_mem_methods {
    ffi::sqlite3_mem_methods {
        xMalloc: Some(take),
        xFree: Some(give_back),
        xRealloc: Some(resize),
        xSize: Some(size),
        xRoundup: Some(round_up),
        xInit: Some(begin),
        xShutdown: Some(end),
        pAppData: std::ptr::null_mut(),
    }
}

/// Gives back what the allocator keeps for the next allocations of this thread: up to a megabyte of each thread that
/// has opened many databases.
pub(super) fn empty_thread_cache() {
    let nothing = std::ptr::null_mut();
    // SAFETY: this control takes no value and returns none; it fails where the thread has no cache, which is fine.
    unsafe {
        tikv_jemalloc_sys::mallctl(c"thread.tcache.flush".as_ptr(), nothing, nothing.cast(), nothing, 0);
    }
}
