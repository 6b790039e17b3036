//! A guestbook: POST signs it, GET reads it, as JSON or, for a browser, as a page.

mod page;

use dormouse_sdk::header::ALLOW;
use dormouse_sdk::{
    Database, DatabaseError, Error, HeaderValue, Html, IntoResponse, Json, Method, Request, RequestExt,
    Response, Result, StatusCode, function,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Greeting {
    name: String,
    message: String,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    id: i64,
    name: String,
    message: String,
    signed_at: String,
}

#[function]
fn guestbook(request: Request) -> Response {
    match *request.method() {
        Method::POST => sign(request).into_response(),
        Method::GET if request.wants_html() => {
            latest().map(|entries| Html(page::render(&entries))).into_response()
        }
        Method::GET => latest().map(Json).into_response(),
        _ => Error::status(StatusCode::METHOD_NOT_ALLOWED, "POST signs the guestbook, GET reads it.")
            .with_header(ALLOW, HeaderValue::from_static("GET, POST"))
            .into_response(),
    }
}

fn sign(request: Request) -> Result<(StatusCode, Json<Entry>)> {
    let Greeting { name, message } = request.into_body().json()?;
    if name.trim().is_empty() {
        return Err(Error::status(StatusCode::UNPROCESSABLE_ENTITY, "Please sign with your name."));
    }
    let db = Database::open()?;
    with_table(&db, || db.execute("INSERT INTO entries (name, message) VALUES (?, ?)", (&name, &message)))?;
    let entry = db.query_one("SELECT * FROM entries WHERE id = ?", [db.last_insert_rowid()])?;
    Ok((StatusCode::CREATED, Json(entry)))
}

fn latest() -> Result<Vec<Entry>> {
    let db = Database::open()?;
    Ok(with_table(&db, || db.query_as("SELECT * FROM entries ORDER BY id DESC LIMIT 100", ()))?)
}

/// Does some work on the table; if this is the first time ever, creates the table and does it again.
fn with_table<T>(db: &Database, work: impl Fn() -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
    match work() {
        Err(DatabaseError::NoSuchTable(_)) => {
            db.execute(
                "CREATE TABLE IF NOT EXISTS entries (
                     id        INTEGER PRIMARY KEY,
                     name      TEXT NOT NULL,
                     message   TEXT NOT NULL,
                     signed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ'))
                 )",
                (),
            )?;
            work()
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use dormouse_sdk::testing::{Tenant, TestRequest};
    use serde_json::{Value, json};

    use super::guestbook;

    #[test]
    fn what_was_signed_is_read() {
        let tenant = Tenant::new();
        assert_eq!(tenant.call(guestbook, TestRequest::get("/")).json::<Value>(), json!([]));
        let greeting = TestRequest::post("/").json(&json!({ "name": "Ada", "message": "1 < 2" }));
        assert_eq!(tenant.call(guestbook, greeting).status(), 201);
        let entries: Value = tenant.call(guestbook, TestRequest::get("/")).json();
        assert_eq!(entries.pointer("/0/message"), Some(&json!("1 < 2")));
        let page = tenant.call(guestbook, TestRequest::get("/").header("accept", "text/html"));
        assert!(page.text().contains("1 &lt; 2"), "{}", page.text());
    }

    #[test]
    fn what_is_no_greeting_is_refused() {
        let tenant = Tenant::new();
        let nameless = TestRequest::post("/").json(&json!({ "name": " ", "message": "" }));
        assert_eq!(tenant.call(guestbook, nameless).status(), 422);
        assert_eq!(tenant.call(guestbook, TestRequest::post("/").body("no JSON")).status(), 400);
        let refused = tenant.call(guestbook, TestRequest::delete("/"));
        assert_eq!((refused.status(), refused.header("allow")), (405, Some("GET, POST")));
    }
}
