//! The guestbook of `functions/guestbook` in the 0.3 world, without its page: POST signs it, GET reads it.

use serde_json::{Value as Json, json};
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response};
use wasip3::wit_bindgen::spawn_local;
use wasip3::{wit_future, wit_stream};

use crate::bindings::spin::sqlite::sqlite::{Connection, Error, RowResult, Value};

mod bindings {
    //! The generated side of `spin:sqlite@3.1.0`.

    wit_bindgen::generate!({ path: "wit", world: "imports", generate_all });
}

const CREATE: &str = "CREATE TABLE IF NOT EXISTS entries (
    id        INTEGER PRIMARY KEY,
    name      TEXT NOT NULL,
    message   TEXT NOT NULL,
    signed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ'))
)";

struct Guestbook;

wasip3::http::service::export!(Guestbook);

impl Guest for Guestbook {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let done = match request.get_method() {
            Method::Post => sign(request).await.map(|entry| (201, entry)),
            _ => latest().await.map(|entries| (200, entries)),
        };
        let (status, json) = done.unwrap_or_else(|error| (500, json!({ "error": error.to_string() })));
        respond(status, &json)
    }
}

async fn sign(request: Request) -> Result<Json, Error> {
    let (_, read) = wit_future::new(|| Ok(()));
    let (body, _) = Request::consume_body(request, read);
    let greeting: Json = serde_json::from_slice(&body.collect().await).unwrap_or_default();
    let text = |field| Value::Text(greeting.get(field).and_then(Json::as_str).unwrap_or_default().to_owned());
    let db = open().await?;
    let insert = "INSERT INTO entries (name, message) VALUES (?, ?)";
    query(&db, insert, vec![text("name"), text("message")]).await?;
    let id = db.last_insert_rowid_async().await;
    let rows = query(&db, "SELECT * FROM entries WHERE id = ?", vec![Value::Integer(id)]).await?;
    Ok(rows.iter().map(entry).next().unwrap_or_default())
}

async fn latest() -> Result<Json, Error> {
    let db = open().await?;
    let rows = query(&db, "SELECT * FROM entries ORDER BY id DESC LIMIT 100", Vec::new()).await?;
    Ok(rows.iter().map(entry).collect())
}

async fn open() -> Result<Connection, Error> {
    Connection::open_async("default".to_owned()).await
}

/// Runs a statement; if there is no table yet, creates it and runs the statement again.
async fn query(db: &Connection, sql: &str, values: Vec<Value>) -> Result<Vec<RowResult>, Error> {
    match run(db, sql, values.clone()).await {
        Err(Error::Io(reason)) if reason.contains("no such table") => {
            run(db, CREATE, Vec::new()).await?;
            run(db, sql, values).await
        }
        outcome => outcome,
    }
}

async fn run(db: &Connection, sql: &str, values: Vec<Value>) -> Result<Vec<RowResult>, Error> {
    let (_, rows, ended) = db.execute_async(sql.to_owned(), values).await?;
    let rows = rows.collect().await;
    ended.await?;
    Ok(rows)
}

fn entry(row: &RowResult) -> Json {
    let value = |value: Option<&Value>| match value {
        Some(Value::Integer(number)) => json!(number),
        Some(Value::Text(text)) => json!(text),
        _ => Json::Null,
    };
    let column = |number| value(row.values.get(number));
    json!({ "id": column(0), "name": column(1), "message": column(2), "signed_at": column(3) })
}

fn respond(status: u16, json: &Json) -> Result<Response, ErrorCode> {
    let bytes = json.to_string().into_bytes();
    let headers = [
        ("content-type".to_owned(), b"application/json".to_vec()),
        ("content-length".to_owned(), bytes.len().to_string().into_bytes()),
    ];
    let headers =
        Fields::from_list(&headers).map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?;
    let (mut stream, contents) = wit_stream::new();
    let (trailers, no_trailers) = wit_future::new(|| Ok(None));
    let (response, _transmitted) = Response::new(headers, Some(contents), no_trailers);
    // The host takes any status between 100 and 999.
    let _ = response.set_status_code(status);
    spawn_local(async move {
        // Whoever does not listen any more misses nothing.
        let _ = stream.write_all(bytes).await;
        drop(stream);
        // A writer that is dropped writes the same by a waker of its own, which costs more.
        let _ = trailers.write(Ok(None)).await;
    });
    Ok(response)
}
