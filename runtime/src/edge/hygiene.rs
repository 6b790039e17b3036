//! Header hygiene: which fields of a request reach its guest, before the body and behind it.
//!
//! What concerns one connection ends here, and what only the node may say is not taken from a client. Names are compared
//! as programs do that read `_` as `-`, so that `spin_client_addr` is nobody's either.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{CONNECTION, COOKIE, HeaderName, HeaderValue};

/// Headers that concern one connection only (RFC 9110, 7.6.1).
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Headers in which proxies speak of the client. They are the node's to set.
const FORWARDING: &[&str] = &[
    "forwarded",
    "x-client-ip",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "fly-client-ip",
    "cf-connecting-ip",
    "true-client-ip",
];

/// What says whom a message is for, who sends it, or how its body is to be read: of no use behind the body, and of harm
/// to a guest that takes trailers for headers (RFC 9110, 6.5.1).
const NOT_IN_TRAILERS: &[&str] = &[
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "max-forwards",
    "x-request-id",
];

/// Removes what the guest must not see, or not from its client.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named_by_connection = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok());
    let reserved = headers.keys().filter(|name| is_reserved(name.as_str())).cloned();
    let names: Vec<HeaderName> = named_by_connection.chain(reserved).collect();
    remove(headers, names);
}

/// The same for the fields behind a body.
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    let is_unwanted = |name: &&HeaderName| {
        is_reserved(name.as_str()) || NOT_IN_TRAILERS.contains(&hyphenated(name.as_str()).as_ref())
    };
    let names = trailers.keys().filter(is_unwanted).cloned().collect();
    remove(trailers, names);
}

/// Makes one field of the cookies that HTTP/2 may send as several (RFC 9113, 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(b"; ".as_slice())) {
        headers.insert(COOKIE, joined);
    }
}

fn is_reserved(name: &str) -> bool {
    let name = hyphenated(name);
    name.starts_with("spin-") || HOP_BY_HOP.contains(&name.as_ref()) || FORWARDING.contains(&name.as_ref())
}

fn hyphenated(name: &str) -> Cow<'_, str> {
    if name.contains('_') { name.replace('_', "-").into() } else { name.into() }
}

fn remove(headers: &mut HeaderMap, names: Vec<HeaderName>) {
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn what_concerns_others_is_stripped() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.1"),
            ("spin-path-info", "/forged"),
            ("spin_path-info", "/forged"),
            ("accept", "*/*"),
            ("snake_case", "1"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(left(&headers), ["accept", "snake_case"]);
    }

    #[test]
    fn trailers_say_nothing_of_their_message() {
        let mut trailers = HeaderMap::new();
        for name in
            ["host", "content-length", "transfer-encoding", "spin-client-addr", "cookie", "x-checksum"]
        {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        strip_trailers(&mut trailers);
        assert_eq!(left(&trailers), ["x-checksum"]);
    }

    #[test]
    fn cookies_become_one_field() {
        let mut headers = HeaderMap::new();
        for value in ["a=1", "b=2"] {
            headers.append(COOKIE, HeaderValue::from_static(value));
        }
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
