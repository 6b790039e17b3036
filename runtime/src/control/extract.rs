//! What the handlers take from a request's head, with failures that are problems like all others.

use std::fmt::Display;

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;

use super::reply::ApiError;

/// An extractor of axum's.
pub(super) struct Checked<E>(pub E);

/// Parameters of the path.
pub(super) type PathOf<T> = Checked<Path<T>>;

/// Parameters of the query.
pub(super) type QueryOf<T> = Checked<Query<T>>;

impl<S, E> FromRequestParts<S> for Checked<E>
where
    S: Send + Sync,
    E: FromRequestParts<S, Rejection: Display>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let extracted = E::from_request_parts(parts, state).await;
        extracted.map(Self).map_err(|rejection| ApiError::BadRequest(rejection.to_string()))
    }
}
