//! The programs in the kernel, run on single frames, and their tables.

mod programs;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::atomic::Ordering::Relaxed,
};

use ipnet::IpNet;
use lb_common::{
    abi::{Backend, Count, Frontend, FrontendKey, Line, Node, Service, Settings},
    addr::{Addr, V4, V6},
    model::TestWorld,
    verdict::Reason,
};
use lb_userspace::{
    datapath::{
        maps::Maps,
        object::{Sizes, Unused},
    },
    plan::tables::Op,
};

pub use self::programs::{Program, Programs};

/// As few of everything as the stories need, so that every count can be read after every frame.
const SIZES: Sizes =
    Sizes { services: 16, backends: 32, arena_lines: 4096, flow_sets_v4: 64, flow_sets_v6: 64 };

/// What is in the maps.
#[derive(Default)]
struct Written {
    settings: Option<Settings>,
    services: BTreeMap<u32, Service>,
    backends: BTreeMap<u32, Backend>,
    nodes: BTreeMap<u32, Node>,
    lines: Vec<Line>,
    frontends_v4: BTreeMap<FrontendKey<V4>, Frontend>,
    frontends_v6: BTreeMap<FrontendKey<V6>, Frontend>,
    locals_v4: BTreeSet<FrontendKey<V4>>,
    locals_v6: BTreeSet<FrontendKey<V6>>,
    sources: BTreeSet<(u32, IpNet)>,
    uplinks: BTreeMap<u32, u32>,
}

/// Every count there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    pub reasons: Vec<Count>,
    pub services: Vec<Count>,
    pub backends: Vec<Count>,
}

/// The programs and their maps.
pub struct Kernel {
    pub programs: Programs,
    pub maps: Maps,
    written: Written,
}

impl Kernel {
    pub fn load(unused: Unused) -> Self {
        let (programs, maps) = Programs::load(SIZES, unused);
        Self { programs, maps, written: Written::default() }
    }

    /// Makes the maps say what the world's tables say. The gate, which is made out of them, is the
    /// same in both afterwards.
    pub fn write(&mut self, world: &mut TestWorld, uplinks: &BTreeMap<u32, u32>) {
        let Self { maps, written, .. } = self;
        if written.settings != Some(world.settings) {
            maps.settings.set(0, world.settings, 0).expect("settings");
            written.settings = Some(world.settings);
        }
        bring(&mut written.backends, &world.backends, |id, row| {
            assert!(maps.backends.write(id, &row.unwrap_or_default()), "backend {id}");
        });
        bring(&mut written.nodes, &world.nodes, |id, row| {
            assert!(maps.nodes.write(id, &row.unwrap_or_default()), "node {id}");
        });
        if written.lines != world.lines {
            for (index, line) in (0..).zip(&world.lines) {
                assert!(maps.arena.write(index, line), "line {index}");
            }
            written.lines.clone_from(&world.lines);
        }
        bring(&mut written.services, &world.services, |id, row| {
            assert!(maps.services.write(id, &row.unwrap_or_default()), "service {id}");
        });
        macro_rules! hash {
            ($map:ident, $new:expr) => {
                bring(&mut written.$map, $new, |key, value| {
                    maps.gate_is_loose = true;
                    match value {
                        Some(value) => maps.$map.insert(&key, value, 0).expect(stringify!($map)),
                        None => maps.$map.remove(&key).expect(stringify!($map)),
                    }
                })
            };
        }
        hash!(frontends_v4, &world.v4.frontends);
        hash!(frontends_v6, &world.v6.frontends);
        hash!(uplinks, uplinks);
        macro_rules! set {
            ($map:ident, $new:expr) => {
                bring_set(&mut written.$map, $new, |key, present| {
                    maps.gate_is_loose = true;
                    if present {
                        maps.$map.insert(&key, 1, 0).expect(stringify!($map));
                    } else {
                        maps.$map.remove(&key).expect(stringify!($map));
                    }
                })
            };
        }
        set!(locals_v4, &world.v4.locals);
        set!(locals_v6, &world.v6.locals);
        let v4 = world.v4.sources.iter().map(|(service, a, bits)| (*service, net(*a, *bits)));
        let v6 = world.v6.sources.iter().map(|(service, a, bits)| (*service, net(*a, *bits)));
        bring_set(&mut written.sources, &v4.chain(v6).collect(), |(service, network), present| {
            let op = if present {
                Op::PutSource { service, network }
            } else {
                Op::RemoveSource { service, network }
            };
            maps.apply(&[op]).expect("a source range");
        });
        if maps.gate_is_loose || world.gate.is_empty() {
            maps.tighten_gate().expect("a list of all entries");
            world.gate = maps.gate.words().iter().map(|word| word.load(Relaxed)).collect();
        }
    }

    /// What was counted up to now, all CPUs together.
    pub fn counts(&self) -> Counts {
        let reasons = self.maps.reason_counts().expect("counts by reason");
        let services = self.maps.service_counts(0..SIZES.services).expect("counts by service");
        let backends = self.maps.backend_counts(0..SIZES.backends).expect("counts by backend");
        Counts {
            reasons: reasons.into_iter().map(|(_, count)| count).collect(),
            services: services.into_values().collect(),
            backends: backends.into_values().collect(),
        }
    }
}

impl Counts {
    pub fn zero() -> Self {
        let zeros = |count| vec![Count::default(); count];
        Self {
            reasons: zeros(Reason::COUNT),
            services: zeros(SIZES.services as usize),
            backends: zeros(SIZES.backends as usize),
        }
    }
}

/// Makes `old` the same as `new`, and tells each difference on the way.
fn bring<K: Ord + Copy, V: PartialEq + Copy>(
    old: &mut BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    mut tell: impl FnMut(K, Option<V>),
) {
    if old == new {
        return;
    }
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        tell(*key, None);
    }
    for (key, value) in new.iter().filter(|(key, value)| old.get(key) != Some(value)) {
        tell(*key, Some(*value));
    }
    old.clone_from(new);
}

/// As [`bring`], for a set: each difference, and whether it is there now.
fn bring_set<K: Ord + Copy>(
    old: &mut BTreeSet<K>,
    new: &BTreeSet<K>,
    mut tell: impl FnMut(K, bool),
) {
    if old == new {
        return;
    }
    old.difference(new).for_each(|key| tell(*key, false));
    new.difference(old).for_each(|key| tell(*key, true));
    old.clone_from(new);
}

/// A network out of the rules' types.
fn net<A: Addr>(address: A, bits: u8) -> IpNet {
    let slot = address.to_slot();
    let ip = if A::IS_V4 {
        IpAddr::from([slot[0], slot[1], slot[2], slot[3]])
    } else {
        IpAddr::from(slot)
    };
    IpNet::new(ip, bits).expect("a prefix length of the family")
}
