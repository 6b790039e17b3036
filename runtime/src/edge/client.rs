//! The client of a request: where it is and how it came, by the connection or by the word of a trusted proxy.
//!
//! What a header says is believed only when the connection is a trusted proxy's, and then only the one header that the
//! operator has named: the proxy sets that one, the others may be its client's.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http::uri::Scheme;

use crate::listener::{ClientIpHeader, Peer, TrustedProxies};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    /// Its address; with port 0 when a proxy has named only the host.
    pub address: SocketAddr,
    /// The scheme by which it sent the request.
    pub scheme: Scheme,
}

impl Client {
    /// The client of a request with these headers.
    pub(super) fn of(peer: Peer, headers: &HeaderMap, proxies: Option<&TrustedProxies>) -> Self {
        let direct =
            Self { address: peer.address, scheme: if peer.over_tls { Scheme::HTTPS } else { Scheme::HTTP } };
        let Some(proxies) = proxies else { return direct };
        let is_trusted = || proxies.trusts(peer.address.ip());
        let named = match proxies.header {
            // The connection's start has said it; its headers are all the client's.
            ClientIpHeader::ProxyProtocol => return direct,
            _ if !is_trusted() => return direct,
            ClientIpHeader::FlyClientIp => only(headers, "fly-client-ip"),
            ClientIpHeader::CfConnectingIp => only(headers, "cf-connecting-ip"),
            ClientIpHeader::XForwardedFor => nearest_untrusted(headers, proxies),
        };
        let address = named.map_or(peer.address, |address| SocketAddr::new(address, 0));
        let is_https = elements(headers, &X_FORWARDED_PROTO)
            .next()
            .is_some_and(|nearest| nearest.eq_ignore_ascii_case(b"https"));
        Self { address, scheme: if is_https { Scheme::HTTPS } else { Scheme::HTTP } }
    }
}

/// The address in a header that a proxy sets to one. Several cannot all be the proxy's.
fn only(headers: &HeaderMap, name: &'static str) -> Option<IpAddr> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => address_of(value.as_bytes()),
        _ => None,
    }
}

/// The rightmost address that is no trusted proxy's; when all are, the leftmost. What stands left of an element that
/// is no address was written by nobody who is trusted.
fn nearest_untrusted(headers: &HeaderMap, proxies: &TrustedProxies) -> Option<IpAddr> {
    let mut nearest = None;
    for element in elements(headers, &X_FORWARDED_FOR) {
        let Some(address) = address_of(element) else { break };
        nearest = Some(address);
        if !proxies.trusts(address) {
            break;
        }
    }
    nearest
}

/// The elements of a list header, from the last to the first.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).iter().rev().map(HeaderValue::as_bytes);
    values.flat_map(|value| value.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// An address, with or without a port.
fn address_of(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_ascii();
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(bare).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told = Result<(String, &'static str), Box<dyn std::error::Error>>;

    /// Who a request from 10.0.0.1 is said to be of, when 10.0.0.0/8 is trusted.
    fn client(header: &str, peer: &str, fields: &[(&str, &str)]) -> Told {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
        }
        let proxies = TrustedProxies::new("10.0.0.0/8".parse()?, header.parse()?);
        let peer = Peer { address: peer.parse()?, over_tls: false };
        let client = Client::of(peer, &headers, Some(&proxies));
        let scheme = if client.scheme == Scheme::HTTPS { "https" } else { "http" };
        Ok((client.address.to_string(), scheme))
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() -> Result<(), Box<dyn std::error::Error>> {
        for (values, expected) in [
            (&["192.0.2.1"] as &[&str], "192.0.2.1:0"),
            (&["6.6.6.6, 192.0.2.1"], "192.0.2.1:0"),
            (&["6.6.6.6, 192.0.2.1, 10.9.9.9"], "192.0.2.1:0"),
            (&["6.6.6.6", "192.0.2.1,10.9.9.9", "10.1.1.1"], "192.0.2.1:0"),
            (&["10.9.9.9, 10.8.8.8"], "10.9.9.9:0"),
            (&["6.6.6.6, nonsense, 10.9.9.9"], "10.9.9.9:0"),
            (&["6.6.6.6, nonsense"], "10.0.0.1:99"),
            (&["6.6.6.6,"], "10.0.0.1:99"),
            (&[""], "10.0.0.1:99"),
            (&[], "10.0.0.1:99"),
            (&["192.0.2.1:4711"], "192.0.2.1:0"),
            (&["[2001:db8::1]:80"], "[2001:db8::1]:0"),
            (&["[2001:db8::1]"], "[2001:db8::1]:0"),
            (&["::ffff:192.0.2.1"], "192.0.2.1:0"),
            (&["6.6.6.6, 192.0.2.1, ::ffff:10.9.9.9"], "192.0.2.1:0"),
        ] {
            let fields: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
            assert_eq!(client("X-Forwarded-For", "10.0.0.1:99", &fields)?.0, expected, "{values:?}");
        }
        Ok(())
    }

    #[test]
    fn a_header_counts_once_and_only_from_a_trusted_proxy() -> Result<(), Box<dyn std::error::Error>> {
        for (header, name) in [("Fly-Client-IP", "fly-client-ip"), ("CF-Connecting-IP", "cf-connecting-ip")] {
            let one = [(name, "192.0.2.1"), ("x-forwarded-proto", "https")];
            assert_eq!(client(header, "10.0.0.1:99", &one)?, ("192.0.2.1:0".to_owned(), "https"));
            assert_eq!(client(header, "11.0.0.1:99", &one)?, ("11.0.0.1:99".to_owned(), "http"));
            let two = [(name, "192.0.2.1"), (name, "192.0.2.1")];
            assert_eq!(client(header, "10.0.0.1:99", &two)?.0, "10.0.0.1:99");
            let other = [("x-forwarded-for", "192.0.2.1"), ("x-real-ip", "192.0.2.1")];
            assert_eq!(client(header, "10.0.0.1:99", &other)?.0, "10.0.0.1:99");
        }
        Ok(())
    }

    #[test]
    fn the_nearest_proxys_scheme_counts() -> Result<(), Box<dyn std::error::Error>> {
        for (value, expected) in
            [("HTTPS", "https"), ("https, http", "http"), ("http,https", "https"), ("x", "http")]
        {
            let fields = [("x-forwarded-proto", value)];
            assert_eq!(client("X-Forwarded-For", "10.0.0.1:99", &fields)?.1, expected, "{value}");
            assert_eq!(client("proxy_protocol", "10.0.0.1:99", &fields)?.1, "http", "{value}");
        }
        Ok(())
    }
}
