//! Who may read: whoever has the key, which the operator sets as the secret `reader_key`.

use dormouse_sdk::header::WWW_AUTHENTICATE;
use dormouse_sdk::{Error, HeaderValue, Request, RequestExt, Result, StatusCode, secret};

use crate::store::Store;

/// The messages, for whoever may read them.
pub(crate) fn check(request: &Request) -> Result<Store> {
    match request.bearer_token() {
        // An empty secret is nobody's key.
        Some(key) if !key.is_empty() && secret("reader_key")?.matches(key) => Ok(Store::open()?),
        _ => {
            let error = Error::status(
                StatusCode::UNAUTHORIZED,
                "Only the reader may do this: send the key as a bearer token.",
            );
            Err(error.with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
        }
    }
}
