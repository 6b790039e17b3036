//! One connection that speaks HTTP/2 without TLS, bounded on every side.
//!
//! hyper and h2 bound streams, resets, frames and header lists. What they do not bound is time: a connection may live
//! for ever without a request, and a stream without its client taking a byte of it. Both are looked for every second.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Frame, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::{Door, Ended, Peer};
use crate::limits;

/// How often a connection is looked over.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Answers requests until the client, a bound or a drain ends it. A stream of which nothing is taken for
/// `stream_time_max` ends it too.
pub(super) async fn serve<D: Door>(
    door: Arc<D>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    stream_time_max: Duration,
    mut drain: watch::Receiver<bool>,
) -> Result<(), Ended> {
    let streams = Streams::new();
    let opened = streams.clone();
    let service = service_fn(move |request| {
        let (door, stream) = (door.clone(), opened.open());
        async move {
            let response = door.answer(request, peer).await;
            stream.moved();
            Ok::<_, Infallible>(response.map(|body| Followed { body, stream }))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::H2_STREAMS_MAX)
        .max_pending_accept_reset_streams(limits::H2_PENDING_RESETS_MAX)
        .max_local_error_reset_streams(limits::H2_LOCAL_RESETS_MAX)
        .max_header_list_size(limits::H2_HEADER_BYTES_MAX)
        .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(limits::RESPONSE_CHUNK_BYTES_MAX)
        .keep_alive_interval(limits::HEADER_READ_TIME_MAX)
        .keep_alive_timeout(limits::HEADER_READ_TIME_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            _ = drain.changed() => {
                connection.as_mut().graceful_shutdown();
                return Ok(connection.await?);
            }
            _ = look.tick() => match streams.rest() {
                Rest::Idle(time) if time > limits::HEADER_READ_TIME_MAX => break,
                Rest::Stalled(time) if time > stream_time_max => return Err(Ended::Stalled),
                Rest::Idle(_) | Rest::Stalled(_) => {}
            },
        }
    }
    connection.as_mut().graceful_shutdown();
    let ended = tokio::time::timeout(limits::HEADER_READ_TIME_MAX, connection).await;
    Ok(ended.map_err(|elapsed| Ended::Silent(elapsed.into()))??)
}

/// The streams of a connection, and when each last moved.
struct Streams(Mutex<Moves>);

struct Moves {
    next: u64,
    last: HashMap<u64, Instant>,
    emptied: Instant,
}

/// For how long a connection has been at rest.
enum Rest {
    /// It has had no stream for so long.
    Idle(Duration),
    /// One of its streams has not moved for so long.
    Stalled(Duration),
}

/// One stream, on the list until it is dropped.
struct Stream {
    number: u64,
    streams: Arc<Streams>,
}

impl Streams {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Moves { next: 0, last: HashMap::new(), emptied: Instant::now() })))
    }

    fn moves(&self) -> MutexGuard<'_, Moves> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(self: &Arc<Self>) -> Stream {
        let mut moves = self.moves();
        let number = moves.next;
        moves.next += 1;
        moves.last.insert(number, Instant::now());
        Stream { number, streams: self.clone() }
    }

    fn rest(&self) -> Rest {
        let moves = self.moves();
        let longest = moves.last.values().map(Instant::elapsed).max();
        longest.map_or_else(|| Rest::Idle(moves.emptied.elapsed()), Rest::Stalled)
    }
}

impl Stream {
    fn moved(&self) {
        self.streams.moves().last.insert(self.number, Instant::now());
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut moves = self.streams.moves();
        moves.last.remove(&self.number);
        moves.emptied = Instant::now();
    }
}

/// A body that says when something of it is taken.
struct Followed<B> {
    body: B,
    stream: Stream,
}

impl<B: Body + Unpin> Body for Followed<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.stream.moved();
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
