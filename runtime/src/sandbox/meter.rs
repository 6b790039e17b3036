//! CPU time of one guest: what the thread's CPU clock advances while the guest is polled.
//!
//! The epoch makes a guest that computes yield every tick; the meter looks at the clock then. Waiting costs nothing.
//! The CPU clock is a system call, so the first moments are counted by the wall clock: that is never less. A guest that
//! has used them up is heavy.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::body::Course;
use crate::admission::Load;
use crate::exceeded::{Exceeded, Limit};
use crate::limits;
use crate::thread::cpu_time;

/// Counts one guest's CPU time, and adds it to its tenant's load at the end.
pub(super) struct Meter {
    time_max: Duration,
    used: Duration,
    course: Course,
    load: Arc<Load>,
}

impl Meter {
    pub(super) fn new(time_max: Duration, course: Course, load: Arc<Load>) -> Self {
        Self { time_max, used: Duration::ZERO, course, load }
    }

    pub(super) async fn run<F: Future>(&mut self, work: F) -> Result<F::Output, Exceeded> {
        let mut work = pin!(work);
        poll_fn(|context| {
            let poll = if self.course.is_heavy() {
                let before = cpu_time();
                let poll = work.as_mut().poll(context);
                self.used += cpu_time().saturating_sub(before);
                poll
            } else {
                let before = Instant::now();
                let poll = work.as_mut().poll(context);
                self.used += before.elapsed();
                if self.used > limits::HEAVY_AFTER {
                    self.course.found_heavy();
                }
                poll
            };
            match poll {
                Poll::Ready(output) => Poll::Ready(Ok(output)),
                Poll::Pending if self.used > self.time_max => {
                    Poll::Ready(Err(Exceeded::of_time(Limit::CpuTime, self.used, self.time_max)))
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.load.note(self.used);
    }
}
