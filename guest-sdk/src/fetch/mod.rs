//! Outgoing requests.

#[cfg(feature = "async")]
pub(crate) mod asynchronous;

use crate::{Body, Request, Response, StatusCode, Uri, host};

/// Why an outgoing request got no response. With `?` it becomes a 502 for the caller; the log gets the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The request cannot be sent as it is.
    #[error("the outgoing request is not valid: {0}")]
    InvalidRequest(String),
    /// The node does not let this function reach that address.
    #[error(
        "this function may not send requests to {0}: name it in allowed_outbound_hosts of its dormouse.toml; an \
         address that is not public is the operator's to allow"
    )]
    Denied(String),
    /// The node lets one request send, have open, or say no more than that.
    #[error("the outgoing request is beyond a limit of the node: {0}")]
    LimitReached(&'static str),
    /// No connection, or no response, in time.
    #[error("the outgoing request got no response in time")]
    TimedOut,
    /// Anything else: the name does not resolve, the connection breaks, the response is malformed.
    #[error("the outgoing request failed: {0}")]
    Failed(String),
}

impl FetchError {
    /// The status that a caller gets.
    ///
    /// ```
    /// assert_eq!(dormouse_sdk::FetchError::TimedOut.status(), 504);
    /// ```
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::InvalidRequest(_) | Self::Denied(_) | Self::LimitReached(_) | Self::Failed(_) => {
                StatusCode::BAD_GATEWAY
            }
        }
    }
}

/// Sends a request and waits for the head of its response; the body is read as it arrives.
///
/// The address must be absolute, with `http` or `https`. Redirects are not followed. A function reaches the hosts that
/// its `dormouse.toml` names in `allowed_outbound_hosts`; for all others this is [`FetchError::Denied`].
///
/// ```
/// use dormouse_sdk::testing::{Tenant, TestRequest};
/// use dormouse_sdk::{Body, Result, Response, fetch, http};
///
/// fn rate() -> Result<String> {
///     let request = http::Request::get("https://rates.example/eur").body(())?;
///     Ok(fetch(request)?.into_body().text()?)
/// }
///
/// let tenant = Tenant::new().with_upstream(|request| format!("the rate at {}", request.uri()));
/// let response = tenant.call(rate, TestRequest::get("/"));
/// assert_eq!(response.text(), "the rate at https://rates.example/eur");
///
/// // Without anything that is allowed:
/// assert_eq!(Tenant::new().call(rate, TestRequest::get("/")).status(), 502);
/// ```
///
/// # Errors
///
/// If the request may not or cannot be sent, or no response comes.
pub fn fetch<B: Into<Body>>(request: http::Request<B>) -> Result<Response, FetchError> {
    let request: Request = request.map(Into::into);
    check(request.uri())?;
    host::send(request)
}

fn check(uri: &Uri) -> Result<(), FetchError> {
    if matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some() {
        return Ok(());
    }
    Err(FetchError::InvalidRequest(format!("{uri} is no absolute http or https address")))
}
