//! The flow tables as the agent sees them: how many flows live, and whose they are.
//!
//! A scan reads two or three words of each entry, without locks: what a program writes meanwhile is
//! seen or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use lb_common::{
    abi::{Settings, WORDS_V4, WORDS_V6},
    addr::{Addr, V4, V6},
    tracking::{State, timeout},
};

use super::maps::Maps;

/// What one scan has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// Live entries: two for each flow.
    pub entries: u64,
    /// How many there could be.
    pub capacity: u64,
    /// Live entries of each backend.
    pub by_backend: BTreeMap<u32, u64>,
}

impl Flows {
    /// Backends that a live entry refers to: for [`crate::plan::tables::Tables::reclaim`].
    pub fn referenced(&self) -> BTreeSet<u32> {
        self.by_backend.keys().copied().collect()
    }
}

impl Maps {
    /// Looks at every entry of both families; `now` is the tick that programs see.
    pub fn flows(&self, settings: &Settings, now: u32) -> Flows {
        let mut flows = Flows::default();
        scan::<V4, WORDS_V4>(self.flows_v4.words(), settings, now, &mut flows);
        scan::<V6, WORDS_V6>(self.flows_v6.words(), settings, now, &mut flows);
        flows
    }
}

/// The layout is that of [`lb_common::table`]: state and stamp in word 0, the protocol above the
/// ports behind the key's addresses, the backend above the new ports behind the new addresses.
fn scan<A: Addr, const N: usize>(
    words: &[AtomicU64],
    settings: &Settings,
    now: u32,
    flows: &mut Flows,
) {
    let (entries, _) = words.as_chunks::<N>();
    flows.capacity += entries.len() as u64;
    for entry in entries {
        let meta = entry[0].load(Relaxed);
        let state = State::from_number((meta >> 32) as u8);
        if matches!(state, State::Empty) {
            continue;
        }
        let protocol = (entry[1 + A::PAIR_WORDS].load(Relaxed) >> 32) as u8;
        let age = now.wrapping_sub(meta as u32);
        // A stamp may be a little younger than `now`.
        let is_young = age > u32::MAX / 2;
        if !is_young && age > timeout(state, protocol, &settings.timeouts) {
            continue;
        }
        flows.entries += 1;
        let backend = (entry[2 + 2 * A::PAIR_WORDS].load(Relaxed) >> 32) as u32;
        *flows.by_backend.entry(backend).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 1_000_000;
    const TCP: u64 = 6;

    fn flow<const N: usize>(
        pair_words: usize,
        state: State,
        age: u32,
        protocol: u64,
        backend: u64,
    ) -> [AtomicU64; N] {
        let entry = [const { AtomicU64::new(0) }; N];
        let stamp = u64::from(NOW.wrapping_sub(age));
        entry[0].store(stamp | (state as u64) << 32, Relaxed);
        entry[1 + pair_words].store(protocol << 32 | 0xffff_ffff, Relaxed);
        entry[2 + 2 * pair_words].store(backend << 32 | 0xffff_ffff, Relaxed);
        entry
    }

    #[test]
    fn only_live_entries_count_for_their_backends() {
        let settings = Settings::default();
        let half_open = settings.timeouts.half_open;
        let words: Vec<AtomicU64> = [
            flow::<WORDS_V4>(1, State::Established, 10, TCP, 7),
            flow(1, State::Empty, 0, TCP, 8),
            flow(1, State::HalfOpen, half_open, TCP, 7),
            flow(1, State::HalfOpen, half_open + 1, TCP, 9),
            flow(1, State::Established, settings.timeouts.udp + 1, TCP, 10),
            flow(1, State::Established, settings.timeouts.udp + 1, 17, 11),
            flow(1, State::Closing, 0_u32.wrapping_sub(2), TCP, 12),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut flows = Flows::default();
        scan::<V4, WORDS_V4>(&words, &settings, NOW, &mut flows);
        let by_backend = BTreeMap::from([(7, 2), (10, 1), (12, 1)]);
        assert_eq!(flows, Flows { entries: 4, capacity: 7, by_backend });
        assert_eq!(flows.referenced(), BTreeSet::from([7, 10, 12]));
    }

    #[test]
    fn entries_of_the_second_family_are_wider() {
        let words: Vec<AtomicU64> =
            flow::<WORDS_V6>(4, State::Established, 1, TCP, 3).into_iter().collect();
        let mut flows = Flows::default();
        scan::<V6, WORDS_V6>(&words, &Settings::default(), NOW, &mut flows);
        assert_eq!(flows.by_backend, BTreeMap::from([(3, 1)]));
    }
}
