//! Outgoing requests that others need not wait for.

use crate::asynchronous::Body;
use crate::{FetchError, host};

/// Sends a request and waits for the head of its response; both bodies go on as they are written and read.
///
/// It is [`fetch`](crate::fetch) for async handlers. A response can be returned as it is, and is then passed on.
///
/// ```
/// use dormouse_sdk::asynchronous::{Body, Request, fetch};
/// use dormouse_sdk::{FetchError, http};
///
/// async fn forward(request: Request) -> Result<http::Response<Body>, FetchError> {
///     let (mut head, body) = request.into_parts();
///     head.uri = http::Uri::from_static("https://orders.example/new");
///     fetch(http::Request::from_parts(head, body)).await
/// }
///
/// # use dormouse_sdk::testing::{Tenant, TestRequest};
/// let tenant = Tenant::new().with_upstream(|request: dormouse_sdk::Request| format!("to {}", request.uri()));
/// let response = tenant.call_async(forward, TestRequest::post("/").body("cheese"));
/// assert_eq!(response.text(), "to https://orders.example/new");
/// ```
///
/// # Errors
///
/// If the request may not or cannot be sent, or no response comes.
pub async fn fetch<B: Into<Body>>(request: http::Request<B>) -> Result<http::Response<Body>, FetchError> {
    let request = request.map(Into::into);
    super::check(request.uri())?;
    host::asynchronous::send(request).await
}
