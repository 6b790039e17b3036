//! The listener: sockets, connection permits, and one hyper task for each connection. Both doors of the node have one.
//!
//! It speaks HTTP/1.1. A client that is slow to send its head, or to take its response, is cut off. Behind a proxy that
//! speaks the PROXY protocol the first bytes of a connection name the client.

mod greeting;
mod proxies;

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use proxy_header::io::ProxiedStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use crate::limits;
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
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static;

    /// Answers one request. Dropped when the client goes away.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// A bound socket and what is behind it.
pub struct Listener<D> {
    socket: TcpListener,
    door: Arc<D>,
    connections: Connections,
    write_time_max: Duration,
    proxies: Option<Arc<TrustedProxies>>,
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
    /// A listener on a bound socket. A client that takes nothing of a response for `write_time_max` is cut off.
    #[must_use]
    pub fn new(
        socket: TcpListener,
        door: Arc<D>,
        connections: Connections,
        write_time_max: Duration,
    ) -> Self {
        Self { socket, door, connections, write_time_max, proxies: None }
    }

    /// The same behind proxies, which may speak the PROXY protocol.
    #[must_use]
    pub fn behind(self, proxies: Option<Arc<TrustedProxies>>) -> Self {
        Self { proxies, ..self }
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
                    let connection = self.connection(stream, client, drain.clone());
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

    /// One connection, from its first byte to its last.
    fn connection(
        &self,
        stream: TcpStream,
        client: SocketAddr,
        drain: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + use<D> {
        let (door, proxies, write_time_max) = (self.door.clone(), self.proxies.clone(), self.write_time_max);
        async move {
            match greeting::greet(stream, client, proxies.as_deref()).await {
                Ok((stream, peer)) => serve(door, stream, peer, write_time_max, drain).await,
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    tracing::warn!(proxy = %client, "a trusted proxy does not speak the PROXY protocol");
                }
                // A proxy may connect to see whether somebody is there.
                Err(error) => tracing::debug!(%error, proxy = %client, "a proxy named no client"),
            }
        }
    }

    /// A permit first: a node that has none leaves the next client in the kernel's queue.
    async fn accept(&self) -> std::io::Result<(Open, TcpStream, SocketAddr)> {
        let permit = self.connections.permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
        let (stream, client) = self.socket.accept().await?;
        Ok((self.connections.count(permit), stream, client))
    }
}

async fn serve<D: Door>(
    door: Arc<D>,
    stream: ProxiedStream<TcpStream>,
    peer: Peer,
    write_time_max: Duration,
    mut drain: watch::Receiver<bool>,
) {
    // A small response must not wait for more; an error here only costs latency.
    let _ = stream.get_ref().set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_time_max));
    let service = service_fn(move |request| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(door.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_READ_TIME_MAX)
        .max_headers(limits::HEADERS_MAX * 2)
        .max_buf_size(limits::HEAD_BUFFER_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = drain.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
