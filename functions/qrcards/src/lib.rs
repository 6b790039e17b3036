//! QR codes for links: a card has a short address, which its QR code shows, and leads to a link that can be changed
//! after the code is printed. Every scan is counted.
//!
//! | request | who | answer |
//! |---|---|---|
//! | `GET /` | anyone | a page: the form for the key, or the owner's cards |
//! | `POST /login`, `POST /logout` | anyone | a cookie, or none |
//! | `GET /cards`, `POST /cards` | the owner | the cards; a new one |
//! | `GET`, `PUT`, `DELETE /cards/{id}` | the owner | a card and its scans by day; another link; no card |
//! | `GET /cards/{id}/qr.svg` | anyone | the QR code |
//! | `GET /{id}` | anyone | a redirect to the link, counted |
//!
//! The owner is whoever has the key, as a bearer token or in the cookie: the secret `owner_key`.
//!
//! The page needs a host of the tenant's own: at `/t/…` Dormouse sandboxes it, and its forms do nothing.

mod link;
mod owner;
mod page;
mod store;
mod svg;

use dormouse_sdk::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use dormouse_sdk::{
    Constraint, DatabaseError, Error, IntoResponse, Json, Method, Redirect, Request, RequestExt, Response,
    Result, Router, StatusCode, function, log,
};
use serde::{Deserialize, Serialize};

use crate::link::Slug;
use crate::store::{Card, Day, Store};

#[function]
fn qrcards(request: Request) -> Response {
    Router::new()
        .get("/", page::show)
        .post("/login", owner::log_in)
        .post("/logout", owner::log_out)
        .get("/cards", list)
        .post("/cards", create)
        .get("/cards/{id}", statistics)
        .put("/cards/{id}", change)
        .delete("/cards/{id}", remove)
        .get("/cards/{id}/qr.svg", qr_code)
        .get("/{id}", scan)
        .handle(request)
}

/// What the owner says of a card.
#[derive(Deserialize)]
struct Draft {
    /// Its place in the short address; without one it is drawn.
    #[serde(default)]
    id: String,
    /// What the owner calls it.
    #[serde(default)]
    title: String,
    /// Where it leads.
    link: String,
}

/// A card with its addresses.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    card: Card,
    /// What the QR code says.
    short: String,
    /// Where the QR code is.
    qr: String,
}

/// A card and its scans by day.
#[derive(Serialize)]
struct Statistics {
    #[serde(flatten)]
    shown: Shown,
    days: Vec<Day>,
}

impl Shown {
    fn new(request: &Request, card: Card) -> Self {
        let short = request.url(&format!("/{}", card.id));
        let qr = request.url(&format!("/cards/{}/qr.svg", card.id));
        Self { card, short, qr }
    }
}

fn list(request: Request) -> Result<Json<Vec<Shown>>> {
    owner::check(&request)?;
    let cards = Store::open()?.cards()?;
    Ok(Json(cards.into_iter().map(|card| Shown::new(&request, card)).collect()))
}

/// Makes a card of JSON, or of the form on the owner's page.
fn create(mut request: Request) -> Result<Response> {
    owner::check(&request)?;
    let store = Store::open()?;
    let content_type = request.header("content-type").unwrap_or_default();
    if content_type.starts_with("application/x-www-form-urlencoded") {
        let home = request.link("/");
        make(&store, request.form()?)?;
        return Ok(Redirect::to(home).into_response());
    }
    let card = make(&store, read_draft(&mut request)?)?;
    let address = request.link(&format!("/cards/{}", card.id));
    Ok((StatusCode::CREATED, Json(Shown::new(&request, card))).with_header(LOCATION, address))
}

fn read_draft(request: &mut Request) -> Result<Draft> {
    Ok(std::mem::take(request.body_mut()).limit(link::DRAFT_BYTES_MAX).json()?)
}

fn make(store: &Store, draft: Draft) -> Result<Card> {
    let (title, link) = (link::title(&draft.title)?, link::check(&draft.link)?);
    let Slug(id) = match draft.id.trim() {
        "" => Slug(store.draw_id()?),
        id => id.parse().map_err(link::refuse)?,
    };
    let card = store.create(&id, &title, &link).map_err(|error| taken(error, &id))?;
    log::info!(id = card.id, link = card.link; "made a card");
    Ok(card)
}

/// A second card of one id is the caller's mistake, and no failure.
fn taken(error: DatabaseError, id: &str) -> Error {
    match error {
        DatabaseError::Constraint(Constraint::Unique, _) => {
            Error::status(StatusCode::CONFLICT, format!("There is a card `{id}` already."))
                .with_member("id", id)
        }
        error => error.into(),
    }
}

fn statistics(request: Request) -> Result<Json<Statistics>> {
    owner::check(&request)?;
    let store = Store::open()?;
    let card = store.card(&request.param::<Slug>("id")?.0)?.ok_or_else(missing)?;
    let days = store.days(&card.id)?;
    Ok(Json(Statistics { shown: Shown::new(&request, card), days }))
}

/// Lets a card, which may be printed already, lead elsewhere.
fn change(mut request: Request) -> Result<Json<Shown>> {
    owner::check(&request)?;
    let store = Store::open()?;
    let Slug(id) = request.param("id")?;
    let draft = read_draft(&mut request)?;
    let (title, link) = (link::title(&draft.title)?, link::check(&draft.link)?);
    let card = store.change(&id, &title, &link)?.ok_or_else(missing)?;
    Ok(Json(Shown::new(&request, card)))
}

fn remove(request: Request) -> Result<()> {
    owner::check(&request)?;
    if Store::open()?.remove(&request.param::<Slug>("id")?.0)? { Ok(()) } else { Err(missing()) }
}

fn qr_code(request: Request) -> Result<Response> {
    let card = Store::open()?.card(&request.param::<Slug>("id")?.0)?.ok_or_else(missing)?;
    let svg = svg::qr_code(&request.url(&format!("/{}", card.id)))?;
    Ok(svg.with_header(CONTENT_TYPE, "image/svg+xml"))
}

/// Leads a scan to its link and counts it. `HEAD`, with which programs look whether a link is alive, is no scan.
fn scan(request: Request) -> Result<Response> {
    let store = Store::open()?;
    let Slug(id) = request.param("id")?;
    let link = store.link(&id)?.ok_or_else(missing)?;
    if request.method() != Method::HEAD {
        store.count_scan(&id)?;
    }
    // Otherwise a browser, or a cache on the way, would answer the next scan by itself.
    Ok(Redirect::temporary(link).with_header(CACHE_CONTROL, "no-store"))
}

fn missing() -> Error {
    Error::status(StatusCode::NOT_FOUND, "There is no such card.")
}

#[cfg(test)]
mod tests;
