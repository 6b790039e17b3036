//! Problem details (RFC 9457): what a caller is told when something failed, never more than is theirs to know.

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;

/// A problem type: `urn:problem-type:dormouse:<slug>`, listed in `docs/problems.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemType {
    /// The status that goes with it.
    pub status: StatusCode,
    /// Its name in the URN.
    pub slug: &'static str,
    /// A short text, the same for every occurrence.
    pub title: &'static str,
    /// Seconds after which the caller may try again.
    pub retry_after_seconds: Option<u32>,
}

#[derive(Serialize)]
struct Details<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    request_id: &'a str,
}

impl ProblemType {
    /// A problem type that cannot be retried.
    #[must_use]
    pub const fn new(status: StatusCode, slug: &'static str, title: &'static str) -> Self {
        Self { status, slug, title, retry_after_seconds: None }
    }

    /// The same, with a time after which to try again.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The response that tells one occurrence of it.
    #[must_use]
    pub fn response(&self, detail: Option<&str>, request_id: &str) -> Response<Vec<u8>> {
        let details = Details {
            r#type: format!("urn:problem-type:dormouse:{}", self.slug),
            title: self.title,
            status: self.status.as_u16(),
            detail,
            request_id,
        };
        // A struct of texts and a number always serialises.
        let mut response = Response::new(serde_json::to_vec(&details).unwrap_or_default());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
