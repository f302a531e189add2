//! Random and mutated frames in small random worlds: kernel and rules differ in none.
//!
//! `cargo xtask fuzz packets --inputs N` runs more of them. What is compared after each frame is
//! verdict and bytes; flows and counts, which keep every difference, after some frames and at the end
//! of each world.

use std::{
    collections::BTreeMap,
    env,
    time::{SystemTime, UNIX_EPOCH},
};

use lb_common::{
    abi::{Answer, BackendState, NodeSlot, Scope, Service},
    verdict::{Reason, Verdict},
};

use lb_userspace::datapath::object::Unused;

use super::{
    both::{Both, now, tell_as_they_come, towns},
    envelopes::{FRESH, SENT_ON, outside, wrapped},
    extras::{fragments, with_extensions, with_options},
    icmp::{about, echo, kinds, router},
    kernel::Program,
    network::{SECOND, Way},
    support::{ACK, FIN, RST, SYN, Sample},
    town::{NODE_PORT, SERVICE, Town, seconds},
};

/// Frames in a world.
const FRAMES: usize = 512;
/// How many frames at most before all there is is compared.
const BATCH: usize = 32;
/// Frames in all, unless `LB_INPUTS` says otherwise.
const INPUTS: usize = 200_000;

/// Random numbers that a seed repeats (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, sides: usize) -> usize {
        (self.roll() % sides as u64) as usize
    }

    pub fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }

    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

fn number(name: &str) -> Option<u64> {
    let given = env::var(name).ok();
    given.map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// What the dice start from: `LB_SEED`, or the time.
pub fn seed() -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_nanos() as u64;
    number("LB_SEED").unwrap_or(clock)
}

/// How many inputs there are to be: `LB_INPUTS`, or a usual run's.
pub fn inputs(usual: usize) -> usize {
    number("LB_INPUTS").map_or(usual, |inputs| inputs as usize)
}

/// A town that the dice have built. Whatever is chosen at random in it is chosen out of one, because
/// the kernel's draw is not ours.
fn random_town(dice: &mut Dice) -> Town {
    let all = towns(dice.below(4), dice.below(4));
    let mut town = all.into_iter().nth(dice.below(6)).expect("six towns");
    let ids: Vec<u32> = town.world.backends.keys().copied().collect();
    for id in &ids {
        use BackendState::{Active, Gone, Retired};
        let state = dice.one_of(&[Active, Active, Active, Retired, Gone]);
        town.retire(*id, state, !dice.one_in(4));
    }
    if dice.one_in(4) {
        town.world.set_nothing(SERVICE, Scope::Local, Answer::DROP);
    }
    let scopes = [Scope::Cluster, Scope::Cluster, Scope::Local];
    let (internal, external) = (dice.one_of(&scopes), dice.one_of(&scopes));
    let rings = ids.len() > 1;
    let (inside, outside) = (rings || dice.one_in(2), rings || dice.one_in(2));
    town.world.change_service(SERVICE, |service| {
        service.with_policies(internal, external).with_choice(inside, outside)
    });
    if dice.one_in(4) {
        town.world.change_service(SERVICE, Service::with_source_ranges);
        if dice.one_in(2) {
            town.allow_source(town.names.client);
        }
    }
    if dice.one_in(3) {
        town = spread(town, dice);
    }
    if dice.one_in(3) {
        town.world = town.world.with_flow_sets(1 << dice.below(4));
    }
    let settings = &mut town.world.settings;
    settings.seed = dice.roll();
    settings.table_key = dice.roll();
    settings.reset_gone = u32::from(!dice.one_in(4));
    if dice.one_in(3) {
        settings.snat_last = settings.snat_first + dice.below(8) as u16;
    }
    if dice.one_in(8) {
        settings.takeover_until = now() + seconds(60);
    }
    town
}

/// The town with DSR, over a ring that has changed just now or long ago.
fn spread(town: Town, dice: &mut Dice) -> Town {
    let nodes = [1, 1, 2, 3, NodeSlot::REST];
    let slots: Vec<_> =
        (0..=dice.below(4)).map(|_| (dice.one_of(&nodes), dice.one_of(&nodes))).collect();
    let ago = dice.one_of(&[0, 10, 3600]);
    let mut town = town.spread(&slots);
    let slots: Vec<_> = slots
        .into_iter()
        .map(|(now, before)| NodeSlot { now, before, asks: before % 2 == 0 })
        .collect();
    town.world.set_nodes(SERVICE, &slots, now().wrapping_sub(seconds(ago)));
    if dice.one_in(8) {
        town.world.nodes.remove(&dice.one_of(&[2, 3]));
    }
    town
}

/// The frame in an envelope: nearly always one that another node could have sent.
fn in_envelope(town: &Town, frame: &[u8], dice: &mut Dice) -> Vec<u8> {
    let names = town.names;
    let [one, other] = names.peers;
    let src = dice.one_of(&[one, one, other, other, names.client]);
    let dst = dice.one_of(&[names.node, names.node, names.node, names.vip]);
    let ttl = dice.one_of(&[FRESH, FRESH - 1, 60, SENT_ON, SENT_ON - 1, 65]);
    wrapped(frame, outside(src, dst, ttl))
}

/// A packet to one of the town's addresses.
fn dialled(town: &Town, dice: &mut Dice) -> Sample {
    let names = town.names;
    let src = dice.one_of(&[
        names.client,
        names.client,
        names.pod,
        names.here[0],
        names.node,
        names.there[0],
    ]);
    let (dst, port) = dice.one_of(&[
        (names.vip, 80),
        (names.vip, 80),
        (names.cluster_ip, 80),
        (names.node, NODE_PORT),
        (names.peers[0], NODE_PORT),
        (names.node, 2000),
        (names.unallocated, 80),
        (names.cluster_ip, 81),
        (names.vip, 81),
    ]);
    let mut sent = town.packet(src, 40_000 + dice.below(6) as u16, dst, port, flags(dice));
    sent.ttl = dice.one_of(&[64, 64, 64, 64, 255, 2, 1, 0]);
    let length = dice.one_of(&[0, 1, 5, 8, 60, 1400]);
    sent.payload = (0..length).map(|_| dice.roll() as u8).collect();
    sent
}

fn flags(dice: &mut Dice) -> u8 {
    dice.one_of(&[SYN, SYN, SYN, ACK, ACK, SYN | ACK, ACK | FIN, FIN, RST, RST | ACK, 0])
}

/// Changes a byte, cuts the frame or lengthens it; its source stays, because where answers to
/// anywhere go is the kernel's to know.
fn mutate(frame: &mut Vec<u8>, v4: bool, dice: &mut Dice) {
    let source = if v4 { 26..30 } else { 22..38 };
    match dice.below(8) {
        0 => frame.truncate(14 + dice.below(frame.len() - 13)),
        1 => frame.extend(vec![dice.roll() as u8; 1 + dice.below(40)]),
        _ => {
            let at = dice.below(frame.len().min(80));
            if !source.contains(&at) {
                let any = dice.roll() as u8;
                frame[at] = dice.one_of(&[0, 1, 0x45, 0x80, 0xff, frame[at] ^ 1, any]);
            }
        }
    }
}

/// Something else happens.
fn change(both: &mut Both, dice: &mut Dice) {
    let ids: Vec<u32> = both.town.world.backends.keys().copied().collect();
    match dice.below(6) {
        0 if !ids.is_empty() => both.town.only(&[dice.one_of(&ids)]),
        1 if dice.one_in(4) => both.town.only(&[]),
        2 if !ids.is_empty() => {
            let state = dice.one_of(&[BackendState::Active, BackendState::Retired]);
            both.town.retire(dice.one_of(&ids), state, dice.one_in(2));
        }
        3 if !ids.is_empty() => both.town.set_backend(dice.one_of(&ids), dice.below(3) as u32),
        _ => both.wait(dice.one_of(&[1, 14, 15, 16, 50, 1000, 2000])),
    }
}

fn ways(both: &mut Both, dice: &mut Dice) {
    both.uplinks.insert(SECOND, u32::from(dice.one_in(2)));
    let names = both.town.names;
    for to in names.there.iter().chain([&names.client]) {
        if dice.one_in(3) {
            let way = dice.one_of(&[Way::Second, Way::NoNeighbour, Way::Narrow, Way::Nowhere]);
            both.lead(to, way);
        }
    }
}

/// What a router, a pinging client or a fragmenting host would send: ICMP about packets that were
/// seen, echo, parts of packets, packets with options.
fn special(both: &Both, seen: &[(Reason, Sample)], dice: &mut Dice) -> Vec<u8> {
    let names = both.town.names;
    let dialled = dialled(&both.town, dice);
    match dice.below(8) {
        0 => {
            let dst = dice.one_of(&[names.vip, names.cluster_ip, names.node, names.unallocated]);
            echo(both, dst, dice.below(100)).bytes()
        }
        1 | 2 => {
            // About an answer that a client got, or about what a backend was sent.
            let answer = dialled.between(dialled.dst, dialled.src);
            let sent = match seen.is_empty() {
                false if dice.one_in(2) => &seen[dice.below(seen.len())].1,
                _ => &answer,
            };
            let kinds = kinds(names.v4);
            let quoted = dice.one_of(&[0, 7, 8, 12, 18, 20, 28, 1000]);
            about(sent, router(both), &kinds[dice.below(kinds.len())], quoted).bytes()
        }
        3..=5 => {
            let size = dice.one_of(&[8, 16, 24, 800]);
            let parts = fragments(&dialled, 1 + dice.below(3) as u32, size);
            parts[dice.below(parts.len().min(4))].clone()
        }
        _ if names.v4 => with_options(&dialled, 1 + dice.below(10) as u8),
        _ => {
            let kinds: Vec<u8> =
                (0..=dice.below(5)).map(|_| dice.one_of(&[0, 43, 60, 60, 44, 51])).collect();
            with_extensions(&dialled, &kinds)
        }
    }
}

/// A frame on its way, the program that sees it and whether the frame is as a sender would make it;
/// `None` if something else happened.
fn next_frame(
    both: &mut Both,
    seen: &[(Reason, Sample)],
    dice: &mut Dice,
) -> Option<(Program, Vec<u8>, bool)> {
    let arriving = dice.one_of(&[Program::Xdp, Program::Ingress, Program::PodIngress]);
    let leaving = dice.one_of(&[Program::Egress, Program::PodEgress]);
    let (program, mut frame) = match dice.below(16) {
        0 => {
            change(both, dice);
            return None;
        }
        1 => {
            let length = 14 + dice.below(90);
            let mut frame: Vec<u8> = (0..length).map(|_| dice.roll() as u8).collect();
            frame[12..14].copy_from_slice(&dice.one_of(&[[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0]]));
            return Some((dice.one_of(&[arriving, leaving]), frame, false));
        }
        2..=6 if !seen.is_empty() => {
            let (reason, sample) = &seen[dice.below(seen.len())];
            let local = *reason == Reason::ToLocal && !dice.one_in(8);
            let answer = sample.answered(flags(dice));
            (if local { leaving } else { arriving }, answer.bytes())
        }
        7 => (leaving, dialled(&both.town, dice).bytes()),
        8..=10 => {
            let mut frame = special(both, seen, dice);
            if dice.one_in(4) {
                mutate(&mut frame, both.town.names.v4, dice);
            }
            if both.town.world.settings.own_node != 0 && dice.one_in(2) {
                frame = in_envelope(&both.town, &frame, dice);
                return Some((Program::Ingress, frame, false));
            }
            return Some((dice.one_of(&[arriving, arriving, leaving]), frame, false));
        }
        _ => (arriving, dialled(&both.town, dice).bytes()),
    };
    let mut whole = !dice.one_in(4);
    if !whole {
        mutate(&mut frame, both.town.names.v4, dice);
    }
    let spread = both.town.world.settings.own_node != 0;
    if spread && !program.is_egress() && dice.one_in(2) {
        frame = in_envelope(&both.town, &frame, dice);
        if dice.one_in(4) {
            whole = false;
            mutate(&mut frame, both.town.names.v4, dice);
        }
    }
    Some((program, frame, whole))
}

#[test]
fn random_frames_in_random_worlds_meet_the_same_fate() {
    let (seed, inputs) = (seed(), inputs(INPUTS));
    println!("LB_SEED={seed} LB_INPUTS={inputs} repeats this");
    let mut dice = Dice(seed);
    let mut builder = Dice(!seed);
    let mut fates: BTreeMap<&str, u32> = BTreeMap::new();
    let mut left = inputs;
    let mut story = |both: &mut Both| {
        ways(both, &mut dice);
        let mut seen = Vec::new();
        let mut run = 0;
        while run < FRAMES.min(left) {
            let next = next_frame(both, &seen, &mut dice);
            let Some((program, frame, whole)) = next else { continue };
            run += 1;
            let all = run == FRAMES.min(left) || dice.one_in(BATCH);
            let run =
                if all { both.run(program, &frame) } else { both.run_quickly(program, &frame) };
            *fates.entry(run.reason.label()).or_default() += 1;
            // A RST out of an envelope is dropped without it.
            let opened =
                run.reason.verdict() == Verdict::Reject && frame.ends_with(&run.bytes[14..]);
            if matches!(run.verdict, Verdict::Pass | Verdict::Drop) && !opened {
                assert_eq!(run.bytes, frame, "{:?} changed the frame", run.reason);
            }
            let plain = whole && frame.len() < 2000;
            if plain && matches!(run.reason, Reason::ToLocal | Reason::ToRemote) {
                seen.push((run.reason, Sample::read(&run.bytes)));
            }
        }
        left -= run;
    };
    // One half by programs that have everything, one by those of an agent that needs none of it.
    let worlds = inputs.div_ceil(FRAMES);
    for (unused, worlds) in [(Unused::default(), worlds / 2), (Unused::PARTS, worlds.div_ceil(2))] {
        let towns = std::iter::repeat_with(|| random_town(&mut builder));
        let served = towns.filter(|town| !(unused.dsr && town.world.settings.own_node != 0));
        let worlds = served.take(worlds);
        tell_as_they_come(unused, worlds, &mut story);
    }
    println!("{} frames: {fates:?}", fates.values().sum::<u32>());
    let expected = [
        Reason::NotIp,
        Reason::NotService,
        Reason::NeedsStack,
        Reason::ToLocal,
        Reason::ReplyLocal,
        Reason::ToRemote,
        Reason::ToNode,
        Reason::ReplyRemote,
        Reason::ErrorLocal,
        Reason::ErrorRemote,
        Reason::ErrorUnknown,
        Reason::Echo,
        Reason::EchoRefused,
        Reason::Fragment,
        Reason::ExtensionHeaders,
        Reason::NoEndpoints,
        Reason::UnknownPort,
        Reason::UnknownFlow,
        Reason::UnallocatedAddress,
        Reason::HalfOpenFull,
        Reason::TooBig,
        Reason::TtlExpired,
        Reason::BadLength,
    ];
    // A run that is shorter than usual may be without the rarest.
    for reason in expected.into_iter().filter(|_| inputs >= INPUTS) {
        assert!(fates.contains_key(reason.label()), "{reason:?} never happened: {fates:?}");
    }
}
