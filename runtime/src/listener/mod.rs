//! The listener: sockets, connection permits, and one hyper task for each connection. Both doors of the node have one.
//!
//! It speaks HTTP/1.1, and HTTP/2 without TLS where it is told to. A client that is slow to send its head, or to take its
//! response, is cut off, and one that has many connections gets no more. Behind a proxy that speaks the PROXY protocol
//! the first bytes of a connection name the client; a proxy's own connections are not counted as one client's.

mod clients;
mod greeting;
mod http1;
mod http2;
mod preface;
mod proxies;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::{Body, Bytes, Incoming};
use hyper::{Request, Response};
use proxy_header::io::ProxiedStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use crate::limits;
use crate::telemetry::Metrics;
pub use clients::{Clients, Held, Share};
use preface::Version;
pub use proxies::{ClientIpHeader, ClientIpHeaderError, TrustedProxies};

/// How long to wait before the next `accept` when one has failed: descriptors may be short for a moment.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The socket's other end, or the client that a trusted proxy named by the PROXY protocol.
    pub address: SocketAddr,
    /// Whether that proxy's client speaks TLS.
    pub over_tls: bool,
}

/// Whatever answers the requests that come through a listener.
pub trait Door: Send + Sync + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    /// Answers one request. Dropped when the client goes away.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// What holds for every connection of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long a client may take nothing of a response before it is cut off.
    pub write_time_max: Duration,
    /// Whether a connection may speak HTTP/2 from its first byte.
    pub h2c: bool,
}

/// A bound socket and what is behind it.
pub struct Listener<D> {
    socket: TcpListener,
    connections: Connections,
    hall: Hall<D>,
}

/// What a connection needs to know.
struct Hall<D> {
    door: Arc<D>,
    bounds: Bounds,
    clients: Arc<Clients>,
    proxies: Option<Arc<TrustedProxies>>,
    metrics: Arc<Metrics>,
}

impl<D> Clone for Hall<D> {
    fn clone(&self) -> Self {
        Self {
            door: self.door.clone(),
            bounds: self.bounds,
            clients: self.clients.clone(),
            proxies: self.proxies.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// Why the node has ended a connection, or the client has.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the client has too many connections")]
    Client,
    #[error("a trusted proxy named no client: {0}")]
    Greeting(#[source] io::Error),
    #[error("it said nothing in time: {0}")]
    Silent(#[source] io::Error),
    #[error("nothing was taken of a response for too long")]
    Stalled,
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

impl Ended {
    /// The label of the metric; none when it was the client who ended it.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Client => Some("client"),
            Self::Greeting(_) => Some("greeting"),
            Self::Silent(_) => Some("timeout"),
            Self::Stalled => Some("stalled"),
            Self::Http(error) if error.is_parse() => Some("malformed"),
            Self::Http(error) if error.is_timeout() || is_timed_out(error) => Some("timeout"),
            Self::Http(error) if is_flood(error) => Some("flood"),
            Self::Http(_) => None,
        }
    }
}

/// Whether the socket has timed out below hyper.
fn is_timed_out(error: &hyper::Error) -> bool {
    causes(error).any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::TimedOut)
    })
}

/// Whether HTTP/2's guards against floods have ended the connection (RFC 9113, 7: `ENHANCE_YOUR_CALM`).
fn is_flood(error: &hyper::Error) -> bool {
    causes(error).any(|cause| {
        let reason = cause.downcast_ref::<h2::Error>().and_then(h2::Error::reason);
        reason == Some(h2::Reason::ENHANCE_YOUR_CALM)
    })
}

fn causes(error: &hyper::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |cause| cause.source())
}

/// The connections that a listener may have open.
#[derive(Clone)]
pub struct Connections {
    permits: Arc<Semaphore>,
    open: Arc<AtomicU64>,
}

/// One open connection.
struct Open {
    count: Arc<AtomicU64>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// At most `max` at a time.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self { permits: Arc::new(Semaphore::new(max as usize)), open: Arc::default() }
    }

    /// Open connections. The permit that the listener holds for the next one does not count.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    fn count(&self, permit: OwnedSemaphorePermit) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open { count: self.open.clone(), _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<D: Door> Listener<D> {
    /// A listener on a bound socket, with at most so many connections in all and for each client.
    #[must_use]
    pub fn new(
        socket: TcpListener,
        door: Arc<D>,
        connections: (Connections, Arc<Clients>),
        bounds: Bounds,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (connections, clients) = connections;
        Self { socket, connections, hall: Hall { door, bounds, clients, proxies: None, metrics } }
    }

    /// The same behind proxies, which may speak the PROXY protocol.
    #[must_use]
    pub fn behind(mut self, proxies: Option<Arc<TrustedProxies>>) -> Self {
        self.hall.proxies = proxies;
        self
    }

    /// Takes connections until `drain` changes, then closes the socket and gives back the connections that are left.
    pub async fn run(self, mut drain: watch::Receiver<bool>) -> JoinSet<()> {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                _ = drain.changed() => return connections,
            };
            match accepted {
                Ok((open, stream, client)) => {
                    let connection = self.hall.clone().connection(stream, client, drain.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(open);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }

    /// A permit first: a node that has none leaves the next client in the kernel's queue.
    async fn accept(&self) -> io::Result<(Open, TcpStream, SocketAddr)> {
        let permit = self.connections.permits.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, client) = self.socket.accept().await?;
        Ok((self.connections.count(permit), stream, client))
    }
}

impl<D: Door> Hall<D> {
    /// One connection, from its first byte to its last.
    async fn connection(self, stream: TcpStream, client: SocketAddr, drain: watch::Receiver<bool>) {
        let metrics = self.metrics.clone();
        let Err(ended) = self.serve(stream, client, drain).await else { return };
        if let Some(reason) = ended.reason() {
            metrics.connection_cut(reason);
        }
        match ended {
            Ended::Greeting(error) if error.kind() == ErrorKind::InvalidData => {
                tracing::warn!(proxy = %client, "a trusted proxy does not speak the PROXY protocol");
            }
            ended => tracing::debug!(error = %ended, %client, "a connection ended early"),
        }
    }

    async fn serve(
        self,
        stream: TcpStream,
        client: SocketAddr,
        drain: watch::Receiver<bool>,
    ) -> Result<(), Ended> {
        let greeted = greeting::greet(stream, client, self.proxies.as_deref()).await;
        let (stream, peer) = greeted.map_err(Ended::Greeting)?;
        let is_proxy = self.proxies.as_deref().is_some_and(|proxies| proxies.trusts(peer.address.ip()));
        // A proxy has the connections of all its clients.
        let _share =
            if is_proxy { None } else { Some(self.clients.enter(peer.address.ip()).ok_or(Ended::Client)?) };
        // A small response must not wait for more; an error here only costs latency.
        let _ = stream.get_ref().set_nodelay(true);
        let stream = self.bounded(stream);
        if !self.bounds.h2c {
            return Ok(http1::serve(self.door, stream, peer, drain).await?);
        }
        let mut drained = drain.clone();
        let read = tokio::select! {
            read = tokio::time::timeout(limits::HEADER_READ_TIME_MAX, preface::read(stream)) => read,
            _ = drained.changed() => return Ok(()),
        };
        match read.unwrap_or_else(|elapsed| Err(elapsed.into())).map_err(Ended::Silent)? {
            (Version::One, stream) => Ok(http1::serve(self.door, stream, peer, drain).await?),
            (Version::Two, stream) => {
                // A function may take as long to answer as a client to take the answer.
                let stream_time_max = self.bounds.write_time_max + limits::HEADER_READ_TIME_MAX;
                http2::serve(self.door, stream, peer, stream_time_max, drain).await
            }
        }
    }

    fn bounded(&self, stream: ProxiedStream<TcpStream>) -> Pin<Box<TimeoutStream<ProxiedStream<TcpStream>>>> {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.bounds.write_time_max));
        Box::pin(stream)
    }
}
