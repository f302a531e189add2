//! What lives in the slots of an array map, by its id.

use std::collections::BTreeSet;

/// A table for ids that lie close together, as those of [`super::ids::Ids`] do: what is in it, and
/// little more.
#[derive(Clone, Debug)]
pub struct Slots<T>(Vec<Option<T>>);

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Slots<T> {
    /// What is in a slot.
    pub fn get(&self, id: u32) -> Option<&T> {
        self.0.get(id as usize)?.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.0.get_mut(id as usize)?.as_mut()
    }

    /// Fills a slot, whatever was in it.
    pub fn insert(&mut self, id: u32, value: T) {
        let (at, length) = (id as usize, self.0.len());
        if at >= length {
            if at >= self.0.capacity() {
                // An eighth in reserve: twice as much would be most of what there is.
                self.0.reserve_exact((at + 1 - length).max(length / 8));
            }
            self.0.resize_with(at + 1, || None);
        }
        self.0[at] = Some(value);
    }

    /// Empties a slot.
    pub fn remove(&mut self, id: u32) -> Option<T> {
        let value = self.0.get_mut(id as usize)?.take();
        while self.0.last().is_some_and(Option::is_none) {
            self.0.pop();
        }
        value
    }

    /// What is in all slots, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.0).filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        (0..).zip(&mut self.0).filter_map(|(id, slot)| Some((id, slot.as_mut()?)))
    }

    /// The ids in use.
    pub fn ids(&self) -> BTreeSet<u32> {
        self.iter().map(|(id, _)| id).collect()
    }

    /// The id behind the last in use.
    pub const fn end(&self) -> u32 {
        self.0.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_by_their_ids_and_end_behind_the_last() {
        let mut slots = Slots::default();
        slots.insert(5, "five");
        slots.insert(2, "two");
        slots.insert(2, "again");
        assert_eq!((slots.get(2), slots.get(3), slots.get(9)), (Some(&"again"), None, None));
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(2, &"again"), (5, &"five")]);
        assert_eq!((slots.end(), slots.ids()), (6, BTreeSet::from([2, 5])));
        assert_eq!((slots.remove(5), slots.remove(5), slots.remove(9)), (Some("five"), None, None));
        assert_eq!(slots.end(), 3);
        assert_eq!(slots.remove(2), Some("again"));
        assert_eq!((slots.end(), slots.iter().next()), (0, None));
    }
}
