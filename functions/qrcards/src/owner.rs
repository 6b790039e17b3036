//! Who the owner is: whoever has the key, which the operator sets as the secret `owner_key`.
//!
//! A browser carries the key in a cookie, so what changes something is refused when a page of another origin asks for
//! it.

use dormouse_sdk::cookie::{Cookie, SameSite, time::Duration};
use dormouse_sdk::header::WWW_AUTHENTICATE;
use dormouse_sdk::{
    Error, HeaderValue, IntoResponse, Method, Redirect, Request, RequestExt, Response, Result, StatusCode,
    secret,
};
use serde::Deserialize;

const COOKIE: &str = "owner";

#[derive(Deserialize)]
struct Login {
    key: String,
}

fn is_key(candidate: &str) -> Result<bool> {
    // An empty secret is nobody's key.
    Ok(!candidate.is_empty() && secret("owner_key")?.matches(candidate))
}

/// Whether the request carries the owner's key.
pub(crate) fn is_owner(request: &Request) -> Result<bool> {
    if let Some(key) = request.bearer_token() {
        return is_key(key);
    }
    let Some(cookie) = request.cookie(COOKIE) else { return Ok(false) };
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !only_reads && request.is_cross_origin() {
        return Err(Error::status(StatusCode::FORBIDDEN, "This comes from a page of another origin."));
    }
    is_key(cookie.value())
}

/// Refuses whoever is not the owner.
pub(crate) fn check(request: &Request) -> Result<()> {
    if is_owner(request)? {
        return Ok(());
    }
    let error = Error::status(
        StatusCode::UNAUTHORIZED,
        "Only the owner may do this: send the key as a bearer token.",
    );
    Err(error.with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
}

fn cookie(request: &Request, value: String) -> Cookie<'static> {
    Cookie::build((COOKIE, value))
        .path(request.link("/"))
        .http_only(true)
        .secure(request.url("/").starts_with("https:"))
        .same_site(SameSite::Strict)
        .build()
}

/// Puts the key, typed into the page's form, into a cookie.
pub(crate) fn log_in(request: Request) -> Result<Response> {
    let (home, mut cookie) = (request.link("/"), cookie(&request, String::new()));
    let Login { key } = request.form()?;
    let key = key.trim();
    if !is_key(key)? {
        return Err(Error::status(StatusCode::FORBIDDEN, "This is not the owner's key."));
    }
    cookie.set_value(key.to_owned());
    cookie.set_max_age(Duration::days(30));
    Ok(Redirect::to(home).with_cookie(cookie))
}

/// Takes the cookie back.
pub(crate) fn log_out(request: Request) -> Response {
    let mut cookie = cookie(&request, String::new());
    cookie.set_max_age(Duration::ZERO);
    Redirect::to(request.link("/")).with_cookie(cookie)
}
