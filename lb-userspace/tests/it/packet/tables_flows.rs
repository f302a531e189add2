//! The agent reads flows as the rules write them.

use std::{collections::BTreeMap, sync::atomic::AtomicU64};

use lb_common::{
    abi::{
        Backend, FlowSet, FragmentKey, FragmentPorts, Frontend, FrontendKey, HopSlot, Line,
        PoolKey, PortPool, Service, Settings,
    },
    addr::{Addr, V4, V6},
    flow::Tuple,
    limits::FLOW_WAYS,
    table::{self, Entry, Found, Insert, Role},
    tracking::State,
    world::{Store, World},
};

use super::tables_maps::maps;

const NOW: u32 = 5000;

/// Nothing but a mapped flow table.
struct FlowsOnly<'a> {
    settings: Settings,
    words: &'a [AtomicU64],
}

impl World for FlowsOnly<'_> {
    const LIVE: bool = true;

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }
    fn service(&self, _: u32) -> Option<&Service> {
        None
    }
    fn line(&self, _: u32) -> Option<&Line> {
        None
    }
    fn backend(&self, _: u32) -> Option<&Backend> {
        None
    }
    fn hop(&self, _: u32) -> Option<&HopSlot> {
        None
    }
    fn gate(&self, _: u32) -> u64 {
        u64::MAX
    }
    fn now(&self) -> u32 {
        NOW
    }
    fn random(&self) -> u32 {
        0
    }
}

impl<A: Addr> Store<A> for FlowsOnly<'_> {
    fn frontend(&self, _: &FrontendKey<A>) -> Option<Frontend> {
        None
    }
    fn is_local_backend(&self, _: &FrontendKey<A>) -> bool {
        false
    }
    fn allows_source(&self, _: u32, _: A) -> bool {
        false
    }
    fn flow_set(&self, index: u32) -> Option<&FlowSet<A>> {
        let words = size_of::<FlowSet<A>>() / 8;
        let start = index as usize * words;
        let set = self.words.get(start..start + words)?;
        // SAFETY: a set is these words, all of them atomics, and borrowed as long as `self`.
        Some(unsafe { &*set.as_ptr().cast::<FlowSet<A>>() })
    }

    fn fragment(&self, _: &FragmentKey) -> Option<FragmentPorts> {
        None
    }

    fn note_fragment(&self, _: &FragmentKey, _: &FragmentPorts) {}

    fn port_pool(&self, _: &PoolKey) -> Option<&PortPool> {
        None
    }
}

fn insert<A: Addr>(words: &[AtomicU64], settings: Settings, port: u16, state: State, backend: u32) {
    let world = FlowsOnly { settings, words };
    let tuple = |port: u16| Tuple {
        src: A::from_slot(&[0xff; 16]),
        dst: A::from_slot(&[0xee; 16]),
        sport: port.to_be_bytes(),
        dport: [0xdd; 2],
        protocol: 6,
    };
    let entry = Entry {
        state,
        role: Role::ToRemote,
        to: tuple(!port),
        backend,
        generation: 0xcccc,
        way: 0,
    };
    let mut existing = Found::default();
    assert_eq!(table::insert(&world, &tuple(port), &entry, &mut existing), Insert::Done);
}

#[test]
fn flows_that_the_rules_wrote_are_found_with_their_backends() {
    let maps = maps();
    let settings = Settings { flow_mask_v4: 15, flow_mask_v6: 15, ..Settings::default() };
    insert::<V4>(maps.flows_v4.words(), settings, 1, State::Established, 7);
    insert::<V4>(maps.flows_v4.words(), settings, 2, State::HalfOpen, 8);
    insert::<V6>(maps.flows_v6.words(), settings, 1, State::Established, 7);
    let flows = maps.flows(NOW + 1);
    assert_eq!(flows.v4.entries + flows.v6.entries, 3);
    assert_eq!(flows.v4.capacity + flows.v6.capacity, 2 * 16 * FLOW_WAYS as u64);
    assert_eq!(flows.by_backend, BTreeMap::from([(7, 2), (8, 1)]));
    let later = maps.flows(NOW + settings.timeouts.half_open + 1);
    assert_eq!(later.by_backend, BTreeMap::from([(7, 2)]), "the half-open one is over");
}
