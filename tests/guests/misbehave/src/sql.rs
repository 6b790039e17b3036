//! What a guest may do to its database, and what it should not, told as JSON.

use serde_json::{Value as Json, json};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

use crate::bindings::spin::sqlite::sqlite::{Connection, Error, QueryResult, Value};
use crate::wire::{Reading, Sending, sleep};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS log(id INTEGER PRIMARY KEY, note TEXT)";
const BEGIN: &str = "BEGIN IMMEDIATE";

/// A row that is committed at once, and the connection that wrote it.
pub(crate) fn write() -> Option<Connection> {
    let connection = Connection::open("default").ok()?;
    run(&connection, CREATE);
    run(&connection, "INSERT INTO log(note) VALUES ('committed at once')");
    Some(connection)
}

/// A transaction with a row in it, still open, and how each statement went.
pub(crate) fn begin_and_write() -> (Option<Connection>, Json) {
    let connection = match Connection::open("default") {
        Ok(connection) => connection,
        Err(error) => return (None, failure(&error)),
    };
    let create = run(&connection, CREATE);
    let begin = run(&connection, BEGIN);
    let insert = run(&connection, "INSERT INTO log(note) VALUES ('in a transaction')");
    (Some(connection), json!({ "create": create, "begin": begin, "insert": insert }))
}

/// A transaction held open for a while.
pub(crate) fn hold_transaction(ms: u64) -> Json {
    let (connection, mut steps) = begin_and_write();
    if let (Some(connection), Some(steps)) = (connection, steps.as_object_mut()) {
        sleep(ms);
        steps.insert("commit".into(), run(&connection, "COMMIT"));
    }
    steps
}

/// Whether the last inserted rowid is this request's own, while other requests insert too.
pub(crate) fn insert_and_rowid(ms: u64) -> Json {
    let connection = match Connection::open("default") {
        Ok(connection) => connection,
        Err(error) => return failure(&error),
    };
    run(&connection, CREATE);
    let begin = run(&connection, BEGIN);
    let note = format!("note {}", wasip2::random::random::get_random_u64());
    let insert = execute(&connection, "INSERT INTO log(note) VALUES (?)", &[Value::Text(note.clone())]);
    sleep(ms);
    let rowid = connection.last_insert_rowid();
    let found = execute(&connection, "SELECT note FROM log WHERE id = ?", &[Value::Integer(rowid)]);
    let commit = run(&connection, "COMMIT");
    json!({
        "rowid": rowid,
        "value": note,
        "value_at_rowid": found.pointer("/rows/0/0"),
        "begin": begin,
        "insert": insert,
        "commit": commit,
    })
}

/// Whether a second connection joins the session of the first: sees its transaction and may end it.
pub(crate) fn two_connections() -> Json {
    let (one, two) = match (Connection::open("default"), Connection::open("default")) {
        (Ok(one), Ok(two)) => (one, two),
        (Err(error), _) | (_, Err(error)) => return failure(&error),
    };
    let count = |connection| run(connection, "SELECT count(*) FROM log").pointer("/rows/0/0").cloned();
    run(&one, CREATE);
    let before = count(&one);
    let begin = run(&one, BEGIN);
    let insert = run(&one, "INSERT INTO log(note) VALUES ('two connections')");
    let seen_by_one = count(&one);
    let seen_by_two = count(&two);
    let begin_on_two = run(&two, BEGIN);
    let rollback_on_two = run(&two, "ROLLBACK");
    json!({
        "before": before,
        "begin": begin,
        "insert": insert,
        "seen_by_one": seen_by_one,
        "seen_by_two": seen_by_two,
        "rowid_on_two": two.last_insert_rowid(),
        "begin_on_two": begin_on_two,
        "rollback_on_two": rollback_on_two,
        "after": count(&one),
    })
}

/// How many connections can be open at once.
pub(crate) fn open_many(wanted: u64) -> Json {
    let mut open = Vec::new();
    let mut refused = None;
    while refused.is_none() && (open.len() as u64) < wanted {
        match Connection::open("default") {
            Ok(connection) => open.push(connection),
            Err(error) => refused = Some(error),
        }
    }
    json!({ "opened": open.len(), "error": refused.as_ref().map(describe) })
}

/// Whether a database of this name can be opened.
pub(crate) fn open(name: &str) -> Json {
    match Connection::open(name) {
        Ok(_) => json!({ "opened": name }),
        Err(error) => failure(&error),
    }
}

/// Runs the statements of `{"sql", "params"}` or `{"statements": [{"sql", "params"}, …]}` on one connection.
pub(crate) fn statements(body: &[u8]) -> Json {
    let request: Json = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return json!({ "error": { "variant": "request", "message": error.to_string() } }),
    };
    let connection = match Connection::open("default") {
        Ok(connection) => connection,
        Err(error) => return failure(&error),
    };
    let statement = |statement: &Json| {
        let sql = statement.get("sql").and_then(Json::as_str).unwrap_or_default();
        let params = statement.get("params").and_then(Json::as_array);
        execute(&connection, sql, &params.into_iter().flatten().map(to_value).collect::<Vec<_>>())
    };
    match request.get("statements").and_then(Json::as_array) {
        Some(several) => several.iter().map(statement).collect(),
        None => statement(&request),
    }
}

/// Runs each chunk of the request's body as a statement, when it arrives, and answers a line of JSON to each.
pub(crate) fn session(request: &IncomingRequest, out: ResponseOutparam) {
    let Some(sending) = Sending::head(out, 200, "application/x-ndjson") else { return };
    if let (Ok(connection), Some(reading)) = (Connection::open("default"), Reading::new(request)) {
        while let Some(chunk) = reading.next() {
            let answer = run(&connection, &String::from_utf8_lossy(&chunk));
            if !sending.write(format!("{answer}\n").as_bytes()) {
                return;
            }
        }
    }
    sending.finish();
}

fn run(connection: &Connection, sql: &str) -> Json {
    execute(connection, sql, &[])
}

fn execute(connection: &Connection, sql: &str, params: &[Value]) -> Json {
    match connection.execute(sql, params) {
        Ok(QueryResult { columns, rows }) => json!({
            "columns": columns,
            "rows": rows.iter().map(|row| row.values.iter().map(to_json).collect()).collect::<Vec<Json>>(),
            "last_insert_rowid": connection.last_insert_rowid(),
            "changes": connection.changes(),
        }),
        Err(error) => failure(&error),
    }
}

fn failure(error: &Error) -> Json {
    json!({ "error": describe(error) })
}

fn describe(error: &Error) -> Json {
    let (variant, message) = match error {
        Error::NoSuchDatabase => ("no-such-database", ""),
        Error::AccessDenied => ("access-denied", ""),
        Error::InvalidConnection => ("invalid-connection", ""),
        Error::DatabaseFull => ("database-full", ""),
        Error::Io(message) => ("io", message.as_str()),
    };
    json!({ "variant": variant, "message": message })
}

/// A JSON scalar as a parameter; an array of numbers is a blob, an object with the text `real` what JSON has no number
/// for.
fn to_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Object(object) => {
            let real = object.get("real").and_then(Json::as_str).and_then(|real| real.parse().ok());
            real.map_or(Value::Null, Value::Real)
        }
        Json::Bool(flag) => Value::Integer((*flag).into()),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Real(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(bytes) => {
            Value::Blob(bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect())
        }
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(integer) => json!(integer),
        Value::Real(real) if real.is_finite() => json!(real),
        Value::Real(real) => json!({ "real": real.to_string() }),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!(bytes),
    }
}
