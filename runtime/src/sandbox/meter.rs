//! CPU time of one guest: what the thread's CPU clock advances while the guest is polled.
//!
//! The epoch makes a guest that computes yield every tick; the meter looks at the clock then. Waiting costs nothing.
//! The CPU clock is a system call, so the first moments are counted by the wall clock: that is never less.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Up to here the wall clock is good enough.
const COARSE_MAX: Duration = Duration::from_millis(10);

/// The guest has used more than its CPU time: so much.
#[derive(Debug)]
pub(super) struct Exceeded(pub(super) Duration);

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
            let poll = if used < COARSE_MAX {
                let before = Instant::now();
                let poll = work.as_mut().poll(context);
                used += before.elapsed();
                poll
            } else {
                let before = thread_time();
                let poll = work.as_mut().poll(context);
                used += thread_time().saturating_sub(before);
                poll
            };
            match poll {
                Poll::Ready(output) => Poll::Ready(Ok(output)),
                Poll::Pending if used > self.time_max => Poll::Ready(Err(Exceeded(used))),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
