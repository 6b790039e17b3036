//! The body of a guest's response, and the guest that may still be writing it.
//!
//! A response that ends because its guest failed must not look whole: the body then ends in an error, and the
//! connection is cut instead of closed properly.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use wasmtime_wasi_http::WasiBody;

const RUNNING: u8 = 0;
const COMPLETED: u8 = 1;
const FAILED: u8 = 2;

/// How a guest ended, shared between its task and its body.
#[derive(Clone, Default)]
pub(super) struct Ended(Arc<AtomicU8>);

impl Ended {
    /// The guest's own say. Dropped without one, the guest has failed.
    pub(super) fn verdict(&self) -> Verdict {
        Verdict(self.clone())
    }

    fn has_failed(&self) -> bool {
        self.0.load(Ordering::Acquire) == FAILED
    }
}

pub(super) struct Verdict(Ended);

impl Verdict {
    pub(super) fn completed(&mut self) {
        self.0.0.store(COMPLETED, Ordering::Release);
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        // Only a guest that is still running has failed.
        let _ = self.0.0.compare_exchange(RUNNING, FAILED, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// What happens to a guest when its client goes away before the whole response is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It is cancelled, and what it has not committed is rolled back.
    Cancel,
    /// It finishes: the response has no body that a client could miss.
    Finish,
}

/// The rest of a guest, in a task of its own. Aborted when this value drops, unless it was let go.
pub(super) struct Rest(Option<JoinHandle<Result<(), super::GuestFailure>>>);

impl Rest {
    pub(super) fn new(task: JoinHandle<Result<(), super::GuestFailure>>) -> Self {
        Self(Some(task))
    }

    fn let_it_run(&mut self) {
        self.0 = None;
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Where a guest's answer goes once it has a head: a response, or the error code that it gave instead.
pub(super) struct Head {
    sender: oneshot::Sender<Result<Answer, String>>,
    delivered: Option<oneshot::Sender<()>>,
}

/// A response whose head is there.
pub(super) struct Answer {
    pub(super) response: http::Response<WasiBody>,
    /// Told when the client has the whole response; dropped when it will not.
    pub(super) delivered: Option<oneshot::Sender<()>>,
}

impl Head {
    pub(super) fn channel() -> (Self, oneshot::Receiver<Result<Answer, String>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, delivered: None }, receiver)
    }

    /// What hears of the response's end.
    pub(super) fn delivered(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.delivered = Some(sender);
        receiver
    }

    pub(super) fn send<E: std::fmt::Debug>(self, answer: Result<http::Response<WasiBody>, E>) {
        let answer = match answer {
            Ok(response) => Ok(Answer { response, delivered: self.delivered }),
            Err(code) => Err(format!("{code:?}")),
        };
        // Nobody waits for the head of a request that was cancelled.
        let _ = self.sender.send(answer);
    }
}

/// The guest failed in the middle of its response.
#[derive(Debug, thiserror::Error)]
#[error("the guest failed in the middle of its response")]
pub struct Interrupted;

/// The body of a guest's response.
pub struct GuestBody {
    inner: WasiBody,
    ended: Ended,
    rest: Option<Rest>,
    on_disconnect: OnDisconnect,
    delivered: Option<oneshot::Sender<()>>,
    /// Bytes that a `content-length` promises and that are still to come.
    remaining: Option<u64>,
    deadline: Deadline,
}

/// When the response must be complete. A guest that runs is stopped then; but a body can outlive its guest, which may
/// have handed on the body of its request.
enum Deadline {
    At(Instant),
    Set(Pin<Box<Sleep>>),
}

impl Deadline {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        if let Self::At(deadline) = *self {
            *self = Self::Set(Box::pin(tokio::time::sleep_until(deadline.into())));
        }
        match self {
            Self::At(_) => false,
            Self::Set(sleep) => sleep.as_mut().poll(context).is_ready(),
        }
    }
}

impl GuestBody {
    pub(super) fn new(
        answer: Answer,
        ended: Ended,
        rest: Option<Rest>,
        on_disconnect: OnDisconnect,
        deadline: Instant,
    ) -> http::Response<Self> {
        let Answer { response, delivered } = answer;
        let deadline = Deadline::At(deadline);
        response.map(|inner| Self { inner, ended, rest, on_disconnect, delivered, remaining: None, deadline })
    }

    /// The whole response is sent: what the guest does now is work after the response.
    fn complete(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.let_it_run();
        }
        if let Some(delivered) = self.delivered.take() {
            // Only a guest that asked listens.
            let _ = delivered.send(());
        }
    }

    /// Takes over the length that the response's head promises.
    pub fn expect_length(&mut self, length: Option<u64>) {
        self.remaining = length;
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Pending if self.deadline.is_over(context) => return Poll::Ready(Some(Err(Interrupted))),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(remaining)) = (frame.data_ref(), self.remaining.as_mut()) {
                    *remaining = remaining.saturating_sub(data.len() as u64);
                }
                Some(Ok(frame))
            }
            Some(Err(_)) => Some(Err(Interrupted)),
            None if self.ended.has_failed() => Some(Err(Interrupted)),
            None => {
                self.complete();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        // hyper drops a body of known length without asking for its end.
        if self.on_disconnect == OnDisconnect::Finish
            || self.remaining == Some(0)
            || self.inner.is_end_stream()
        {
            self.complete();
        }
    }
}
