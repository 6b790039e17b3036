//! Networks of addresses, as settings and manifests write them.

use std::net::IpAddr;
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

#[cfg(test)]
mod tests {
    use super::*;

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
