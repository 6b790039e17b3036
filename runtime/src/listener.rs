//! The listener: sockets, connection permits, and one hyper task for each connection.
//!
//! It speaks HTTP/1.1. A client that is slow to send its head, or to take its response, is cut off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use crate::edge::{Edge, ReplyBody};
use crate::limits;

/// How long to wait before the next `accept` when one has failed: descriptors may be short for a moment.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The public listener.
pub struct Listener {
    socket: TcpListener,
    edge: Arc<Edge>,
    permits: Arc<Semaphore>,
    write_time_max: Duration,
}

impl Listener {
    /// A listener on a bound socket.
    #[must_use]
    pub fn new(socket: TcpListener, edge: Arc<Edge>, permits: Arc<Semaphore>) -> Self {
        let write_time_max = edge.wall_time_max;
        Self { socket, edge, permits, write_time_max }
    }

    /// Takes connections until `drain` changes, then closes the socket and gives back the connections that are left.
    pub async fn run(self, mut drain: watch::Receiver<bool>) -> JoinSet<()> {
        let mut connections = JoinSet::new();
        loop {
            // A permit first: a node that has none leaves the next client in the kernel's queue.
            let permit = tokio::select! {
                permit = self.permits.clone().acquire_owned() => permit,
                _ = drain.changed() => return connections,
            };
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = drain.changed() => return connections,
            };
            match (permit, accepted) {
                (Ok(permit), Ok((stream, client))) => {
                    let connection = connection(self.edge.clone(), stream, client, self.write_time_max);
                    connections.spawn(until_drained(connection, permit, drain.clone()));
                }
                (_, Err(error)) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
                (Err(_), _) => return connections,
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

/// One connection, as hyper drives it.
fn connection(
    edge: Arc<Edge>,
    stream: TcpStream,
    client: SocketAddr,
    write_time_max: Duration,
) -> impl Connection {
    // A small response must not wait for more; an error here only costs latency.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_time_max));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let edge = edge.clone();
        async move { Ok::<hyper::Response<ReplyBody>, std::convert::Infallible>(edge.serve(request, client).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_READ_TIME_MAX)
        .max_headers(limits::HEADERS_MAX * 2)
        .max_buf_size(limits::HEAD_BUFFER_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service)
}

/// What is needed of hyper's connection, whose type cannot be written down.
trait Connection: Future<Output = hyper::Result<()>> + Send + 'static {
    fn finish_soon(self: std::pin::Pin<&mut Self>);
}

impl<I, B, S> Connection for http1::Connection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = B> + Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish_soon(self: std::pin::Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

async fn until_drained(
    connection: impl Connection,
    permit: OwnedSemaphorePermit,
    mut drain: watch::Receiver<bool>,
) {
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = drain.changed() => {
            connection.as_mut().finish_soon();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    drop(permit);
}
