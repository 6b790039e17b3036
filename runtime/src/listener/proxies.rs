//! Trusted proxies: whose word about a client is believed, and in which of their words it stands. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

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

/// Networks, as a list with commas: `10.0.0.0/8, 2001:db8::/32, 192.0.2.7`.
#[derive(Debug, Clone, Default)]
pub struct Networks(Vec<IpNet>);

/// A list with an element that is no network.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no network: write an address, or one with a prefix length such as 10.0.0.0/8")]
pub struct NetworksError(String);

impl FromStr for Networks {
    type Err = NetworksError;

    fn from_str(text: &str) -> Result<Self, NetworksError> {
        let network = |text: &str| {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse().or_else(|_| address()).map_err(|_| NetworksError(text.to_owned()))
        };
        let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
        Ok(Self(elements.map(network).collect::<Result<_, _>>()?))
    }
}

impl Networks {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        let address = address.to_canonical();
        self.networks.0.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_addresses_with_and_without_a_prefix() -> Result<(), Box<dyn std::error::Error>> {
        let networks: Networks = " 10.0.0.0/8,2001:db8::/32 , 192.0.2.7,".parse()?;
        let proxies = TrustedProxies::new(networks, "X-Forwarded-For".parse()?);
        for (address, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(proxies.trusts(address.parse()?), trusted, "{address}");
        }
        assert!("".parse::<Networks>()?.is_empty());
        for wrong in ["10.0.0.0/33", "10.0.0", "fly", "10.0.0.1 10.0.0.2", "10.0.0.0/8,x"] {
            assert!(wrong.parse::<Networks>().is_err(), "{wrong}");
        }
        Ok(())
    }
}
