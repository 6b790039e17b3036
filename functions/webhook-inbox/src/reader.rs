//! Who may read: whoever has the key. Of the key only a hash is kept.

use dormouse_sdk::header::{CACHE_CONTROL, WWW_AUTHENTICATE};
use dormouse_sdk::{
    Error, HeaderValue, IntoResponse, Json, Request, RequestExt, Response, Result, StatusCode, log,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::store::Store;

#[derive(Serialize)]
struct Claimed {
    key: String,
}

fn hash(key: &str) -> Vec<u8> {
    Sha256::digest(key).to_vec()
}

/// Gives the key to the first who asks, and to nobody else.
pub(crate) fn claim() -> Result<Response> {
    let Some(key) = Store::open()?.claim(hash)? else {
        return Err(Error::status(StatusCode::CONFLICT, "The key was given out already."));
    };
    log::info!("the reader's key was given out");
    Ok((StatusCode::CREATED, Json(Claimed { key })).with_header(CACHE_CONTROL, "no-store"))
}

/// The messages, for whoever may read them.
pub(crate) fn check(request: &Request) -> Result<Store> {
    let store = Store::open()?;
    match request.bearer_token() {
        Some(key) if store.is_readers(&hash(key))? => Ok(store),
        _ => {
            let error = Error::status(
                StatusCode::UNAUTHORIZED,
                "Only the reader may do this: send the key as a bearer token.",
            );
            Err(error.with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
        }
    }
}
