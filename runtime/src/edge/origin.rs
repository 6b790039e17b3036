//! The browser-origin rules: what a guest may say to a browser beyond its own page.
//!
//! Browsers keep cookies, storage, service workers and credentials for an origin, not for a path. On path addresses all
//! tenants share one, so there a response loses what would speak for the whole of it, and what a browser might run as a
//! page is sandboxed: a page of a tenant is then of no origin at all. On a host of its own a tenant may say what it
//! likes, but for cookies of other hosts.

use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, SET_COOKIE, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::uri::Scheme;
use http::{HeaderMap, Request};

use super::cookie::{self, Reach};
use super::reply::Failure;
use crate::routing::{Origin, Route};

/// Response fields that a browser obeys for the whole origin, or the whole host.
const ORIGIN_WIDE: &[&str] = &[
    "accept-ch",
    "alt-svc",
    "clear-site-data",
    "expect-ct",
    "nel",
    "origin-agent-cluster",
    "public-key-pins",
    "public-key-pins-report-only",
    "report-to",
    "service-worker-allowed",
    "set-login",
    "strict-transport-security",
    "use-as-dictionary",
];

/// Authentication that browsers answer by themselves, with credentials that they remember for the origin and the realm:
/// one tenant could name the realm of another.
const REMEMBERED_CREDENTIALS: &[&str] = &["basic", "digest", "negotiate", "ntlm"];

/// Media types of which no browser makes a page that runs scripts. Everything else is taken for such a page.
const PASSIVE_TYPES: &[&str] = &[
    "application/json",
    "application/octet-stream",
    "application/pdf",
    "application/problem+json",
    "image/avif",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/vnd.microsoft.icon",
    "image/webp",
    "image/x-icon",
    "text/css",
    "text/csv",
    "text/event-stream",
    "text/plain",
];

/// The same, for all types of a kind.
const PASSIVE_KINDS: &[&str] = &["audio/", "font/", "video/"];

/// What a browser sends when it fetches the script of a service worker (Service Workers, "Update").
const SERVICE_WORKER: HeaderName = HeaderName::from_static("service-worker");

/// Refuses the script of a service worker, which would answer for other tenants.
pub(super) fn check<B>(request: &Request<B>, route: &Route<'_>) -> Result<(), Failure> {
    let is_refused = route.origin == Origin::Shared && request.headers().contains_key(SERVICE_WORKER);
    if is_refused { Err(Failure::ServiceWorker) } else { Ok(()) }
}

/// Takes out of a guest's response what concerns others than its tenant.
pub(super) fn confine(headers: &mut HeaderMap, route: &Route<'_>, scheme: &Scheme) {
    match route.origin {
        Origin::Own => confine_cookies(headers, Reach::Host),
        Origin::Shared => {
            let over_tls = *scheme == Scheme::HTTPS;
            confine_cookies(headers, Reach::Path { start: route.tenant_path(), over_tls });
            drop_origin_wide(headers);
            drop_challenges(headers);
            // Before the sandbox, so that the type which decides is the type that the browser goes by.
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            if !is_passive(headers) {
                // A policy beside the guest's own, which stays in force.
                headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
            }
        }
    }
}

fn confine_cookies(headers: &mut HeaderMap, reach: Reach<'_>) {
    if !headers.contains_key(SET_COOKIE) {
        return;
    }
    let confined =
        |value: &HeaderValue| HeaderValue::from_bytes(&cookie::confined(value.as_bytes(), reach)?).ok();
    let cookies: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().filter_map(confined).collect();
    replace(headers, SET_COOKIE, cookies);
}

fn drop_origin_wide(headers: &mut HeaderMap) {
    let is_wide = |name: &&HeaderName| ORIGIN_WIDE.contains(&name.as_str());
    let wide: Vec<HeaderName> = headers.keys().filter(is_wide).cloned().collect();
    for name in wide {
        headers.remove(name);
    }
}

fn drop_challenges(headers: &mut HeaderMap) {
    if !headers.contains_key(WWW_AUTHENTICATE) {
        return;
    }
    let is_kept = |value: &&HeaderValue| {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        !REMEMBERED_CREDENTIALS.iter().any(|scheme| value.contains(scheme))
    };
    let kept: Vec<HeaderValue> = headers.get_all(WWW_AUTHENTICATE).iter().filter(is_kept).cloned().collect();
    replace(headers, WWW_AUTHENTICATE, kept);
}

fn replace(headers: &mut HeaderMap, name: HeaderName, values: Vec<HeaderValue>) {
    headers.remove(&name);
    for value in values {
        headers.append(&name, value);
    }
}

/// Whether no browser makes a page that runs scripts of a response. Doubt means no.
fn is_passive(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    // Of several types in one field a browser takes the last.
    let Some(value) = only.to_str().ok().filter(|value| !value.contains(',')) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    PASSIVE_TYPES.contains(&essence.as_str()) || PASSIVE_KINDS.iter().any(|kind| essence.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passive(types: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in types {
            headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
        }
        is_passive(&headers)
    }

    #[test]
    fn only_known_types_are_passive() {
        for value in
            ["application/json", "Text/Plain ; charset=utf-8", "image/png", "video/mp4", "font/woff2"]
        {
            assert!(passive(&[value]), "{value}");
        }
        for value in [
            "",
            "text/html",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/xml",
            "application/rss+xml",
            "multipart/x-mixed-replace; boundary=x",
            "text/plain, text/html",
            "text/plain;, text/html",
            "text/plainx",
            "unknown/unknown",
            "*/*",
        ] {
            assert!(!passive(&[value]), "{value}");
        }
        assert!(!passive(&[]) && !passive(&["text/plain", "text/plain"]));
    }
}
