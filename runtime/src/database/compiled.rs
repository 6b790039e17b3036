//! Whether the SQLite that was compiled in is the one that the guard was written for.
//!
//! `.cargo/config.toml` sets how it is compiled, and cargo reads that file only when it is called inside of the
//! repository. What another build would bring along (a vector index that crashes, temporary files) no list at run
//! time takes back, so the node does not start with it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::message::{Profile, Value};
use super::sqlite::{Connection, Purpose, SqliteError};
use super::statement::Step;

/// Options as `PRAGMA compile_options` tells them, of which one of each group must be there.
const NEEDED: &[&[&str]] = &[&["THREADSAFE=1", "THREADSAFE=2"], &["TEMP_STORE=3"], &["DQS=0"]];

/// Options that must not be there, with any value.
const REFUSED: &[&str] = &[
    "ENABLE_DBSTAT_VTAB",
    "ENABLE_FTS3",
    "ENABLE_FTS3_PARENTHESIS",
    "ENABLE_FTS3_TOKENIZER",
    "ENABLE_FTS4",
    "ENABLE_FTS5",
    "ENABLE_LOAD_EXTENSION",
    "ENABLE_MEMORY_MANAGEMENT",
    "ENABLE_RTREE",
    "OMIT_AUTHORIZATION",
    "OMIT_PROGRESS_CALLBACK",
];

/// `SQLITE_PRINTF_PRECISION_LIMIT`, which no pragma tells.
const PRINTF_DIGITS_MAX: i64 = 100_000;

/// What SQLite tells of itself.
#[derive(Default)]
struct Compiled {
    options: Vec<String>,
    functions: Vec<String>,
    printf_digits: i64,
}

/// Asks SQLite how it was compiled.
///
/// # Errors
/// When the guard could not rely on it: what is wrong, and how to build it right.
pub(super) fn check() -> Result<(), String> {
    let compiled =
        ask().map_err(|error| format!("SQLite does not tell how it was compiled: {}", error.message))?;
    let wrong = compiled.wrong();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "this build has a SQLite that tenants cannot be given: {}. Build it inside of the repository, where cargo \
         finds LIBSQLITE3_FLAGS in .cargo/config.toml, or set that variable to the same value",
        wrong.join(", ")
    ))
}

impl Compiled {
    fn wrong(&self) -> Vec<String> {
        let has = |wanted: &str| self.options.iter().any(|option| option == wanted);
        let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
        let missing = NEEDED.iter().filter(|group| !group.iter().any(|option| has(option)));
        let missing = missing.filter_map(|group| group.first()).map(|option| format!("{option} is missing"));
        let refused = self.options.iter().filter(|option| REFUSED.contains(&name(option).as_str()));
        let refused = refused.map(|option| format!("{option} is compiled in"));
        let vector = self.functions.iter().any(|function| function.starts_with("vector"));
        let vector = vector.then(|| "OMIT_VECTOR is missing".to_owned());
        let printf = (self.printf_digits > PRINTF_DIGITS_MAX)
            .then(|| format!("PRINTF_PRECISION_LIMIT={PRINTF_DIGITS_MAX} is missing"));
        missing.chain(refused).chain(vector).chain(printf).collect()
    }
}

fn ask() -> Result<Compiled, SqliteError> {
    let mut connection = Connection::open(
        Path::new(":memory:"),
        Purpose::Create,
        Profile::Control,
        Arc::new(AtomicBool::new(false)),
    )?;
    let texts =
        |values: Vec<Value>| values.iter().filter_map(|value| value.as_text().map(str::to_owned)).collect();
    let digits = format!("SELECT length(printf('%.{}d', 1))", PRINTF_DIGITS_MAX * 2);
    Ok(Compiled {
        options: texts(column(&mut connection, "PRAGMA compile_options")?),
        functions: texts(column(&mut connection, "SELECT DISTINCT name FROM pragma_function_list")?),
        printf_digits: column(&mut connection, &digits)?
            .first()
            .and_then(Value::as_integer)
            .unwrap_or(i64::MAX),
    })
}

/// The first column of a statement's rows.
fn column(connection: &mut Connection, sql: &str) -> Result<Vec<Value>, SqliteError> {
    let mut values = Vec::new();
    if let Some(mut statement) = connection.prepare(sql)? {
        while statement.step()? == Step::Row {
            values.push(statement.value(0)?);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(options: &[&str], functions: &[&str], printf_digits: i64) -> Compiled {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Compiled { options: owned(options), functions: owned(functions), printf_digits }
    }

    #[test]
    fn this_build_is_right() {
        assert_eq!(super::super::start(), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let right = ["THREADSAFE=2", "TEMP_STORE=3", "DQS=0", "ENABLE_STAT4"];
        assert!(compiled(&right, &["abs"], 100_000).wrong().is_empty());
        // What libsql's own build script makes of it.
        let other = ["THREADSAFE=1", "TEMP_STORE=1", "ENABLE_FTS5", "ENABLE_LOAD_EXTENSION=1"];
        assert_eq!(
            compiled(&other, &["abs", "vector32"], 200_000).wrong(),
            [
                "TEMP_STORE=3 is missing",
                "DQS=0 is missing",
                "ENABLE_FTS5 is compiled in",
                "ENABLE_LOAD_EXTENSION=1 is compiled in",
                "OMIT_VECTOR is missing",
                "PRINTF_PRECISION_LIMIT=100000 is missing",
            ]
        );
    }
}
