//! How slow a client may be with a body, in either direction: a client must not hold a turn by sending or taking a byte
//! now and then.
//!
//! A client has a credit of time. Only the time in which it is waited for comes off; each byte that it moves brings some
//! back, never to more than the credit that it began with. So it may stop for that long, and be as slow as the rate.

use std::time::{Duration, Instant};

use crate::exceeded::{Exceeded, Limit};

/// The least that is asked of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeastRate {
    /// How long it may move nothing.
    pub wait_max: Duration,
    /// How fast it must be in the long run; 0: any byte will do.
    pub bytes_per_second: u64,
}

/// How far a client has come with a body.
#[derive(Debug)]
pub struct Progress {
    least: LeastRate,
    limit: Limit,
    credit: Duration,
    /// What it has moved, and how long it was waited for, since its credit was whole.
    bytes: u64,
    waited: Duration,
}

impl LeastRate {
    /// A body that has not begun, in the direction of `limit`.
    #[must_use]
    pub fn of(self, limit: Limit) -> Progress {
        Progress { least: self, limit, credit: self.wait_max, bytes: 0, waited: Duration::ZERO }
    }

    fn time_for(self, bytes: u64) -> Duration {
        let milliseconds = bytes.saturating_mul(1_000).checked_div(self.bytes_per_second);
        milliseconds.map_or(self.wait_max, Duration::from_millis)
    }
}

impl Progress {
    /// Bytes came after so long.
    pub fn moved(&mut self, bytes: u64, waited: Duration) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited += waited;
        let credit = self.credit.saturating_sub(waited).saturating_add(self.least.time_for(bytes));
        if credit >= self.least.wait_max {
            (self.bytes, self.waited) = (0, Duration::ZERO);
        }
        self.credit = credit.min(self.least.wait_max);
    }

    /// When the client has been too slow, if nothing moves from `since` on.
    #[must_use]
    pub fn too_slow_at(&self, since: Instant) -> Instant {
        since + self.credit
    }

    /// A client that has been too slow.
    #[must_use]
    pub fn too_slow(&self, since: Instant) -> Exceeded {
        let milliseconds = u64::try_from((self.waited + since.elapsed()).as_millis()).unwrap_or(u64::MAX);
        let rate = self.bytes.saturating_mul(1_000) / milliseconds.max(1);
        Exceeded::new(self.limit, rate, self.least.bytes_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(bytes_per_second: u64) -> Progress {
        LeastRate { wait_max: Duration::from_secs(10), bytes_per_second }.of(Limit::RequestRate)
    }

    fn credit(progress: &Progress) -> u64 {
        let now = Instant::now();
        (progress.too_slow_at(now) - now).as_secs()
    }

    #[test]
    fn a_client_at_the_rate_never_runs_out() {
        let mut progress = progress(100);
        for _ in 0..1_000 {
            progress.moved(500, Duration::from_secs(5));
        }
        assert_eq!(credit(&progress), 10);
    }

    #[test]
    fn a_slower_client_runs_out_whatever_it_has_moved_before() {
        let mut progress = progress(100);
        progress.moved(1_000_000, Duration::from_secs(1));
        assert_eq!(credit(&progress), 10);
        for left in [6, 2] {
            progress.moved(100, Duration::from_secs(5));
            assert_eq!(credit(&progress), left);
        }
        let told = progress.too_slow(Instant::now());
        assert_eq!((told.used, told.allowed), (20, 100));
    }

    #[test]
    fn without_a_rate_any_byte_will_do() {
        let mut progress = progress(0);
        progress.moved(1, Duration::from_secs(9));
        assert_eq!(credit(&progress), 10);
    }
}
