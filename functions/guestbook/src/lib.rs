//! A guestbook: POST signs it, GET reads it, as JSON or, for a browser, as a page.

mod page;

use dormouse_sdk::header::{ACCEPT, ALLOW};
use dormouse_sdk::{
    Database, DatabaseError, Error, HeaderValue, Html, IntoResponse, Json, Method, Request, Response, Result,
    StatusCode, function,
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
        Method::GET if wants_html(&request) => {
            latest().map(|entries| Html(page::render(&entries))).into_response()
        }
        Method::GET => latest().map(Json).into_response(),
        _ => Error::status(StatusCode::METHOD_NOT_ALLOWED, "POST signs the guestbook, GET reads it.")
            .with_header(ALLOW, HeaderValue::from_static("GET, POST"))
            .into_response(),
    }
}

fn sign(request: Request) -> Result<(StatusCode, Json<Entry>)> {
    let greeting: Greeting = request.into_body().json()?;
    if greeting.name.trim().is_empty() {
        return Err(Error::status(StatusCode::UNPROCESSABLE_ENTITY, "Please sign with your name."));
    }
    let db = Database::open()?;
    with_table(&db, || {
        db.execute("INSERT INTO entries (name, message) VALUES (?, ?)", (&greeting.name, &greeting.message))
    })?;
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
        Err(DatabaseError::Io(reason)) if reason.contains("no such table") => {
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

fn wants_html(request: &Request) -> bool {
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|types| types.contains("text/html"))
}
