//! A small router: which handler answers which method and path.
//!
//! A request is served by a fresh instance, so a router is made for one request. It is a list that is looked through
//! once: making a tree of it would take longer than it could save.

#[cfg(feature = "async")]
pub(crate) mod asynchronous;
mod pattern;

use http::header::{ALLOW, HeaderValue};

pub(crate) use self::pattern::PathParams;
use crate::{Error, IntoResponse, Method, Request, Response, Result, StatusCode};

/// What answers a request: a function or closure that takes the [`Request`], or nothing, and returns anything that is
/// [`IntoResponse`].
///
/// ```
/// use dormouse_sdk::{Handler, Request};
///
/// fn takes_handlers<A>(_: impl Handler<A>) {}
///
/// takes_handlers(|| "nothing");
/// takes_handlers(|request: Request| request.uri().to_string());
/// ```
pub trait Handler<A> {
    /// The response to a request.
    fn call(&self, request: Request) -> Response;
}

impl<F: Fn() -> T, T: IntoResponse> Handler<()> for F {
    fn call(&self, _: Request) -> Response {
        self().into_response()
    }
}

impl<F: Fn(Request) -> T, T: IntoResponse> Handler<(Request,)> for F {
    fn call(&self, request: Request) -> Response {
        self(request).into_response()
    }
}

/// Chooses a handler by method and path.
///
/// The path is what follows the address of the function: `/t/acme/fn/cards` is `/cards`. In a pattern, `{name}` stands
/// for one segment and a last `{*name}` for all that is left; [`param`](crate::RequestExt::param) reads them. Of several
/// patterns that match, the most exact one counts, whatever their order. A path without a pattern is answered with 404,
/// a method that none of its routes has with 405 and `Allow`. `HEAD` is answered as `GET`.
///
/// ```
/// use dormouse_sdk::{Request, RequestExt, Response, Result, Router};
///
/// fn handle(request: Request) -> Response {
///     Router::new().get("/", || "the list").get("/cards/{id}", show).post("/cards", || "made").handle(request)
/// }
///
/// fn show(request: Request) -> Result<String> {
///     Ok(format!("card {}", request.param::<u32>("id")?))
/// }
///
/// # use dormouse_sdk::testing::{Tenant, TestRequest};
/// let tenant = Tenant::new();
/// assert_eq!(tenant.call(handle, TestRequest::get("/cards/7")).text(), "card 7");
/// assert_eq!(tenant.call(handle, TestRequest::get("/nowhere")).status(), 404);
/// let refused = tenant.call(handle, TestRequest::put("/cards"));
/// assert_eq!((refused.status(), refused.header("allow")), (405, Some("POST")));
/// ```
#[derive(Default)]
pub struct Router<'a>(Routes<Box<dyn Fn(Request) -> Response + 'a>>);

/// The routes of a router, and the handler for what none of them matches.
struct Routes<H> {
    routes: Vec<Route<H>>,
    fallback: Option<H>,
}

impl<H> Default for Routes<H> {
    fn default() -> Self {
        Self { routes: Vec::new(), fallback: None }
    }
}

struct Route<H> {
    /// Without one it answers every method.
    method: Option<Method>,
    pattern: &'static str,
    handler: H,
}

impl<H> Route<H> {
    fn answers(&self, method: &Method) -> bool {
        self.method
            .as_ref()
            .is_none_or(|own| own == method || (*method == Method::HEAD && *own == Method::GET))
    }
}

impl<'a> Router<'a> {
    /// A router without routes.
    ///
    /// ```
    /// use dormouse_sdk::Router;
    ///
    /// let router = Router::new().get("/", || "the only page");
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler for a method and a pattern.
    ///
    /// ```
    /// use dormouse_sdk::{Method, Router};
    ///
    /// let router = Router::new().route(Method::OPTIONS, "/{*path}", || "any origin may");
    /// ```
    #[must_use]
    pub fn route<A>(self, method: Method, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(method), pattern, handler)
    }

    /// Adds a handler for a pattern and every method that no other route of it has.
    ///
    /// ```
    /// use dormouse_sdk::{Request, Router};
    ///
    /// let router = Router::new().any("/{*path}", |request: Request| request.method().to_string());
    /// ```
    #[must_use]
    pub fn any<A>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(None, pattern, handler)
    }

    /// Adds a handler for `GET`, and for `HEAD`.
    ///
    /// ```
    /// let router = dormouse_sdk::Router::new().get("/cards", || "all of them");
    /// ```
    #[must_use]
    pub fn get<A>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(Method::GET), pattern, handler)
    }

    /// Adds a handler for `POST`.
    ///
    /// ```
    /// let router = dormouse_sdk::Router::new().post("/cards", || "made");
    /// ```
    #[must_use]
    pub fn post<A>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(Method::POST), pattern, handler)
    }

    /// Adds a handler for `PUT`.
    ///
    /// ```
    /// let router = dormouse_sdk::Router::new().put("/cards/{id}", || "replaced");
    /// ```
    #[must_use]
    pub fn put<A>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(Method::PUT), pattern, handler)
    }

    /// Adds a handler for `PATCH`.
    ///
    /// ```
    /// let router = dormouse_sdk::Router::new().patch("/cards/{id}", || "changed");
    /// ```
    #[must_use]
    pub fn patch<A>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(Method::PATCH), pattern, handler)
    }

    /// Adds a handler for `DELETE`.
    ///
    /// ```
    /// let router = dormouse_sdk::Router::new().delete("/cards/{id}", || ());
    /// ```
    #[must_use]
    pub fn delete<A>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(Method::DELETE), pattern, handler)
    }

    /// Answers what no pattern matches, in place of the usual 404.
    ///
    /// ```
    /// use dormouse_sdk::{Html, Router, StatusCode};
    ///
    /// let router = Router::new().fallback(|| (StatusCode::NOT_FOUND, Html("<h1>Nothing here")));
    /// ```
    #[must_use]
    pub fn fallback<A>(mut self, handler: impl Handler<A> + 'a) -> Self {
        self.0.fallback = Some(Box::new(move |request| handler.call(request)));
        self
    }

    fn with<A>(
        mut self,
        method: Option<Method>,
        pattern: &'static str,
        handler: impl Handler<A> + 'a,
    ) -> Self {
        let handler = Box::new(move |request| handler.call(request));
        self.0.routes.push(Route { method, pattern, handler });
        self
    }

    /// Answers a request.
    ///
    /// ```
    /// use dormouse_sdk::{Request, Response, Router};
    ///
    /// fn handle(request: Request) -> Response {
    ///     Router::new().get("/", || "hello").handle(request)
    /// }
    /// # use dormouse_sdk::testing::{Tenant, TestRequest};
    /// # assert_eq!(Tenant::new().call(handle, TestRequest::get("/")).text(), "hello");
    /// ```
    pub fn handle(&self, mut request: Request) -> Response {
        match self.0.choose(&mut request) {
            Ok(handler) => handler(request),
            Err(refusal) => refusal.into_response(),
        }
    }
}

impl<H> Routes<H> {
    /// The handler for a request, which is given the parameters of its path.
    fn choose<B>(&self, request: &mut http::Request<B>) -> Result<&H> {
        let path = request.uri().path();
        let matching =
            self.routes.iter().filter_map(|route| Some((route, pattern::matches(route.pattern, path)?)));
        let mut best: Option<(&Route<H>, PathParams)> = None;
        let mut refusing: Vec<&Route<H>> = Vec::new();
        for (route, params) in matching {
            if !route.answers(request.method()) {
                refusing.push(route);
            } else if best.as_ref().is_none_or(|(other, _)| is_better(route, other)) {
                best = Some((route, params));
            }
        }
        match (best, &self.fallback) {
            (Some((route, params)), _) => {
                if !params.is_empty() {
                    request.extensions_mut().insert(params);
                }
                Ok(&route.handler)
            }
            (None, _) if !refusing.is_empty() => Err(not_allowed(&refusing)),
            (None, Some(fallback)) => Ok(fallback),
            (None, None) => Err(Error::status(StatusCode::NOT_FOUND, "There is nothing at this address.")),
        }
    }
}

/// Whether a route is to be preferred: its pattern is more exact, or as exact and its method is named.
fn is_better<H>(route: &Route<H>, other: &Route<H>) -> bool {
    let by_pattern = pattern::compare(route.pattern, other.pattern);
    by_pattern.then(other.method.is_some().cmp(&route.method.is_some())).is_lt()
}

fn not_allowed<H>(routes: &[&Route<H>]) -> Error {
    let mut methods: Vec<&str> = Vec::new();
    for method in routes.iter().filter_map(|route| route.method.as_ref()) {
        let also = (*method == Method::GET).then_some("HEAD");
        for name in [method.as_str()].into_iter().chain(also) {
            if !methods.contains(&name) {
                methods.push(name);
            }
        }
    }
    let allow = methods.join(", ");
    let error = Error::status(StatusCode::METHOD_NOT_ALLOWED, format!("This address takes {allow}."));
    match HeaderValue::try_from(allow) {
        Ok(allow) => error.with_header(ALLOW, allow),
        Err(_) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestExt as _;
    use crate::testing::{Tenant, TestRequest, TestResponse};

    fn answer(router: &Router<'_>, request: TestRequest) -> TestResponse {
        Tenant::new().call(|request: Request| router.handle(request), request)
    }

    #[test]
    fn the_most_exact_pattern_wins_whatever_the_order() {
        let router = Router::new()
            .get("/{*rest}", || "rest")
            .get("/cards/{id}", || "one")
            .get("/cards/new", || "new")
            .any("/cards/{id}", || "any");
        let text = |path| answer(&router, TestRequest::get(path)).text().to_owned();
        assert_eq!(text("/cards/new"), "new");
        assert_eq!(text("/cards/7?x=/"), "one");
        assert_eq!(text("/cards/7/8"), "rest");
        assert_eq!(text("/"), "rest");
        assert_eq!(answer(&router, TestRequest::put("/cards/7")).text(), "any");
    }

    #[test]
    fn handlers_may_borrow_and_read_parameters() {
        let greeting = String::from("Hello");
        let router = Router::new().get("/{name}", |request: Request| {
            request.param::<String>("name").map(|name| format!("{greeting}, {name}"))
        });
        assert_eq!(answer(&router, TestRequest::get("/Ada%20L")).text(), "Hello, Ada L");
    }

    #[test]
    fn other_methods_and_paths_are_refused() {
        let router = Router::new().get("/a", || "get").post("/a", || "post").get("/{b}", || "b");
        assert_eq!(answer(&router, TestRequest::new(Method::HEAD, "/a")).status(), 200);
        let refused = answer(&router, TestRequest::delete("/a"));
        assert_eq!((refused.status(), refused.header("allow")), (405, Some("GET, HEAD, POST")));
        let missing = answer(&router, TestRequest::get("/a/b"));
        assert_eq!(
            (missing.status(), missing.header("content-type")),
            (404, Some("application/problem+json"))
        );
        let router = router.fallback(|request: Request| (StatusCode::GONE, request.uri().path().to_owned()));
        assert_eq!(answer(&router, TestRequest::get("/a/b")).text(), "/a/b");
        assert_eq!(answer(&router, TestRequest::delete("/a")).status(), 405);
    }
}
