//! The flow tables as the agent sees them: how many flows live, and whose they are.
//!
//! A scan reads two or three words of each entry, without locks: what a program writes meanwhile is
//! seen or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use lb_common::{
    abi::{WORDS_V4, WORDS_V6},
    addr::{Addr, V4, V6},
    table,
    tracking::State,
};

use super::maps::Maps;

/// How full the table of a family is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Live entries: two for each flow.
    pub entries: u64,
    /// How many there could be.
    pub capacity: u64,
}

impl Fill {
    /// Rounded down.
    pub fn percent(self) -> u64 {
        self.entries * 100 / self.capacity.max(1)
    }
}

/// What one scan has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    pub v4: Fill,
    pub v6: Fill,
    /// Live entries of each backend.
    pub by_backend: BTreeMap<u32, u64>,
    /// Those of them whose connection is not over.
    pub open: BTreeMap<u32, u64>,
}

impl Flows {
    /// Backends that a live entry refers to: for [`crate::plan::tables::Tables::reclaim`].
    pub fn referenced(&self) -> BTreeSet<u32> {
        self.by_backend.keys().copied().collect()
    }
}

impl Maps {
    /// Takes back what an agent left when it died in the middle of carrying a flow to these tables: for
    /// an agent's start, whatever maps it goes on with. Tables that two layouts share are no exception.
    pub fn mend_flows(&self) {
        self.flows_v4.flow_sets::<V4>().iter().for_each(table::mend);
        self.flows_v6.flow_sets::<V6>().iter().for_each(table::mend);
    }

    /// A backend's slot is nobody's: nothing is open to it.
    pub(super) fn count_nothing(&self, backend: u32) {
        let words = self.loads.words().iter().skip(2 * backend as usize).take(2);
        words.for_each(|word| word.store(0, Relaxed));
    }

    /// Counts anew how many flows each of these backends has open: programs count those that open,
    /// but flows that end need not send a packet.
    pub fn count_flows(&self, flows: &Flows, backends: impl IntoIterator<Item = u32>) {
        let (pairs, _) = self.loads.words().as_chunks::<2>();
        for id in backends {
            if let Some([of_flows, _]) = pairs.get(id as usize) {
                // Two entries for each.
                let open = flows.open.get(&id).copied().unwrap_or(0) / 2;
                if of_flows.load(Relaxed) != open {
                    of_flows.store(open, Relaxed);
                }
            }
        }
    }

    /// Looks at every entry of both families; `now` is the tick that programs see.
    pub fn flows(&self, now: u32) -> Flows {
        let mut flows = Flows::default();
        flows.v4 = scan::<V4, WORDS_V4>(self.flows_v4.words(), now, &mut flows);
        flows.v6 = scan::<V6, WORDS_V6>(self.flows_v6.words(), now, &mut flows);
        flows
    }
}

/// The layout is that of [`lb_common::table`]: expiry and state in word 0, the backend above the new
/// ports behind the new addresses.
fn scan<A: Addr, const N: usize>(words: &[AtomicU64], now: u32, flows: &mut Flows) -> Fill {
    let (entries, _) = words.as_chunks::<N>();
    let mut fill = Fill { entries: 0, capacity: entries.len() as u64 };
    for entry in entries {
        let meta = entry[0].load(Relaxed);
        let state = State::from_number((meta >> 32) as u8);
        if matches!(state, State::Empty) {
            continue;
        }
        if (meta as u32).wrapping_sub(now) as i32 <= 0 {
            continue;
        }
        fill.entries += 1;
        let backend = (entry[2 + 2 * A::PAIR_WORDS].load(Relaxed) >> 32) as u32;
        *flows.by_backend.entry(backend).or_default() += 1;
        if !matches!(state, State::Closing) {
            *flows.open.entry(backend).or_default() += 1;
        }
    }
    fill
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 1_000_000;

    fn flow<const N: usize>(
        pair_words: usize,
        state: State,
        expires_in: i32,
        backend: u64,
    ) -> [AtomicU64; N] {
        let entry = [const { AtomicU64::new(0) }; N];
        let expiry = u64::from(NOW.wrapping_add_signed(expires_in));
        entry[0].store(expiry | (state as u64) << 32, Relaxed);
        entry[2 + 2 * pair_words].store(backend << 32 | 0xffff_ffff, Relaxed);
        entry
    }

    #[test]
    fn only_live_entries_count_for_their_backends() {
        let words: Vec<AtomicU64> = [
            flow::<WORDS_V4>(1, State::Established, 10, 7),
            flow(1, State::Empty, 10, 8),
            flow(1, State::HalfOpen, 1, 7),
            flow(1, State::HalfOpen, 0, 9),
            flow(1, State::Closing, -1, 10),
            flow(1, State::Closing, 5, 7),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut flows = Flows::default();
        let fill = scan::<V4, WORDS_V4>(&words, NOW, &mut flows);
        assert_eq!(fill, Fill { entries: 3, capacity: 6 });
        let (by_backend, open) = (BTreeMap::from([(7, 3)]), BTreeMap::from([(7, 2)]));
        assert_eq!(flows, Flows { by_backend, open, ..Flows::default() });
        assert_eq!(flows.referenced(), BTreeSet::from([7]));
    }

    #[test]
    fn entries_of_the_second_family_are_wider() {
        let words: Vec<AtomicU64> =
            flow::<WORDS_V6>(4, State::Established, 1, 3).into_iter().collect();
        let mut flows = Flows::default();
        scan::<V6, WORDS_V6>(&words, NOW, &mut flows);
        assert_eq!(flows.by_backend, BTreeMap::from([(3, 1)]));
    }
}
