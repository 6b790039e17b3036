//! The memory of SQLite: an account for each session, so that a greedy statement fails alone.
//!
//! SQLite asks for memory through these functions. A database thread sets the account of the session it works for;
//! an allocation beyond the account's limit fails with `SQLITE_NOMEM`, and SQLite rolls the statement back. Memory
//! that SQLite takes on other threads is on no account. What a session holds is the balance of its account. Beyond what
//! is its request's own it is granted by the node's [`Budget`], in pieces.
#![expect(unsafe_code, reason = "SQLite calls these functions through C pointers")]

use std::cell::{Cell, OnceCell};
use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;

use libsql::ffi;

use crate::limits;
use crate::memory::Budget;

/// What a session holds, and what it may hold, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub used: i64,
    pub limit: i64,
    /// What it may hold without asking the node for more.
    granted: i64,
}

/// What a session has without asking.
const INCLUDED_BYTES: i64 = limits::SESSION_INCLUDED_BYTES as i64;

/// What is granted at once.
const GRANT_BYTES: i64 = 64 << 10;

/// What is worth telling the allocator that it is free. Smaller pieces find a new use soon.
const PURGED_BYTES_MIN: i64 = 4 << 20;

thread_local! {
    static CURRENT: Cell<Account> = const { Cell::new(Account::UNLIMITED) };
    static BUDGET: OnceCell<Arc<Budget>> = const { OnceCell::new() };
    static NODE_WAS_SHORT: Cell<bool> = const { Cell::new(false) };
}

impl Account {
    /// For the node's own data.
    pub(super) const UNLIMITED: Self = Self { used: 0, limit: i64::MAX, granted: i64::MAX };

    /// For a tenant's.
    pub(super) const fn up_to(limit: i64) -> Self {
        Self { used: 0, limit, granted: INCLUDED_BYTES }
    }
}

/// From here on the accounts of this thread are granted by `budget`.
pub(super) fn grant_from(budget: Arc<Budget>) {
    BUDGET.with(|own| drop(own.set(budget)));
}

/// Whether the work on the latest account of this thread was refused memory by the node.
pub(super) fn node_was_short() -> bool {
    NODE_WAS_SHORT.get()
}

/// Runs `work` on `account`: what SQLite takes and gives back in it is booked there.
pub(super) fn on_account<T>(account: &mut Account, work: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(*account);
    NODE_WAS_SHORT.set(false);
    let result = work();
    return_surplus();
    *account = CURRENT.replace(before);
    result
}

/// Gives back what was granted and is not used any more.
fn return_surplus() {
    let account = CURRENT.get();
    let needed = account.used.max(INCLUDED_BYTES);
    let surplus = account.granted.saturating_sub(needed) / GRANT_BYTES * GRANT_BYTES;
    if account.granted == i64::MAX || surplus <= 0 {
        return;
    }
    CURRENT.set(Account { granted: account.granted - surplus, ..account });
    BUDGET.with(|budget| {
        if let Some(budget) = budget.get() {
            // Before anybody else is granted it: the allocator would keep it for half a second.
            if surplus >= PURGED_BYTES_MIN {
                control(c"arena.4096.purge");
            }
            budget.give_back(surplus.unsigned_abs());
        }
    });
}

fn book(bytes: i64) {
    let account = CURRENT.get();
    CURRENT.set(Account { used: account.used.saturating_add(bytes), ..account });
}

fn may_take(bytes: i64) -> bool {
    let account = CURRENT.get();
    let wanted = account.used.saturating_add(bytes);
    wanted <= account.limit && (wanted <= account.granted || grant(account, wanted))
}

fn grant(account: Account, wanted: i64) -> bool {
    let missing = wanted.saturating_sub(account.granted);
    let more = missing.saturating_add(GRANT_BYTES - 1) / GRANT_BYTES * GRANT_BYTES;
    let taken =
        BUDGET.with(|budget| budget.get().is_none_or(|budget| budget.take(more.unsigned_abs()).is_ok()));
    if taken {
        CURRENT.set(Account { granted: account.granted.saturating_add(more), ..account });
    } else {
        NODE_WAS_SHORT.set(true);
    }
    taken
}

/// What a statement holds beside SQLite's own memory: its rows. They are on its session's account until this drops.
#[derive(Default)]
pub(super) struct Held(i64);

impl Held {
    /// Takes more; false when it is not there.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if !may_take(bytes) {
            return false;
        }
        book(bytes);
        self.0 += bytes;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        book(-self.0);
    }
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

/// Gives back what this thread keeps for work to come: what the allocator has for its next allocations, up to a megabyte
/// when it has opened many databases, and what it has used of its stack, of which one value can make SQLite use a half.
pub(super) fn give_back_unused() {
    control(c"thread.tcache.flush");
    empty_stack();
}

fn empty_stack() {
    /// What the next calls will use.
    const KEPT_BYTES: usize = 64 << 10;
    let here = 0_u8;
    let used_from = (&raw const here).addr().saturating_sub(KEPT_BYTES) & !0xfff;
    let (mut lowest, mut bytes) = (std::ptr::null_mut::<c_void>(), 0_usize);
    // SAFETY: the attributes are written by the first call, read by the second and destroyed by the third. What is given
    // back lies below every frame of this thread.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return;
        }
        let code = libc::pthread_attr_getstack(&raw const attributes, &raw mut lowest, &raw mut bytes);
        libc::pthread_attr_destroy(&raw mut attributes);
        // The address sanitizer keeps locals elsewhere, and what lies from here to there is not this thread's.
        if code == 0 && (lowest.addr() + 1..lowest.addr() + bytes).contains(&used_from) {
            libc::madvise(lowest, used_from - lowest.addr(), libc::MADV_DONTNEED);
        }
    }
}

/// Lets the allocator give memory back by a thread of its own. Left to itself it would start that before `main`, and a
/// sandbox that a process enters later would not hold for it.
pub fn start_allocator_thread() {
    let nothing = std::ptr::null_mut();
    let mut on = true;
    // SAFETY: the control takes one bool, which outlives the call; without the thread memory is given back later.
    unsafe {
        let (value, bytes) = ((&raw mut on).cast(), std::mem::size_of::<bool>());
        tikv_jemalloc_sys::mallctl(c"background_thread".as_ptr(), nothing, nothing.cast(), value, bytes);
    }
}

/// Tells the allocator to do something: <https://jemalloc.net/jemalloc.3.html>. 4096 stands for all arenas.
fn control(name: &CStr) {
    let nothing = std::ptr::null_mut();
    // SAFETY: the controls that this file names take no value and return none; one that does not apply fails, which is
    // fine.
    unsafe {
        tikv_jemalloc_sys::mallctl(name.as_ptr(), nothing, nothing.cast(), nothing, 0);
    }
}
