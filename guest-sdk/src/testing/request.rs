//! Requests as a test makes them.

use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::Incoming;
use crate::body::Content;
use crate::{Body, Method, Request};

/// The address of the function under test.
const ORIGIN: &str = "http://localhost";
const BASE_PATH: &str = "/t/test/fn";

/// A request in the making, with the headers that the host sets: its id and the address of the function, which is
/// `http://localhost/t/test/fn`.
///
/// Something that cannot be a header, a path or JSON is a mistake of the test, so the methods panic.
///
/// ```
/// use dormouse_sdk::testing::TestRequest;
/// use dormouse_sdk::{Request, RequestExt};
///
/// let request: Request = TestRequest::post("/cards?dry=1").header("accept", "text/html").json(&[7]).into();
/// assert_eq!(request.uri().path(), "/cards");
/// assert_eq!(request.id(), "test-request");
/// assert_eq!(request.into_body().text()?, "[7]");
/// # Ok::<(), dormouse_sdk::BodyError>(())
/// ```
#[derive(Debug)]
pub struct TestRequest(Request);

impl TestRequest {
    /// A request with any method. The path may have a query.
    ///
    /// ```
    /// use dormouse_sdk::Method;
    /// use dormouse_sdk::testing::TestRequest;
    ///
    /// let request = TestRequest::new(Method::OPTIONS, "/cards");
    /// ```
    #[must_use]
    pub fn new(method: Method, path: &str) -> Self {
        let (without_query, _) = path.split_once('?').unwrap_or((path, ""));
        let builder = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("x-request-id", "test-request")
            .header("spin-path-info", without_query)
            .header("spin-full-url", format!("{ORIGIN}{BASE_PATH}{path}"))
            .header("spin-base-path", BASE_PATH);
        Self(made(builder.body(Body::empty())))
    }

    /// A `GET` request.
    ///
    /// ```
    /// let request = dormouse_sdk::testing::TestRequest::get("/cards?page=2");
    /// ```
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    /// A `POST` request.
    ///
    /// ```
    /// let request = dormouse_sdk::testing::TestRequest::post("/cards").json(&["menu"]);
    /// ```
    #[must_use]
    pub fn post(path: &str) -> Self {
        Self::new(Method::POST, path)
    }

    /// A `PUT` request.
    ///
    /// ```
    /// let request = dormouse_sdk::testing::TestRequest::put("/cards/7").body("new");
    /// ```
    #[must_use]
    pub fn put(path: &str) -> Self {
        Self::new(Method::PUT, path)
    }

    /// A `DELETE` request.
    ///
    /// ```
    /// let request = dormouse_sdk::testing::TestRequest::delete("/cards/7");
    /// ```
    #[must_use]
    pub fn delete(path: &str) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// Adds a header; those that the host sets are replaced.
    ///
    /// ```
    /// let request = dormouse_sdk::testing::TestRequest::get("/").header("accept", "text/html");
    /// ```
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: http::HeaderName = made(name.parse());
        let value = made(http::HeaderValue::from_str(value));
        if name == "x-request-id" || name.as_str().starts_with("spin-") {
            self.0.headers_mut().insert(name, value);
        } else {
            self.0.headers_mut().append(name, value);
        }
        self
    }

    /// Sets the body.
    ///
    /// ```
    /// let request = dormouse_sdk::testing::TestRequest::post("/").body(vec![1, 2, 3]);
    /// ```
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        *self.0.body_mut() = body.into();
        self
    }

    /// Sets the body to one that arrives in pieces.
    ///
    /// ```
    /// use dormouse_sdk::testing::TestRequest;
    /// use dormouse_sdk::Request;
    ///
    /// let request: Request = TestRequest::post("/").chunks(["one ", "two"]).into();
    /// assert_eq!(request.into_body().text()?, "one two");
    /// # Ok::<(), dormouse_sdk::BodyError>(())
    /// ```
    #[must_use]
    pub fn chunks<T: Into<Vec<u8>>>(mut self, chunks: impl IntoIterator<Item = T>) -> Self {
        let chunks: Vec<Vec<u8>> = chunks.into_iter().map(Into::into).collect();
        *self.0.body_mut() = Body::new(Content::Incoming(Incoming(chunks.into_iter())));
        self
    }

    /// Sets the body to JSON, and its type.
    ///
    /// ```
    /// let request = dormouse_sdk::testing::TestRequest::post("/").json(&["a", "b"]);
    /// ```
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        let json = made(serde_json::to_string(value));
        self.header(CONTENT_TYPE.as_str(), "application/json").body(json)
    }

    /// Sets the body to a form, and its type. The form is a struct, a map or a list of pairs.
    ///
    /// ```
    /// let request = dormouse_sdk::testing::TestRequest::post("/").form(&[("name", "Ada"), ("tag", "a b")]);
    /// ```
    #[must_use]
    pub fn form<T: Serialize + ?Sized>(self, value: &T) -> Self {
        let form = made(serde_html_form::to_string(value));
        self.header(CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded").body(form)
    }
}

/// What the test wrote, or the end of the test.
#[expect(clippy::panic, reason = "a mistake in a test ends the test")]
fn made<T, E: std::fmt::Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("a request that cannot be made: {error}"))
}

impl From<TestRequest> for Request {
    fn from(request: TestRequest) -> Self {
        request.0
    }
}

#[cfg(feature = "async")]
impl From<TestRequest> for crate::asynchronous::Request {
    fn from(request: TestRequest) -> Self {
        let (head, body) = request.0.into_parts();
        let body = crate::asynchronous::Body::of(body).with_head(&head.headers);
        Self::from_parts(head, body)
    }
}
