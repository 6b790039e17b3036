//! The memory that requests share: one account for the node, which is never overdrawn.
//!
//! Each request has a part of the node's memory that is its own ([`crate::config`] sets it aside). What it takes beyond
//! that is charged here before it is taken: a guest's memory, the memory of its SQL, rows and values that wait. Whoever
//! asks for more than is left is refused, so that the node is not killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::StatusCode;

use crate::problem::ProblemType;

/// What a caller is told of it.
pub const NODE_MEMORY: ProblemType =
    ProblemType::new(StatusCode::SERVICE_UNAVAILABLE, "node-memory", "The node's memory is taken")
        .retry_after(1);

/// The account has no room for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the memory that the node has for requests is taken")]
pub struct Exhausted;

/// The account.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    resident_bytes_max: u64,
    used: AtomicU64,
    refused: AtomicU64,
    is_tight: AtomicBool,
}

/// What of the account is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// All of it, in bytes.
    pub bytes_max: u64,
    /// What is charged now, in bytes.
    pub used: u64,
    /// How often a charge was refused.
    pub refused: u64,
}

impl Budget {
    /// An account of `bytes_max` on a node that should not have more than `resident_bytes_max` in memory.
    #[must_use]
    pub fn new(bytes_max: u64, resident_bytes_max: u64) -> Self {
        Self {
            bytes_max,
            resident_bytes_max,
            used: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            is_tight: AtomicBool::new(false),
        }
    }

    /// One that never runs out: for work that no request shares memory with.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(u64::MAX, u64::MAX)
    }

    /// Charges bytes that [`Self::give_back`] takes off again.
    ///
    /// # Errors
    /// When they are not there; nothing is charged then.
    pub fn take(&self, bytes: u64) -> Result<(), Exhausted> {
        let within = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within) {
            Ok(_) => Ok(()),
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(Exhausted)
            }
        }
    }

    /// Takes off what [`Self::take`] has charged.
    pub fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Charges bytes for as long as the returned value lives.
    ///
    /// # Errors
    /// When they are not there.
    pub fn charge(self: &Arc<Self>, bytes: u64) -> Result<Charge, Exhausted> {
        self.take(bytes)?;
        Ok(Charge { budget: self.clone(), bytes })
    }

    /// Notes what the node really has in memory: the last defence against what is on no account.
    pub fn note_resident(&self, bytes: u64) {
        let is_tight = bytes > self.resident_bytes_max;
        if is_tight && !self.is_tight.swap(is_tight, Ordering::Relaxed) {
            tracing::warn!(
                resident_bytes = bytes,
                resident_bytes_max = self.resident_bytes_max,
                "the node's memory is nearly used up: new requests are refused"
            );
        }
        self.is_tight.store(is_tight, Ordering::Relaxed);
    }

    /// Whether the node has so much in memory that nothing new should start.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        self.is_tight.load(Ordering::Relaxed)
    }

    /// What of it is used.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            bytes_max: self.bytes_max,
            used: self.used.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// Bytes that are charged to the account until this drops.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Charge {
    /// Charges another number of bytes instead.
    ///
    /// # Errors
    /// When it is more and the difference is not there; the charge stays as it was.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Exhausted> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.budget.take(more)?,
            None => self.budget.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_never_overdrawn() -> Result<(), Exhausted> {
        let budget = Arc::new(Budget::new(100, 1_000));
        let mut one = budget.charge(60)?;
        assert_eq!(budget.charge(41).err(), Some(Exhausted));
        let other = budget.charge(40)?;
        assert_eq!(one.resize(61), Err(Exhausted));
        one.resize(10)?;
        assert_eq!(budget.figures(), Figures { bytes_max: 100, used: 50, refused: 2 });
        drop((one, other));
        assert_eq!(budget.figures().used, 0);
        assert_eq!(budget.take(u64::MAX), Err(Exhausted));
        Ok(())
    }

    #[test]
    fn a_node_that_is_nearly_full_says_so_until_it_is_not() {
        let budget = Budget::new(100, 1_000);
        assert!(!budget.is_tight());
        budget.note_resident(1_001);
        assert!(budget.is_tight());
        budget.note_resident(1_000);
        assert!(!budget.is_tight());
    }
}
