//! Replies: the only table that turns a failure into a status, and the body of every response.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::admission::{OverRate, Refused};
use crate::catalog::CatalogError;
use crate::control::ResolveError;
use crate::exceeded::{Exceeded, Limit};
use crate::memory::{Exhausted, NODE_MEMORY};
use crate::problem::ProblemType;
use crate::request_id::{self, RequestId};
use crate::routing::NoRoute;
use crate::sandbox::{GuestBody, GuestFailure, Interrupted};

/// Why a request got no response of its function.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    NoRoute(#[from] NoRoute),
    #[error("the request is malformed: {0}")]
    BadRequest(&'static str),
    #[error("the request has more than {fields_max} header fields or {bytes_max} bytes of them")]
    HeadersTooLarge { fields_max: usize, bytes_max: usize },
    #[error("the body of the request: {0}")]
    Body(Exceeded),
    #[error("a service worker needs an origin of its own: fetch its script from the tenant's host")]
    ServiceWorker,
    #[error("the client has too many requests in flight")]
    ClientBusy,
    #[error("the function answered with an interim status")]
    Interim,
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the node is shutting down")]
    Draining,
    #[error(transparent)]
    NodeMemory(#[from] Exhausted),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Guest(#[from] GuestFailure),
}

const fn problem(status: StatusCode, slug: &'static str, title: &'static str) -> ProblemType {
    ProblemType::new(status, slug, title)
}

/// A guest that has not answered.
const NO_RESPONSE: ProblemType =
    ProblemType::new(StatusCode::BAD_GATEWAY, "no-response", "The function gave no response");

impl Failure {
    /// The table. Every way to fail has its own problem type.
    pub(super) fn problem(&self) -> ProblemType {
        use StatusCode as S;
        match self {
            Self::NoRoute(_) => problem(S::NOT_FOUND, "no-route", "No function has this address"),
            Self::BadRequest(_) => problem(S::BAD_REQUEST, "bad-request", "Malformed request"),
            Self::HeadersTooLarge { .. } => {
                problem(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", "Header fields too large")
            }
            Self::Body(exceeded) => limit_problem(exceeded.limit),
            Self::ServiceWorker => problem(S::FORBIDDEN, "no-service-worker", "No service workers here"),
            Self::ClientBusy => {
                problem(S::TOO_MANY_REQUESTS, "client-busy", "Too many requests at once from one address")
                    .retry_after(1)
            }
            Self::Interim => NO_RESPONSE,
            Self::Resolve(ResolveError::NoTenant) => {
                problem(S::NOT_FOUND, "unknown-tenant", "No such tenant")
            }
            Self::Resolve(ResolveError::NoFunction) => {
                problem(S::NOT_FOUND, "unknown-function", "The tenant has no such function")
            }
            Self::Refused(Refused::NodeBusy) => {
                problem(S::SERVICE_UNAVAILABLE, "node-busy", "The node is busy").retry_after(1)
            }
            Self::Refused(Refused::TenantBusy) => {
                problem(S::SERVICE_UNAVAILABLE, "tenant-busy", "The tenant is busy").retry_after(1)
            }
            Self::Refused(Refused::OverRate(over)) => {
                problem(S::TOO_MANY_REQUESTS, "rate-limited", "The tenant has too many requests")
                    .retry_after(seconds(over.wait))
            }
            Self::Draining => {
                problem(S::SERVICE_UNAVAILABLE, "draining", "The node is shutting down").retry_after(5)
            }
            Self::NodeMemory(_) | Self::Catalog(CatalogError::NodeMemory(_)) => NODE_MEMORY,
            Self::Guest(failure) => guest_problem(failure),
            Self::Resolve(ResolveError::Store(_)) | Self::Catalog(_) => {
                problem(S::INTERNAL_SERVER_ERROR, "internal", "The node failed")
            }
        }
    }

    /// What the caller may know beyond the title.
    fn detail(&self) -> Option<String> {
        match self {
            Self::NoRoute(_) | Self::BadRequest(_) | Self::HeadersTooLarge { .. } | Self::ServiceWorker => {
                Some(self.to_string())
            }
            Self::Body(Exceeded { limit: Limit::RequestRate, allowed, .. }) => Some(format!(
                "it was slower than body_bytes_per_second_min, which is {allowed}, or stopped for body_wait_max_ms"
            )),
            Self::Body(exceeded) | Self::Guest(GuestFailure::Limit(exceeded)) => {
                Some(format!("its {} is {}", exceeded.limit.name(), exceeded.allowed))
            }
            Self::Refused(Refused::OverRate(over)) => {
                Some(format!("its tenant_requests_per_second_max is {}", over.rate.per_second))
            }
            Self::ClientBusy
            | Self::Interim
            | Self::Resolve(_)
            | Self::Refused(Refused::NodeBusy | Refused::TenantBusy)
            | Self::Draining
            | Self::NodeMemory(_)
            | Self::Catalog(_)
            | Self::Guest(_) => None,
        }
    }

    /// Whether the cause is the node's, so that the operator must hear of it.
    pub(super) fn is_internal(&self) -> bool {
        self.problem().status == StatusCode::INTERNAL_SERVER_ERROR
    }

    pub(super) fn into_response(self, request_id: &RequestId) -> http::Response<ReplyBody> {
        let mut response = self.problem().response(self.detail().as_deref(), request_id.as_str());
        if let Self::Refused(Refused::OverRate(over)) = self {
            tell_rate(response.headers_mut(), over);
        }
        if matches!(self, Self::BadRequest(_) | Self::HeadersTooLarge { .. }) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        with_request_id(response.map(|text| ReplyBody::Text(Full::from(text))), request_id)
    }
}

/// The fields of draft-ietf-httpapi-ratelimit-headers-10. Only a refusal has them: every other response is the
/// function's, which may have limits of its own to tell of.
fn tell_rate(headers: &mut HeaderMap, OverRate { rate, wait }: OverRate) {
    let policy = format!("\"tenant\";q={};w={}", rate.burst, seconds(rate.window()));
    let left = format!("\"tenant\";r=0;t={}", seconds(wait));
    for (name, value) in [("ratelimit-policy", policy), ("ratelimit", left)] {
        // Digits and quotes are what a header value may hold.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Whole seconds, never too few.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
}

fn guest_problem(failure: &GuestFailure) -> ProblemType {
    use StatusCode as S;
    match failure {
        GuestFailure::Limit(exceeded) => limit_problem(exceeded.limit),
        GuestFailure::NodeMemory(_) => NODE_MEMORY,
        GuestFailure::Trap(_) => problem(S::BAD_GATEWAY, "guest-trap", "The function failed"),
        GuestFailure::NoResponse => NO_RESPONSE,
        GuestFailure::ErrorCode(_) => {
            problem(S::BAD_GATEWAY, "guest-error", "The function answered with an error")
        }
        GuestFailure::PoolExhausted(_) => {
            problem(S::SERVICE_UNAVAILABLE, "node-busy", "The node is busy").retry_after(1)
        }
    }
}

/// Each limit has a problem type of its own. For the last ones it is seldom seen: what was dropped of a log ends no
/// request, and a client that takes its response too slowly has the head of it.
fn limit_problem(limit: Limit) -> ProblemType {
    use StatusCode as S;
    match limit {
        Limit::WallTime => problem(S::GATEWAY_TIMEOUT, "wall-time-limit", "The function took too long"),
        Limit::CpuTime => problem(S::BAD_GATEWAY, "cpu-time-limit", "The function used too much CPU time"),
        Limit::Memory => problem(S::BAD_GATEWAY, "memory-limit", "The function used too much memory"),
        Limit::TableElements => problem(S::BAD_GATEWAY, "table-limit", "The function's tables are too large"),
        Limit::CoreInstances => {
            problem(S::BAD_GATEWAY, "instance-limit", "The component is made of too many instances")
        }
        Limit::Stack => problem(S::BAD_GATEWAY, "stack-limit", "The function's calls are nested too deeply"),
        Limit::Handles => problem(S::BAD_GATEWAY, "handle-limit", "The function holds too many resources"),
        Limit::HostCall => {
            problem(S::BAD_GATEWAY, "hostcall-limit", "The function gave the node too much at once")
        }
        Limit::FieldBytes => {
            problem(S::BAD_GATEWAY, "fields-limit", "The function's header fields are too large")
        }
        Limit::RandomBytes => {
            problem(S::BAD_GATEWAY, "random-limit", "The function asked for too many random bytes")
        }
        Limit::ResponseBytes => {
            problem(S::BAD_GATEWAY, "response-too-large", "The function's response is too large")
        }
        Limit::RequestBytes => problem(S::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large"),
        Limit::RequestRate => problem(S::REQUEST_TIMEOUT, "body-too-slow", "Body too slow"),
        Limit::ResponseRate => {
            problem(S::REQUEST_TIMEOUT, "client-too-slow", "The client took the response too slowly")
        }
        Limit::DatabaseBytes => {
            problem(S::INSUFFICIENT_STORAGE, "database-full", "The function's database is full")
        }
        Limit::Log => problem(S::BAD_GATEWAY, "log-limit", "The function logged too much"),
    }
}

/// The response of a guest, as it goes out: nothing that a proxy could read as a longer answer, or as no answer yet.
///
/// # Errors
/// When the guest has answered with a status that no response ends with, such as 101.
pub(super) fn from_guest(
    mut response: http::Response<GuestBody>,
    request_id: &RequestId,
) -> Result<http::Response<ReplyBody>, Failure> {
    let length = match response.status() {
        status if status.is_informational() => return Err(Failure::Interim),
        // These have no body (RFC 9110, 6.4.1), so that nobody asks for its end.
        StatusCode::NO_CONTENT => {
            // It must not have a length either (RFC 9110, 8.6).
            response.headers_mut().remove(CONTENT_LENGTH);
            Some(0)
        }
        StatusCode::NOT_MODIFIED => Some(0),
        _ => {
            let length = response.headers().get(CONTENT_LENGTH);
            length.and_then(|value| value.to_str().ok()?.parse().ok())
        }
    };
    response.body_mut().expect_length(length);
    Ok(with_request_id(response.map(ReplyBody::Guest), request_id))
}

fn with_request_id(
    mut response: http::Response<ReplyBody>,
    request_id: &RequestId,
) -> http::Response<ReplyBody> {
    response.headers_mut().insert(request_id::HEADER, request_id.header_value());
    response
}

/// The body of a reply.
pub enum ReplyBody {
    /// A guest's.
    Guest(GuestBody),
    /// The node's own.
    Text(Full<Bytes>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        match self.get_mut() {
            Self::Guest(body) => Pin::new(body).poll_frame(context),
            Self::Text(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Guest(body) => body.is_end_stream(),
            Self::Text(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Guest(body) => body.size_hint(),
            Self::Text(body) => body.size_hint(),
        }
    }
}
