//! Trusted proxies: whose word about a client is believed, and in which of their words it stands. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use crate::network::Networks;

/// Where a trusted proxy names its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientIpHeader {
    /// `Fly-Client-IP`, which Fly's proxy sets.
    FlyClientIp,
    /// `CF-Connecting-IP`, which Cloudflare sets.
    CfConnectingIp,
    /// `X-Forwarded-For`: its rightmost address that is no trusted proxy's.
    XForwardedFor,
    /// The header of the PROXY protocol, version 1 or 2, before the first request of a connection.
    ProxyProtocol,
}

/// A text that names none of them.
#[derive(Debug, thiserror::Error)]
#[error("use Fly-Client-IP, CF-Connecting-IP, X-Forwarded-For or proxy_protocol")]
pub struct ClientIpHeaderError;

impl FromStr for ClientIpHeader {
    type Err = ClientIpHeaderError;

    fn from_str(text: &str) -> Result<Self, ClientIpHeaderError> {
        match text.to_ascii_lowercase().as_str() {
            "fly-client-ip" => Ok(Self::FlyClientIp),
            "cf-connecting-ip" => Ok(Self::CfConnectingIp),
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "proxy_protocol" => Ok(Self::ProxyProtocol),
            _ => Err(ClientIpHeaderError),
        }
    }
}

/// The proxies that stand between the node and its clients.
#[derive(Debug, Clone)]
pub struct TrustedProxies {
    networks: Networks,
    /// Where they name their client.
    pub header: ClientIpHeader,
}

impl TrustedProxies {
    /// Whoever connects from one of the networks.
    #[must_use]
    pub fn new(networks: Networks, header: ClientIpHeader) -> Self {
        Self { networks, header }
    }

    /// Whether an address is a trusted proxy's.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.networks.contain(address)
    }
}
