//! The same frame, the same tables, two worlds: the programs in the kernel, and the rules that they
//! are made of in this process. They must agree on everything.

mod compare;
mod stories;
mod time;

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write as _},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use lb_common::{
    abi::{FlowSet, WORDS_V4, WORDS_V6},
    addr::{Addr, V4, V6},
    limits::FLOW_WAYS,
    model::{Run, TestWorld},
    path::Hook,
    verdict::Verdict,
    wire::proto,
    world::Route,
};
use lb_userspace::datapath::object::Unused;

use self::compare::{count, expected_code};
pub use self::{compare::Shown, time::now};
use super::{
    kernel::{Counts, Kernel, Program},
    network::{SECOND, UPLINK, Way},
    support::{FromIp, ip},
    town::{Town, seconds},
};
use crate::support::counted;

/// The programs that see frames come in.
pub const ARRIVING: [Program; 2] = [Program::Xdp, Program::Ingress];

/// A town in the kernel and in this process.
pub struct Both {
    pub town: Town,
    pub kernel: Kernel,
    /// Flags by interface, as the programs get them.
    pub uplinks: BTreeMap<u32, u32>,
    ways: BTreeMap<IpAddr, Way>,
    counts: Counts,
    alike: Alike,
}

/// How many frames met the same fate in both worlds; told at the end.
#[derive(Default)]
struct Alike(usize);

impl Drop for Alike {
    fn drop(&mut self) {
        counted(self.0, "packets alike in both worlds");
    }
}

/// Towns of both families and every protocol with so many backends here and elsewhere.
pub fn towns(here: usize, there: usize) -> Vec<Town> {
    Town::all(Hook::Tc).into_iter().map(|town| town.with_backends(here, there)).collect()
}

/// As [`towns`], for TCP.
pub fn tcp_towns(here: usize, there: usize) -> Vec<Town> {
    let of = Town::all_of(proto::TCP, Hook::Tc);
    of.into_iter().map(|town| town.with_backends(here, there)).collect()
}

/// As [`towns`], for UDP.
pub fn udp_towns(here: usize, there: usize) -> Vec<Town> {
    let of = Town::all_of(proto::UDP, Hook::Tc);
    of.into_iter().map(|town| town.with_backends(here, there)).collect()
}

/// The same towns, where half-open flows live for ten minutes: loading the programs may take longer
/// than they usually do.
pub fn patient(mut towns: Vec<Town>) -> Vec<Town> {
    for town in &mut towns {
        town.world.settings.timeouts.half_open = seconds(600);
    }
    towns
}

/// Tells a story in each town.
pub fn tell(towns: Vec<Town>, story: impl FnMut(&mut Both)) {
    tell_as_they_come(Unused::default(), towns.into_iter(), story);
}

/// The same, for more towns than shall be there at a time, by programs without what is unused.
pub fn tell_as_they_come(
    unused: Unused,
    towns: impl Iterator<Item = Town>,
    mut story: impl FnMut(&mut Both),
) {
    let mut both: Option<Both> = None;
    for town in towns {
        let next = match both.take() {
            Some(both) => both.moved(town),
            None => Both::new(town, unused),
        };
        story(both.insert(next));
    }
}

/// Tells a story in each town, at XDP and at tc.
pub fn tell_arriving(towns: impl Fn() -> Vec<Town>, mut story: impl FnMut(&mut Both, Program)) {
    let mut programs = ARRIVING.into_iter().flat_map(|program| vec![program; towns().len()]);
    tell(ARRIVING.into_iter().flat_map(|_| towns()).collect(), |both| {
        story(both, programs.next().expect("one for each town"));
    });
}

impl Both {
    pub fn new(town: Town, unused: Unused) -> Self {
        let kernel = Kernel::load(unused);
        let uplinks = BTreeMap::from([(UPLINK, 1), (SECOND, 1)]);
        let (ways, counts, alike) = (BTreeMap::new(), Counts::zero(), Alike::default());
        Self { town, kernel, uplinks, ways, counts, alike }
    }

    /// To another town, with neither flows nor ways; counts go on from where they are.
    fn moved(mut self, town: Town) -> Self {
        for words in [self.kernel.maps.flows_v4.words(), self.kernel.maps.flows_v6.words()] {
            words.iter().for_each(|word| word.store(0, Relaxed));
        }
        let pools: Result<Vec<_>, _> = self.kernel.maps.port_pools.keys().collect();
        for key in pools.expect("the pools' keys") {
            self.kernel.maps.port_pools.remove(&key).expect("a pool");
        }
        self.kernel.programs.forget_fragments();
        self.kernel.programs.forget_opening();
        self.kernel.programs.forget_ways();
        for to in std::mem::take(&mut self.ways).into_keys() {
            self.kernel.programs.network.lead(to, Way::Uplink);
        }
        self.counts = self.kernel.counts();
        Self { town, uplinks: BTreeMap::from([(UPLINK, 1), (SECOND, 1)]), ..self }
    }

    /// Rebuilds the world, as [`TestWorld::with_flow_sets`] does.
    pub fn rebuild(&mut self, change: impl FnOnce(TestWorld) -> TestWorld) {
        let world = std::mem::replace(&mut self.town.world, TestWorld::new(Hook::Tc));
        self.town.world = change(world);
    }

    /// Makes this the way to an address.
    pub fn lead(&mut self, to: &str, way: Way) {
        let to = to.parse().expect("an address");
        self.kernel.programs.network.lead(to, way);
        self.ways.insert(to, way);
    }

    /// Runs the frame in both worlds and compares what became of it, for sweeps that are long; flows
    /// and counts are compared with the next [`Both::run`].
    #[track_caller]
    pub fn run_quickly(&mut self, program: Program, frame: &[u8]) -> Run {
        self.pass(program, frame, false)
    }

    /// Takes, or gives back, the lock of every set of flows, as another CPU would.
    pub fn hold_locks(&self, held: bool) {
        for (kernel, rules, flow) in self.flow_tables() {
            for set in kernel.chunks(flow * FLOW_WAYS).chain(rules.chunks(flow * FLOW_WAYS)) {
                for lock in set.iter().skip(flow - 1).step_by(flow) {
                    lock.store(lock.load(Relaxed) & !1 | u64::from(held), Relaxed);
                }
            }
        }
    }

    /// Runs the frame in both worlds and compares all there is; what came of it.
    #[track_caller]
    pub fn run(&mut self, program: Program, frame: &[u8]) -> Run {
        self.pass(program, frame, true)
    }

    #[track_caller]
    fn pass(&mut self, program: Program, frame: &[u8], all: bool) -> Run {
        self.set_routes(program);
        self.kernel.write(&mut self.town.world, &self.uplinks);
        let before = self.now();
        let kernel = self.kernel.programs.run(program, frame);
        let after = self.now();
        let world = &mut self.town.world;
        world.now.set(after);
        world.hook = if program == Program::Xdp { Hook::Xdp } else { Hook::Tc };
        world.faces_pods = program.faces_pods();
        let run = if program.is_egress() { world.leave(frame) } else { world.arrive(frame) };
        let Some((code, bytes)) = kernel else {
            // Newer kernels have no test run of tc for a packet without a whole IP header.
            let short = frame.len() < 54 && run.verdict == Verdict::Pass;
            assert!(program != Program::Xdp && short, "{:?}", Shown(frame));
            return run;
        };

        let mut differences = String::new();
        let mut compare = |what: &str, kernel: &dyn Debug, rules: &dyn Debug| {
            writeln!(differences, "{what}\n  kernel {kernel:?}\n  rules  {rules:?}").expect("text");
        };
        let expected = expected_code(program, &run);
        if code != expected {
            compare("return code", &code, &expected);
        }
        if bytes != run.bytes {
            compare("bytes", &Shown(&bytes), &Shown(&run.bytes));
        }
        count(&mut self.counts, program, &run, frame.len());
        if before != after {
            self.same_expiries();
            self.same_pools();
        }
        if all {
            self.compare_counts(&mut compare);
            self.compare_flows(&mut compare);
        }
        assert!(
            differences.is_empty(),
            "{program:?}: kernel and rules differ (rules: {:?})\nframe {:?}\n{differences}",
            run.outcome,
            Shown(frame),
        );
        self.alike.0 += 1;
        run
    }

    /// The flow tables: the kernel's, the rules' and the words of a flow, for each family.
    fn flow_tables(&self) -> [(&[AtomicU64], &[AtomicU64], usize); 2] {
        let (kernel, world) = (&self.kernel.maps, &self.town.world);
        [
            (kernel.flows_v4.words(), words(&world.v4.flows), WORDS_V4),
            (kernel.flows_v6.words(), words(&world.v6.flows), WORDS_V6),
        ]
    }

    /// Lets the rules' routing say what the kernel's will.
    fn set_routes(&mut self, program: Program) {
        let hook = if program == Program::Xdp { Hook::Xdp } else { Hook::Tc };
        let second = self.uplinks.get(&SECOND).is_some_and(|flags| flags & 1 != 0);
        let way = |way: Way| way.route(hook, second);
        let world = &mut self.town.world;
        world.v4.default_route = way(Way::Uplink);
        world.v6.default_route = way(Way::Uplink);
        world.v4.routes = BTreeMap::from([(ip::<V4>("192.0.2.1"), Route::None)]);
        world.v6.routes = BTreeMap::from([(ip::<V6>("2001:db8::1"), Route::None)]);
        (world.v4.mtus, world.v6.mtus) = (BTreeMap::new(), BTreeMap::new());
        for (to, chosen) in &self.ways {
            if to.is_ipv4() {
                world.v4.routes.insert(V4::from_ip(*to), way(*chosen));
                world.v4.mtus.extend(chosen.mtu().map(|mtu| (V4::from_ip(*to), mtu)));
            } else {
                world.v6.routes.insert(V6::from_ip(*to), way(*chosen));
                world.v6.mtus.extend(chosen.mtu().map(|mtu| (V6::from_ip(*to), mtu)));
            }
        }
    }
}

/// The word of an entry that remembers its way; entries have so many words.
const fn way_at(flow: usize) -> usize {
    if flow == WORDS_V4 { 6 } else { 12 }
}

/// The words of a flow table.
fn words<A: Addr>(sets: &[FlowSet<A>]) -> &[AtomicU64] {
    // SAFETY: a set is an array of words that are transparent atomics, without padding, and
    // borrowed as long as the result.
    unsafe {
        std::slice::from_raw_parts(sets.as_ptr().cast(), size_of_val(sets) / size_of::<u64>())
    }
}
