//! Clients: how much one address may have at a time, of connections or of requests. One that has nothing has no entry.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::{Body, Frame, SizeHint};

use crate::limits;
use crate::network::client_of;

/// Who has how much.
pub struct Clients {
    what: &'static str,
    max: u32,
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    shares: HashMap<IpAddr, u32>,
    told: Option<Instant>,
}

/// One connection or request of a client. Dropping it makes room for the next.
pub struct Share {
    client: IpAddr,
    clients: Arc<Clients>,
}

impl Clients {
    /// At most `max` for each client. The log says what it has too many of, and what to do, in the words of `what`.
    #[must_use]
    pub fn new(what: &'static str, max: u32) -> Arc<Self> {
        Arc::new(Self { what, max, accounts: Mutex::default() })
    }

    /// One more for whoever has this address, unless that is too much.
    #[must_use]
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Share> {
        let client = client_of(address);
        let mut accounts = self.accounts();
        let share = accounts.shares.entry(client).or_default();
        if *share < self.max {
            *share += 1;
            return Some(Share { client, clients: self.clone() });
        }
        // A flood must not become one of log lines.
        if accounts.told.is_none_or(|told| told.elapsed() > limits::REFUSALS_LOG_INTERVAL) {
            accounts.told = Some(Instant::now());
            tracing::warn!(%client, max = self.max, "a client has too many {}", self.what);
        }
        None
    }

    /// Clients that have something.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.accounts().shares.len() as u64
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut accounts = self.clients.accounts();
        if let Some(share) = accounts.shares.get_mut(&self.client) {
            *share -= 1;
            if *share == 0 {
                accounts.shares.remove(&self.client);
            }
        }
    }
}

/// The body of an answer, which keeps its client's share until it is sent or dropped.
pub struct Held<B> {
    body: B,
    _share: Option<Share>,
}

impl<B> Held<B> {
    /// The body with the share of the client that it goes to.
    #[must_use]
    pub fn new(body: B, share: Option<Share>) -> Self {
        Self { body, _share: share }
    }
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_64_bits_is_one_client() -> Result<(), Box<dyn std::error::Error>> {
        let clients = Clients::new("connections", 1);
        let mut shares = Vec::new();
        for (address, has_room) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::ffff:ffff:ffff:ffff", false),
            ("2001:db8:0:1::1", true),
        ] {
            let share = clients.enter(address.parse()?);
            assert_eq!(share.is_some(), has_room, "{address}");
            shares.extend(share);
        }
        assert_eq!(clients.present(), 4);
        drop(shares);
        assert_eq!(clients.present(), 0);
        Ok(())
    }
}
