//! The body of a guest's response, and the guest that may still be writing it.
//!
//! A response that ends because its guest failed must not look whole: the body then ends in an error, and the
//! connection is cut instead of closed properly.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use wasmtime_wasi_http::WasiBody;

use super::least_rate::{LeastRate, Progress};
use crate::exceeded::{Exceeded, Limit};
use crate::telemetry::{Metrics, RequestContext};

const RUNNING: u8 = 0;
const COMPLETED: u8 = 1;
const FAILED: u8 = 2;

/// How a guest's run goes, shared between the guest, whoever polls it, and its body.
#[derive(Clone, Default)]
pub(super) struct Course(Arc<Signs>);

#[derive(Default)]
struct Signs {
    outcome: AtomicU8,
    is_heavy: AtomicBool,
}

impl Course {
    /// The guest's own say. Dropped without one, the guest has failed.
    pub(super) fn verdict(&self) -> Verdict {
        Verdict(self.clone())
    }

    fn has_failed(&self) -> bool {
        self.0.outcome.load(Ordering::Acquire) == FAILED
    }

    /// Says that the guest computes for more than a moment.
    pub(super) fn found_heavy(&self) {
        self.0.is_heavy.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub(super) fn is_heavy(&self) -> bool {
        self.0.is_heavy.load(Ordering::Relaxed)
    }
}

pub(super) struct Verdict(Course);

impl Verdict {
    pub(super) fn completed(&mut self) {
        self.0.0.outcome.store(COMPLETED, Ordering::Release);
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        // Only a guest that is still running has failed.
        let _ = self.0.0.outcome.compare_exchange(RUNNING, FAILED, Ordering::AcqRel, Ordering::Acquire);
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

/// How fast the client takes the response, shared by the body and the guest that writes it.
#[derive(Clone)]
pub(super) struct Taking(Arc<Taken>);

struct Taken {
    /// Whether anybody watches; a guest that has ended with its head needs no watching.
    is_watched: AtomicBool,
    progress: Mutex<(Progress, Option<Offer>)>,
}

/// Bytes that the connection has, and has not come back from.
#[derive(Clone, Copy)]
struct Offer {
    bytes: u64,
    since: Instant,
}

/// How often a client that is not waited for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Taking {
    pub(super) fn new(least: LeastRate) -> Self {
        let progress = Mutex::new((least.of(Limit::ResponseRate), None));
        Self(Arc::new(Taken { is_watched: AtomicBool::new(false), progress }))
    }

    fn lock(&self) -> MutexGuard<'_, (Progress, Option<Offer>)> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on [`Taking::too_slow`] looks, once its task is polled again.
    pub(super) fn watch(&self) {
        self.0.is_watched.store(true, Ordering::Release);
    }

    /// Whether there is a guest that a slow client would keep.
    fn is_watched(&self) -> bool {
        self.0.is_watched.load(Ordering::Acquire)
    }

    fn offer(&self, bytes: u64) {
        if !self.is_watched() {
            return;
        }
        self.lock().1 = Some(Offer { bytes, since: Instant::now() });
    }

    fn took(&self) {
        if !self.is_watched() {
            return;
        }
        let (progress, offer) = &mut *self.lock();
        if let Some(Offer { bytes, since }) = offer.take() {
            progress.moved(bytes, since.elapsed());
        }
    }

    /// Waits until the client has been too slow.
    pub(super) async fn too_slow(&self, course: &Course) -> Exceeded {
        // One in the slow lane is not polled again only because its head is there: it looks at once.
        let looks = || self.is_watched() || course.is_heavy();
        poll_fn(|_| if looks() { Poll::Ready(()) } else { Poll::Pending }).await;
        loop {
            let look_again = {
                let (progress, offer) = &*self.lock();
                match offer {
                    Some(Offer { since, .. }) if progress.too_slow_at(*since) <= Instant::now() => {
                        return progress.too_slow(*since);
                    }
                    Some(Offer { since, .. }) => progress.too_slow_at(*since),
                    None => progress.too_slow_at(Instant::now()).max(Instant::now() + LOOK_AGAIN),
                }
            };
            tokio::time::sleep_until(look_again.into()).await;
        }
    }
}

/// How large the response may still become, and whom to tell when it becomes larger.
pub(super) struct Size {
    bytes: u64,
    bytes_max: u64,
    metrics: Arc<Metrics>,
    /// The connection polls the body, outside of its request.
    context: Option<Arc<RequestContext>>,
}

impl Size {
    pub(super) fn new(bytes_max: u64, metrics: Arc<Metrics>) -> Self {
        Self { bytes: 0, bytes_max, metrics, context: RequestContext::current() }
    }

    /// A response that says itself that it is larger than it may be.
    pub(super) fn promised_by(&self, response: &http::Response<WasiBody>) -> Option<Exceeded> {
        let length = response.headers().get(http::header::CONTENT_LENGTH)?;
        let bytes = length.to_str().ok()?.parse().ok()?;
        (bytes > self.bytes_max).then(|| Exceeded::new(Limit::ResponseBytes, bytes, self.bytes_max))
    }

    fn add(&mut self, bytes: u64) -> Result<(), Interrupted> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= self.bytes_max {
            return Ok(());
        }
        let exceeded = Exceeded::new(Limit::ResponseBytes, self.bytes, self.bytes_max);
        let tell = || self.metrics.exceeded(exceeded);
        match &self.context {
            Some(context) => context.clone().sync_scope(tell),
            None => tell(),
        }
        Err(Interrupted)
    }
}

/// The body of a guest's response.
pub struct GuestBody {
    inner: WasiBody,
    delivered: Option<oneshot::Sender<()>>,
    /// Bytes that a `content-length` promises and that are still to come.
    remaining: Option<u64>,
    deadline: Deadline,
    course: Course,
    rest: Option<Rest>,
    on_disconnect: OnDisconnect,
    size: Size,
    taking: Taking,
}

/// What a body needs to know of its guest's run.
pub(super) struct Parts {
    pub(super) course: Course,
    pub(super) rest: Option<Rest>,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) deadline: Instant,
    pub(super) size: Size,
    pub(super) taking: Taking,
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
    pub(super) fn new(answer: Answer, parts: Parts) -> http::Response<Self> {
        let Answer { response, delivered } = answer;
        let Parts { course, rest, on_disconnect, deadline, size, taking } = parts;
        let deadline = Deadline::At(deadline);
        response.map(|inner| Self {
            inner,
            delivered,
            remaining: None,
            deadline,
            course,
            rest,
            on_disconnect,
            size,
            taking,
        })
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
        self.taking.took();
        let frame = match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Pending if self.deadline.is_over(context) => return Poll::Ready(Some(Err(Interrupted))),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.size.add(bytes)?;
                self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(bytes));
                self.taking.offer(bytes);
                Some(Ok(frame))
            }
            Some(Err(_)) => Some(Err(Interrupted)),
            None if self.course.has_failed() => Some(Err(Interrupted)),
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
