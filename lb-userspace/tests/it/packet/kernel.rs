//! The programs in the kernel, run on single frames, and their tables.

use std::{collections::BTreeMap, net::IpAddr};

use aya::{
    Ebpf, TestRun as _, TestRunOptions, TestRunResult,
    programs::{ProgramError, SchedClassifier, Xdp},
};
use ipnet::IpNet;
use lb_common::{
    abi::{Backend, Count, Frontend, FrontendKey, Line, Service, Settings},
    addr::{Addr, V4, V6},
    model::TestWorld,
    verdict::Reason,
};
use lb_userspace::{
    datapath::{
        maps::Maps,
        object::{Sizes, load_private},
    },
    plan::tables::Op,
};

use super::network::{Network, UPLINK};

/// As few of everything as the stories need, so that every count can be read after every frame.
const SIZES: Sizes =
    Sizes { services: 16, backends: 32, arena_lines: 4096, flow_sets_v4: 64, flow_sets_v6: 64 };

/// A program that sees frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Xdp,
    Ingress,
    Egress,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "uplink_xdp",
            Self::Ingress => "uplink_ingress",
            Self::Egress => "uplink_egress",
        }
    }

    /// The context that says on which interface the frame is.
    fn context(self, length: usize) -> Vec<u8> {
        let words: &[u32] = match self {
            // `xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index.
            Self::Xdp => &[0, length as u32, 0, UPLINK, 0],
            // `__sk_buff`: ingress_ifindex and ifindex are its tenth and eleventh words.
            Self::Ingress | Self::Egress => &[0, 0, 0, 0, 0, 0, 0, 0, 0, UPLINK, UPLINK],
        };
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

/// What is in the maps.
struct Written {
    settings: Option<Settings>,
    services: BTreeMap<u32, Service>,
    backends: BTreeMap<u32, Backend>,
    lines: BTreeMap<u32, Line>,
    frontends_v4: BTreeMap<FrontendKey<V4>, Frontend>,
    frontends_v6: BTreeMap<FrontendKey<V6>, Frontend>,
    locals_v4: BTreeMap<FrontendKey<V4>, u32>,
    locals_v6: BTreeMap<FrontendKey<V6>, u32>,
    sources: BTreeMap<(u32, IpNet), ()>,
    uplinks: BTreeMap<u32, u32>,
}

/// Every count there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    pub reasons: Vec<Count>,
    pub services: Vec<Count>,
    pub backends: Vec<Count>,
}

/// The programs, with maps of their own and a network of their own.
pub struct Kernel {
    object: Ebpf,
    pub maps: Maps,
    written: Written,
    pub network: Network,
}

impl Kernel {
    pub fn load() -> Self {
        Self::load_sized(SIZES)
    }

    pub fn load_sized(sizes: Sizes) -> Self {
        let network = Network::enter();
        let mut object = load_private(sizes).expect("the programs load");
        let maps = Maps::from_object(&mut object).expect("the object's maps");
        let written = Written {
            settings: None,
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            lines: BTreeMap::new(),
            frontends_v4: BTreeMap::new(),
            frontends_v6: BTreeMap::new(),
            locals_v4: BTreeMap::new(),
            locals_v6: BTreeMap::new(),
            sources: BTreeMap::new(),
            uplinks: BTreeMap::new(),
        };
        Self { object, maps, written, network }
    }

    /// Runs a program on a frame; its return code and the frame afterwards.
    pub fn run(&self, program: Program, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut out = vec![0; frame.len() + 128];
        let result = self.try_run(program, frame, &mut out, 1).expect("a test run");
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// Runs a program on a frame that it does not change, many times.
    pub fn run_often(&self, program: Program, frame: &[u8], times: u32) -> u32 {
        let mut out = vec![0; frame.len()];
        let result = self.try_run(program, frame, &mut out, times).expect("a test run");
        assert_eq!(out, frame, "each run shall see the same frame");
        result.return_value
    }

    pub fn try_run(
        &self,
        program: Program,
        frame: &[u8],
        out: &mut [u8],
        repeat: u32,
    ) -> Result<TestRunResult, ProgramError> {
        let context = program.context(frame.len());
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(out),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        };
        let loaded = self.object.program(program.name()).expect(program.name());
        match program {
            Program::Xdp => <&Xdp>::try_from(loaded)?.test_run(options),
            Program::Ingress | Program::Egress => {
                <&SchedClassifier>::try_from(loaded)?.test_run(options)
            }
        }
    }

    /// Makes the maps say what the world's tables say.
    pub fn write(&mut self, world: &TestWorld, uplinks: &BTreeMap<u32, u32>) {
        let Self { maps, written, .. } = self;
        if written.settings != Some(world.settings) {
            maps.settings.set(0, world.settings, 0).expect("settings");
            written.settings = Some(world.settings);
        }
        bring(&mut written.backends, world.backends.clone(), |id, row| {
            assert!(maps.backends.write(id, &row.unwrap_or_default()), "backend {id}");
        });
        let lines = (0..).zip(world.lines.iter().copied()).collect();
        bring(&mut written.lines, lines, |index, line| {
            assert!(maps.arena.write(index, &line.unwrap_or_default()), "line {index}");
        });
        bring(&mut written.services, world.services.clone(), |id, row| {
            assert!(maps.services.write(id, &row.unwrap_or_default()), "service {id}");
        });
        macro_rules! hash {
            ($map:ident, $new:expr) => {
                bring(&mut written.$map, $new, |key, value| match value {
                    Some(value) => maps.$map.insert(&key, value, 0).expect(stringify!($map)),
                    None => maps.$map.remove(&key).expect(stringify!($map)),
                })
            };
        }
        hash!(frontends_v4, world.v4.frontends.clone());
        hash!(frontends_v6, world.v6.frontends.clone());
        hash!(locals_v4, world.v4.locals.iter().map(|key| (*key, 1)).collect());
        hash!(locals_v6, world.v6.locals.iter().map(|key| (*key, 1)).collect());
        hash!(uplinks, uplinks.clone());
        let v4 = world.v4.sources.iter().map(|(service, a, bits)| (*service, net(*a, *bits)));
        let v6 = world.v6.sources.iter().map(|(service, a, bits)| (*service, net(*a, *bits)));
        let sources = v4.chain(v6).map(|source| (source, ())).collect();
        bring(&mut written.sources, sources, |(service, network), present| {
            let op = match present {
                Some(()) => Op::PutSource { service, network },
                None => Op::RemoveSource { service, network },
            };
            maps.apply(&[op]).expect("a source range");
        });
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
    new: BTreeMap<K, V>,
    mut tell: impl FnMut(K, Option<V>),
) {
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        tell(*key, None);
    }
    for (key, value) in new.iter().filter(|(key, value)| old.get(key) != Some(value)) {
        tell(*key, Some(*value));
    }
    *old = new;
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
