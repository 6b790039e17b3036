//! A tenant's rate of requests: a token bucket, kept as the one moment at which it will be full again (the generic cell
//! rate algorithm). A full bucket is no state.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// How often a tenant's functions may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second that it may have for ever.
    pub per_second: NonZeroU32,
    /// Requests that it may have at once: what the bucket holds.
    pub burst: NonZeroU32,
}

/// A request that came too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tenant has more than {} requests per second", .rate.per_second)]
pub struct OverRate {
    /// The rate that was exceeded.
    pub rate: Rate,
    /// When one more would have been let in.
    pub wait: Duration,
}

/// What is missing of a tenant's tokens.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    full_at: Option<Instant>,
}

impl Rate {
    /// How long the bucket takes to gain one token.
    fn token(self) -> Duration {
        Duration::from_secs(1) / self.per_second.get()
    }

    /// How long it takes to fill.
    #[must_use]
    pub fn window(self) -> Duration {
        self.token() * self.burst.get()
    }
}

impl Bucket {
    /// Takes a token, or says when there will be one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), OverRate> {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + rate.token();
        let wait = full_at.duration_since(now).saturating_sub(rate.window());
        if !wait.is_zero() {
            return Err(OverRate { rate, wait });
        }
        self.full_at = Some(full_at);
        Ok(())
    }

    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Option<Rate> {
        Some(Rate { per_second: NonZeroU32::new(per_second)?, burst: NonZeroU32::new(burst)? })
    }

    /// How many of a hundred requests at the same moment get a token.
    fn let_in(bucket: &mut Bucket, rate: Rate, now: Instant) -> usize {
        (0..100).filter(|_| bucket.take(rate, now).is_ok()).count()
    }

    #[test]
    fn a_burst_then_the_rate() -> Result<(), &'static str> {
        let (rate, start) = (rate(10, 5).ok_or("zero")?, Instant::now());
        let mut bucket = Bucket::default();
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(let_in(&mut bucket, rate, start), 5);
        assert_eq!(bucket.take(rate, after(60)).err().map(|over| over.wait), Some(Duration::from_millis(40)));
        assert_eq!(let_in(&mut bucket, rate, after(300)), 3);
        assert_eq!(let_in(&mut bucket, rate, after(5_000)), 5, "it holds no more than a burst");
        Ok(())
    }

    #[test]
    fn it_is_full_when_as_many_tokens_have_come_as_went() -> Result<(), &'static str> {
        let (rate, start) = (rate(10, 5).ok_or("zero")?, Instant::now());
        let mut bucket = Bucket::default();
        assert!(bucket.is_full(start));
        assert_eq!(let_in(&mut bucket, rate, start), 5);
        assert!(!bucket.is_full(start + rate.window() - Duration::from_millis(1)));
        assert!(bucket.is_full(start + rate.window()));
        Ok(())
    }
}
