//! What a tenant's SQL may do: lists of what is allowed; everything else is refused.
//!
//! The authorizer of SQLite asks once for each thing a statement does, while the statement is prepared. This file
//! answers. It is pure: the same question always gets the same answer.

use libsql::ffi;

use super::message::Profile;

/// What SQLite asks: an action code and up to two names, whose meaning depends on the code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub action: i32,
    pub first: Option<&'a str>,
    pub second: Option<&'a str>,
}

/// The answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// Allowed, and the connection is not as good as new afterwards.
    AllowAndRemember,
    Deny(String),
}

/// Tables of the node in a tenant's file. Tenants cannot see or touch them.
const RESERVED_PREFIX: &str = "_dormouse_";

const PRAGMAS: &[&str] = &[
    "data_version",
    "foreign_key_check",
    "foreign_key_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "optimize",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
];

/// Pragmas that change the connection; a reset undoes them.
const SWITCHES: &[&str] = &["defer_foreign_keys", "foreign_keys", "recursive_triggers"];

#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    // Core.
    "abs", "changes", "char", "coalesce", "concat", "format", "glob", "hex", "if", "ifnull", "iif", "instr",
    "last_insert_rowid", "length", "like", "likelihood", "likely", "lower", "ltrim", "max", "min", "nullif",
    "octet_length", "printf", "quote", "random", "randomblob", "replace", "round", "rtrim", "sign", "soundex",
    "sqlite_version", "substr", "substring", "total_changes", "trim", "typeof", "unhex", "unicode", "unlikely",
    "upper", "zeroblob",
    // Aggregates and windows.
    "avg", "count", "cume_dist", "dense_rank", "first_value", "group_concat", "lag", "last_value", "lead",
    "nth_value", "ntile", "percent_rank", "rank", "row_number", "string_agg", "sum", "total",
    // Date and time.
    "current_date", "current_time", "current_timestamp", "date", "datetime", "julianday", "strftime", "time",
    "timediff", "unixepoch",
    // JSON, without the patch functions: they take quadratic time.
    "->", "->>", "json", "json_array", "json_array_length", "json_error_position", "json_extract",
    "json_group_array", "json_group_object", "json_insert", "json_object", "json_quote", "json_remove",
    "json_replace", "json_set", "json_type", "json_valid", "jsonb", "jsonb_array", "jsonb_extract",
    "jsonb_group_array", "jsonb_group_object", "jsonb_insert", "jsonb_object", "jsonb_remove", "jsonb_replace",
    "jsonb_set",
    // ALTER TABLE calls these itself.
    "sqlite_drop_column", "sqlite_rename_column", "sqlite_rename_quotefix", "sqlite_rename_table",
    "sqlite_rename_test",
];

fn listed(list: &[&str], name: &str) -> bool {
    list.iter().any(|entry| entry.eq_ignore_ascii_case(name))
}

fn is_reserved(name: Option<&str>) -> bool {
    name.and_then(|name| name.get(..RESERVED_PREFIX.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX))
}

/// Whether the text of an ALTER statement names a table of the node. The authorizer is not told the new name of a
/// table that is renamed, so the text is looked at.
pub(super) fn mentions_reserved(alter: &str) -> bool {
    alter
        .as_bytes()
        .windows(RESERVED_PREFIX.len())
        .any(|window| window.eq_ignore_ascii_case(RESERVED_PREFIX.as_bytes()))
}

/// Whether a statement that does nothing else only reads and writes rows, or begins or ends a transaction.
pub(super) fn is_of_rows(action: i32) -> bool {
    matches!(
        action,
        ffi::SQLITE_SELECT
            | ffi::SQLITE_READ
            | ffi::SQLITE_FUNCTION
            | ffi::SQLITE_RECURSIVE
            | ffi::SQLITE_INSERT
            | ffi::SQLITE_UPDATE
            | ffi::SQLITE_DELETE
            | ffi::SQLITE_TRANSACTION
    )
}

/// Whether a session of this profile may do what SQLite asks about.
pub(super) fn decide(profile: Profile, question: Question<'_>) -> Verdict {
    match profile {
        Profile::Control => Verdict::Allow,
        Profile::Tenant => decide_for_tenant(question),
    }
}

fn decide_for_tenant(question: Question<'_>) -> Verdict {
    let name = question.first.unwrap_or_default();
    match question.action {
        ffi::SQLITE_SELECT | ffi::SQLITE_RECURSIVE | ffi::SQLITE_TRANSACTION | ffi::SQLITE_SAVEPOINT => {
            Verdict::Allow
        }
        ffi::SQLITE_FUNCTION => decide_function(question.second.unwrap_or_default()),
        ffi::SQLITE_PRAGMA => decide_pragma(name),
        ffi::SQLITE_CREATE_TEMP_INDEX
        | ffi::SQLITE_CREATE_TEMP_TABLE
        | ffi::SQLITE_CREATE_TEMP_TRIGGER
        | ffi::SQLITE_CREATE_TEMP_VIEW => unless_reserved(question, Verdict::AllowAndRemember),
        ffi::SQLITE_READ
        | ffi::SQLITE_INSERT
        | ffi::SQLITE_UPDATE
        | ffi::SQLITE_DELETE
        | ffi::SQLITE_CREATE_TABLE
        | ffi::SQLITE_CREATE_INDEX
        | ffi::SQLITE_CREATE_TRIGGER
        | ffi::SQLITE_CREATE_VIEW
        | ffi::SQLITE_DROP_TABLE
        | ffi::SQLITE_DROP_INDEX
        | ffi::SQLITE_DROP_TRIGGER
        | ffi::SQLITE_DROP_VIEW
        | ffi::SQLITE_DROP_TEMP_TABLE
        | ffi::SQLITE_DROP_TEMP_INDEX
        | ffi::SQLITE_DROP_TEMP_TRIGGER
        | ffi::SQLITE_DROP_TEMP_VIEW
        | ffi::SQLITE_ALTER_TABLE
        | ffi::SQLITE_ANALYZE
        | ffi::SQLITE_REINDEX => unless_reserved(question, Verdict::Allow),
        ffi::SQLITE_ATTACH | ffi::SQLITE_DETACH => {
            Verdict::Deny("ATTACH, DETACH and VACUUM are not allowed: a tenant has one database".to_owned())
        }
        ffi::SQLITE_CREATE_VTABLE | ffi::SQLITE_DROP_VTABLE => {
            Verdict::Deny("virtual tables are not allowed".to_owned())
        }
        other => Verdict::Deny(format!("action {other} is not allowed")),
    }
}

fn unless_reserved(question: Question<'_>, verdict: Verdict) -> Verdict {
    if is_reserved(question.first) || is_reserved(question.second) {
        Verdict::Deny(format!("names that start with {RESERVED_PREFIX} are reserved"))
    } else {
        verdict
    }
}

/// Whether a tenant's SQL may call a function of this name.
pub(super) fn allows_function(name: &str) -> bool {
    listed(FUNCTIONS, name)
}

/// Whether a tenant may use a pragma of this name.
pub(super) fn allows_pragma(name: &str) -> bool {
    listed(PRAGMAS, name) || listed(SWITCHES, name)
}

fn decide_function(name: &str) -> Verdict {
    if allows_function(name) {
        Verdict::Allow
    } else {
        Verdict::Deny(format!("the function {name} is not allowed"))
    }
}

fn decide_pragma(name: &str) -> Verdict {
    if listed(SWITCHES, name) {
        Verdict::AllowAndRemember
    } else if allows_pragma(name) {
        Verdict::Allow
    } else {
        Verdict::Deny(format!(
            "PRAGMA {name} is not allowed; these are: {}, {}",
            PRAGMAS.join(", "),
            SWITCHES.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(action: i32, first: &str, second: &str) -> Verdict {
        decide(Profile::Tenant, Question { action, first: Some(first), second: Some(second) })
    }

    #[test]
    fn lists_are_allow_lists() {
        assert_eq!(ask(ffi::SQLITE_FUNCTION, "", "LOWER"), Verdict::Allow);
        for function in
            ["load_extension", "concat_ws", "json_patch", "libsql_close_hook", "vector", "new_one"]
        {
            assert!(matches!(ask(ffi::SQLITE_FUNCTION, "", function), Verdict::Deny(_)), "{function}");
        }
        assert_eq!(ask(ffi::SQLITE_PRAGMA, "Table_Info", "t"), Verdict::Allow);
        assert_eq!(ask(ffi::SQLITE_PRAGMA, "foreign_keys", "0"), Verdict::AllowAndRemember);
        for pragma in ["hard_heap_limit", "max_page_count", "journal_mode", "writable_schema", "synchronous"]
        {
            assert!(matches!(ask(ffi::SQLITE_PRAGMA, pragma, "1"), Verdict::Deny(_)), "{pragma}");
        }
    }

    #[test]
    fn other_files_are_out_of_reach() {
        let attach = Question { action: ffi::SQLITE_ATTACH, first: None, second: None };
        assert!(matches!(decide(Profile::Tenant, attach), Verdict::Deny(_)));
        assert!(matches!(ask(ffi::SQLITE_CREATE_VTABLE, "t", "fts5"), Verdict::Deny(_)));
        assert!(matches!(ask(9_999, "", ""), Verdict::Deny(_)));
    }

    #[test]
    fn the_nodes_own_tables_are_hidden() {
        for action in [ffi::SQLITE_READ, ffi::SQLITE_INSERT, ffi::SQLITE_DROP_TABLE, ffi::SQLITE_ALTER_TABLE]
        {
            assert!(matches!(ask(action, "_Dormouse_kv", "x"), Verdict::Deny(_)));
        }
        assert!(matches!(ask(ffi::SQLITE_ALTER_TABLE, "main", "_dormouse_kv"), Verdict::Deny(_)));
        assert_eq!(ask(ffi::SQLITE_READ, "dormouse", "x"), Verdict::Allow);
    }
}
