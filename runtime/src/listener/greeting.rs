//! The start of a connection: a trusted proxy that speaks the PROXY protocol names its client before the first request.
//!
//! Such a proxy must do so, and nobody else may: what comes from another address is read as HTTP from the first byte.
//! The protocol bounds the header to 64 KiB; a clock bounds the wait for it.

use std::io;
use std::net::SocketAddr;

use proxy_header::ParseConfig;
use proxy_header::io::ProxiedStream;
use tokio::net::TcpStream;

use super::Peer;
use super::proxies::{ClientIpHeader, TrustedProxies};
use crate::limits;

/// Reads the PROXY header, if one has to come, and tells who is at the other end.
///
/// # Errors
/// When a trusted proxy sends something else, too little in time, or nothing.
pub(super) async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    proxies: Option<&TrustedProxies>,
) -> io::Result<(ProxiedStream<TcpStream>, Peer)> {
    let peer = Peer { address: canonical(address), over_tls: false };
    let is_expected = |proxies: &TrustedProxies| {
        proxies.header == ClientIpHeader::ProxyProtocol && proxies.trusts(address.ip())
    };
    if !proxies.is_some_and(is_expected) {
        return Ok((ProxiedStream::unproxied(stream), peer));
    }
    let reading = ProxiedStream::create_from_tokio(stream, ParseConfig::default());
    let stream = tokio::time::timeout(limits::PROXY_HEADER_TIME_MAX, reading).await??;
    let header = stream.proxy_header();
    // Without an address the connection is the proxy's own: a health check.
    let peer = header.proxied_address().map_or(peer, |proxied| Peer {
        address: canonical(proxied.source),
        over_tls: header.ssl().is_some_and(|tls| tls.client_ssl()),
    });
    Ok((stream, peer))
}

/// An IPv4 address as one, also where a socket or a proxy gives it in the form of an IPv6 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
