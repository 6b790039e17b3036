//! What a handler may return.

use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use crate::{Body, Error, Response, Result, StatusCode};

/// Anything that can be sent as a response.
pub trait IntoResponse {
    /// The response.
    fn into_response(self) -> Response;
}

/// A body of JSON, sent as `application/json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// A body of HTML, sent as `text/html`. Escaping what users wrote is up to the function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Html<T>(pub T);

fn typed(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl<T: IntoResponse, E: Into<Error>> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        self.map_or_else(|error| error.into().into_response(), IntoResponse::into_response)
    }
}

/// Sent as `text/plain`.
impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        typed("text/plain; charset=utf-8", self)
    }
}

/// Sent as `text/plain`.
impl IntoResponse for String {
    fn into_response(self) -> Response {
        typed("text/plain; charset=utf-8", self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        serde_json::to_vec(&self.0).map(|json| typed("application/json", json)).into_response()
    }
}

impl<T: Into<Body>> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        typed("text/html; charset=utf-8", self.0)
    }
}

/// A status and no body.
impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        (self, Response::default()).into_response()
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        let (status, rest) = self;
        let mut response = rest.into_response();
        *response.status_mut() = status;
        response
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read(response: impl IntoResponse) -> (u16, String, String) {
        let (head, body) = response.into_response().into_parts();
        let content_type = head.headers.get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap());
        (head.status.as_u16(), content_type.into(), body.text().unwrap())
    }

    #[test]
    fn texts_pages_and_json_name_their_type() {
        let text = |content_type: &str, body: &str| (200, content_type.into(), body.into());
        assert_eq!(read("hello"), text("text/plain; charset=utf-8", "hello"));
        assert_eq!(read(String::from("hello")), text("text/plain; charset=utf-8", "hello"));
        assert_eq!(read(Html("<p>hello")), text("text/html; charset=utf-8", "<p>hello"));
        assert_eq!(read(Json(["hello"])), text("application/json", r#"["hello"]"#));
    }

    #[test]
    fn a_status_goes_alone_or_with_anything() {
        assert_eq!(read(StatusCode::NO_CONTENT), (204, String::new(), String::new()));
        assert_eq!(read((StatusCode::CREATED, Json(1))), (201, "application/json".into(), "1".into()));
    }

    #[test]
    fn results_answer_with_either_side() {
        assert_eq!(read(Ok::<_, Error>("fine")).0, 200);
        assert_eq!(read(Err::<&str, _>(Error::status(StatusCode::GONE, "gone"))).0, 410);
        assert_eq!(read(Err::<&str, _>(std::fmt::Error)).0, 500);
    }

    #[test]
    fn what_is_not_json_is_our_failure() {
        assert_eq!(read(Json(HashMap::from([([1], 1)]))).0, 500);
    }
}
