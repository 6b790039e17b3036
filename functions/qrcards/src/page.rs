//! The owner's page. Everything that the owner wrote is escaped, by maud.

use dormouse_sdk::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use dormouse_sdk::{IntoResponse, Request, RequestExt, Response, Result};
use maud::{DOCTYPE, Markup, html};

use crate::owner;
use crate::store::{Card, Store};

const STYLE: &str = "body { font: 1rem/1.5 system-ui; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .5rem; border-top: 1px solid #ccc }
img { width: 6rem } label { display: block; margin: .5rem 0 }";

/// No scripts, nothing from elsewhere, and no other page around it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; form-action 'self'; frame-ancestors 'none'";

/// The cards for the owner, a form for the key for anyone else.
pub(crate) fn show(request: Request) -> Result<Response> {
    let content =
        if owner::is_owner(&request)? { cards(&request, &Store::open()?.cards()?) } else { login(&request) };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width";
            title { "QR cards" }
            style { (STYLE) }
            h1 { "QR cards" }
            (content)
        }
    };
    Ok(page.with_header(CONTENT_SECURITY_POLICY, POLICY).with_header(CACHE_CONTROL, "no-store"))
}

fn login(request: &Request) -> Markup {
    html! {
        form method="post" action=(request.link("/login")) {
            label { "The owner's key " input type="password" name="key" autocomplete="current-password" required; }
            button { "Log in" }
        }
    }
}

fn cards(request: &Request, cards: &[Card]) -> Markup {
    html! {
        form method="post" action=(request.link("/cards")) {
            label { "Title " input name="title"; }
            label { "Link " input type="url" name="link" required placeholder="https://"; }
            label { "Short name (optional) " input name="id" pattern="[a-z0-9\\-]{1,40}"; }
            button { "Make a card" }
        }
        @if cards.is_empty() {
            p { "There are no cards yet." }
        } @else {
            table {
                tr { th { "QR code" } th { "Card" } th { "Scans" } }
                @for card in cards { (row(request, card)) }
            }
        }
        form method="post" action=(request.link("/logout")) { button { "Log out" } }
    }
}

fn row(request: &Request, card: &Card) -> Markup {
    let short = request.url(&format!("/{}", card.id));
    let image = request.link(&format!("/cards/{}/qr.svg", card.id));
    html! {
        tr {
            td { a href=(image) { img src=(image) alt=(format!("QR code for {short}")); } }
            td { strong { (card.title) } br; (short) br; "leads to " a href=(card.link) rel="noreferrer" { (card.link) } }
            td { (card.scans) }
        }
    }
}
