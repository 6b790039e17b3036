//! Networks of addresses, as settings and manifests write them, and who counts as one client.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// A network such as `10.0.0.0/8` or `2001:db8::/32`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// A text that is no network.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no network: write an address, or one with a prefix length such as 10.0.0.0/8")]
pub struct NetworkError(String);

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| address()).map(Self).map_err(|_| NetworkError(text.to_owned()))
    }
}

impl Network {
    /// Whether an address is in it. One of IPv4 that is written as one of IPv6 counts as what it stands for.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// Networks, as a list with commas: `10.0.0.0/8, 2001:db8::/32, 192.0.2.7`.
#[derive(Debug, Clone, Default)]
pub struct Networks(Vec<Network>);

impl FromStr for Networks {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
        Ok(Self(elements.map(str::parse).collect::<Result<_, _>>()?))
    }
}

impl Networks {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// What a site has of IPv6 at least, and so chooses its addresses from.
const SITE_PREFIX_BITS: u32 = 64;

/// The client that an address counts as: itself, or of IPv6 its network, in which one client has any address it likes.
#[must_use]
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let mask = u128::MAX << (128 - SITE_PREFIX_BITS);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_site_is_one_client_and_a_mapped_address_is_the_address() -> Result<(), std::net::AddrParseError> {
        let client = |text: &str| text.parse().map(client_of);
        assert_eq!(client("2001:db8:1:2::1")?, client("2001:db8:1:2:ffff::")?);
        assert_ne!(client("2001:db8:1:2::1")?, client("2001:db8:1:3::1")?);
        assert_eq!(client("::ffff:192.0.2.1")?, client("192.0.2.1")?);
        assert_ne!(client("192.0.2.1")?, client("192.0.2.2")?);
        Ok(())
    }

    #[test]
    fn networks_are_addresses_with_and_without_a_prefix() -> Result<(), Box<dyn std::error::Error>> {
        let networks: Networks = " 10.0.0.0/8,2001:db8::/32 , 192.0.2.7,".parse()?;
        for (address, contained) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(networks.contain(address.parse()?), contained, "{address}");
        }
        assert!("".parse::<Networks>()?.is_empty());
        for wrong in ["10.0.0.0/33", "10.0.0", "fly", "10.0.0.1 10.0.0.2", "10.0.0.0/8,x"] {
            assert!(wrong.parse::<Networks>().is_err(), "{wrong}");
        }
        Ok(())
    }
}
