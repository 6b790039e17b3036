//! CPU time of one guest: what the thread's CPU clock advances while the guest is polled.
//!
//! The epoch makes a guest that computes yield every tick; the meter looks at the clock then. Waiting costs nothing.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The guest has used all its CPU time.
#[derive(Debug)]
pub(super) struct Exceeded;

pub(super) struct Metered {
    time_max: Duration,
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Metered {
    pub(super) fn new(time_max: Duration) -> Self {
        Self { time_max }
    }

    pub(super) async fn run<F: Future>(self, work: F) -> Result<F::Output, Exceeded> {
        let mut work = pin!(work);
        let mut used = Duration::ZERO;
        poll_fn(|context| {
            let before = thread_time();
            let poll = work.as_mut().poll(context);
            used += thread_time().saturating_sub(before);
            match poll {
                Poll::Ready(output) => Poll::Ready(Ok(output)),
                Poll::Pending if used > self.time_max => Poll::Ready(Err(Exceeded)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
