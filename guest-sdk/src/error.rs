//! The error that a handler may return.
//!
//! It has two audiences. The caller gets a status and, if the function chose to say something, a sentence, as
//! `application/problem+json` (RFC 9457). The log gets every cause.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::{self, Debug, Display, Formatter};

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::{
    Body, BodyError, DatabaseError, FetchError, IntoResponse, RequestError, Response, StatusCode, log,
};

/// A `Result` whose error is, unless said otherwise, an [`Error`].
///
/// ```
/// use dormouse_sdk::{Request, Result};
///
/// fn handle(request: Request) -> Result<String> {
///     let number: i64 = request.into_body().text()?.trim().parse()?;
///     Ok((number + 1).to_string())
/// }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure and the response that it becomes: problem details (RFC 9457), sent as `application/problem+json`.
///
/// Any [`std::error::Error`] turns into one with `?`: a 500 that tells the caller nothing. A [`BodyError`] or a
/// [`RequestError`] is the caller's own mistake, so it becomes a 4xx that tells what was wrong.
///
/// ```
/// use dormouse_sdk::{Error, IntoResponse, StatusCode};
///
/// let error = Error::status(StatusCode::CONFLICT, "The name is taken.")
///     .with_type("https://example.com/problems/taken")
///     .with_title("Name taken")
///     .with_member("name", "menu");
/// let problem: serde_json::Value = error.into_response().into_body().json()?;
/// assert_eq!(problem, serde_json::json!({
///     "type": "https://example.com/problems/taken", "title": "Name taken", "status": 409,
///     "detail": "The name is taken.", "name": "menu",
/// }));
/// # Ok::<(), dormouse_sdk::BodyError>(())
/// ```
pub struct Error(Box<Parts>);

/// Boxed, so that a `Result` stays small on the way that is usually taken.
struct Parts {
    status: StatusCode,
    headers: HeaderMap,
    /// The URI of the problem's type.
    kind: Cow<'static, str>,
    title: Option<Cow<'static, str>>,
    /// What the caller reads.
    detail: Option<String>,
    /// Further members, as JSON: `,"name":value` each.
    members: String,
    /// What the log reads.
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with a status, and with a message that the caller may read.
    ///
    /// ```
    /// use dormouse_sdk::{Error, StatusCode};
    ///
    /// let error = Error::status(StatusCode::NOT_FOUND, "There is no such card.");
    /// assert_eq!(error.to_string(), "There is no such card.");
    /// ```
    pub fn status(status: StatusCode, message: impl Into<String>) -> Self {
        Self::from_parts(status, Some(message.into()), None)
    }

    /// A 500 whose message only the log gets.
    ///
    /// ```
    /// use dormouse_sdk::{Error, IntoResponse};
    ///
    /// let response = Error::internal("the till is empty").into_response();
    /// assert!(!response.into_body().text()?.contains("till"));
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    pub fn internal(message: impl Into<String>) -> Self {
        Self::from_parts(StatusCode::INTERNAL_SERVER_ERROR, None, Some(message.into().into()))
    }

    /// Names the type of the problem, a URI. Without one it is `about:blank`: no more than its status.
    ///
    /// ```
    /// # use dormouse_sdk::{Error, IntoResponse, StatusCode};
    /// let error = Error::status(StatusCode::GONE, "It was deleted.").with_type("urn:example:deleted");
    /// assert!(error.into_response().into_body().text()?.contains("urn:example:deleted"));
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    #[must_use]
    pub fn with_type(mut self, uri: impl Into<Cow<'static, str>>) -> Self {
        self.0.kind = uri.into();
        self
    }

    /// Names the type of the problem for people. Without one it is the status in words.
    ///
    /// ```
    /// # use dormouse_sdk::{Error, IntoResponse, StatusCode};
    /// let error = Error::status(StatusCode::GONE, "It was deleted.").with_title("Deleted");
    /// assert!(error.into_response().into_body().text()?.contains("\"title\":\"Deleted\""));
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    #[must_use]
    pub fn with_title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.0.title = Some(title.into());
        self
    }

    /// Adds a member to the problem, for programs that read it. One that cannot be JSON is left out.
    ///
    /// ```
    /// # use dormouse_sdk::{Error, IntoResponse, StatusCode};
    /// let error = Error::status(StatusCode::CONFLICT, "Too few are left.").with_member("left", 3);
    /// assert!(error.into_response().into_body().text()?.ends_with(",\"left\":3}"));
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Serialize) -> Self {
        if let (Ok(name), Ok(value)) = (serde_json::to_string(name), serde_json::to_string(&value)) {
            self.0.members.extend([",", &name, ":", &value]);
        }
        self
    }

    /// Adds a header to the response, such as `Allow` or `Retry-After`.
    ///
    /// ```
    /// use dormouse_sdk::header::RETRY_AFTER;
    /// use dormouse_sdk::{Error, HeaderValue, StatusCode};
    ///
    /// let error = Error::status(StatusCode::SERVICE_UNAVAILABLE, "Closed until noon.")
    ///     .with_header(RETRY_AFTER, HeaderValue::from_static("3600"));
    /// ```
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
        let kind = Cow::Borrowed("about:blank");
        let (headers, members) = (HeaderMap::new(), String::new());
        Self(Box::new(Parts { status, headers, kind, title: None, detail, members, source }))
    }
}

/// The status that a known error stands for, and whether its words are for the caller.
fn told_of(error: &dyn Any) -> Option<(StatusCode, bool)> {
    if let Some(error) = error.downcast_ref::<BodyError>() {
        let status = error.status();
        return Some((status, status.is_client_error()));
    }
    if error.is::<RequestError>() {
        return Some((StatusCode::BAD_REQUEST, true));
    }
    if let Some(error) = error.downcast_ref::<DatabaseError>() {
        return Some((error.status(), false));
    }
    Some((error.downcast_ref::<FetchError>()?.status(), false))
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        match told_of(&error) {
            Some((status, true)) => Self::status(status, error.to_string()),
            Some((status, false)) => Self::from_parts(status, None, Some(Box::new(error))),
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

/// The members that RFC 9457 names.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if self.0.status.is_server_error() {
            log::error!("{self}");
        }
        let Parts { status, headers, kind, title, detail, members, .. } = *self.0;
        let title = title.as_deref().or(status.canonical_reason()).unwrap_or_default();
        let problem = Problem { r#type: &kind, title, status: status.as_u16(), detail: detail.as_deref() };
        // Strings and a number always serialize; were that ever untrue, the status still says what matters.
        let mut json = serde_json::to_string(&problem).unwrap_or_default();
        if json.pop().is_some() {
            json.extend([&members, "}"]);
        }
        let mut response = Response::new(Body::from(json));
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

    #[derive(Debug, thiserror::Error)]
    #[error("could not count the guests")]
    struct Counting(#[source] DatabaseError);

    #[test]
    fn any_error_becomes_a_500_that_says_nothing() {
        fn count() -> Result<u64> {
            Err(Counting(DatabaseError::Statement("disk I/O error".into())))?
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
        let detail = "the body is not the expected JSON: \
                      invalid type: string \"seven\", expected u64 at line 1 column 7";
        assert_eq!(body.get("detail").unwrap(), detail);
    }

    #[test]
    fn a_fault_of_someone_else_keeps_its_status_and_its_words_inside() {
        for (error, status) in [
            (Error::from(FetchError::TimedOut), 504),
            (Error::from(BodyError::Fetched(Box::new(BodyError::TooLarge))), 502),
            (Error::from(DatabaseError::Busy("database is locked".into())), 503),
            (Error::from(DatabaseError::DatabaseFull), 500),
        ] {
            let words = error.to_string();
            let response = error.into_response();
            assert_eq!(response.status(), status);
            assert!(!response.into_body().text().unwrap().contains(&words));
        }
    }

    #[test]
    fn an_internal_message_stays_inside() {
        let error = Error::internal("the moon is full");
        assert_eq!(format!("{error:?}"), "500 Internal Server Error (the moon is full)");
        assert!(!error.into_response().into_body().text().unwrap().contains("moon"));
    }

    #[test]
    fn members_that_are_no_json_are_left_out() {
        let no_json = std::collections::BTreeMap::from([((1, 2), 3)]);
        let error = Error::status(StatusCode::GONE, "x").with_member("a", no_json).with_member("b\"", [1]);
        let problem: serde_json::Value = error.into_response().into_body().json().unwrap();
        assert_eq!(problem.get("a"), None);
        assert_eq!(problem.get("b\"").unwrap(), &serde_json::json!([1]));
    }
}
