//! The tables as plain values: what the rules do in the process, to be compared with what the
//! programs do in the kernel. Needs `std`; only tests use it.
//!
//! A [`TestWorld`] holds everything that the maps hold, in public fields, so that a test can write the
//! same into the kernel's maps, run the same frame in both and compare what came of it.

mod build;
mod run;
mod store;

pub use build::Modelled;
pub use run::{Explaining, Run};
pub use store::{Pools, Tables};

use core::cell::{Cell, RefCell};
use std::{collections::BTreeMap, vec::Vec};

use crate::{
    abi::{
        AffinityEntry, AffinityKey, Backend, FragmentKey, FragmentPorts, HopSlot, Line, Node,
        Service, Settings, Word,
    },
    addr::{V4, V6},
    limits::{HOPS, NODES},
    path::{Hook, Notes},
};

/// A world that a test makes.
pub struct TestWorld {
    pub hook: Hook,
    /// Whether packets take the shortcut that they take in the kernel. Not unless a test says so:
    /// then what the kernel does by it is held against what the rules say.
    pub shortcuts: bool,
    /// Whether frames come and go on an interface that pods are behind.
    pub faces_pods: bool,
    /// The longest packet that comes in as one frame.
    pub mtu: u16,
    pub settings: Settings,
    pub services: BTreeMap<u32, Service>,
    pub backends: BTreeMap<u32, Backend>,
    /// The arena, from its first line.
    pub lines: Vec<Line>,
    /// Next hops that are remembered.
    pub hops: Vec<HopSlot>,
    /// Nodes of the cluster, for DSR.
    pub nodes: BTreeMap<u32, Node>,
    /// The ways to them, of each family.
    pub ways_to_nodes: Vec<[Word; 2]>,
    /// Words of the gate before the tables; none: it is open, and what is behind it decides.
    pub gate: Vec<u64>,
    pub v4: Tables<V4>,
    pub v6: Tables<V6>,
    /// How many flows of each family are half-open.
    pub opening: [Word; 2],
    /// Source ports towards backends elsewhere, of both families.
    pub pools: Pools,
    /// Packets whose first fragment was seen, of both families; here none is forgotten.
    pub fragments: RefCell<BTreeMap<FragmentKey, FragmentPorts>>,
    /// Ticks.
    pub now: Cell<u32>,
    /// What the next random draw starts from.
    pub random: Cell<u32>,
    /// What is remembered of clients.
    pub affinity: RefCell<BTreeMap<AffinityKey, AffinityEntry>>,
    /// How many turns each service has given.
    pub turns: RefCell<BTreeMap<u32, u64>>,
    /// Open connections of each backend.
    pub loads: RefCell<BTreeMap<u32, u32>>,
    /// Kept from packet to packet, as the kernel does: nothing in them but the allowance may matter to
    /// the next.
    notes: RefCell<Notes>,
}

impl TestWorld {
    /// Sets in the flow table of each family.
    pub const FLOW_SETS: u32 = 64;

    /// An empty world at tick 1000.
    pub fn new(hook: Hook) -> Self {
        let mask = Self::FLOW_SETS - 1;
        Self {
            hook,
            shortcuts: false,
            faces_pods: false,
            // How many answers were made is a matter of time, and of which CPU made them.
            settings: Settings {
                flow_mask_v4: mask,
                flow_mask_v6: mask,
                uncapped: 1,
                ..Settings::default()
            },
            mtu: 9000,
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            lines: Vec::new(),
            hops: (0..HOPS).map(|_| HopSlot::default()).collect(),
            nodes: BTreeMap::new(),
            ways_to_nodes: (0..NODES).map(|_| Default::default()).collect(),
            gate: Vec::new(),
            v4: Tables::new(Self::FLOW_SETS),
            v6: Tables::new(Self::FLOW_SETS),
            opening: Default::default(),
            pools: Pools::default(),
            fragments: RefCell::default(),
            now: Cell::new(1000),
            random: Cell::new(1),
            affinity: RefCell::default(),
            turns: RefCell::default(),
            loads: RefCell::default(),
            notes: RefCell::default(),
        }
    }

    /// The same world behind another hook; its flows go with it.
    pub fn behind(mut self, hook: Hook) -> Self {
        self.hook = hook;
        self
    }

    /// Flow tables of another size, without flows; `sets` is a power of two.
    pub fn with_flow_sets(mut self, sets: u32) -> Self {
        (self.settings.flow_mask_v4, self.settings.flow_mask_v6) = (sets - 1, sets - 1);
        self.v4.flows = Tables::<V4>::new(sets).flows;
        self.v6.flows = Tables::<V6>::new(sets).flows;
        self
    }

    /// Lets `ticks` pass.
    pub fn wait(&self, ticks: u32) {
        self.now.set(self.now.get().wrapping_add(ticks));
    }
}
