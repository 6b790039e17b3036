//! SQLite's run-time limits for tenants (<https://www.sqlite.org/limits.html>), and what is said of each to whoever
//! runs into it: SQLite itself tells no figures.

use libsql::ffi;

/// Largest text or blob of a tenant's database: the functions that remain are linear, so this bounds each call.
pub(super) const VALUE_BYTES_MAX: usize = 1 << 20;

/// Instructions of one compiled statement. SQLite reports more as a lack of memory.
pub(super) const INSTRUCTIONS_MAX: i32 = 25_000;

/// One of SQLite's run-time limits.
pub(super) struct Cap {
    /// `SQLITE_LIMIT_…`.
    pub limit: i32,
    pub value: i32,
    /// How SQLite's messages begin that mean it.
    messages: &'static [&'static str],
    /// What there may be `value` of, and what to do instead of more.
    advice: &'static str,
}

const fn cap(limit: i32, value: i32, messages: &'static [&'static str], advice: &'static str) -> Cap {
    Cap { limit, value, messages, advice }
}

/// All of them. Where there is no message, SQLite says the figure itself, or refuses for want of memory.
#[rustfmt::skip]
pub(super) const TENANT_CAPS: &[Cap] = &[
    cap(ffi::SQLITE_LIMIT_LENGTH, 1 << 20, &["string or blob too big"],
        "bytes in a value or a row; split it over several rows"),
    cap(ffi::SQLITE_LIMIT_SQL_LENGTH, 100_000, &["statement too long"],
        "bytes of SQL; give values as parameters"),
    cap(ffi::SQLITE_LIMIT_COLUMN, 100, &["too many columns", "too many terms in ORDER BY", "too many terms in GROUP BY"],
        "columns; split the table or the result"),
    cap(ffi::SQLITE_LIMIT_EXPR_DEPTH, 100, &[], ""),
    cap(ffi::SQLITE_LIMIT_COMPOUND_SELECT, 10, &["too many terms in compound SELECT"],
        "SELECTs joined by UNION and the like; use VALUES or IN"),
    cap(ffi::SQLITE_LIMIT_VDBE_OP, INSTRUCTIONS_MAX, &[], ""),
    cap(ffi::SQLITE_LIMIT_FUNCTION_ARG, 32, &["too many arguments on function"],
        "arguments; nest calls"),
    cap(ffi::SQLITE_LIMIT_ATTACHED, 0, &[], ""),
    cap(ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50, &["LIKE or GLOB pattern too complex"],
        "bytes in a pattern; use instr()"),
    cap(ffi::SQLITE_LIMIT_VARIABLE_NUMBER, 999, &["too many SQL variables"],
        "parameters in a statement; write fewer rows with each"),
    cap(ffi::SQLITE_LIMIT_TRIGGER_DEPTH, 10, &["too many levels of trigger recursion"],
        "triggers that set each other off"),
    cap(ffi::SQLITE_LIMIT_WORKER_THREADS, 0, &[], ""),
];

/// A message of SQLite's, with the figure of the cap that it is about.
pub(super) fn with_figure(message: String) -> String {
    let is_about = |cap: &&Cap| cap.messages.iter().any(|beginning| message.starts_with(beginning));
    match TENANT_CAPS.iter().find(is_about) {
        Some(Cap { value, advice, .. }) => format!("{message}: at most {value} {advice}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_told_with_their_figures() {
        let told = |message: &str| with_figure(message.to_owned());
        assert_eq!(
            told("string or blob too big"),
            "string or blob too big: at most 1048576 bytes in a value or a row; split it over several rows"
        );
        assert_eq!(told("no such table: t"), "no such table: t");
    }
}
