//! One connection that speaks HTTP/1.1, bounded on every side.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::{Door, Peer};
use crate::limits;

/// Answers requests until the client or a drain ends it.
pub(super) async fn serve<D: Door>(
    door: Arc<D>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    peer: Peer,
    mut drain: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(door.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_READ_TIME_MAX)
        .max_headers(limits::HEADERS_MAX * 2)
        .max_buf_size(limits::HEAD_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        _ = drain.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
