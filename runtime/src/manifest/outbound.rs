//! Where a function may send requests: Spin's `allowed_outbound_hosts`, `<scheme>://<host>[:<port>]`.
//!
//! - The scheme is letters, or `*`.
//! - The host is a name, an address, `*`, `*.` and a domain, a network such as `10.0.0.0/8`, or `self`.
//! - The port is a number, a range `<first>..<end>` whose end is not part of it, or `*`. It can be left out where the
//!   scheme has one of its own.
//!
//! Spin's templates (`{{ name }}`) and lists (`{a,b}`) are not understood.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Longest entry: the longest host name is 253 bytes.
const ENTRY_BYTES_MAX: usize = 300;

/// Schemes that have a port of their own.
const WITH_PORT: &[&str] = &["http", "https", "postgres", "mysql", "redis", "mqtt"];

/// A well-formed entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OutboundHost(String);

impl OutboundHost {
    /// The entry as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no entry, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} is not an outbound host: {reason}")]
pub struct OutboundHostError {
    entry: String,
    reason: String,
}

impl TryFrom<String> for OutboundHost {
    type Error = OutboundHostError;
    fn try_from(entry: String) -> Result<Self, OutboundHostError> {
        match check(&entry) {
            Ok(()) => Ok(Self(entry)),
            Err(reason) => Err(OutboundHostError { entry: entry.chars().take(80).collect(), reason }),
        }
    }
}

impl From<OutboundHost> for String {
    fn from(host: OutboundHost) -> String {
        host.0
    }
}

impl fmt::Display for OutboundHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(entry: &str) -> Result<(), String> {
    if entry.len() > ENTRY_BYTES_MAX {
        return Err(format!("it is longer than {ENTRY_BYTES_MAX} bytes"));
    }
    if entry.contains(['{', '}']) {
        return Err("templates and lists are not understood; write one entry for each host".to_owned());
    }
    let (scheme, rest) =
        entry.split_once("://").ok_or("write <scheme>://<host>[:<port>], such as https://example.com")?;
    let (host, port) = split_port(rest);
    check_scheme(scheme)?;
    check_host(host)?;
    match port {
        Some(port) => check_port(port),
        None if WITH_PORT.contains(&scheme) => Ok(()),
        None => Err(format!("the scheme {scheme} has no port of its own; write one, or :*")),
    }
}

/// Splits at the last colon, but not inside an address of IPv6. A slash at the end means nothing.
fn split_port(rest: &str) -> (&str, Option<&str>) {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (rest, None),
    }
}

fn check_scheme(scheme: &str) -> Result<(), String> {
    if scheme == "*" || (!scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphabetic())) {
        return Ok(());
    }
    Err(format!("{scheme:?} is not a scheme: use letters only, or *"))
}

fn check_host(host: &str) -> Result<(), String> {
    if matches!(host, "*" | "self" | "self.alt") {
        return Ok(());
    }
    if let Some((address, bits)) = host.split_once('/') {
        return check_network(address, bits)
            .ok_or_else(|| format!("{host:?} is neither a host nor a network: an entry has no path"));
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let is_address = address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
        return if is_address { Ok(()) } else { Err(format!("{host:?} is not an address of IPv6")) };
    }
    let domain = host.strip_prefix("*.").unwrap_or(host);
    if domain.contains('*') {
        return Err(
            "a * stands for a whole host, or with a dot before a domain, as in *.example.com".to_owned()
        );
    }
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed)
    };
    if domain.split('.').all(is_label) { Ok(()) } else { Err(format!("{host:?} is not the name of a host")) }
}

fn check_network(address: &str, bits: &str) -> Option<()> {
    let address: IpAddr = address.trim_matches(['[', ']']).parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(())
}

fn check_port(port: &str) -> Result<(), String> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
    let is_port = match port.split_once("..") {
        Some((first, end)) => number(first).zip(number(end)).is_some_and(|(first, end)| first < end),
        None => port == "*" || number(port).is_some(),
    };
    if is_port {
        Ok(())
    } else {
        Err(format!("{port:?} is not a port: use 1 to 65535, a range 8000..8100, or *"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(entry: &str) -> Option<String> {
        OutboundHost::try_from(entry.to_owned()).err().map(|error| error.to_string())
    }

    #[test]
    fn what_spin_takes_is_taken() {
        for entry in [
            "https://example.com",
            "https://example.com/",
            "http://example.com:8080",
            "https://*.example.com",
            "*://*:*",
            "*://example.com:443",
            "http://self",
            "http://127.0.0.1:8000..8100",
            "https://10.0.0.0/8",
            "https://[fd00::1]:8443",
            "https://[::1]",
            "redis://cache.internal",
            "tcp://example.com:9000",
        ] {
            assert_eq!(refusal(entry), None, "{entry}");
        }
    }

    #[test]
    fn the_rest_is_refused_with_a_reason() {
        for (entry, reason) in [
            ("", "write <scheme>"),
            ("*", "write <scheme>"),
            ("example.com", "write <scheme>"),
            ("insecure:allow-all", "write <scheme>"),
            ("ht+tp://example.com", "is not a scheme"),
            ("https://", "is not the name of a host"),
            ("https://a..b", "is not the name of a host"),
            ("https://example.com/path", "an entry has no path"),
            ("https://10.0.0.0/33", "an entry has no path"),
            ("https://ex*mple.com", "a * stands for a whole host"),
            ("https://{a,b}.example.com", "one entry for each host"),
            ("https://{{ host }}", "one entry for each host"),
            ("https://example.com:0", "is not a port"),
            ("https://example.com:http", "is not a port"),
            ("https://example.com:9..8", "is not a port"),
            ("https://[::g]", "is not an address of IPv6"),
            ("tcp://example.com", "has no port of its own"),
            ("*://example.com", "has no port of its own"),
        ] {
            let told = refusal(entry).unwrap_or_default();
            assert!(told.contains(reason), "{entry}: {told}");
        }
    }
}
