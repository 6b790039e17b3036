//! Names to addresses, by asking a name server, in this process: a question can be given up, and takes no thread.
//!
//! It owns the answers that are remembered for as long as their servers say. The machine's `/etc/resolv.conf` is read
//! once, at start. Search domains are not used: a guest names whole names.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use url::Host;

use super::{Failure, StartError};
use crate::limits;

/// The port that name servers have.
const PORT: u16 = 53;

/// Who is asked where the machine does not say: what a C library does.
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), PORT);

/// The address of a name server; without a port it is 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameServer(SocketAddr);

/// A text that is no such address.
#[derive(Debug, thiserror::Error)]
#[error("write the address of a name server, such as 127.0.0.1:5353 or 1.1.1.1")]
pub struct NameServerError;

impl FromStr for NameServer {
    type Err = NameServerError;

    fn from_str(text: &str) -> Result<Self, NameServerError> {
        let address = || text.parse().map(|address: IpAddr| SocketAddr::new(address, PORT));
        text.parse().or_else(|_| address()).map(Self).map_err(|_| NameServerError)
    }
}

pub(super) struct Resolver(TokioResolver);

impl Resolver {
    /// One that asks `server`, or without one whoever this machine asks.
    pub(super) fn new(server: Option<NameServer>) -> Result<Self, StartError> {
        let provider = TokioRuntimeProvider::default();
        let (mut builder, hosts) = match server {
            Some(server) => {
                (TokioResolver::builder_with_config(asking(server.0), provider), ResolveHosts::Never)
            }
            None => {
                let builder = TokioResolver::builder_tokio()
                    .unwrap_or_else(|_| TokioResolver::builder_with_config(asking(LOCAL), provider));
                (builder, ResolveHosts::Auto)
            }
        };
        let options = builder.options_mut();
        options.use_hosts_file = hosts;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = limits::RESOLVED_NAMES_MAX;
        options.max_active_requests = limits::RESOLVING_MAX;
        builder.build().map(Self).map_err(|error| StartError::Resolver(error.to_string()))
    }

    /// The addresses of a host, those of IPv4 first; not judged yet.
    pub(super) async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, Failure> {
        let name = match host {
            Host::Ipv4(address) => return Ok(vec![IpAddr::V4(*address)]),
            Host::Ipv6(address) => return Ok(vec![IpAddr::V6(*address)]),
            // The dot at its end: it is a whole name.
            Host::Domain(name) => format!("{name}."),
        };
        let answer = self.0.lookup_ip(name).await.map_err(|error| match error {
            NetError::Timeout => Failure::ResolveTime,
            error if error.is_no_records_found() => Failure::NoSuchName,
            error => Failure::Unresolved(error.to_string()),
        })?;
        let mut addresses: Vec<IpAddr> = answer.iter().collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        Ok(addresses)
    }
}

fn asking(server: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let mut name_server = NameServerConfig::udp_and_tcp(server.ip());
    name_server.connections = connections.into();
    ResolverConfig::from_name_servers(vec![name_server])
}
