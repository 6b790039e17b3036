//! Where a function may send requests: Spin's `allowed_outbound_hosts`, `<scheme>://<host>[:<port>]`.
//!
//! - The scheme is letters, or `*`.
//! - The host is a name, an address, `*`, `*.` and a domain for the names below it, or a network such as `10.0.0.0/8`
//!   for the addresses in it.
//! - The port is a number, a range `<first>..<end>` whose end is not part of it, or `*`. It can be left out where the
//!   scheme has one of its own.
//!
//! Hosts are read as URLs read them, here and where a request is sent: in lower case, and a number in any notation is
//! the address that it stands for. Spin's templates (`{{ name }}`), lists (`{a,b}`) and `self` are not understood.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use url::Host;

use crate::limits;
use crate::network::Network;

/// Longest entry: the longest host name is 253 bytes.
const ENTRY_BYTES_MAX: usize = 300;

/// Schemes that have a port of their own, and that port.
const WITH_PORT: &[(&str, u16)] =
    &[("http", 80), ("https", 443), ("postgres", 5432), ("mysql", 3306), ("redis", 6379), ("mqtt", 1883)];

/// A well-formed entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OutboundHost {
    text: String,
    /// Nothing stands for all of them.
    scheme: Option<String>,
    host: HostRule,
    ports: PortRule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostRule {
    Any,
    /// The names that end in this, which begins with a dot.
    Below(String),
    One(Host),
    In(Network),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PortRule {
    Any,
    One(u16),
    Within(Range<u16>),
}

impl OutboundHost {
    /// The entry as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a request may be sent there. The host is without a dot at its end.
    #[must_use]
    pub fn allows(&self, scheme: &str, host: &Host, port: u16) -> bool {
        self.scheme.as_deref().is_none_or(|own| own == scheme)
            && self.host.allows(host)
            && self.ports.allows(port)
    }
}

impl HostRule {
    fn allows(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Below(end), Host::Domain(name)) => {
                name.strip_suffix(end.as_str()).is_some_and(|below| !below.is_empty())
            }
            (Self::One(own), host) => own == host,
            (Self::In(network), Host::Ipv4(address)) => network.contains(IpAddr::V4(*address)),
            (Self::In(network), Host::Ipv6(address)) => network.contains(IpAddr::V6(*address)),
            (Self::Below(_) | Self::In(_), _) => false,
        }
    }
}

impl PortRule {
    fn allows(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::One(own) => *own == port,
            Self::Within(range) => range.contains(&port),
        }
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
    fn try_from(text: String) -> Result<Self, OutboundHostError> {
        match read(&text) {
            Ok((scheme, host, ports)) => Ok(Self { text, scheme, host, ports }),
            Err(reason) => Err(OutboundHostError { entry: text.chars().take(80).collect(), reason }),
        }
    }
}

impl From<OutboundHost> for String {
    fn from(host: OutboundHost) -> String {
        host.text
    }
}

impl fmt::Display for OutboundHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The entries of a function. Without any it may send nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<OutboundHost>", into = "Vec<OutboundHost>")]
pub struct OutboundHosts(Vec<OutboundHost>);

impl OutboundHosts {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them allows a request. The host is without a dot at its end.
    #[must_use]
    pub fn allow(&self, scheme: &str, host: &Host, port: u16) -> bool {
        self.0.iter().any(|entry| entry.allows(scheme, host, port))
    }
}

impl TryFrom<Vec<OutboundHost>> for OutboundHosts {
    type Error = String;
    fn try_from(entries: Vec<OutboundHost>) -> Result<Self, String> {
        if entries.len() > limits::OUTBOUND_HOSTS_MAX {
            return Err(format!(
                "{} outbound hosts are more than {}; *.<domain> stands for all names below it",
                entries.len(),
                limits::OUTBOUND_HOSTS_MAX
            ));
        }
        Ok(Self(entries))
    }
}

impl From<OutboundHosts> for Vec<OutboundHost> {
    fn from(hosts: OutboundHosts) -> Self {
        hosts.0
    }
}

fn read(entry: &str) -> Result<(Option<String>, HostRule, PortRule), String> {
    if entry.len() > ENTRY_BYTES_MAX {
        return Err(format!("it is longer than {ENTRY_BYTES_MAX} bytes"));
    }
    if entry.contains(['{', '}']) {
        return Err("templates and lists are not understood; write one entry for each host".to_owned());
    }
    let (scheme, rest) =
        entry.split_once("://").ok_or("write <scheme>://<host>[:<port>], such as https://example.com")?;
    let (host, port) = split_port(rest);
    let scheme = read_scheme(scheme)?;
    let host = read_rule(host)?;
    let own = |scheme: &str| WITH_PORT.iter().find(|(name, _)| *name == scheme).map(|(_, port)| *port);
    let ports = match (port, scheme.as_deref().and_then(own)) {
        (Some(port), _) => read_port(port)?,
        (None, Some(own)) => PortRule::One(own),
        (None, None) => {
            let scheme = scheme.as_deref().unwrap_or("*");
            return Err(format!("the scheme {scheme} has no port of its own; write one, or :*"));
        }
    };
    Ok((scheme, host, ports))
}

/// Splits at the last colon, but not inside an address of IPv6. A slash at the end means nothing.
fn split_port(rest: &str) -> (&str, Option<&str>) {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (rest, None),
    }
}

fn read_scheme(scheme: &str) -> Result<Option<String>, String> {
    if scheme == "*" {
        return Ok(None);
    }
    if !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Ok(Some(scheme.to_ascii_lowercase()));
    }
    Err(format!("{scheme:?} is not a scheme: use letters only, or *"))
}

fn read_rule(host: &str) -> Result<HostRule, String> {
    if host == "*" {
        return Ok(HostRule::Any);
    }
    if matches!(host, "self" | "self.alt") {
        return Err(
            "a function has no such name for itself; write the address that its callers use".to_owned()
        );
    }
    if host.contains('/') {
        return read_network(host)
            .map(HostRule::In)
            .ok_or_else(|| format!("{host:?} is neither a host nor a network: an entry has no path"));
    }
    if host.starts_with('[') {
        return Host::parse(host)
            .map(HostRule::One)
            .map_err(|_| format!("{host:?} is not an address of IPv6"));
    }
    let domain = host.strip_prefix("*.").unwrap_or(host);
    if domain.contains('*') {
        return Err(
            "a * stands for a whole host, or with a dot before a domain, as in *.example.com".to_owned()
        );
    }
    match read_host(domain) {
        Some(Host::Domain(name)) if domain != host => Ok(HostRule::Below(format!(".{name}"))),
        Some(named) if domain == host => Ok(HostRule::One(named)),
        _ => Err(format!("{host:?} is not the name of a host")),
    }
}

/// A host as URLs write it: a name in lower case, or an address in any notation. Nothing when it is neither.
#[must_use]
pub fn read_host(text: &str) -> Option<Host> {
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed)
    };
    match Host::parse(text).ok()? {
        Host::Domain(name) if name.len() > 253 || !name.split('.').all(is_label) => None,
        host => Some(host),
    }
}

fn read_network(host: &str) -> Option<Network> {
    let (address, bits) = host.split_once('/')?;
    format!("{}/{bits}", address.trim_matches(['[', ']'])).parse().ok()
}

fn read_port(port: &str) -> Result<PortRule, String> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
    let rule = match port.split_once("..") {
        Some((first, end)) => number(first)
            .zip(number(end))
            .filter(|(first, end)| first < end)
            .map(|(first, end)| PortRule::Within(first..end)),
        None if port == "*" => Some(PortRule::Any),
        None => number(port).map(PortRule::One),
    };
    rule.ok_or_else(|| format!("{port:?} is not a port: use 1 to 65535, a range 8000..8100, or *"))
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
            "http://127.0.0.1:8000..8100",
            "https://10.0.0.0/8",
            "https://[fd00::1]:8443",
            "https://[::1]",
            "redis://cache.internal",
            "tcp://example.com:9000",
            "https://münchen.example",
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
            ("http://self", "no such name for itself"),
            ("https://example.com.", "is not the name of a host"),
            ("https://*.7", "is not the name of a host"),
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

    #[test]
    fn an_entry_allows_what_it_says_and_nothing_else() -> Result<(), Box<dyn std::error::Error>> {
        for (entry, scheme, host, port, allowed) in [
            ("https://example.com", "https", "example.com", 443, true),
            ("HTTPS://Example.COM", "https", "example.com", 443, true),
            ("https://example.com", "http", "example.com", 443, false),
            ("https://example.com", "https", "example.com", 8443, false),
            ("https://example.com", "https", "a.example.com", 443, false),
            ("https://example.com", "https", "example.com.evil.net", 443, false),
            ("https://*.example.com", "https", "a.b.example.com", 443, true),
            ("https://*.example.com", "https", "example.com", 443, false),
            ("https://*.example.com", "https", "badexample.com", 443, false),
            ("*://*:*", "http", "203.0.113.7", 1, true),
            ("*://example.com:80", "http", "example.com", 80, true),
            ("http://example.com:8000..8100", "http", "example.com", 8000, true),
            ("http://example.com:8000..8100", "http", "example.com", 8099, true),
            ("http://example.com:8000..8100", "http", "example.com", 8100, false),
            ("http://127.0.0.1", "http", "127.0.0.1", 80, true),
            ("http://127.0.0.1", "http", "2130706433", 80, true),
            ("http://0x7f.1", "http", "127.0.0.1", 80, true),
            ("http://10.0.0.0/8", "http", "10.1.2.3", 80, true),
            ("http://10.0.0.0/8", "http", "[::ffff:10.1.2.3]", 80, true),
            ("http://10.0.0.0/8", "http", "11.1.2.3", 80, false),
            ("http://10.0.0.0/8", "http", "ten.example", 80, false),
            ("http://[fd00::1]:8080", "http", "[fd00:0::1]", 8080, true),
            ("redis://example.com", "http", "example.com", 6379, false),
        ] {
            let rule = OutboundHost::try_from(entry.to_owned())?;
            let host = Host::parse(host)?;
            assert_eq!(rule.allows(scheme, &host, port), allowed, "{entry} and {scheme}://{host}:{port}");
        }
        Ok(())
    }

    #[test]
    fn a_function_has_so_many_entries_at_most() -> Result<(), Box<dyn std::error::Error>> {
        let entry = OutboundHost::try_from("https://example.com".to_owned())?;
        assert!(OutboundHosts::try_from(vec![entry.clone(); limits::OUTBOUND_HOSTS_MAX]).is_ok());
        assert!(OutboundHosts::try_from(vec![entry; limits::OUTBOUND_HOSTS_MAX + 1]).is_err());
        Ok(())
    }
}
