//! What a guest may do to its database, and what it should not, told as JSON.

use serde_json::{Value as Json, json};
use wasip3::http::types::Request;

use crate::bindings::spin::sqlite::sqlite::{Connection, Error, RowResult, Value};
use crate::wire::{Reading, Sending, sleep};

pub(crate) const CREATE: &str = "CREATE TABLE IF NOT EXISTS log(id INTEGER PRIMARY KEY, note TEXT)";
pub(crate) const BEGIN: &str = "BEGIN IMMEDIATE";

/// A row that is committed at once, and the connection that wrote it.
pub(crate) async fn write() -> Option<Connection> {
    let connection = open_default().await.ok()?;
    run(&connection, CREATE).await;
    run(&connection, "INSERT INTO log(note) VALUES ('committed at once')").await;
    Some(connection)
}

/// A transaction with a row in it, still open, and how each statement went.
pub(crate) async fn begin_and_write() -> (Option<Connection>, Json) {
    let connection = match open_default().await {
        Ok(connection) => connection,
        Err(error) => return (None, failure(&error)),
    };
    let create = run(&connection, CREATE).await;
    let begin = run(&connection, BEGIN).await;
    let insert = run(&connection, "INSERT INTO log(note) VALUES ('in a transaction')").await;
    (Some(connection), json!({ "create": create, "begin": begin, "insert": insert }))
}

/// A transaction held open for a while.
pub(crate) async fn hold_transaction(ms: u64) -> Json {
    let (connection, mut steps) = begin_and_write().await;
    if let (Some(connection), Some(steps)) = (connection, steps.as_object_mut()) {
        sleep(ms).await;
        steps.insert("commit".into(), run(&connection, "COMMIT").await);
    }
    steps
}

/// Whether the last inserted rowid is this request's own, while other requests insert too.
pub(crate) async fn insert_and_rowid(ms: u64) -> Json {
    let connection = match open_default().await {
        Ok(connection) => connection,
        Err(error) => return failure(&error),
    };
    run(&connection, CREATE).await;
    let begin = run(&connection, BEGIN).await;
    let note = format!("note {}", wasip3::random::random::get_random_u64());
    let insert = execute(&connection, "INSERT INTO log(note) VALUES (?)", &[Value::Text(note.clone())]).await;
    sleep(ms).await;
    let rowid = connection.last_insert_rowid_async().await;
    let found = execute(&connection, "SELECT note FROM log WHERE id = ?", &[Value::Integer(rowid)]).await;
    let commit = run(&connection, "COMMIT").await;
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
pub(crate) async fn two_connections() -> Json {
    let (one, two) = match (open_default().await, open_default().await) {
        (Ok(one), Ok(two)) => (one, two),
        (Err(error), _) | (_, Err(error)) => return failure(&error),
    };
    run(&one, CREATE).await;
    let before = count(&one).await;
    let begin = run(&one, BEGIN).await;
    let insert = run(&one, "INSERT INTO log(note) VALUES ('two connections')").await;
    let seen_by_one = count(&one).await;
    let seen_by_two = count(&two).await;
    let begin_on_two = run(&two, BEGIN).await;
    let rollback_on_two = run(&two, "ROLLBACK").await;
    json!({
        "before": before,
        "begin": begin,
        "insert": insert,
        "seen_by_one": seen_by_one,
        "seen_by_two": seen_by_two,
        "rowid_on_two": two.last_insert_rowid_async().await,
        "begin_on_two": begin_on_two,
        "rollback_on_two": rollback_on_two,
        "after": count(&one).await,
    })
}

/// How many connections can be open at once.
pub(crate) async fn open_many(wanted: u64) -> Json {
    let mut open = Vec::new();
    let mut refused = None;
    while refused.is_none() && (open.len() as u64) < wanted {
        match open_default().await {
            Ok(connection) => open.push(connection),
            Err(error) => refused = Some(error),
        }
    }
    json!({ "opened": open.len(), "error": refused.as_ref().map(describe) })
}

/// Whether a database of this name can be opened.
pub(crate) async fn open(name: &str) -> Json {
    match Connection::open_async(name.to_owned()).await {
        Ok(_) => json!({ "opened": name }),
        Err(error) => failure(&error),
    }
}

/// Runs the statements of `{"sql", "params"}` or `{"statements": [{"sql", "params"}, …]}` on one connection.
pub(crate) async fn statements(body: &[u8]) -> Json {
    let request: Json = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return json!({ "error": { "variant": "request", "message": error.to_string() } }),
    };
    let connection = match open_default().await {
        Ok(connection) => connection,
        Err(error) => return failure(&error),
    };
    match request.get("statements").and_then(Json::as_array) {
        None => statement(&connection, &request).await,
        Some(several) => {
            let mut answers = Vec::new();
            for one in several {
                answers.push(statement(&connection, one).await);
            }
            answers.into()
        }
    }
}

async fn statement(connection: &Connection, statement: &Json) -> Json {
    let sql = statement.get("sql").and_then(Json::as_str).unwrap_or_default();
    let params = statement.get("params").and_then(Json::as_array);
    execute(connection, sql, &params.into_iter().flatten().map(to_value).collect::<Vec<_>>()).await
}

/// Runs each chunk of the request's body as a statement, when it arrives, and answers a line of JSON to each.
pub(crate) async fn session(request: Request, mut sending: Sending) {
    let Ok(connection) = open_default().await else { return };
    let mut reading = Reading::new(request);
    while let Some(chunk) = reading.next().await {
        let answer = run(&connection, &String::from_utf8_lossy(&chunk)).await;
        if !sending.write(format!("{answer}\n").as_bytes()).await {
            return;
        }
    }
}

pub(crate) async fn open_default() -> Result<Connection, Error> {
    Connection::open_async("default".to_owned()).await
}

pub(crate) async fn count(connection: &Connection) -> Option<Json> {
    run(connection, "SELECT count(*) FROM log").await.pointer("/rows/0/0").cloned()
}

pub(crate) async fn run(connection: &Connection, sql: &str) -> Json {
    execute(connection, sql, &[]).await
}

pub(crate) async fn execute(connection: &Connection, sql: &str, params: &[Value]) -> Json {
    match query(connection, sql, params).await {
        Ok((columns, rows)) => json!({
            "columns": columns,
            "rows": rows.iter().map(|row| row.values.iter().map(to_json).collect()).collect::<Vec<Json>>(),
            "last_insert_rowid": connection.last_insert_rowid_async().await,
            "changes": connection.changes_async().await,
        }),
        Err(error) => failure(&error),
    }
}

/// One statement with all its rows.
async fn query(
    connection: &Connection,
    sql: &str,
    params: &[Value],
) -> Result<(Vec<String>, Vec<RowResult>), Error> {
    let (columns, rows, ended) = connection.execute_async(sql.to_owned(), params.to_vec()).await?;
    let rows = rows.collect().await;
    ended.await?;
    Ok((columns, rows))
}

pub(crate) fn failure(error: &Error) -> Json {
    json!({ "error": describe(error) })
}

pub(crate) fn describe(error: &Error) -> Json {
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

pub(crate) fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(integer) => json!(integer),
        Value::Real(real) if real.is_finite() => json!(real),
        Value::Real(real) => json!({ "real": real.to_string() }),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!(bytes),
    }
}

/// A parameter.
pub(crate) fn number(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
