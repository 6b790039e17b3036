//! What a handler asks a request, beyond what the `http` crate's type answers.
//!
//! Everything here reads the head of a request, or bytes that are there; how they arrived does not matter.

use std::fmt::Display;
use std::str::FromStr;

use cookie::Cookie;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, ORIGIN};
use serde::de::DeserializeOwned;

use crate::form::{self, Multipart};
use crate::router::PathParams;
use crate::{BodyError, Request};

const REQUEST_ID: &str = "x-request-id";
const FULL_URL: &str = "spin-full-url";
const BASE_PATH: &str = "spin-base-path";

/// What is wrong with the address or a header of a request. With `?` it becomes a 400 that says so.
///
/// ```
/// use dormouse_sdk::testing::TestRequest;
/// use dormouse_sdk::{Request, RequestExt};
///
/// let request: Request = TestRequest::get("/?page=two").into();
/// #[derive(serde::Deserialize)]
/// struct Filter { page: u32 }
///
/// let error = request.query::<Filter>().err().unwrap();
/// assert!(error.to_string().starts_with("the query is not what is expected: "));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The query is not what was asked for.
    #[error("the query is not what is expected: {0}")]
    Query(String),
    /// A part of the path is not what was asked for.
    #[error("the path is not what is expected: {0}")]
    Path(String),
}

/// What a handler asks a request.
///
/// ```
/// use dormouse_sdk::testing::TestRequest;
/// use dormouse_sdk::{Request, RequestExt};
///
/// let request: Request = TestRequest::get("/cards?page=2").header("cookie", "theme=dark").into();
/// let query: Vec<(String, u32)> = request.query()?;
/// assert_eq!(query, [("page".to_owned(), 2)]);
/// assert_eq!(request.cookie("theme").unwrap().value(), "dark");
/// assert_eq!(request.link("/cards/7"), "/t/test/fn/cards/7");
/// # Ok::<(), dormouse_sdk::RequestError>(())
/// ```
pub trait RequestExt: Sized {
    /// The request's id, under which its events stand in the node's log; empty under a host that gives none.
    ///
    /// ```
    /// # use dormouse_sdk::testing::TestRequest;
    /// # use dormouse_sdk::{Request, RequestExt};
    /// let request: Request = TestRequest::get("/").header("x-request-id", "0190f5f2").into();
    /// assert_eq!(request.id(), "0190f5f2");
    /// ```
    fn id(&self) -> &str;

    /// A header's value, if there is one and it is text.
    ///
    /// ```
    /// # use dormouse_sdk::testing::TestRequest;
    /// # use dormouse_sdk::{Request, RequestExt};
    /// let request: Request = TestRequest::get("/").header("x-github-event", "push").into();
    /// assert_eq!(request.header("X-GitHub-Event"), Some("push"));
    /// ```
    fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str>;

    /// A parameter of the path, that [`Router`](crate::Router) found in the place of `{name}`.
    ///
    /// ```
    /// use dormouse_sdk::{Request, RequestExt, Result, Router};
    ///
    /// fn card(request: Request) -> Result<String> {
    ///     let id: u32 = request.param("id")?;
    ///     Ok(format!("card {id}"))
    /// }
    ///
    /// let router = Router::new().get("/cards/{id}", card);
    /// # use dormouse_sdk::testing::{Tenant, TestRequest};
    /// # let get = |path| Tenant::new().call(|request| router.handle(request), TestRequest::get(path));
    /// # assert_eq!(get("/cards/7").text(), "card 7");
    /// # assert_eq!(get("/cards/x").status(), 400);
    /// ```
    ///
    /// # Errors
    ///
    /// If the route has no such parameter, or it is not a `T`.
    fn param<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, RequestError>;

    /// All parameters of the path, as a struct or a map.
    ///
    /// ```
    /// use dormouse_sdk::{Request, RequestExt, Result, Router};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Day { year: u16, month: u8 }
    ///
    /// fn scans(request: Request) -> Result<String> {
    ///     let Day { year, month } = request.params()?;
    ///     Ok(format!("{year}/{month}"))
    /// }
    ///
    /// let router = Router::new().get("/scans/{year}/{month}", scans);
    /// # use dormouse_sdk::testing::{Tenant, TestRequest};
    /// # let get = |path| Tenant::new().call(|request| router.handle(request), TestRequest::get(path));
    /// # assert_eq!(get("/scans/2025/12").text(), "2025/12");
    /// ```
    ///
    /// # Errors
    ///
    /// If they are not a `T`.
    fn params<T: DeserializeOwned>(&self) -> Result<T, RequestError>;

    /// The query, as a struct, a map or a list of pairs. A field that is a `Vec` takes what is there several times.
    ///
    /// ```
    /// use dormouse_sdk::testing::TestRequest;
    /// use dormouse_sdk::{Request, RequestExt};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Filter { page: Option<u32>, #[serde(default)] tag: Vec<String> }
    ///
    /// let request: Request = TestRequest::get("/?tag=a&tag=b%20c").into();
    /// let Filter { page, tag } = request.query()?;
    /// assert_eq!((page, tag), (None, vec!["a".to_owned(), "b c".to_owned()]));
    /// # Ok::<(), dormouse_sdk::RequestError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it is not a `T`.
    fn query<T: DeserializeOwned>(&self) -> Result<T, RequestError>;

    /// The cookie of this name, if the caller sent one.
    ///
    /// ```
    /// # use dormouse_sdk::testing::TestRequest;
    /// # use dormouse_sdk::{Request, RequestExt};
    /// let request: Request = TestRequest::get("/").header("cookie", "a=1; b=2").into();
    /// assert_eq!(request.cookie("b").unwrap().value(), "2");
    /// assert!(request.cookie("c").is_none());
    /// ```
    fn cookie(&self, name: &str) -> Option<Cookie<'_>>;

    /// The token of an `Authorization: Bearer` header.
    ///
    /// ```
    /// # use dormouse_sdk::testing::TestRequest;
    /// # use dormouse_sdk::{Request, RequestExt};
    /// let request: Request = TestRequest::get("/").header("authorization", "Bearer s3cret").into();
    /// assert_eq!(request.bearer_token(), Some("s3cret"));
    /// ```
    fn bearer_token(&self) -> Option<&str>;

    /// Whether the caller prefers a page to JSON: its `Accept` header names `text/html`, as browsers' do.
    ///
    /// ```
    /// # use dormouse_sdk::testing::TestRequest;
    /// # use dormouse_sdk::{Request, RequestExt};
    /// let request: Request = TestRequest::get("/").header("accept", "text/html,*/*;q=0.8").into();
    /// assert!(request.wants_html());
    /// ```
    fn wants_html(&self) -> bool;

    /// Whether a page of another origin made a browser send this request. A function that trusts a cookie refuses to
    /// change anything for such a request; `SameSite` alone does not keep out what lies on a neighbouring host.
    ///
    /// It reads `Sec-Fetch-Site`, or else compares `Origin` with the host. What no browser sent is not of another origin.
    ///
    /// ```
    /// # use dormouse_sdk::testing::TestRequest;
    /// # use dormouse_sdk::{Request, RequestExt};
    /// let request: Request = TestRequest::post("/").header("sec-fetch-site", "same-site").into();
    /// assert!(request.is_cross_origin());
    /// let request: Request = TestRequest::post("/").header("origin", "http://localhost").into();
    /// assert!(!request.is_cross_origin());
    /// ```
    fn is_cross_origin(&self) -> bool;

    /// The path on this host of a path of this function: what links, forms and redirects need.
    ///
    /// ```
    /// # use dormouse_sdk::testing::TestRequest;
    /// # use dormouse_sdk::{Request, RequestExt};
    /// let request: Request = TestRequest::get("/").into();
    /// assert_eq!(request.link("/cards/7"), "/t/test/fn/cards/7");
    /// ```
    fn link(&self, path: &str) -> String;

    /// The whole address of a path of this function: what other places need, such as a mail or a QR code.
    ///
    /// ```
    /// # use dormouse_sdk::testing::TestRequest;
    /// # use dormouse_sdk::{Request, RequestExt};
    /// let request: Request = TestRequest::get("/").into();
    /// assert_eq!(request.url("/cards/7"), "http://localhost/t/test/fn/cards/7");
    /// ```
    fn url(&self, path: &str) -> String;

    /// The body as a form (`application/x-www-form-urlencoded`), of at most 1 MiB.
    ///
    /// ```
    /// use dormouse_sdk::{Request, RequestExt, Result};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Greeting { name: String }
    ///
    /// fn greet(request: Request) -> Result<String> {
    ///     let greeting: Greeting = request.form()?;
    ///     Ok(format!("Hello, {}", greeting.name))
    /// }
    ///
    /// # use dormouse_sdk::testing::{Tenant, TestRequest};
    /// let form = TestRequest::post("/").form(&[("name", "Ada & Bob")]);
    /// assert_eq!(Tenant::new().call(greet, form).text(), "Hello, Ada & Bob");
    /// ```
    ///
    /// # Errors
    ///
    /// If it is no form or not the form of a `T`, is too large, or does not arrive.
    fn form<T: DeserializeOwned>(self) -> Result<T, BodyError>
    where
        Self: Into<Request>;

    /// The body as a form with files (`multipart/form-data`). It is read as a whole; limit its size first with
    /// [`Body::limit`](crate::Body::limit) if 10 MiB, the usual limit of a server, is too much.
    ///
    /// ```
    /// use dormouse_sdk::{Request, RequestExt, Result};
    ///
    /// fn upload(request: Request) -> Result<String> {
    ///     let form = request.map(|body| body.limit(100_000)).multipart()?;
    ///     let portrait = form.field("portrait")?;
    ///     Ok(format!("{} bytes of {}", portrait.bytes().len(), portrait.content_type()))
    /// }
    ///
    /// # use dormouse_sdk::testing::{Tenant, TestRequest};
    /// let body = "--x\r\nContent-Disposition: form-data; name=\"portrait\"; filename=\"a.png\"\r\n\
    ///     Content-Type: image/png\r\n\r\nPNG\r\n--x--\r\n";
    /// let form = TestRequest::post("/").header("content-type", "multipart/form-data; boundary=x").body(body);
    /// assert_eq!(Tenant::new().call(upload, form).text(), "3 bytes of image/png");
    /// ```
    ///
    /// # Errors
    ///
    /// If it is no such form, is too large, or does not arrive.
    fn multipart(self) -> Result<Multipart, BodyError>
    where
        Self: Into<Request>;
}

impl<B> RequestExt for http::Request<B> {
    fn id(&self) -> &str {
        self.header(REQUEST_ID).unwrap_or_default()
    }

    fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    fn param<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, RequestError> {
        let found = self.extensions().get().and_then(|params: &PathParams| params.get(name));
        let text = found.ok_or_else(|| RequestError::Path(format!("the route has no parameter `{name}`")))?;
        text.parse().map_err(|error| RequestError::Path(format!("`{name}`: {error}")))
    }

    fn params<T: DeserializeOwned>(&self) -> Result<T, RequestError> {
        let form = self.extensions().get().map(PathParams::to_form).unwrap_or_default();
        form::read(form.as_bytes()).map_err(RequestError::Path)
    }

    fn query<T: DeserializeOwned>(&self) -> Result<T, RequestError> {
        form::read(self.uri().query().unwrap_or_default().as_bytes()).map_err(RequestError::Query)
    }

    fn cookie(&self, name: &str) -> Option<Cookie<'_>> {
        let headers = self.headers().get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
        headers.flat_map(|header| header.split(';')).find_map(|pair| {
            let (found, value) = pair.split_once('=')?;
            (found.trim() == name).then(|| Cookie::new(found.trim(), value.trim()))
        })
    }

    fn bearer_token(&self) -> Option<&str> {
        let (scheme, token) = self.header(AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    fn wants_html(&self) -> bool {
        self.header(ACCEPT).is_some_and(|types| types.contains("text/html"))
    }

    fn is_cross_origin(&self) -> bool {
        match (self.header("sec-fetch-site"), self.header(ORIGIN)) {
            (Some(site), _) => !matches!(site, "same-origin" | "none"),
            (None, Some(origin)) => {
                let host = origin.split_once("://").map(|(_, host)| host);
                host.is_none() || host != self.header(HOST)
            }
            (None, None) => false,
        }
    }

    fn link(&self, path: &str) -> String {
        let base = self.header(BASE_PATH).unwrap_or_default();
        format!("{}{path}", base.trim_end_matches('/'))
    }

    fn url(&self, path: &str) -> String {
        let full = self.header(FULL_URL).unwrap_or_default();
        let host = full.find("://").map_or(0, |at| at + 3);
        let end = full.get(host..).and_then(|rest| rest.find('/')).map_or(full.len(), |at| host + at);
        format!("{}{}", full.get(..end).unwrap_or_default(), self.link(path))
    }

    fn form<T: DeserializeOwned>(self) -> Result<T, BodyError>
    where
        Self: Into<Request>,
    {
        form::check_type(self.header(CONTENT_TYPE), form::URLENCODED)?;
        let bytes = self.into().into_body().limit(form::FORM_BYTES_MAX).bytes()?;
        form::read(&bytes).map_err(BodyError::NotForm)
    }

    fn multipart(self) -> Result<Multipart, BodyError>
    where
        Self: Into<Request>,
    {
        form::check_type(self.header(CONTENT_TYPE), form::MULTIPART)?;
        let content_type = self.header(CONTENT_TYPE).unwrap_or_default().to_owned();
        Multipart::parse(&content_type, self.into().into_body().bytes()?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::TestRequest;

    fn request(headers: &[(&'static str, &str)]) -> Request {
        let request = headers
            .iter()
            .fold(TestRequest::get("/a?x=1&y=a+b&x=2"), |request, (name, value)| request.header(name, value));
        request.into()
    }

    #[test]
    fn a_query_is_read_into_what_is_asked_for() {
        let pairs: Vec<(String, String)> = request(&[]).query().unwrap();
        assert_eq!(pairs.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["1", "a b", "2"]);
        let error = request(&[]).query::<BTreeMap<String, u8>>().unwrap_err();
        assert!(matches!(error, RequestError::Query(_)), "{error}");
        assert!(Request::default().query::<BTreeMap<String, String>>().unwrap().is_empty());
    }

    #[test]
    fn cookies_come_from_every_header() {
        let request = request(&[("cookie", "a=1;b = 2"), ("cookie", "c=3; d"), ("cookie", "e=x=y")]);
        let value = |name| request.cookie(name).map(|cookie| cookie.value().to_owned());
        assert_eq!([value("a"), value("b"), value("c")].map(Option::unwrap), ["1", "2", "3"]);
        assert_eq!(value("d"), None);
        assert_eq!(value("e").unwrap(), "x=y");
    }

    #[test]
    fn tokens_and_types_are_read_as_written_by_anyone() {
        assert_eq!(request(&[("authorization", "bearer  a.b ")]).bearer_token(), Some("a.b"));
        assert_eq!(request(&[("authorization", "Basic YTpi")]).bearer_token(), None);
        assert!(request(&[("accept", "text/html")]).wants_html());
        assert!(!request(&[("accept", "application/json")]).wants_html());
        let form = request(&[("content-type", "Application/X-WWW-Form-Urlencoded; charset=UTF-8")]);
        assert!(form.form::<BTreeMap<String, String>>().is_ok());
        assert_eq!(request(&[]).form::<BTreeMap<String, String>>().unwrap_err().status(), 415);
    }

    #[test]
    fn other_origins_are_seen() {
        let crosses = |headers: &[(&'static str, &str)]| request(headers).is_cross_origin();
        assert!(!crosses(&[]));
        assert!(!crosses(&[("sec-fetch-site", "none")]));
        assert!(!crosses(&[("sec-fetch-site", "same-origin"), ("origin", "https://localhost")]));
        assert!(crosses(&[("sec-fetch-site", "cross-site"), ("origin", "http://localhost")]));
        assert!(crosses(&[("origin", "null")]));
        assert!(crosses(&[("origin", "http://localhost.example")]));
    }

    #[test]
    fn links_start_with_the_base() {
        let full = |base, url| request(&[(BASE_PATH, base), (FULL_URL, url)]);
        assert_eq!(full("/t/a/fn", "https://h:8080/t/a/fn/x?y=/z").url("/c"), "https://h:8080/t/a/fn/c");
        assert_eq!(full("/", "https://h").url("/c"), "https://h/c");
        assert_eq!(full("/", "https://h").link("/c"), "/c");
        assert_eq!(Request::default().url("/c"), "/c");
    }

    #[test]
    fn a_request_outside_of_a_router_has_no_parameters() {
        assert!(request(&[]).param::<String>("id").is_err());
        assert!(request(&[]).params::<BTreeMap<String, String>>().unwrap().is_empty());
    }
}
