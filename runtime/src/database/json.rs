//! The JSON functions that make what a path names, with a bound on the path.
//!
//! SQLite carries out each step of such a path in a call within the call for the step before, and copies what it has
//! made at each: a path of a megabyte needs 160 MB of stack and minutes. These bound the steps, and leave the work to
//! SQLite's own functions, on a connection of the thread's that has them still.

use std::cell::RefCell;
use std::ffi::CStr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use libsql::ffi;

use super::caps::VALUE_BYTES_MAX;
use super::memory::{Account, on_account};
use super::message::{Profile, Value};
use super::sqlite::{Connection, Purpose, SqliteError};
use super::statement::Step;

/// Most steps of a path: as deep as SQLite's own parser lets JSON be.
const STEPS_MAX: usize = 1_000;

/// What SQLite may copy in one call, which does not look at the clock: each step may copy all that there is.
const COPIED_BYTES_MAX: usize = 256 << 20;

/// Memory of one call: a value and what becomes of it, a few times over.
const CALL_MEMORY_BYTES_MAX: i64 = 16 << 20;

/// A function that is bounded.
pub(super) struct Editor {
    pub name: &'static CStr,
    call: &'static str,
}

pub(super) const EDITORS: &[Editor] = &[
    Editor { name: c"json_insert", call: "json_insert" },
    Editor { name: c"json_set", call: "json_set" },
    Editor { name: c"jsonb_insert", call: "jsonb_insert" },
    Editor { name: c"jsonb_set", call: "jsonb_set" },
];

/// An argument: a value, and whether its text is JSON and no JSON string.
pub(super) struct Argument {
    pub value: Value,
    pub is_json: bool,
}

thread_local! {
    static OWN: RefCell<(Option<Connection>, Account)> =
        const { RefCell::new((None, Account::up_to(CALL_MEMORY_BYTES_MAX))) };
}

/// Calls SQLite's function.
pub(super) fn edit(editor: &Editor, arguments: Vec<Argument>) -> Result<Value, String> {
    let mut all = 0;
    for path in arguments.iter().skip(1).step_by(2) {
        let steps = steps(&path.value);
        if steps > STEPS_MAX {
            return Err(format!("a JSON path may have {STEPS_MAX} steps"));
        }
        all += steps;
    }
    let bytes: usize = arguments.iter().map(|argument| argument.value.bytes()).sum();
    if all.saturating_mul(bytes) > COPIED_BYTES_MAX {
        return Err(format!("{bytes} bytes of JSON may not have {all} steps of paths in one call"));
    }
    OWN.with_borrow_mut(|(connection, account)| {
        on_account(account, || call(connection, editor, arguments)).map_err(|error| error.message)
    })
}

/// The steps of a path. SQLite takes the bytes of a blob for one as well.
fn steps(path: &Value) -> usize {
    let path = match path {
        Value::Text(text) => text.as_bytes(),
        Value::Blob(bytes) => bytes,
        Value::Null | Value::Integer(_) | Value::Real(_) => &[],
    };
    path.iter().filter(|byte| matches!(byte, b'.' | b'[')).count()
}

fn call(
    own: &mut Option<Connection>,
    editor: &Editor,
    arguments: Vec<Argument>,
) -> Result<Value, SqliteError> {
    let connection = match own {
        Some(connection) => connection,
        None => own.insert(connect()?),
    };
    let places: Vec<_> = (1..)
        .zip(&arguments)
        .map(
            |(place, argument)| {
                if argument.is_json { format!("json(?{place})") } else { format!("?{place}") }
            },
        )
        .collect();
    let values: Vec<_> = arguments.into_iter().map(|argument| argument.value).collect();
    let sql = format!("SELECT {}({})", editor.call, places.join(", "));
    let Some(mut statement) = connection.prepare(&sql)? else { return Ok(Value::Null) };
    statement.bind(&values)?;
    match statement.step()? {
        Step::Row => statement.value(0),
        Step::Done => Ok(Value::Null),
    }
}

fn connect() -> Result<Connection, SqliteError> {
    let never = Arc::new(AtomicBool::new(false));
    let mut connection = Connection::open(Path::new(":memory:"), Purpose::Create, Profile::Control, never)?;
    connection.limit(ffi::SQLITE_LIMIT_LENGTH, i32::try_from(VALUE_BYTES_MAX).unwrap_or(i32::MAX));
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(arguments: Vec<(Value, bool)>) -> Result<Value, String> {
        let editor = EDITORS.iter().find(|editor| editor.call == "json_set").ok_or("no such function")?;
        edit(editor, arguments.into_iter().map(|(value, is_json)| Argument { value, is_json }).collect())
    }

    #[test]
    fn json_text_is_json_and_other_text_is_a_string() -> Result<(), String> {
        super::super::start()?;
        let set = |value: &str, is_json| {
            set(vec![("{\"a\":1}".into(), false), ("$.b".into(), false), (value.into(), is_json)])
        };
        assert_eq!(set("[1]", true)?, "{\"a\":1,\"b\":[1]}".into());
        assert_eq!(set("[1]", false)?, "{\"a\":1,\"b\":\"[1]\"}".into());
        Ok(())
    }

    #[test]
    fn the_steps_of_a_path_are_bounded() -> Result<(), String> {
        super::super::start()?;
        let set = |steps: usize| {
            let path = format!("${}", "[0]".repeat(steps));
            set(vec![("[]".into(), false), (path.as_str().into(), false), (1_i64.into(), false)])
        };
        assert_eq!(set(2)?, "[[1]]".into());
        assert!(set(STEPS_MAX).is_ok());
        assert!(set(STEPS_MAX + 1).is_err());
        assert!(set(2).is_ok());
        Ok(())
    }

    #[test]
    fn a_blob_is_a_path_as_well_and_long_values_have_fewer_steps() -> Result<(), String> {
        super::super::start()?;
        let path = |steps: usize| format!("${}", ".a".repeat(steps));
        let blob = |steps: usize| Value::Blob(path(steps).into_bytes());
        let set =
            |path: Value, value: &str| set(vec![("{}".into(), false), (path, false), (value.into(), false)]);
        assert!(set(blob(STEPS_MAX), "x").is_ok());
        assert!(set(blob(STEPS_MAX + 1), "x").is_err());
        let long = "x".repeat(1 << 19);
        assert!(set(path(100).as_str().into(), &long).is_ok());
        assert!(set(path(STEPS_MAX).as_str().into(), &long).is_err());
        Ok(())
    }
}
