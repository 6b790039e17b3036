//! Responses as a test reads them.

use cookie::Cookie;
use http::HeaderMap;
use http::header::SET_COOKIE;
use serde::de::DeserializeOwned;

use crate::Response;
#[cfg(feature = "async")]
use crate::body::asynchronous::{Body, log_broken};

/// A response, read to its end.
///
/// ```
/// use dormouse_sdk::testing::{Tenant, TestRequest};
/// use dormouse_sdk::{IntoResponse, Json, Response, StatusCode};
///
/// fn make() -> Response {
///     (StatusCode::CREATED, Json([7])).with_cookie(("made", "1"))
/// }
///
/// let response = Tenant::new().call(make, TestRequest::post("/"));
/// assert_eq!(response.status(), 201);
/// assert_eq!(response.header("content-type"), Some("application/json"));
/// assert_eq!(response.cookie("made").unwrap().value(), "1");
/// assert_eq!(response.text(), "[7]");
/// assert_eq!(response.json::<Vec<u8>>(), [7]);
/// assert_eq!(response.bytes(), b"[7]");
/// ```
#[derive(Debug, Clone)]
pub struct TestResponse {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl TestResponse {
    pub(super) fn new(response: Response) -> Self {
        let (head, body) = response.into_parts();
        // Without a host every body is here, so reading it cannot fail.
        let body = body.bytes().unwrap_or_default();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// Reads a response as far as it comes.
    #[cfg(feature = "async")]
    pub(super) async fn read(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let (mut reading, mut body) = (Body::of(body), Vec::new());
        loop {
            match reading.read_chunk().await {
                Ok(Some(chunk)) => body.extend(chunk),
                Ok(None) => break,
                Err(error) => {
                    log_broken(&error);
                    break;
                }
            }
        }
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// Its status. [`TestResponse`] has an example of this and the other methods.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header's value, if there is one and it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The cookie of this name that it sets, if it does.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<Cookie<'_>> {
        let headers = self.headers.get_all(SET_COOKIE).iter().filter_map(|header| header.to_str().ok());
        headers.filter_map(|header| Cookie::parse(header).ok()).find(|cookie| cookie.name() == name)
    }

    /// Its body.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// Its body as text.
    ///
    /// # Panics
    ///
    /// If it is not UTF-8.
    #[must_use]
    #[expect(clippy::panic, reason = "what a test did not expect ends the test")]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_else(|error| panic!("the response is not UTF-8: {error}"))
    }

    /// Its body, read as JSON.
    ///
    /// # Panics
    ///
    /// If it is not the JSON of a `T`.
    #[must_use]
    #[expect(clippy::panic, reason = "what a test did not expect ends the test")]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the response is not the expected JSON: {error}: {}", self.text()))
    }
}
