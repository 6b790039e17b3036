//! The router of async handlers.

use std::pin::Pin;
use std::rc::Rc;

use super::{Route, Routes};
use crate::asynchronous::Request;
use crate::{IntoResponse, Method, Response};

/// What answers a request in its own time: an async function or closure that takes the [`Request`], or nothing, and
/// returns anything that is [`IntoResponse`].
///
/// ```
/// use dormouse_sdk::asynchronous::{Handler, Request};
///
/// fn takes_handlers<A>(_: impl Handler<A>) {}
///
/// takes_handlers(async || "nothing");
/// takes_handlers(async |request: Request| request.uri().to_string());
/// ```
pub trait Handler<A> {
    /// The response to a request.
    fn call(&self, request: Request) -> impl Future<Output = Response>;
}

impl<F: AsyncFn() -> T, T: IntoResponse> Handler<()> for F {
    async fn call(&self, _: Request) -> Response {
        self().await.into_response()
    }
}

impl<F: AsyncFn(Request) -> T, T: IntoResponse> Handler<(Request,)> for F {
    async fn call(&self, request: Request) -> Response {
        self(request).await.into_response()
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = Response> + 'a>>;

/// Chooses an async handler by method and path, as [`Router`](crate::Router) does for others.
///
/// ```
/// use dormouse_sdk::asynchronous::{Request, Router};
/// use dormouse_sdk::{RequestExt, Response, Result};
///
/// async fn handle(request: Request) -> Response {
///     Router::new().get("/", async || "the list").get("/cards/{id}", show).post("/cards", make).handle(request).await
/// }
///
/// async fn show(request: Request) -> Result<String> {
///     Ok(format!("card {}", request.param::<u32>("id")?))
/// }
///
/// async fn make(request: Request) -> Result<String> {
///     Ok(format!("made of {}", request.into_body().text().await?))
/// }
///
/// # use dormouse_sdk::testing::{Tenant, TestRequest};
/// let tenant = Tenant::new();
/// assert_eq!(tenant.call_async(handle, TestRequest::get("/cards/7")).text(), "card 7");
/// assert_eq!(tenant.call_async(handle, TestRequest::post("/cards").body("paper")).text(), "made of paper");
/// assert_eq!(tenant.call_async(handle, TestRequest::put("/cards")).status(), 405);
/// ```
#[derive(Default)]
pub struct Router<'a>(Routes<Box<dyn Fn(Request) -> Answer<'a> + 'a>>);

impl<'a> Router<'a> {
    /// A router without routes. [`Router`] has an example of this and the other methods.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler for a method and a pattern.
    #[must_use]
    pub fn route<A: 'a>(self, method: Method, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(method), pattern, handler)
    }

    /// Adds a handler for a pattern and every method that no other route of it has.
    #[must_use]
    pub fn any<A: 'a>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(None, pattern, handler)
    }

    /// Adds a handler for `GET`, and for `HEAD`.
    #[must_use]
    pub fn get<A: 'a>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(Method::GET), pattern, handler)
    }

    /// Adds a handler for `POST`.
    #[must_use]
    pub fn post<A: 'a>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(Method::POST), pattern, handler)
    }

    /// Adds a handler for `PUT`.
    #[must_use]
    pub fn put<A: 'a>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(Method::PUT), pattern, handler)
    }

    /// Adds a handler for `PATCH`.
    #[must_use]
    pub fn patch<A: 'a>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(Method::PATCH), pattern, handler)
    }

    /// Adds a handler for `DELETE`.
    #[must_use]
    pub fn delete<A: 'a>(self, pattern: &'static str, handler: impl Handler<A> + 'a) -> Self {
        self.with(Some(Method::DELETE), pattern, handler)
    }

    /// Answers what no pattern matches, in place of the usual 404.
    #[must_use]
    pub fn fallback<A: 'a>(mut self, handler: impl Handler<A> + 'a) -> Self {
        self.0.fallback = Some(boxed(handler));
        self
    }

    fn with<A: 'a>(
        mut self,
        method: Option<Method>,
        pattern: &'static str,
        handler: impl Handler<A> + 'a,
    ) -> Self {
        self.0.routes.push(Route { method, pattern, handler: boxed(handler) });
        self
    }

    /// Answers a request.
    pub async fn handle(&self, mut request: Request) -> Response {
        match self.0.choose(&mut request) {
            Ok(handler) => handler(request).await,
            Err(refusal) => refusal.into_response(),
        }
    }
}

fn boxed<'a, A: 'a>(handler: impl Handler<A> + 'a) -> Box<dyn Fn(Request) -> Answer<'a> + 'a> {
    let handler = Rc::new(handler);
    Box::new(move |request| {
        let handler = Rc::clone(&handler);
        Box::pin(async move { handler.call(request).await })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestExt as _;
    use crate::testing::{Tenant, TestRequest};

    #[test]
    fn handlers_may_borrow_and_read_parameters() {
        let greeting = String::from("Hello");
        let router = Router::new()
            .get("/{name}", async |request: Request| {
                request.param::<String>("name").map(|name| format!("{greeting}, {name}"))
            })
            .fallback(async || "nothing");
        let answer = |path| {
            let request = TestRequest::get(path);
            Tenant::new().call_async(async |request| router.handle(request).await, request).text().to_owned()
        };
        assert_eq!(answer("/Ada%20L"), "Hello, Ada L");
        assert_eq!(answer("/a/b"), "nothing");
    }
}
