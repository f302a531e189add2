//! The kernel as the rules see it: maps, clock, randomness.

use aya_ebpf::maps::lpm_trie::Key;
use lb_common::{
    abi::{
        AffinityEntry, AffinityKey, Backend, FlowSet, FragmentKey, FragmentPorts, Frontend,
        FrontendKey, HopSlot, Line, NextHop, Node, PoolKey, PortPool, Service, Settings, SourceKey,
        Word,
    },
    addr::{Addr as _, V4, V6},
    flow::Tuple,
    path::{Course, Draft, Outcome, Trace, dsr::Lead},
    ports::Lease,
    table::{Entry, Found, Insert},
    tracking::Side,
    world::{Store, World},
};

use crate::{helpers, maps, steps};

/// The live tables, or with `LIVE = false` the same tables for reading only.
pub struct Kernel<const LIVE: bool>;

impl<const LIVE: bool> World for Kernel<LIVE> {
    const LIVE: bool = LIVE;

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn service(&self, id: u32) -> Option<&Service> {
        maps::SERVICES.get(id)
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        maps::ARENA.get(index)
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        maps::BACKENDS.get(id)
    }

    #[inline(always)]
    fn hop(&self, place: u32) -> Option<&HopSlot> {
        maps::HOPS.get(place)
    }

    #[inline(always)]
    fn has_dsr(&self) -> bool {
        maps::has_dsr()
    }

    #[inline(always)]
    fn node(&self, id: u32) -> Option<&Node> {
        maps::NODES.get(id)
    }

    #[inline(always)]
    fn way_to_node(&self, id: u32) -> Option<&[Word; 2]> {
        maps::WAYS_TO_NODES.get(id)
    }

    #[inline(always)]
    fn remember(&self, hop: &NextHop) -> u64 {
        steps::remember(hop)
    }

    #[inline(always)]
    fn gate(&self, index: u32) -> u64 {
        maps::GATE.get(index).map_or(u64::MAX, Word::get)
    }

    /// Where a call costs ten nanoseconds and more (kernels that guard their returns), reading the
    /// jiffies costs none: the verifier puts the load itself in its place (kernel 5.6).
    #[inline(always)]
    fn now(&self) -> u32 {
        let tick = self.settings().and_then(|settings| settings.tick_of(helpers::jiffies()));
        match tick {
            Some(tick) => tick,
            None => (helpers::coarse_time() >> Settings::TICK_SHIFT) as u32,
        }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        helpers::random()
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry> {
        maps::affinity(key)
    }

    #[inline(always)]
    fn keep_client(&self, key: &AffinityKey, entry: &AffinityEntry) {
        if LIVE {
            maps::keep_client(key, entry);
        }
    }

    #[inline(always)]
    fn turn(&self, service: u32) -> u64 {
        maps::TURNS.get(service).map_or(0, Word::get)
    }

    #[inline(always)]
    fn next_turn(&self, service: u32) {
        if let Some(turns) = maps::TURNS.get(service)
            && LIVE
        {
            turns.add(1);
        }
    }

    #[inline(always)]
    fn load(&self, backend: u32) -> u32 {
        let Some([flows, sockets]) = maps::LOADS.get(backend) else { return 0 };
        (flows.get() + sockets.get()) as u32
    }
}

macro_rules! store {
    (
        $family:ty, $frontend:ident, $locals:ident, $sources:ident, $flows:ident,
        $find:ident, $insert:ident, $look_up:ident, $decide:ident, $record:ident, $track:ident,
        $reclaim:ident, $lease:ident, $note:ident, $recall:ident, $lead:ident
    ) => {
        impl<const LIVE: bool> Store<$family> for Kernel<LIVE> {
            #[inline(always)]
            fn frontend(&self, key: &FrontendKey<$family>) -> Option<Frontend> {
                maps::$frontend(key)
            }

            #[inline(always)]
            fn is_local_backend(&self, key: &FrontendKey<$family>) -> bool {
                maps::$locals.get_ptr(key).is_some()
            }

            #[inline(always)]
            fn allows_source(&self, service: u32, source: $family) -> bool {
                let key = Key::new(SourceKey::<$family>::BITS, SourceKey::new(service, source));
                maps::$sources.get(key).is_some()
            }

            #[inline(always)]
            fn flow_set(&self, index: u32) -> Option<&FlowSet<$family>> {
                maps::$flows.get(index)
            }

            #[inline(always)]
            fn opening(&self) -> Option<&Word> {
                maps::OPENING.get(u32::from(!<$family>::IS_V4))
            }

            #[inline(always)]
            fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
                maps::fragment(key)
            }

            #[inline(always)]
            fn note_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
                if LIVE {
                    maps::note_fragment(key, ports);
                }
            }

            #[inline(always)]
            fn note_first(&self, draft: &Draft<$family>) -> bool {
                steps::$note(draft) != 0
            }

            #[inline(always)]
            fn recall_first(&self, draft: &mut Draft<$family>) -> bool {
                steps::$recall(draft) != 0
            }

            #[inline(always)]
            fn port_pool(&self, key: &PoolKey) -> Option<&PortPool> {
                if LIVE { maps::port_pool(key) } else { maps::known_port_pool(key) }
            }

            #[inline(always)]
            fn take_port(&self, pool: &PortPool, count: u32, from: u32) -> u32 {
                steps::take_port(pool, count, from)
            }

            #[inline(always)]
            fn reclaim(&self, draft: &mut Draft<$family>) {
                steps::$reclaim(draft);
            }

            #[inline(always)]
            fn lease(
                &self,
                draft: &mut Draft<$family>,
                outcome: &mut Outcome,
                tries: u32,
            ) -> Lease {
                Lease::from_number(steps::$lease(draft, outcome, tries))
            }

            #[inline(always)]
            fn find_flow(&self, key: &Tuple<$family>, found: &mut Found<$family>) -> bool {
                steps::$find(key, found) != 0
            }

            #[inline(always)]
            fn insert_flow(
                &self,
                key: &Tuple<$family>,
                entry: &Entry<$family>,
                existing: &mut Found<$family>,
            ) -> Insert {
                Insert::from_number(steps::$insert(key, entry, existing))
            }

            #[inline(always)]
            fn look_up(
                &self,
                draft: &mut Draft<$family>,
                outcome: &mut Outcome,
                trace: &mut Trace,
            ) -> Course {
                Course::from_number(steps::$look_up(draft, outcome, trace))
            }

            #[inline(always)]
            fn lead(
                &self,
                draft: &mut Draft<$family>,
                outcome: &mut Outcome,
                trace: &mut Trace,
            ) -> Lead {
                Lead::from_number(steps::$lead(draft, outcome, trace))
            }

            #[inline(always)]
            fn decide(
                &self,
                draft: &mut Draft<$family>,
                outcome: &mut Outcome,
                trace: &mut Trace,
            ) -> bool {
                steps::$decide(draft, outcome, trace) != 0
            }

            #[inline(always)]
            fn record(&self, draft: &mut Draft<$family>, outcome: &mut Outcome) -> bool {
                if LIVE {
                    steps::$record(draft, outcome) != 0
                } else {
                    lb_common::path::steps::record(self, draft, outcome)
                }
            }

            #[inline(always)]
            fn track(&self, draft: &mut Draft<$family>, side: Side) {
                if LIVE {
                    steps::$track(draft, side as u32);
                }
            }
        }
    };
}

store!(
    V4,
    frontend_v4,
    LOCALS_V4,
    SOURCES_V4,
    FLOWS_V4,
    find_v4,
    insert_v4,
    look_up_v4,
    decide_v4,
    record_v4,
    track_v4,
    reclaim_v4,
    lease_v4,
    note_v4,
    recall_v4,
    lead_v4
);
store!(
    V6,
    frontend_v6,
    LOCALS_V6,
    SOURCES_V6,
    FLOWS_V6,
    find_v6,
    insert_v6,
    look_up_v6,
    decide_v6,
    record_v6,
    track_v6,
    reclaim_v6,
    lease_v6,
    note_v6,
    recall_v6,
    lead_v6
);
