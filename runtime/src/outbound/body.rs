//! The bodies of an outgoing request and of its response, each within its bounds.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::watch;
use tokio::time::Sleep;

use super::failure::Tally;
use super::{Admitted, Failure};
use crate::telemetry::RequestContext;

/// Any error.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why the body of a request broke off: hyper tells only that it did.
#[derive(Clone, Default)]
pub(super) struct Reason(Arc<Mutex<Option<Failure>>>);

impl Reason {
    fn note(&self, failure: Failure) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    /// What an error of hyper's comes from.
    pub(super) fn of(&self, error: &hyper::Error) -> Failure {
        if let Some(failure) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return failure;
        }
        if error.is_parse_too_large() {
            Failure::ResponseHead
        } else if error.is_parse() {
            Failure::Protocol(error.to_string())
        } else {
            Failure::Incomplete(told(error))
        }
    }
}

/// An error with what it comes from.
fn told(error: &hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// The body of a request, up to a bound.
pub(super) struct RequestBody<B> {
    inner: B,
    bytes_max: u64,
    bytes: u64,
    reason: Reason,
}

impl<B> RequestBody<B> {
    pub(super) fn new(inner: B, bytes_max: u64, reason: Reason) -> Self {
        Self { inner, bytes_max, bytes: 0, reason }
    }
}

/// The body broke off; the reason is noted elsewhere.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request broke off")]
pub(super) struct BrokenOff;

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            Some(Ok(frame)) => {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.bytes > self.bytes_max {
                    self.reason.note(Failure::RequestBytes(self.bytes_max));
                    return Poll::Ready(Some(Err(BrokenOff)));
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.reason.note(Failure::RequestBody(error.into()));
                Some(Err(BrokenOff))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What the body of a response may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes_max: u64,
    pub(super) between_bytes: Duration,
    pub(super) deadline: Instant,
}

/// The body of a response, up to its bounds. It holds what its call holds.
pub struct ResponseBody {
    /// Nothing once it has ended.
    open: Option<Open>,
    bounds: Bounds,
    bytes: u64,
    /// Set while a part is waited for. What a guest does in between is not the server's time.
    waiting: Option<Pin<Box<Sleep>>>,
    context: Option<Arc<RequestContext>>,
}

struct Open {
    inner: Incoming,
    admitted: Admitted,
    _present: watch::Sender<()>,
    tally: Tally,
}

impl ResponseBody {
    pub(super) fn new(
        inner: Incoming,
        bounds: Bounds,
        (admitted, present, tally): (Admitted, watch::Sender<()>, Tally),
    ) -> Self {
        let open = Some(Open { inner, admitted, _present: present, tally });
        Self { open, bounds, bytes: 0, waiting: None, context: RequestContext::current() }
    }

    fn fail(&mut self, failure: Failure) -> Failure {
        if let Some(mut open) = self.open.take() {
            open.tally.failed(&failure);
            let tell = || failure.tell(Some(&open.admitted.destination));
            match self.context.take() {
                Some(context) => context.sync_scope(tell),
                None => tell(),
            }
        }
        failure
    }

    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Failure> {
        let bounds = self.bounds;
        let until = || bounds.deadline.min(Instant::now() + bounds.between_bytes);
        let sleep = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until().into())));
        ready!(sleep.as_mut().poll(context));
        let is_over = Instant::now() >= bounds.deadline;
        Poll::Ready(if is_over { Failure::WallTime } else { Failure::BetweenBytesTime })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some(open) = &mut self.open else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut open.inner).poll_frame(context) else {
            let failure = ready!(self.poll_late(context));
            return Poll::Ready(Some(Err(self.fail(failure))));
        };
        self.waiting = None;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.bytes > self.bounds.bytes_max {
                    let failure = Failure::ResponseBytes(self.bounds.bytes_max);
                    return Poll::Ready(Some(Err(self.fail(failure))));
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(self.fail(Reason::default().of(&error)))),
            None => {
                self.open = None;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.open.as_ref().map_or_else(|| SizeHint::with_exact(0), |open| open.inner.size_hint())
    }
}
