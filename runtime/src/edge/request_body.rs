//! The body of a request on its way to the guest: never larger, and never slower, than it may be.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep_until};
use wasmtime_wasi_http::Error as WasiError;

use super::hygiene;
use crate::exceeded::{Exceeded, Limit};
use crate::sandbox::{LeastRate, Progress};
use crate::telemetry::Metrics;

/// What a request body is bounded by.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes_max: u64,
    pub(super) least_rate: LeastRate,
}

/// Which of its bounds a body has broken, for who looks when the guest has ended.
#[derive(Clone, Default)]
pub(super) struct Broken(Arc<OnceLock<Exceeded>>);

impl Broken {
    pub(super) fn by(&self) -> Option<Exceeded> {
        self.0.get().copied()
    }
}

/// A request body that ends in an error beyond its bounds. It is polled for the guest, in its request's task.
pub(super) struct BoundedBody {
    inner: Incoming,
    bounds: Bounds,
    bytes: u64,
    progress: Progress,
    waiting: Option<Waiting>,
    broken: Broken,
    metrics: Arc<Metrics>,
}

/// A wait for the client.
struct Waiting {
    since: Instant,
    too_slow: Pin<Box<Sleep>>,
}

impl BoundedBody {
    pub(super) fn new(inner: Incoming, bounds: Bounds, broken: Broken, metrics: Arc<Metrics>) -> Self {
        let progress = bounds.least_rate.of(Limit::RequestRate);
        Self { inner, bounds, bytes: 0, progress, waiting: None, broken, metrics }
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Exceeded> {
        let progress = &self.progress;
        let Waiting { since, too_slow } = self.waiting.get_or_insert_with(|| {
            let since = Instant::now();
            Waiting { since, too_slow: Box::pin(sleep_until(progress.too_slow_at(since).into())) }
        });
        too_slow.as_mut().poll(context).map(|()| progress.too_slow(*since))
    }

    fn count(&mut self, bytes: u64) -> Result<(), Exceeded> {
        let waited = self.waiting.take().map_or(Duration::ZERO, |waiting| waiting.since.elapsed());
        self.progress.moved(bytes, waited);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.bounds.bytes_max {
            return Err(Exceeded::new(Limit::RequestBytes, self.bytes, self.bounds.bytes_max));
        }
        Ok(())
    }

    fn fail(&mut self, exceeded: Exceeded) -> WasiError {
        if self.broken.0.set(exceeded).is_ok() {
            self.metrics.exceeded(exceeded);
        }
        match exceeded.limit {
            Limit::RequestRate => WasiError::ConnectionReadTimeout,
            _ => WasiError::HttpRequestBodySize(None),
        }
    }
}

impl Body for BoundedBody {
    type Data = Bytes;
    type Error = WasiError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiError>>> {
        let mut frame = match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Pending => {
                let too_slow = ready!(self.wait(context));
                return Poll::Ready(Some(Err(self.fail(too_slow))));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(WasiError::ConnectionTerminated))),
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        if let Some(trailers) = frame.trailers_mut() {
            hygiene::strip_trailers(trailers);
        }
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(Some(match self.count(bytes) {
            Ok(()) => Ok(frame),
            Err(exceeded) => Err(self.fail(exceeded)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
