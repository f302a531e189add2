//! Numbers for things that live in the slots of an array map.

use std::collections::BTreeSet;

/// Hands out ids from 1 below a capacity, the lowest free one first; 0 is never used.
#[derive(Clone, Debug)]
pub struct Ids {
    capacity: u32,
    /// Ids from here on were never taken.
    fresh: u32,
    /// Below `fresh`, and free.
    free: BTreeSet<u32>,
}

impl Ids {
    /// For a map of `capacity` slots.
    pub const fn new(capacity: u32) -> Self {
        Self { capacity, fresh: 1, free: BTreeSet::new() }
    }

    /// For a map in which `taken` are in use.
    pub fn with_taken(capacity: u32, taken: &BTreeSet<u32>) -> Self {
        let fresh = taken.last().map_or(1, |last| last + 1);
        let free = (1..fresh).filter(|id| !taken.contains(id)).collect();
        Self { capacity, fresh, free }
    }

    /// A free id; `None` when all are taken.
    pub fn take(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop_first() {
            return Some(id);
        }
        (self.fresh < self.capacity).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    /// Frees an id that [`Ids::take`] returned.
    pub fn give_back(&mut self, id: u32) {
        debug_assert!(id < self.fresh && !self.free.contains(&id), "id {id} was not taken");
        self.free.insert(id);
    }

    /// How many are taken.
    pub fn used(&self) -> u32 {
        self.fresh - 1 - self.free.len() as u32
    }

    /// How many there can be.
    pub const fn capacity(&self) -> u32 {
        self.capacity.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_nobodys_and_the_lowest_free_id_goes_first() {
        let mut ids = Ids::new(4);
        assert_eq!(
            [ids.take(), ids.take(), ids.take(), ids.take()],
            [Some(1), Some(2), Some(3), None]
        );
        ids.give_back(3);
        ids.give_back(1);
        assert_eq!((ids.used(), ids.capacity()), (1, 3));
        assert_eq!([ids.take(), ids.take(), ids.take()], [Some(1), Some(3), None]);
    }

    #[test]
    fn ids_in_use_are_not_handed_out_again() {
        let mut ids = Ids::with_taken(6, &BTreeSet::from([1, 4]));
        assert_eq!(ids.used(), 2);
        assert_eq!(
            [ids.take(), ids.take(), ids.take(), ids.take()],
            [Some(2), Some(3), Some(5), None]
        );
    }
}
