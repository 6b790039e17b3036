//! An inbox for webhooks: whatever arrives below `/in/` is kept, with its headers and its body, to be looked at later.
//!
//! | request | who | answer |
//! |---|---|---|
//! | any method, `/in/{source}` | anyone | the id under which the message is kept |
//! | `GET /messages?q=&source=&before=&limit=` | the reader | the latest messages, those with `q` in them |
//! | `GET /messages/{id}` | the reader | a message with all its headers |
//! | `GET /messages/{id}/body` | the reader | its body, byte for byte |
//! | `DELETE /messages/{id}` | the reader | nothing, and the message is gone |
//!
//! The reader is whoever has the key, as a bearer token: the secret `reader_key`. The latest 1,000 messages are kept, each
//! with a body of at most 512 KiB.

mod message;
mod reader;
mod store;

use dormouse_sdk::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use dormouse_sdk::{
    Error, IntoResponse, Json, Request, RequestExt, Response, Result, Router, StatusCode, function, log,
};
use serde::Serialize;

use crate::message::{Message, Search, Summary};
use crate::store::Store;

#[function]
fn webhook_inbox(request: Request) -> Response {
    Router::new()
        .any("/in/{*source}", receive)
        .get("/messages", search)
        .get("/messages/{id}", read)
        .get("/messages/{id}/body", read_body)
        .delete("/messages/{id}", remove)
        .handle(request)
}

#[derive(Serialize)]
struct Kept {
    id: i64,
}

/// A page of messages.
#[derive(Serialize)]
struct Page {
    messages: Vec<Summary>,
    /// What `before` must be to get the next page, if there may be one.
    next: Option<i64>,
}

fn receive(request: Request) -> Result<(StatusCode, Json<Kept>)> {
    let message = Message::receive(request)?;
    let id = Store::open()?.keep(&message)?;
    log::info!(id = id, source = message.source, bytes = message.body.len(); "kept a message");
    Ok((StatusCode::CREATED, Json(Kept { id })))
}

fn search(request: Request) -> Result<Json<Page>> {
    let store = reader::check(&request)?;
    let search: Search = request.query()?;
    let messages = store.find(&search)?;
    let is_full = messages.len() == search.limit();
    let next = messages.last().filter(|_| is_full).map(|message| message.id);
    Ok(Json(Page { messages, next }))
}

fn read(request: Request) -> Result<Json<message::Shown>> {
    let store = reader::check(&request)?;
    let message = store.message(request.param("id")?)?.ok_or_else(missing)?;
    Ok(Json(message.into()))
}

/// What the sender wrote must not run as a page of this address, whatever it says that it is.
fn read_body(request: Request) -> Result<Response> {
    let store = reader::check(&request)?;
    let message = store.message(request.param("id")?)?.ok_or_else(missing)?;
    Ok(message
        .body
        .with_header(CONTENT_TYPE, "application/octet-stream")
        .with_header(CONTENT_DISPOSITION, "attachment")
        .with_header(X_CONTENT_TYPE_OPTIONS, "nosniff"))
}

fn remove(request: Request) -> Result<()> {
    let store = reader::check(&request)?;
    if store.remove(request.param("id")?)? { Ok(()) } else { Err(missing()) }
}

fn missing() -> Error {
    Error::status(StatusCode::NOT_FOUND, "There is no such message.")
}

#[cfg(test)]
mod tests;
