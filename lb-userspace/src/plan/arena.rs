//! Where in the arena each list and ring lies: segments of some lines in a row.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
};

use lb_common::abi::Line;

/// Hands out segments of lines from 1 below a capacity; line 0 is never used.
///
/// A freed segment first serves requests of its own size. When neither such a one nor untouched
/// lines are left, neighbours are joined and the smallest hole that fits is cut.
#[derive(Clone, Debug)]
pub struct Arena {
    capacity: u32,
    /// Lines from here on were never given.
    fresh: u32,
    /// Freed segments: first lines by number of lines.
    free: BTreeMap<u32, BTreeSet<u32>>,
    used: u32,
}

/// A run of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    pub first: u32,
    pub lines: NonZeroU32,
}

impl Segment {
    /// The segment at `first` that has room for `slots`.
    pub const fn new(first: u32, slots: u32) -> Self {
        let lines = Line::lines_for(slots);
        // A head alone takes a line.
        Self { first, lines: NonZeroU32::new(lines).expect("a segment has a head") }
    }
}

impl Arena {
    /// For a map of `capacity` lines.
    pub const fn new(capacity: u32) -> Self {
        Self { capacity, fresh: 1, free: BTreeMap::new(), used: 0 }
    }

    /// For a map in which the segments `taken` are in use; they do not overlap.
    pub fn with_taken(capacity: u32, taken: &BTreeSet<Segment>) -> Self {
        let mut arena = Self::new(capacity);
        for segment in taken {
            if segment.first > arena.fresh {
                arena.insert_hole(arena.fresh, segment.first - arena.fresh);
            }
            arena.fresh = segment.first + segment.lines.get();
            arena.used += segment.lines.get();
        }
        arena
    }

    /// Room for `slots`; `None` when there is none.
    pub fn take(&mut self, slots: u32) -> Option<Segment> {
        let lines = Line::lines_for(slots);
        let first = self
            .take_hole(lines, lines)
            .or_else(|| self.take_fresh(lines))
            .or_else(|| self.take_hole(lines, u32::MAX))
            .or_else(|| {
                self.join();
                self.take_fresh(lines).or_else(|| self.take_hole(lines, u32::MAX))
            })?;
        self.used += lines;
        Some(Segment::new(first, slots))
    }

    /// Frees a segment that [`Arena::take`] returned.
    pub fn give_back(&mut self, segment: Segment) {
        self.used -= segment.lines.get();
        self.insert_hole(segment.first, segment.lines.get());
    }

    /// How many lines are taken.
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// How many there can be.
    pub const fn capacity(&self) -> u32 {
        self.capacity.saturating_sub(1)
    }

    fn take_fresh(&mut self, lines: u32) -> Option<u32> {
        let end = self.fresh.checked_add(lines)?;
        (end <= self.capacity).then(|| std::mem::replace(&mut self.fresh, end))
    }

    /// The start of the smallest hole of `lines` to `most` lines, cut to size.
    fn take_hole(&mut self, lines: u32, most: u32) -> Option<u32> {
        let (&size, _) = self.free.range(lines..=most).next()?;
        let holes = self.free.get_mut(&size)?;
        let first = holes.pop_first()?;
        if holes.is_empty() {
            self.free.remove(&size);
        }
        if size > lines {
            self.insert_hole(first + lines, size - lines);
        }
        Some(first)
    }

    fn insert_hole(&mut self, first: u32, lines: u32) {
        self.free.entry(lines).or_default().insert(first);
    }

    /// Makes one hole of holes that touch, and gives the last back to the untouched lines.
    fn join(&mut self) {
        let holes: BTreeMap<u32, u32> = std::mem::take(&mut self.free)
            .into_iter()
            .flat_map(|(lines, firsts)| firsts.into_iter().map(move |first| (first, lines)))
            .collect();
        let mut run: Option<(u32, u32)> = None;
        for (first, lines) in holes {
            run = match run {
                Some((start, length)) if start + length == first => Some((start, length + lines)),
                Some((start, length)) => {
                    self.insert_hole(start, length);
                    Some((first, lines))
                }
                None => Some((first, lines)),
            };
        }
        match run {
            Some((start, length)) if start + length == self.fresh => self.fresh = start,
            Some((start, length)) => self.insert_hole(start, length),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_segment_serves_the_next_of_its_size() {
        let mut arena = Arena::new(100);
        let first = arena.take(20).unwrap();
        let second = arena.take(20).unwrap();
        assert_eq!((first.first, first.lines.get(), second.first), (1, 2, 3));
        arena.give_back(first);
        assert_eq!(arena.take(2).unwrap().first, 5, "another size leaves the hole alone");
        assert_eq!(arena.take(28).unwrap().first, 1);
        assert_eq!(arena.used(), 5);
    }

    #[test]
    fn small_holes_become_a_large_one_when_nothing_else_is_left() {
        let mut arena = Arena::new(9);
        let small: Vec<Segment> = (0..8).map(|_| arena.take(1).unwrap()).collect();
        assert_eq!(arena.take(1), None);
        small.into_iter().for_each(|segment| arena.give_back(segment));
        assert_eq!(arena.take(124).unwrap().first, 1, "eight lines in a row");
        assert_eq!((arena.used(), arena.capacity()), (8, 8));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut arena = Arena::new(5);
        assert_eq!(arena.take(1000), None);
        assert_eq!(arena.used(), 0);
        assert_eq!(arena.take(60).unwrap().first, 1);
    }

    #[test]
    fn an_arena_read_back_hands_out_only_what_is_free() {
        let taken = BTreeSet::from([Segment::new(2, 20), Segment::new(6, 1)]);
        let mut arena = Arena::with_taken(8, &taken);
        let mut firsts: Vec<u32> =
            std::iter::from_fn(|| arena.take(1)).map(|segment| segment.first).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [1, 4, 5, 7]);
    }

    #[test]
    fn segments_never_overlap_whatever_the_order_of_requests() {
        let mut random = 1_u64;
        let mut next = move |n: u32| {
            random = lb_common::hash::mix(random, 3);
            (random >> 33) as u32 % n
        };
        let mut arena = Arena::new(300);
        let mut held: Vec<Segment> = Vec::new();
        for _ in 0..20_000 {
            if next(2) == 0 {
                held.extend(arena.take(next(400)));
            } else if !held.is_empty() {
                arena.give_back(held.swap_remove(next(held.len() as u32) as usize));
            }
            let mut owner = [false; 300];
            for line in held.iter().flat_map(|s| s.first..s.first + s.lines.get()) {
                assert!(line > 0 && !std::mem::replace(&mut owner[line as usize], true), "{line}");
            }
        }
    }
}
