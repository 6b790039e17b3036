//! A guest that uses its database and its variables through `fermyon:spin@2.0.0`, the older of Spin's interfaces.
//!
//! `/variable/<name>` answers with a variable. Any other request adds a row; the answer is all rows as JSON, or a 500
//! with the error's name.

mod bindings;

use serde_json::{Value as Json, json};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

use crate::bindings::fermyon::spin::sqlite::{Connection, Error, Value};
use crate::bindings::fermyon::spin::variables;

struct Spin2;

wasip2::http::proxy::export!(Spin2);

impl Guest for Spin2 {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        if let Some(name) = path.strip_prefix("/variable/") {
            reply(out, 200, variable(name).to_string().as_bytes());
            return;
        }
        let (status, answer) = match add_and_list() {
            Ok(rows) => (200, rows),
            Err(error) => (500, json!({ "error": format!("{error:?}") })),
        };
        reply(out, status, answer.to_string().as_bytes());
    }
}

fn add_and_list() -> Result<Json, Error> {
    let connection = Connection::open("default")?;
    connection.execute("CREATE TABLE IF NOT EXISTS spin2(id INTEGER PRIMARY KEY, note TEXT)", &[])?;
    connection.execute("INSERT INTO spin2(note) VALUES (?)", &[Value::Text("from spin 2".into())])?;
    let found = connection.execute("SELECT id, note FROM spin2 ORDER BY id", &[])?;
    let rows = found.rows.iter().map(|row| row.values.iter().map(to_json).collect());
    Ok(json!({ "columns": found.columns, "rows": rows.collect::<Vec<Json>>() }))
}

fn variable(name: &str) -> Json {
    match variables::get(name) {
        Ok(value) => json!({ "value": value }),
        Err(variables::Error::InvalidName(why)) => json!({ "error": "invalid-name", "why": why }),
        Err(variables::Error::Undefined(why)) => json!({ "error": "undefined", "why": why }),
        Err(variables::Error::Provider(why)) => json!({ "error": "provider", "why": why }),
        Err(variables::Error::Other(why)) => json!({ "error": "other", "why": why }),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(integer) => json!(integer),
        Value::Real(real) => json!(real),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!(bytes),
    }
}

fn reply(out: ResponseOutparam, status: u16, bytes: &[u8]) -> Option<()> {
    let content_type = [(String::from("content-type"), b"application/json".to_vec())];
    let response = OutgoingResponse::new(Fields::from_list(&content_type).ok()?);
    response.set_status_code(status).ok()?;
    let body = response.body().ok()?;
    let stream = body.write().ok()?;
    ResponseOutparam::set(out, Ok(response));
    bytes.chunks(4096).try_for_each(|chunk| stream.blocking_write_and_flush(chunk)).ok()?;
    drop(stream);
    OutgoingBody::finish(body, None).ok()
}
