//! The error that a handler may return.
//!
//! It has two audiences. The caller gets a status and, if the function chose to say something, a sentence, as
//! `application/problem+json` (RFC 9457). The log gets every cause.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt::{self, Debug, Display, Formatter};

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::{Body, BodyError, IntoResponse, Response, StatusCode};

/// A `Result` whose error is, unless said otherwise, an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure and the response that it becomes.
///
/// Any [`std::error::Error`] turns into one with `?`: a 500 that tells the caller nothing. A [`BodyError`] is the
/// caller's own mistake, so it becomes a 4xx that tells what was wrong.
pub struct Error(Box<Parts>);

/// Boxed, so that a `Result` stays small on the way that is usually taken.
struct Parts {
    status: StatusCode,
    headers: HeaderMap,
    /// What the caller reads.
    detail: Option<String>,
    /// What the log reads.
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with a status, and with a message that the caller may read.
    pub fn status(status: StatusCode, message: impl Into<String>) -> Self {
        Self::from_parts(status, Some(message.into()), None)
    }

    /// A 500 whose message only the log gets.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::from_parts(StatusCode::INTERNAL_SERVER_ERROR, None, Some(message.into().into()))
    }

    /// Adds a header to the response, such as `Allow` or `Retry-After`.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    fn from_parts(
        status: StatusCode,
        detail: Option<String>,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Box::new(Parts { status, headers: HeaderMap::new(), detail, source }))
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        let any: &dyn Any = &error;
        match any.downcast_ref::<BodyError>() {
            Some(mistake) => Self::status(mistake.status(), mistake.to_string()),
            None => Self::from_parts(StatusCode::INTERNAL_SERVER_ERROR, None, Some(Box::new(error))),
        }
    }
}

/// What happened and every cause of it, on one line.
impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Parts { status, detail, source, .. } = &*self.0;
        match (detail, source) {
            (Some(detail), _) => f.write_str(detail)?,
            (None, Some(source)) => Display::fmt(source, f)?,
            (None, None) => Display::fmt(status, f)?,
        }
        let mut cause = source.as_ref().and_then(|source| source.source());
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl Debug for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({self})", self.0.status)
    }
}

/// The members of RFC 9457 that we use.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if self.0.status.is_server_error() {
            eprintln!("error: {self}");
        }
        let Parts { status, headers, detail, .. } = *self.0;
        let title = status.canonical_reason().unwrap_or_default();
        let problem =
            Problem { r#type: "about:blank", title, status: status.as_u16(), detail: detail.as_deref() };
        // Strings and a number always serialize; were that ever untrue, the status still says what matters.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use http::header::ALLOW;

    use super::*;
    use crate::DatabaseError;

    #[derive(Debug, thiserror::Error)]
    #[error("could not count the guests")]
    struct Counting(#[source] DatabaseError);

    #[test]
    fn any_error_becomes_a_500_that_says_nothing() {
        fn count() -> Result<u64> {
            Err(Counting(DatabaseError::Io("disk I/O error".into())))?
        }
        let error = count().unwrap_err();
        assert_eq!(error.to_string(), "could not count the guests: disk I/O error");
        let response = error.into_response();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body = response.into_body().text().unwrap();
        assert_eq!(body, r#"{"type":"about:blank","title":"Internal Server Error","status":500}"#);
    }

    #[test]
    fn a_status_tells_the_caller_its_message_and_headers() {
        let response = Error::status(StatusCode::METHOD_NOT_ALLOWED, "Only GET.")
            .with_header(ALLOW, HeaderValue::from_static("GET"))
            .into_response();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[ALLOW], "GET");
        let body = response.into_body().text().unwrap();
        let expected =
            r#"{"type":"about:blank","title":"Method Not Allowed","status":405,"detail":"Only GET."}"#;
        assert_eq!(body, expected);
    }

    #[test]
    fn a_mistake_in_the_body_is_the_callers() {
        fn read() -> Result<u64> {
            Ok(Body::from(r#""seven""#).json()?)
        }
        let response = read().unwrap_err().into_response();
        assert_eq!(response.status(), 400);
        let body: serde_json::Value = response.into_body().json().unwrap();
        let detail = "the request body is not the expected JSON: \
                      invalid type: string \"seven\", expected u64 at line 1 column 7";
        assert_eq!(body.get("detail").unwrap(), detail);
    }

    #[test]
    fn an_internal_message_stays_inside() {
        let error = Error::internal("the moon is full");
        assert_eq!(format!("{error:?}"), "500 Internal Server Error (the moon is full)");
        assert!(!error.into_response().into_body().text().unwrap().contains("moon"));
    }
}
