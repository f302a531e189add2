//! The same frame, the same tables, two worlds: the programs in the kernel, and the rules that they
//! are made of in this process. They must agree on everything.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write as _},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use lb_common::{
    abi::{Count, FlowSet, Settings, WORDS_V4, WORDS_V6},
    addr::{Addr, V4, V6},
    allowance::Bucket,
    limits::FLOW_WAYS,
    model::{Run, TestWorld},
    path::{Hook, Outcome},
    verdict::{Reason, Verdict},
    wire::proto,
    world::Route,
};
use lb_userspace::datapath::object::Unused;
use nix::time::{ClockId, clock_gettime};

use super::{
    kernel::{Counts, Kernel, Program},
    network::{SECOND, UPLINK, Way},
    support::{ACK, FromIp, SYN, Sample, ip},
    town::{Town, seconds},
};
use crate::support::counted;

/// The programs that see frames come in.
pub const ARRIVING: [Program; 2] = [Program::Xdp, Program::Ingress];

/// Lengths of a jiffy by which the programs' clock stands still for a day, and is somewhere else.
const STILL: u64 = 1;
const LEAP: u64 = 1 << 24;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;

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

    /// The tick that the rules are told. Where a clock was set it is another for each, and no more.
    fn now(&self) -> u32 {
        match self.town.world.settings.jiffy {
            STILL => 0,
            LEAP => 1000,
            _ => now(),
        }
    }

    /// Has as many answers to refused packets made as may be made at once, with time standing still:
    /// `refused` is one, and is asked to be answered once more than that.
    pub fn spend_answers(&mut self, program: Program, refused: &Sample) {
        let frame = refused.bytes();
        self.town.world.settings.uncapped = 0;
        // However many were spent before, for time leaps away, and back.
        for clock in [LEAP, STILL] {
            self.town.world.settings.jiffy = clock;
            assert_eq!(self.run(program, &frame).verdict, Verdict::Reject);
        }
        let tcp = refused.protocol() == proto::TCP;
        let rate = if tcp { Bucket::RESET } else { Bucket::UNREACHABLE };
        for _ in 1..Bucket::most(rate) {
            assert_eq!(self.run_quickly(program, &frame).verdict, Verdict::Reject);
        }
    }

    /// Time leaps far away.
    pub const fn leap(&mut self) {
        self.town.world.settings.jiffy = LEAP;
    }

    /// Lets time pass: every flow, and the time of takeover, grows older by `ticks`.
    pub fn wait(&mut self, ticks: u32) {
        let earlier = |meta: u64| {
            let expiry = (meta as u32).wrapping_sub(ticks);
            meta & !u64::from(u32::MAX) | u64::from(expiry)
        };
        let asked_earlier = |way: u64| way.wrapping_sub(u64::from(ticks) << 32);
        for (kernel, rules, flow) in self.flow_tables() {
            for table in [kernel, rules] {
                for entry in table.chunks(flow).filter(|entry| entry[0].load(Relaxed) != 0) {
                    entry[0].store(earlier(entry[0].load(Relaxed)), Relaxed);
                    let way = &entry[way_at(flow)];
                    if way.load(Relaxed) != 0 {
                        way.store(asked_earlier(way.load(Relaxed)), Relaxed);
                    }
                }
            }
        }
        let takeover = &mut self.town.world.settings.takeover_until;
        if *takeover != 0 {
            *takeover = takeover.wrapping_sub(ticks);
        }
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

    /// A frame that came in, at one of [`ARRIVING`].
    #[track_caller]
    pub fn arrive(&mut self, program: Program, sample: &Sample) -> Run {
        self.run(program, &sample.bytes())
    }

    /// Opens a flow and has it answered; what the backend saw of the first packet.
    #[track_caller]
    pub fn established(&mut self, program: Program, port: u16) -> Sample {
        let seen = self.forwarded(program, &self.town.to_vip(port, SYN));
        self.returned(program, &seen.answered(SYN | ACK));
        if self.town.protocol != proto::UDP {
            self.forwarded(program, &self.town.to_vip(port, ACK));
        }
        seen
    }

    /// A packet that leaves.
    #[track_caller]
    pub fn leave(&mut self, sample: &Sample) -> Run {
        self.run(Program::Egress, &sample.bytes())
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

    fn compare_counts(&self, differ: &mut dyn FnMut(&str, &dyn Debug, &dyn Debug)) {
        let counts = self.kernel.counts();
        for (what, kernel, rules) in [
            ("reason", &counts.reasons, &self.counts.reasons),
            ("service", &counts.services, &self.counts.services),
            ("backend", &counts.backends, &self.counts.backends),
        ] {
            for (index, (kernel, rules)) in kernel.iter().zip(rules).enumerate() {
                if kernel != rules {
                    let name = Reason::ALL.get(index).filter(|_| what == "reason");
                    let name = name.map_or("", |reason| reason.label());
                    differ(&format!("count of {what} {index} {name}"), kernel, rules);
                }
            }
        }
    }

    fn compare_flows(&self, differ: &mut dyn FnMut(&str, &dyn Debug, &dyn Debug)) {
        for (kernel, rules, flow) in self.flow_tables() {
            for (index, (kernel, rules)) in kernel.iter().zip(rules).enumerate() {
                let (kernel, rules) = (kernel.load(Relaxed), rules.load(Relaxed));
                if kernel != rules {
                    let (flow, word) = (index / flow, index % flow);
                    let what = format!("flow {flow} of {} word {word}", self.town.names.client);
                    differ(&what, &format_args!("{kernel:#018x}"), &format_args!("{rules:#018x}"));
                }
            }
        }
    }

    /// The clock ticked between the two worlds: the rules' entries expire when the kernel's do, and
    /// their ways were asked for when the kernel's were.
    fn same_expiries(&self) {
        let low = u64::from(u32::MAX);
        for (kernel, rules, flow) in self.flow_tables() {
            let way = if flow == WORDS_V4 { 6 } else { 12 };
            for (kernel, rules) in kernel.iter().zip(rules).skip(way).step_by(flow) {
                let (theirs, ours) = (kernel.load(Relaxed), rules.load(Relaxed));
                if theirs & low == ours & low {
                    rules.store(theirs, Relaxed);
                }
            }
            for (kernel, rules) in kernel.iter().zip(rules).step_by(flow) {
                let (theirs, ours) = (kernel.load(Relaxed), rules.load(Relaxed));
                let apart = (ours as u32).wrapping_sub(theirs as u32) as i32;
                // One may have renewed what the other, a few ticks before, found young enough.
                if apart.unsigned_abs() <= 4 * Settings::SECOND {
                    rules.store(ours & !low | theirs & low, Relaxed);
                }
            }
            let ways = kernel.iter().zip(rules).skip(way_at(flow)).step_by(flow);
            for (kernel, rules) in ways {
                let (theirs, ours) = (kernel.load(Relaxed), rules.load(Relaxed));
                let apart = ((ours >> 32) as u32).wrapping_sub((theirs >> 32) as u32) as i32;
                if apart.unsigned_abs() <= 1 {
                    rules.store(theirs & !low | ours & low, Relaxed);
                }
            }
        }
    }

    /// The same for what is known of source ports, whose counts go by windows of time.
    fn same_pools(&self) {
        for (key, pool) in self.kernel.maps.port_pools.iter().flatten() {
            self.town.world.pools.copy(&key, &pool);
        }
        for (rules, kernel) in self.town.world.opening.iter().zip(self.kernel.programs.opening()) {
            rules.set(kernel);
        }
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

    /// What a backend on this node gets of the packet.
    #[track_caller]
    pub fn delivered(&mut self, sample: &Sample) -> Sample {
        let run = self.arrive(Program::Ingress, sample);
        assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ToLocal), "{sample:?}");
        Sample::read(&run.bytes)
    }

    /// What a backend elsewhere gets of the packet.
    #[track_caller]
    pub fn forwarded(&mut self, program: Program, sample: &Sample) -> Sample {
        let run = self.arrive(program, sample);
        assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToRemote), "{sample:?}");
        Sample::read(&run.bytes)
    }

    /// What the client gets of a remote backend's answer.
    #[track_caller]
    pub fn returned(&mut self, program: Program, answer: &Sample) -> Sample {
        let run = self.arrive(program, answer);
        assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ReplyRemote));
        Sample::read(&run.bytes)
    }

    /// What the client gets of a local backend's answer.
    #[track_caller]
    pub fn left(&mut self, answer: &Sample) -> Sample {
        let run = self.leave(answer);
        assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ReplyLocal), "{answer:?}");
        Sample::read(&run.bytes)
    }

    /// Which backend gets the packet; either kind.
    #[track_caller]
    pub fn served_by(&mut self, program: Program, sample: &Sample) -> u32 {
        let run = self.arrive(program, sample);
        assert!(matches!(run.reason, Reason::ToLocal | Reason::ToRemote), "{:?}", run.reason);
        assert_eq!(Sample::read(&run.bytes).dst, self.town.listens(run.outcome.backend));
        run.outcome.backend
    }

    /// The packet ends for `reason`, with not one of its bytes changed.
    #[track_caller]
    pub fn ends(&mut self, program: Program, sample: &Sample, reason: Reason) -> Outcome {
        self.frame_ends(program, &sample.bytes(), reason)
    }

    /// As [`Both::ends`], for a frame.
    #[track_caller]
    pub fn frame_ends(&mut self, program: Program, frame: &[u8], reason: Reason) -> Outcome {
        let run = self.run(program, frame);
        assert_eq!((run.reason, run.verdict), (reason, reason.verdict()), "{:?}", Shown(frame));
        assert_eq!(run.bytes, frame, "{reason:?} changed the packet");
        run.outcome
    }

    /// The packet is answered; the answer.
    #[track_caller]
    pub fn rejected(&mut self, program: Program, sample: &Sample, reason: Reason) -> Vec<u8> {
        let run = self.arrive(program, sample);
        assert_eq!((run.reason, run.verdict), (reason, Verdict::Reject), "{sample:?}");
        run.bytes
    }

    /// What was counted for a reason up to now.
    pub fn counted(&self, reason: Reason) -> Count {
        self.counts.reasons[reason as usize]
    }

    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Word 0 of every entry in the kernel's tables.
    pub fn flows_of_kernel(&self) -> Vec<u64> {
        let tables = self.flow_tables();
        let metas = tables.iter().flat_map(|(kernel, _, flow)| kernel.iter().step_by(*flow));
        metas.map(|meta| meta.load(Relaxed)).filter(|meta| *meta != 0).collect()
    }

    /// Every flow entry's words, to compare with; the ways out that they remember left out.
    pub fn flows(&self) -> Vec<Vec<u64>> {
        let mut flows = Vec::new();
        for (kernel, _, flow) in self.flow_tables() {
            for entry in kernel.chunks(flow).filter(|entry| entry[0].load(Relaxed) != 0) {
                let mut words: Vec<u64> = entry.iter().map(|word| word.load(Relaxed)).collect();
                words.remove(way_at(flow));
                flows.push(words);
            }
        }
        flows
    }

    /// A packet from the client to a place.
    #[expect(clippy::wrong_self_convention, reason = "a frame that comes from the client")]
    pub fn from_client(&self, port: u16, dst: &str, dport: u16, flags: u8) -> Sample {
        self.town.packet(self.town.names.client, port, dst, dport, flags)
    }
}

/// The word of an entry that remembers its way; entries have so many words.
const fn way_at(flow: usize) -> usize {
    if flow == WORDS_V4 { 6 } else { 12 }
}

/// Ticks of the clock that the programs read.
pub fn now() -> u32 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
    let nanoseconds = time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64;
    (nanoseconds >> Settings::TICK_SHIFT) as u32
}

/// What the program returns where the rules say this.
fn expected_code(program: Program, run: &Run) -> u32 {
    let (is_xdp, is_egress) = (program == Program::Xdp, program.is_egress());
    match run.verdict {
        Verdict::Pass | Verdict::Deliver if is_xdp => XDP_PASS,
        Verdict::Forward if is_xdp && run.outcome.hop.interface != UPLINK => XDP_REDIRECT,
        Verdict::Forward | Verdict::Answer | Verdict::Reject if is_xdp => XDP_TX,
        Verdict::Drop if is_xdp => XDP_DROP,
        Verdict::Pass | Verdict::Deliver => TC_ACT_UNSPEC,
        Verdict::Forward if is_egress => TC_ACT_UNSPEC,
        Verdict::Forward | Verdict::Answer | Verdict::Reject if !is_egress => TC_ACT_REDIRECT,
        Verdict::Forward | Verdict::Answer | Verdict::Reject | Verdict::Drop => TC_ACT_SHOT,
    }
}

/// Counts what the program must count: each packet once, where it was decided.
fn count(counts: &mut Counts, program: Program, run: &Run, bytes: usize) {
    if run.verdict == Verdict::Pass && (program == Program::Xdp || program.is_egress()) {
        return;
    }
    let refused = matches!(run.verdict, Verdict::Reject | Verdict::Drop);
    let more = Count {
        packets: 1,
        bytes: bytes as u64,
        connections: u64::from(run.outcome.opened),
        refused: u64::from(refused),
    };
    let add = |count: &mut Count| *count = count.plus(more);
    add(&mut counts.reasons[run.reason as usize]);
    if run.outcome.service != Outcome::NOBODY {
        add(&mut counts.services[run.outcome.service as usize]);
    }
    if run.outcome.backend != Outcome::NOBODY {
        add(&mut counts.backends[run.outcome.backend as usize]);
    }
}

/// The words of a flow table.
fn words<A: Addr>(sets: &[FlowSet<A>]) -> &[AtomicU64] {
    // SAFETY: a set is an array of words that are transparent atomics, without padding, and
    // borrowed as long as the result.
    unsafe {
        std::slice::from_raw_parts(sets.as_ptr().cast(), size_of_val(sets) / size_of::<u64>())
    }
}

/// A frame for people: its headers apart.
pub struct Shown<'a>(pub &'a [u8]);

impl Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(frame) = *self;
        let network = if frame.get(12..14) == Some(&[0x86, 0xdd]) { 54 } else { 34 };
        let ends = [("eth", 0, 14), ("ip", 14, network), ("transport", network, usize::MAX)];
        write!(f, "{} bytes", frame.len())?;
        for (name, start, end) in ends {
            write!(f, " | {name}")?;
            for byte in frame.get(start..end.min(frame.len())).unwrap_or_default() {
                write!(f, " {byte:02x}")?;
            }
        }
        Ok(())
    }
}
