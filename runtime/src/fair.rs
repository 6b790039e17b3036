//! Fair lines: whoever waits stands in the line of its owner, first come first served, and the owners are served in
//! turn. An owner with a thousand in line delays another's only one by one. Pure; an owner without a line has no entry.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Empty lines that are kept for the next owner, so that one that seldom waits costs no allocation.
const SPARE_MAX: usize = 4;

/// Lines of waiters `W`, one for each owner `K` that has any.
#[derive(Debug)]
pub struct Lines<K, W> {
    lines: HashMap<K, VecDeque<W>>,
    /// Every owner with a line, the one that was served longest ago first.
    turns: VecDeque<K>,
    spare: Vec<VecDeque<W>>,
    waiting: usize,
}

impl<K, W> Default for Lines<K, W> {
    fn default() -> Self {
        Self { lines: HashMap::new(), turns: VecDeque::new(), spare: Vec::new(), waiting: 0 }
    }
}

impl<K: Clone + Eq + Hash, W> Lines<K, W> {
    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many wait, of all owners.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// How many wait in an owner's line.
    #[must_use]
    pub fn length_of(&self, owner: &K) -> usize {
        self.lines.get(owner).map_or(0, VecDeque::len)
    }

    /// Whether one of an owner's waiters is a certain one.
    #[must_use]
    pub fn any(&self, owner: &K, is_it: impl Fn(&W) -> bool) -> bool {
        self.lines.get(owner).is_some_and(|line| line.iter().any(is_it))
    }

    /// Puts a waiter at the end of its owner's line.
    pub fn push(&mut self, owner: K, waiter: W) {
        self.waiting += 1;
        let line = match self.lines.entry(owner) {
            Entry::Occupied(line) => line.into_mut(),
            Entry::Vacant(place) => {
                self.turns.push_back(place.key().clone());
                place.insert(self.spare.pop().unwrap_or_default())
            }
        };
        line.push_back(waiter);
    }

    /// Takes the next waiter.
    pub fn pop(&mut self) -> Option<(K, W)> {
        self.pop_of(|_| true)
    }

    /// Takes the next waiter whose owner may have it. An owner that is passed over keeps its turn.
    pub fn pop_of(&mut self, may: impl Fn(&K) -> bool) -> Option<(K, W)> {
        let place = self.turns.iter().position(may)?;
        let owner = self.turns.remove(place)?;
        let line = self.lines.get_mut(&owner)?;
        let first = line.pop_front()?;
        self.waiting -= 1;
        if line.is_empty() {
            self.close(&owner);
        } else {
            self.turns.push_back(owner.clone());
        }
        Some((owner, first))
    }

    /// Takes out a waiter that gives up, wherever in its owner's line it stands.
    pub fn remove(&mut self, owner: &K, is_it: impl Fn(&W) -> bool) -> Option<W> {
        let line = self.lines.get_mut(owner)?;
        let gone = line.remove(line.iter().position(is_it)?)?;
        self.waiting -= 1;
        if line.is_empty() {
            self.close(owner);
            self.turns.retain(|other| other != owner);
        }
        Some(gone)
    }

    fn close(&mut self, owner: &K) {
        if let Some(line) = self.lines.remove(owner)
            && self.spare.len() < SPARE_MAX
        {
            self.spare.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(waiters: &[(&'static str, u32)]) -> Lines<&'static str, u32> {
        let mut lines = Lines::default();
        waiters.iter().for_each(|(owner, waiter)| lines.push(*owner, *waiter));
        lines
    }

    #[test]
    fn owners_are_served_in_turn_and_each_line_in_order() {
        let mut lines = filled(&[("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)]);
        let served: Vec<u32> = std::iter::from_fn(|| lines.pop()).map(|(_, waiter)| waiter).collect();
        assert_eq!(served, [1, 4, 5, 2, 6, 3]);
        assert!(lines.lines.is_empty() && lines.turns.is_empty() && lines.is_empty());
    }

    #[test]
    fn one_that_comes_back_stands_behind_those_that_wait() {
        let mut lines = filled(&[("a", 1), ("b", 2)]);
        assert_eq!(lines.pop(), Some(("a", 1)));
        lines.push("a", 3);
        assert_eq!(lines.pop(), Some(("b", 2)));
        assert_eq!(lines.pop(), Some(("a", 3)));
    }

    #[test]
    fn an_owner_that_is_passed_over_keeps_its_turn() {
        let mut lines = filled(&[("a", 1), ("b", 2), ("b", 3), ("a", 4)]);
        assert_eq!(lines.pop_of(|owner| *owner != "a"), Some(("b", 2)));
        assert_eq!(lines.pop(), Some(("a", 1)));
        assert_eq!(lines.pop_of(|_| false), None);
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let mut lines = filled(&[("a", 1), ("a", 2), ("b", 3)]);
        assert_eq!(lines.remove(&"a", |waiter| *waiter == 1), Some(1));
        assert_eq!(lines.remove(&"a", |waiter| *waiter == 1), None);
        assert_eq!(lines.length_of(&"a"), 1);
        assert_eq!(lines.remove(&"a", |waiter| *waiter == 2), Some(2));
        assert_eq!(lines.remove(&"b", |waiter| *waiter == 3), Some(3));
        assert!(lines.lines.is_empty() && lines.turns.is_empty() && lines.is_empty());
    }
}
