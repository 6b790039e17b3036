//! Where an outgoing request wants to go, read as URLs are read: a host in decimal, hexadecimal, octal or short form is
//! the address that it stands for, before anything is checked. Pure.

use std::fmt;

use http::Uri;
use http::uri::Scheme;
use url::Host;

use crate::manifest::read_host;

/// The server of an `http` or `https` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Whether it is spoken to over TLS.
    pub is_tls: bool,
    /// A name in lower case without a dot at its end, or an address.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

/// The address cannot be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no address that a request can be sent to")]
pub struct DestinationError;

impl Destination {
    /// Reads it from an absolute address.
    ///
    /// # Errors
    /// When the address is relative, of another scheme, names a user, or its host or port is none.
    pub fn of(uri: &Uri) -> Result<Self, DestinationError> {
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(DestinationError),
        };
        let authority = uri.authority().ok_or(DestinationError)?;
        let after_host = authority.as_str().strip_prefix(authority.host()).ok_or(DestinationError)?;
        let port = match after_host.strip_prefix(':') {
            Some("") => default_port(is_tls),
            Some(port) => read_port(port).ok_or(DestinationError)?,
            None if after_host.is_empty() => default_port(is_tls),
            None => return Err(DestinationError),
        };
        let host = authority.host();
        let host = read_host(host.strip_suffix('.').unwrap_or(host)).ok_or(DestinationError)?;
        Ok(Self { is_tls, host, port })
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// What the `host` field of a request says: the port only where it is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == default_port(self.is_tls) {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Digits only: a number's sign is none of a port's.
fn read_port(port: &str) -> Option<u16> {
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())?.filter(|port| *port > 0)
}

fn default_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str) -> Option<String> {
        let destination = Destination::of(&uri.parse().ok()?).ok()?;
        Some(format!("{destination} {}", destination.port))
    }

    #[test]
    fn a_host_is_what_a_url_says_it_is() {
        for (uri, destination) in [
            ("http://example.com/a", "http://example.com 80"),
            ("https://example.com", "https://example.com 443"),
            ("https://Example.COM:8443/", "https://example.com:8443 8443"),
            ("http://example.com.:80/", "http://example.com 80"),
            ("http://example.com:/", "http://example.com 80"),
            ("http://2130706433/", "http://127.0.0.1 80"),
            ("http://0x7f000001/", "http://127.0.0.1 80"),
            ("http://0177.0.0.1/", "http://127.0.0.1 80"),
            ("http://127.1/", "http://127.0.0.1 80"),
            ("http://127.0.0.1./", "http://127.0.0.1 80"),
            ("http://0xA9.254.43518/", "http://169.254.169.254 80"),
            ("http://0/", "http://0.0.0.0 80"),
            ("http://0x/", "http://0.0.0.0 80"),
            ("http://[::1]:81/", "http://[::1]:81 81"),
            ("http://[::ffff:7f00:1]/", "http://[::ffff:7f00:1] 80"),
        ] {
            assert_eq!(read(uri).as_deref(), Some(destination), "{uri}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for uri in [
            "/relative",
            "ftp://example.com/",
            "http://user@example.com/",
            "http://example.com@127.0.0.1/",
            "http://example.com:0/",
            "http://example.com:65536/",
            "http://example.com:+80/",
            "http://a..b/",
            "http://./",
            "http://1.2.3.4.5/",
            "http://4294967296/",
            "http://a../",
            "http://a*b/",
            "http://%31%32%37.1/",
            "http://[::1%25lo]/",
        ] {
            assert_eq!(read(uri), None, "{uri}");
        }
    }
}
