//! Whose statements are likely to be slow: those of owners that have had one that computed, until several have not.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::message::Owner;
use super::worker::lock;

/// How many statements of an owner are expected to be slow after one was.
const EXPECTED: u8 = 16;

/// Owners that are remembered. When there are more, all are forgotten: each is found again by its next slow statement.
const OWNERS_MAX: usize = 4_096;

#[derive(Default)]
pub(super) struct SlowOwners {
    known: AtomicUsize,
    expected: Mutex<HashMap<Owner, u8>>,
}

impl SlowOwners {
    /// Whether the next statement of an owner is likely to be slow.
    pub(super) fn has(&self, owner: Owner) -> bool {
        self.known.load(Ordering::Relaxed) > 0 && self.with(|expected| expected.contains_key(&owner))
    }

    /// A statement was slow, or was expected to be and was not. Those of the node are never expected to be.
    pub(super) fn note(&self, owner: Owner, was_slow: bool) {
        if owner == Owner::NODE {
            return;
        }
        self.with(|expected| {
            if was_slow {
                if expected.len() >= OWNERS_MAX && !expected.contains_key(&owner) {
                    expected.clear();
                }
                expected.insert(owner, EXPECTED);
            } else if let Some(left) = expected.get_mut(&owner) {
                *left -= 1;
                if *left == 0 {
                    expected.remove(&owner);
                }
            }
            self.known.store(expected.len(), Ordering::Relaxed);
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<Owner, u8>) -> T) -> T {
        act(&mut lock(&self.expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_statement_is_expected_again_for_a_while() {
        let owners = SlowOwners::default();
        let (slow, quick) = (Owner(1), Owner(2));
        owners.note(quick, false);
        owners.note(slow, true);
        for _ in 0..EXPECTED {
            assert!(owners.has(slow) && !owners.has(quick));
            owners.note(slow, false);
        }
        assert!(!owners.has(slow));
        assert!(owners.with(|expected| expected.is_empty()));
    }

    #[test]
    fn the_nodes_own_statements_are_never_expected_to_be_slow() {
        let owners = SlowOwners::default();
        owners.note(Owner::NODE, true);
        assert!(!owners.has(Owner::NODE));
    }

    #[test]
    fn no_more_owners_are_remembered_than_may_be() {
        let owners = SlowOwners::default();
        for number in 1..=OWNERS_MAX as u128 + 1 {
            owners.note(Owner(number), true);
        }
        assert!(owners.has(Owner(OWNERS_MAX as u128 + 1)));
        assert_eq!(owners.known.load(Ordering::Relaxed), 1);
    }
}
