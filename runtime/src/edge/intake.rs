//! Intake: what a request must be before anything else looks at it, and what of it a guest gets to see.

use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};
use hyper::body::{Body, Incoming};

use super::client::Client;
use super::hygiene;
use super::reply::Failure;
use crate::exceeded::{Exceeded, Limit};
use crate::limits;
use crate::request_id::{self, RequestId};
use crate::routing::Route;
use crate::telemetry::Metrics;

/// Refuses what other readers of the same bytes could take for something else: the connection then ends, so that what
/// follows is nobody's request.
pub(super) fn check_form<B>(request: &Request<B>) -> Result<(), Failure> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        (Some(_), _) => return Err(Failure::BadRequest("its body has another transfer coding than chunked")),
    }
    if *request.method() == Method::CONNECT {
        return Err(Failure::BadRequest("this is no proxy"));
    }
    check_host(request)
}

/// Refuses what is too large before any work is done for it.
pub(super) fn check(
    request: &Request<Incoming>,
    body_bytes_max: u64,
    metrics: &Metrics,
) -> Result<(), Failure> {
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > limits::HEADERS_MAX || bytes > limits::HEADER_BYTES_MAX {
        let (fields_max, bytes_max) = (limits::HEADERS_MAX, limits::HEADER_BYTES_MAX);
        return Err(Failure::HeadersTooLarge { fields_max, bytes_max });
    }
    let announced = request.body().size_hint().lower();
    if announced > body_bytes_max {
        let exceeded = Exceeded::new(Limit::RequestBytes, announced, body_bytes_max);
        metrics.exceeded(exceeded);
        return Err(Failure::Body(exceeded));
    }
    Ok(())
}

/// A request of HTTP/1.1 has one Host header, and it is an authority (RFC 9112, 3.2). One of HTTP/2 may have none, and
/// none that differs from its `:authority` (RFC 9113, 8.3.1).
fn check_host<B>(request: &Request<B>) -> Result<(), Failure> {
    let target = request.uri().authority();
    // A name before an `@` is no part of a host, and readers differ about it.
    if target.is_some_and(|target| target.as_str().contains('@')) {
        return Err(Failure::BadRequest("its target names a user"));
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if target.is_some() => Ok(()),
        (None, _) => Err(Failure::BadRequest("it has no Host header")),
        (Some(_), Some(_)) => Err(Failure::BadRequest("it has several Host headers")),
        (Some(host), None) => match Authority::try_from(host.as_bytes()) {
            Ok(host) if host.as_str().contains('@') => {
                Err(Failure::BadRequest("its Host header names a user"))
            }
            Ok(host)
                if request.version() == Version::HTTP_2 && target.is_some_and(|target| *target != host) =>
            {
                Err(Failure::BadRequest("its Host header is not its authority"))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::BadRequest("its Host header is malformed")),
        },
    }
}

/// Host and port that a request is for: those of an absolute target come before the Host header (RFC 9112, 3.2.2).
pub(super) fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let of_header = || Authority::try_from(headers.get(header::HOST)?.as_bytes()).ok();
    uri.authority().cloned().or_else(of_header)
}

/// Rewrites a request into what the guest sees: its own path, without what concerns others, with Spin's headers.
pub(super) fn rewrite(
    parts: &mut http::request::Parts,
    route: &Route<'_>,
    client: &Client,
    request_id: &RequestId,
) -> Result<(), Failure> {
    let authority = authority(&parts.uri, &parts.headers);
    let authority = authority.ok_or(Failure::BadRequest("it has no Host header"))?;
    let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let full_url = format!("{}://{authority}{path}", client.scheme);
    let headers = &mut parts.headers;
    hygiene::strip(headers);
    if parts.version == Version::HTTP_2 {
        hygiene::join_cookies(headers);
    }
    headers.reserve(8);
    let mut set = |name: &'static str, value: &str| {
        let value =
            HeaderValue::from_str(value).map_err(|_| Failure::BadRequest("its address is not ASCII"))?;
        headers.insert(HeaderName::from_static(name), value);
        Ok::<(), Failure>(())
    };
    set("spin-path-info", route.rest)?;
    set("spin-full-url", &full_url)?;
    set("spin-matched-route", &format!("{}/...", route.base))?;
    set("spin-base-path", if route.base.is_empty() { "/" } else { route.base })?;
    set("spin-component-route", "")?;
    set("spin-client-addr", &client.address.to_string())?;
    headers.insert(request_id::HEADER, request_id.header_value());
    parts.uri = guest_uri(client.scheme.clone(), authority, route.rest, parts.uri.query())?;
    Ok(())
}

fn guest_uri(scheme: Scheme, authority: Authority, rest: &str, query: Option<&str>) -> Result<Uri, Failure> {
    let path = if rest.is_empty() { "/" } else { rest };
    let path_and_query = match query {
        Some(query) => format!("{path}?{query}").parse(),
        None => path.parse(),
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    parts.path_and_query = Some(path_and_query.map_err(|_| Failure::BadRequest("its path is malformed"))?);
    Uri::from_parts(parts).map_err(|_| Failure::BadRequest("its address is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_sees_its_own_path() -> Result<(), Box<dyn std::error::Error>> {
        let uri = |rest, query| guest_uri(Scheme::HTTP, Authority::from_static("h:1"), rest, query);
        assert_eq!(uri("", Some("x=1"))?.to_string(), "http://h:1/?x=1");
        assert_eq!(uri("/b%2f", Some(""))?.to_string(), "http://h:1/b%2f?");
        assert_eq!(uri("//a", None)?.to_string(), "http://h:1//a");
        Ok(())
    }
}
