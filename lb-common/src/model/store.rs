use std::{
    boxed::Box,
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
    vec::Vec,
};

use super::TestWorld;
use crate::{
    abi::{
        AffinityEntry, AffinityKey, Backend, FlowSet, FragmentKey, FragmentPorts, Frontend,
        FrontendKey, HopSlot, Line, NextHop, Node, PoolKey, PortPool, Service, Settings, Word,
    },
    addr::{Addr, V4, V6},
    flow::Tuple,
    limits::{BACKENDS, NODES, SERVICES},
    path::Hook,
    table::Entry,
    world::{Network, Route, Store, World},
};

/// The tables of one family.
pub struct Tables<A: Addr> {
    pub frontends: BTreeMap<FrontendKey<A>, Frontend>,
    /// Addresses and ports of backends on this node.
    pub locals: BTreeSet<FrontendKey<A>>,
    /// Source ranges: service, network and prefix length in bits.
    pub sources: Vec<(u32, A, u8)>,
    pub flows: Vec<FlowSet<A>>,
    /// The way to a destination; others go `default_route`.
    pub routes: BTreeMap<A, Route>,
    pub default_route: Route,
    /// The longest packet that fits the way to a destination; others take any.
    pub mtus: BTreeMap<A, u16>,
}

impl<A: Addr + Ord> Tables<A> {
    /// Interface and addresses of the default route.
    pub const HOP: NextHop = NextHop::new(7, 9000, [2, 0, 0, 0, 0, 0xaa], [2, 0, 0, 0, 0, 0xbb]);

    pub(super) fn new(flow_sets: u32) -> Self {
        Self {
            frontends: BTreeMap::new(),
            locals: BTreeSet::new(),
            sources: Vec::new(),
            flows: (0..flow_sets).map(|_| FlowSet::default()).collect(),
            routes: BTreeMap::new(),
            default_route: Route::Hop(Self::HOP),
            mtus: BTreeMap::new(),
        }
    }

    /// Every flow entry, expired or not, by its key.
    pub fn flow_entries(&self) -> Vec<(Tuple<A>, Entry<A>, u32)> {
        let mut entries: Vec<_> = self.flows.iter().flat_map(FlowSet::entries).collect();
        entries.sort_by_key(|(key, ..)| (key.src, key.dst, key.sport, key.dport, key.protocol));
        entries
    }

    fn way(&self, to: A, length: u16) -> Route {
        match self.mtus.get(&to) {
            Some(mtu) if length > *mtu => Route::TooBig(*mtu),
            _ => *self.routes.get(&to).unwrap_or(&self.default_route),
        }
    }

    fn allows(&self, service: u32, source: A) -> bool {
        self.sources.iter().any(|(owner, network, bits)| {
            let mut mask = [0; 16];
            for (index, byte) in mask.iter_mut().enumerate() {
                let left = usize::from(*bits).saturating_sub(8 * index).min(8);
                *byte = !(0xff_u16 >> left) as u8;
            }
            *owner == service && source.within(&network.to_slot(), &mask)
        })
    }
}

/// The pools that were asked for, in that order.
#[derive(Default)]
pub struct Pools([OnceCell<(PoolKey, Box<PortPool>)>; 16]);

impl Pools {
    /// The pool of a backend; made if there is none yet.
    fn get(&self, key: &PoolKey) -> Option<&PortPool> {
        let made = self.0.iter().map(|cell| cell.get_or_init(|| (*key, Box::default())));
        made.into_iter().find(|(owner, _)| owner == key).map(|(_, pool)| &**pool)
    }
}

impl Pools {
    /// Makes a pool the same as one in a map.
    pub fn copy(&self, key: &PoolKey, bytes: &[u8]) {
        let Some(pool) = self.get(key) else { return };
        let heads = [&pool.used, &pool.hand, &pool.barren, &pool.opening];
        let words = heads.into_iter().chain(&pool.full).chain(&pool.taken);
        for (word, bytes) in words.zip(bytes.chunks_exact(8)) {
            word.set(u64::from_ne_bytes(bytes.try_into().expect("eight bytes")));
        }
    }
}

impl World for TestWorld {
    const LIVE: bool = true;

    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    // Array maps: what was never written is all zeros.
    fn service(&self, id: u32) -> Option<&Service> {
        static ZERO: LazyLock<Service> = LazyLock::new(Service::default);
        (id < SERVICES).then(|| self.services.get(&id).unwrap_or(&ZERO))
    }

    fn line(&self, index: u32) -> Option<&Line> {
        self.lines.get(index as usize)
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        static ZERO: LazyLock<Backend> = LazyLock::new(Backend::default);
        (id < BACKENDS).then(|| self.backends.get(&id).unwrap_or(&ZERO))
    }

    fn hop(&self, place: u32) -> Option<&HopSlot> {
        self.hops.get(place as usize)
    }

    fn node(&self, id: u32) -> Option<&Node> {
        static ZERO: LazyLock<Node> = LazyLock::new(Node::default);
        (id < NODES).then(|| self.nodes.get(&id).unwrap_or(&ZERO))
    }

    fn way_to_node(&self, id: u32) -> Option<&[Word; 2]> {
        self.ways_to_nodes.get(id as usize)
    }

    fn gate(&self, index: u32) -> u64 {
        self.gate.get(index as usize).copied().unwrap_or(u64::MAX)
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    /// A linear congruential generator: even enough for a choice, and the same in every run.
    fn random(&self) -> u32 {
        let next = self.random.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.random.set(next);
        next
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry> {
        self.affinity.borrow().get(key).copied()
    }

    fn keep_client(&self, key: &AffinityKey, entry: &AffinityEntry) {
        self.affinity.borrow_mut().insert(*key, *entry);
    }

    fn turn(&self, service: u32) -> u64 {
        self.turns.borrow().get(&service).copied().unwrap_or_default()
    }

    fn next_turn(&self, service: u32) {
        *self.turns.borrow_mut().entry(service).or_default() += 1;
    }

    fn load(&self, backend: u32) -> u32 {
        self.loads.borrow().get(&backend).copied().unwrap_or_default()
    }
}

macro_rules! store {
    ($family:ty, $tables:ident) => {
        impl Store<$family> for TestWorld {
            fn frontend(&self, key: &FrontendKey<$family>) -> Option<Frontend> {
                self.$tables.frontends.get(key).copied()
            }

            fn is_local_backend(&self, key: &FrontendKey<$family>) -> bool {
                self.$tables.locals.contains(key)
            }

            fn allows_source(&self, service: u32, source: $family) -> bool {
                self.$tables.allows(service, source)
            }

            fn flow_set(&self, index: u32) -> Option<&FlowSet<$family>> {
                self.$tables.flows.get(index as usize)
            }

            fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
                self.fragments.borrow().get(key).copied()
            }

            fn note_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
                self.fragments.borrow_mut().insert(*key, *ports);
            }

            fn opening(&self) -> Option<&Word> {
                self.opening.get(usize::from(!<$family>::IS_V4))
            }

            fn port_pool(&self, key: &PoolKey) -> Option<&PortPool> {
                self.pools.get(key)
            }
        }

        impl Network<$family> for TestWorld {
            fn hook(&self) -> Hook {
                self.hook
            }

            fn takes_shortcuts(&self) -> bool {
                self.shortcuts && self.hook == Hook::Xdp
            }

            fn faces_pods(&self) -> bool {
                self.faces_pods
            }

            fn route(&self, tuple: &Tuple<$family>, length: u16, _headers: u16) -> Route {
                match self.$tables.way(tuple.dst, length) {
                    Route::TooBig(_) if self.hook == Hook::Xdp && length > self.mtu => Route::Stack,
                    way => way,
                }
            }
        }
    };
}

store!(V4, v4);
store!(V6, v6);
