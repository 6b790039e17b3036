//! From a host to a connection: the addresses are judged, and one of those that passed is connected to, not asked for
//! again.

use std::io::ErrorKind;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::destination::Destination;
use super::{Failure, Outbound, address};
use crate::limits;

/// A connection, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Outbound {
    pub(super) async fn connect(
        &self,
        destination: &Destination,
        until: Instant,
    ) -> Result<Box<dyn Stream>, Failure> {
        let addresses = timeout_at(until, self.resolver.addresses(&destination.host))
            .await
            .map_err(|_| Failure::ResolveTime)??;
        let addresses = self.permitted(&addresses)?;
        let stream = any_of(&addresses, destination.port, until).await?;
        // Without it the last part of a small request may wait for the answer to the one before.
        stream.set_nodelay(true).map_err(|error| Failure::Unreachable(error.to_string()))?;
        if !destination.is_tls {
            return Ok(Box::new(stream));
        }
        let stream = timeout_at(until, self.tls.connect(&destination.host, stream))
            .await
            .map_err(|_| Failure::ConnectTime)??;
        Ok(Box::new(stream))
    }

    /// Those that may be reached, a few of them.
    fn permitted(&self, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, Failure> {
        let allowed = &self.policy.networks_allowed;
        let is_permitted = |at: &&IpAddr| address::special(**at).is_none() || allowed.contain(**at);
        let permitted: Vec<IpAddr> =
            addresses.iter().filter(is_permitted).take(limits::OUTBOUND_ADDRESSES_MAX).copied().collect();
        let Some(first) = addresses.first() else { return Err(Failure::NoSuchName) };
        match address::special(*first) {
            Some(what) if permitted.is_empty() => Err(Failure::Prohibited { address: *first, what }),
            _ => Ok(permitted),
        }
    }
}

/// Connects to the first address that answers. Each has its share of the time that is left.
async fn any_of(addresses: &[IpAddr], port: u16, until: Instant) -> Result<TcpStream, Failure> {
    let mut failure = Failure::ConnectTime;
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let share = until.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        failure = match timeout_at(Instant::now() + share, TcpStream::connect((*address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Failure::Refused,
            Ok(Err(error)) => Failure::Unreachable(error.to_string()),
            Err(_) => Failure::ConnectTime,
        };
    }
    Err(failure)
}
