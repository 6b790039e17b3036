//! Wrong tokens, by the address that they come from.
//!
//! A token has 256 random bits: no limit is needed to keep it from being guessed. This one keeps whoever tries all the
//! same from filling the log and from being answered at length. So a right token is let in whatever else came from its
//! address: nobody can lock the operator out, not even from behind the same proxy.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits;
use crate::network::client_of;

/// What becomes of one wrong token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is answered and logged.
    Told,
    /// So is this one, and none after it for a while.
    LastTold,
    /// One too many: not before this time has passed.
    TooMany(Duration),
}

/// Token buckets that are kept as the moment at which each is full again (GCRA). A full one is not kept.
#[derive(Debug, Default)]
pub struct Failures {
    full_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl Failures {
    /// Takes note of a wrong token from an address.
    pub(super) fn note(&self, address: IpAddr, now: Instant) -> Verdict {
        const REFILL: Duration = limits::TOKEN_FAILURE_REFILL;
        let room = REFILL * limits::TOKEN_FAILURES_AT_ONCE;
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = client_of(address);
        if full_at.len() >= limits::TOKEN_FAILURE_ADDRESSES_MAX && !full_at.contains_key(&key) {
            full_at.retain(|_, full| *full > now);
            if full_at.len() >= limits::TOKEN_FAILURE_ADDRESSES_MAX {
                // All others share one.
                key = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let full = full_at.get(&key).copied().unwrap_or(now).max(now) + REFILL;
        let debt = full.saturating_duration_since(now);
        if debt > room {
            return Verdict::TooMany(debt - room);
        }
        full_at.insert(key, full);
        if debt + REFILL > room { Verdict::LastTold } else { Verdict::Told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn each_address_has_a_bucket_that_fills_again() {
        let (failures, start) = (Failures::default(), Instant::now());
        for number in 1..limits::TOKEN_FAILURES_AT_ONCE {
            assert_eq!(failures.note(v4(1), start), Verdict::Told, "{number}");
        }
        assert_eq!(failures.note(v4(1), start), Verdict::LastTold);
        let refused = Verdict::TooMany(limits::TOKEN_FAILURE_REFILL);
        assert_eq!([failures.note(v4(1), start), failures.note(v4(1), start)], [refused, refused]);
        assert_eq!(failures.note(v4(2), start), Verdict::Told);
        assert_eq!(failures.note(v4(1), start + limits::TOKEN_FAILURE_REFILL), Verdict::LastTold);
        let much_later = start + limits::TOKEN_FAILURE_REFILL * (limits::TOKEN_FAILURES_AT_ONCE + 1);
        assert_eq!(failures.note(v4(1), much_later), Verdict::Told);
    }

    #[test]
    fn what_is_kept_is_bounded_and_dropped() {
        let (failures, start) = (Failures::default(), Instant::now());
        let many = u32::try_from(limits::TOKEN_FAILURE_ADDRESSES_MAX).unwrap_or(u32::MAX) + 200;
        let kept = || failures.full_at.lock().map_or(0, |full_at| full_at.len());
        let verdicts: Vec<_> = (0..many).map(|number| failures.note(v4(number), start)).collect();
        assert!(
            verdicts.iter().any(|verdict| matches!(verdict, Verdict::TooMany(_))),
            "those beyond share none"
        );
        assert_eq!(kept(), limits::TOKEN_FAILURE_ADDRESSES_MAX + 1);
        failures.note(v4(many), start + limits::TOKEN_FAILURE_REFILL * 2 * limits::TOKEN_FAILURES_AT_ONCE);
        assert_eq!(kept(), 1);
    }
}
