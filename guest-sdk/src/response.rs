//! What a handler may return.

use std::borrow::Cow;

use cookie::Cookie;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, SET_COOKIE};
use serde::Serialize;

use crate::{Body, Error, Response, Result, StatusCode};

/// Anything that can be sent as a response.
///
/// ```
/// use dormouse_sdk::cookie::Cookie;
/// use dormouse_sdk::header::CACHE_CONTROL;
/// use dormouse_sdk::{Html, IntoResponse, Response, StatusCode};
///
/// fn welcome() -> Response {
///     Html("<p>Welcome")
///         .with_status(StatusCode::CREATED)
///         .with_header(CACHE_CONTROL, "no-store")
///         .with_cookie(Cookie::build(("theme", "dark")).path("/").http_only(true))
/// }
///
/// assert_eq!(welcome().status(), 201);
/// assert_eq!(welcome().headers()["set-cookie"], "theme=dark; HttpOnly; Path=/");
/// ```
pub trait IntoResponse: Sized {
    /// The response.
    fn into_response(self) -> Response;

    /// The response with another status.
    fn with_status(self, status: StatusCode) -> Response {
        let mut response = self.into_response();
        *response.status_mut() = status;
        response
    }

    /// The response with a header, in place of others of that name. A value that cannot be one (it holds a line break,
    /// for example) makes the response a 500.
    fn with_header(self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Response {
        let mut response = self.into_response();
        match value.try_into() {
            Ok(value) => {
                response.headers_mut().insert(name, value);
                response
            }
            Err(_) => Error::internal(format!("the response header {name} has a value that cannot be one"))
                .into_response(),
        }
    }

    /// The response with one more cookie.
    ///
    /// At an address of the form `/t/<tenant>/…` all tenants share a browser origin, so give a cookie the path of
    /// [`link("/")`](crate::RequestExt::link).
    fn with_cookie<'c>(self, cookie: impl Into<Cookie<'c>>) -> Response {
        let mut response = self.into_response();
        match HeaderValue::try_from(cookie.into().to_string()) {
            Ok(value) => {
                response.headers_mut().append(SET_COOKIE, value);
                response
            }
            Err(_) => Error::internal("a cookie has a name or a value that cannot be one").into_response(),
        }
    }
}

/// A body of JSON, sent as `application/json`.
///
/// ```
/// use dormouse_sdk::{IntoResponse, Json};
///
/// let response = Json([1, 2]).into_response();
/// assert_eq!(response.headers()["content-type"], "application/json");
/// assert_eq!(response.into_body().text()?, "[1,2]");
/// # Ok::<(), dormouse_sdk::BodyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// A body of HTML, sent as `text/html`. What users wrote must be escaped: see [`Escaped`](crate::Escaped).
///
/// ```
/// use dormouse_sdk::{Escaped, Html, IntoResponse};
///
/// let response = Html(format!("<p>{}", Escaped("1 < 2"))).into_response();
/// assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
/// assert_eq!(response.into_body().text()?, "<p>1 &lt; 2");
/// # Ok::<(), dormouse_sdk::BodyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Html<T>(pub T);

/// Sends the caller to another address.
///
/// A path of the function itself must start with the base of its address, which
/// [`link`](crate::RequestExt::link) adds.
///
/// ```
/// use dormouse_sdk::{Redirect, Request, RequestExt};
///
/// fn save(request: Request) -> Redirect {
///     Redirect::to(request.link("/cards"))
/// }
///
/// # use dormouse_sdk::testing::{Tenant, TestRequest};
/// let response = Tenant::new().call(save, TestRequest::post("/cards"));
/// assert_eq!((response.status(), response.header("location")), (303, Some("/t/test/fn/cards")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    status: StatusCode,
    location: String,
}

impl Redirect {
    /// 303 See Other: the answer to a form; the caller GETs the address.
    ///
    /// ```
    /// # use dormouse_sdk::{IntoResponse, Redirect};
    /// assert_eq!(Redirect::to("https://example.com/").into_response().status(), 303);
    /// ```
    pub fn to(location: impl Into<String>) -> Self {
        Self { status: StatusCode::SEE_OTHER, location: location.into() }
    }

    /// 307 Temporary Redirect: the caller repeats its request there, and asks here again next time.
    ///
    /// ```
    /// # use dormouse_sdk::{IntoResponse, Redirect};
    /// assert_eq!(Redirect::temporary("https://example.com/").into_response().status(), 307);
    /// ```
    pub fn temporary(location: impl Into<String>) -> Self {
        Self { status: StatusCode::TEMPORARY_REDIRECT, location: location.into() }
    }

    /// 308 Permanent Redirect: the caller repeats its request there, and need not ask here again.
    ///
    /// ```
    /// # use dormouse_sdk::{IntoResponse, Redirect};
    /// assert_eq!(Redirect::permanent("https://example.com/").into_response().status(), 308);
    /// ```
    pub fn permanent(location: impl Into<String>) -> Self {
        Self { status: StatusCode::PERMANENT_REDIRECT, location: location.into() }
    }
}

impl IntoResponse for Redirect {
    fn into_response(self) -> Response {
        self.status.with_header(LOCATION, self.location)
    }
}

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

/// Sent without a type.
impl IntoResponse for Body {
    fn into_response(self) -> Response {
        Response::new(self)
    }
}

/// Sent as it arrives, or as it is written, without a type.
#[cfg(feature = "async")]
impl IntoResponse for crate::asynchronous::Body {
    fn into_response(self) -> Response {
        Response::new(self.into())
    }
}

/// What was fetched, passed on.
#[cfg(feature = "async")]
impl IntoResponse for http::Response<crate::asynchronous::Body> {
    fn into_response(self) -> Response {
        self.map(Body::from)
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

/// Sent as `text/plain`.
impl IntoResponse for Cow<'static, str> {
    fn into_response(self) -> Response {
        match self {
            Cow::Borrowed(text) => text.into_response(),
            Cow::Owned(text) => text.into_response(),
        }
    }
}

/// Sent as `application/octet-stream`.
impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        typed("application/octet-stream", self)
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

/// Sent as `text/html`.
#[cfg(feature = "maud")]
impl IntoResponse for maud::Markup {
    fn into_response(self) -> Response {
        Html(self.into_string()).into_response()
    }
}

/// 204 No Content.
impl IntoResponse for () {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

/// A status and no body.
impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = self;
        response
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        let (status, rest) = self;
        rest.with_status(status)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::HashMap;

    use http::header::ETAG;

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
        assert_eq!(read(Cow::Borrowed("hello")), text("text/plain; charset=utf-8", "hello"));
        assert_eq!(read(b"hello".to_vec()), text("application/octet-stream", "hello"));
        assert_eq!(read(Body::from("hello")), text("", "hello"));
        assert_eq!(read(Html("<p>hello")), text("text/html; charset=utf-8", "<p>hello"));
        assert_eq!(read(Json(["hello"])), text("application/json", r#"["hello"]"#));
    }

    #[test]
    #[cfg(feature = "maud")]
    fn a_page_of_mauds_is_a_response() {
        let page = read(maud::html! { p { "1 < 2" } });
        assert_eq!(page, (200, "text/html; charset=utf-8".into(), "<p>1 &lt; 2</p>".into()));
    }

    #[test]
    fn a_status_goes_alone_or_with_anything() {
        assert_eq!(read(StatusCode::NO_CONTENT), (204, String::new(), String::new()));
        assert_eq!(read(()), (204, String::new(), String::new()));
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

    #[test]
    fn headers_replace_and_cookies_add() {
        let response =
            "x".with_header(ETAG, "1").with_header(ETAG, "2").with_cookie(("a", "1")).with_cookie(("b", "2"));
        assert_eq!(response.headers().get_all(ETAG).iter().collect::<Vec<_>>(), ["2"]);
        assert_eq!(response.headers().get_all(SET_COOKIE).iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    }

    #[test]
    fn a_line_break_cannot_make_a_header() {
        assert_eq!("x".with_header(ETAG, "1\r\nx: y").status(), 500);
        assert_eq!(read(Redirect::to("/\nset-cookie: a=b")).0, 500);
        assert_eq!("x".with_cookie(("a", "1\r\nx: y")).status(), 500);
    }
}
