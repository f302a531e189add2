//! What `lb explain` says of a packet is what then becomes of it, and to ask leaves nothing behind: a
//! thousand random packets, each asked about and then let in.

use std::{cell::Cell, collections::BTreeMap};

use aya::{
    TestRun as _, TestRunOptions,
    maps::HashMap,
    programs::{Program as Loaded, ProgramError},
};
use lb_common::{
    abi::{AffinityEntry, AffinityKey, Count},
    verdict::{Reason, Verdict as Ends},
};
use lb_userspace::{
    api::{Packet, Verdict},
    datapath::{rates::Sample, rows::place_of},
    explain::Asked,
    model::Node,
    plan::Plan,
};
use serde_json::{Value, json};

use super::{
    explain_live::Agent,
    kernel::Program,
    network::{Network, UPLINK},
    random::Dice,
};
use crate::support::objects::{
    apply_service, apply_slice, index_of, object, service, slice_of, this_node,
};

const CASES: usize = 1000;
const XDP_PASS: u32 = 2;
/// Services and backends of the world have smaller ids.
const IDS: u32 = 128;

fn endpoint(address: &str, node: &str, ready: bool, terminating: bool) -> Value {
    json!({
        "addresses": [address], "nodeName": node,
        "conditions": {"ready": ready, "serving": true, "terminating": terminating},
    })
}

/// Services of every kind: with affinity, source ranges, local policies, backends of all states and
/// none at all.
fn town() -> (Node, Plan) {
    let both = || {
        vec![
            endpoint("10.0.0.1", "n1", true, false),
            endpoint("10.0.0.2", "n2", true, false),
            endpoint("10.0.0.3", "n2", false, true),
        ]
    };
    let ports = |node: u16| {
        json!([
            {"name": "http", "port": 80, "nodePort": node},
            {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": node + 1},
        ])
    };
    let mut changes = Vec::new();
    let mut put = |number: u8, name: &str, more: Value, endpoints: Vec<Value>| {
        let mut spec = json!({
            "type": "LoadBalancer", "clusterIP": format!("10.96.0.{number}"),
            "externalIPs": [format!("198.51.100.{}", 100 + number)],
            "ports": ports(30_000 + 2 * u16::from(number)),
        });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let mut it = service(name, spec);
        let ingress =
            json!({"loadBalancer": {"ingress": [{"ip": format!("198.51.100.{number}")}]}});
        it.status = Some(object(ingress));
        let mut slice = slice_of(&format!("{name}-1"), name, endpoints);
        slice.ports = Some(object(json!([
            {"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"},
        ])));
        changes.extend([apply_service(it), apply_slice(slice)]);
    };
    put(1, "web", json!({}), both());
    put(2, "sticky", json!({"sessionAffinity": "ClientIP"}), both());
    put(3, "near", json!({"externalTrafficPolicy": "Local"}), both());
    let far = vec![endpoint("10.0.0.2", "n2", true, false)];
    put(4, "far", json!({"externalTrafficPolicy": "Local"}), far);
    put(5, "guarded", json!({"loadBalancerSourceRanges": ["203.0.113.0/30"]}), both());
    put(6, "empty", json!({}), vec![]);
    let leaving = vec![endpoint("10.0.0.3", "n2", false, true)];
    put(7, "leaving", json!({"internalTrafficPolicy": "Local"}), leaving);
    let mut index = index_of(changes);
    let mut node = this_node();
    node.service_cidrs = vec!["10.96.0.0/16".parse().unwrap()];
    let mut plan = Plan::default();
    plan.update(&mut index, &node);
    (node, plan)
}

/// The programs on tables of their own, in a network where remote backends are reached.
struct Rig {
    agent: Agent,
    /// Whether packets meet XDP first, as where the driver has it.
    native: bool,
    /// How many came to their end there.
    ended_at_xdp: Cell<usize>,
    _network: Network,
}

impl Rig {
    fn new(native: bool) -> Self {
        let network = Network::enter();
        let mut agent = Agent::in_charge_of(town());
        agent.maps.set_uplinks(&[UPLINK].into(), u32::from(native)).unwrap();
        Self { agent, native, ended_at_xdp: Cell::new(0), _network: network }
    }

    /// Lets a packet come in on the uplink; the Reason that it was counted for, and the backend.
    fn arrives(&self, packet: &Packet) -> (Option<Reason>, Option<u32>) {
        let before = self.agent.maps.sample(IDS, IDS).unwrap();
        let mut frame = Asked::new(packet).unwrap().frame();
        let mut goes_on = true;
        if self.native {
            let (code, after) = self.run(Program::Xdp, &frame);
            (goes_on, frame) = (code == XDP_PASS, after);
        }
        if goes_on {
            self.run(Program::Ingress, &frame);
        } else {
            self.ended_at_xdp.set(self.ended_at_xdp.get() + 1);
        }
        counted(&before, &self.agent.maps.sample(IDS, IDS).unwrap())
    }

    /// What a program returns for a frame, and the frame after it.
    fn run(&self, program: Program, frame: &[u8]) -> (u32, Vec<u8>) {
        let context = program.context(frame.len());
        let mut out = vec![0; frame.len() + 128];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = match self.agent.object.program(program.name()).unwrap() {
            Loaded::Xdp(program) => program.test_run(options),
            Loaded::SchedClassifier(program) => program.test_run(options),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        let result = result.unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// Everything that packets change.
    fn traces(&self) -> impl PartialEq {
        let words = |mapped: &lb_userspace::datapath::mmap::Mapped| {
            let words = mapped.words().iter();
            words.map(|word| word.load(std::sync::atomic::Ordering::Acquire)).collect::<Vec<_>>()
        };
        let flows = [words(&self.agent.maps.flows_v4), words(&self.agent.maps.flows_v6)];
        let sample = self.agent.maps.sample(IDS, IDS).unwrap();
        let ports: BTreeMap<_, _> = self.agent.maps.port_pools.iter().map(Result::unwrap).collect();
        let map = self.agent.object.map("AFFINITY").unwrap();
        let clients: HashMap<_, AffinityKey, AffinityEntry> = map.try_into().unwrap();
        let clients: BTreeMap<_, _> = clients
            .iter()
            .map(Result::unwrap)
            .map(|(key, it)| (key, (it.backend, it.generation, it.last, it.epoch)))
            .collect();
        assert!(ports.len() > 1 && !clients.is_empty(), "a world in which nothing happened");
        (flows, (sample.reasons, sample.services, sample.backends), ports, clients)
    }
}

/// What one packet was counted for.
fn counted(before: &Sample, after: &Sample) -> (Option<Reason>, Option<u32>) {
    let grown = |before: &[Count], after: &[Count]| {
        let more: Vec<u32> = (0..)
            .zip(before.iter().zip(after))
            .filter(|(_, (before, after))| after.packets > before.packets)
            .map(|(id, _)| id)
            .collect();
        assert!(more.len() <= 1, "one packet is counted once: {more:?}");
        more.first().copied()
    };
    let reason = grown(&before.reasons, &after.reasons);
    let backend = grown(&before.backends, &after.backends);
    (reason.map(|at| Reason::ALL[at as usize]), backend)
}

/// A packet from outside to somewhere in the town, or beside it.
fn packet(dice: &mut Dice) -> Packet {
    let number = dice.one_of(&[1, 1, 2, 2, 3, 4, 5, 5, 5, 6, 7]);
    let node_port = 30_000 + 2 * u16::from(number);
    let (dst, port) = dice.one_of(&[
        ([198, 51, 100, number], 80),
        ([198, 51, 100, number], 53),
        ([198, 51, 100, 100 + number], 80),
        ([198, 51, 100, number], 81),
        ([10, 96, 0, number], 80),
        ([10, 96, 0, number], 53),
        ([10, 96, 0, 200], 80),
        ([192, 168, 0, 2], node_port),
        ([192, 168, 0, 2], node_port + 1),
        ([198, 51, 100, number], 80),
        ([192, 0, 2, 77], 80),
    ]);
    let proto = dice.one_of(&["tcp", "tcp", "tcp", "udp", "sctp"]);
    let flags = dice.one_of(&["SYN", "SYN", "SYN", "ACK", "FIN,ACK", "RST", "SYN,ACK"]);
    Packet {
        src: [203, 0, 113, dice.one_of(&[1, 2, 9, 10])].into(),
        sport: Some(40_000 + dice.one_of(&[0, 1, 2, 3, 4, 5, 6, 7])),
        proto: proto.into(),
        dst: dst.into(),
        port,
        flags: (proto == "tcp").then(|| flags.into()),
    }
}

/// Asks about each of a thousand random packets, and lets it come in.
fn hold_against_what_happens(rig: &Rig) {
    let mut dice = Dice(20_260_926);
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for case in 0..CASES {
        let packet = packet(&mut dice);
        let [said] = &rig.agent.explain(std::slice::from_ref(&packet))[..] else {
            panic!("one answer")
        };
        let (reason, backend) = rig.arrives(&packet);
        let Some(reason) = reason else {
            // What is for nobody here is left alone, and not counted.
            assert_eq!(said.verdict, Verdict::Pass, "case {case}: {packet:?}\n{said:#?}");
            continue;
        };
        *reasons.entry(reason.label()).or_default() += 1;
        assert_eq!(said.reason, reason.label(), "case {case}: {packet:?}\n{said:#?}");
        let verdict = match reason.verdict() {
            Ends::Pass => Verdict::Pass,
            Ends::Deliver | Ends::Forward => Verdict::Forward,
            Ends::Answer | Ends::Reject => Verdict::Reject,
            Ends::Drop => Verdict::Drop,
        };
        assert_eq!(said.verdict, verdict, "case {case}: {packet:?}\n{said:#?}");
        let got = backend.and_then(|id| rig.agent.maps.backends.get(id)).map(|row| place_of(&row));
        if said.verdict == Verdict::Forward {
            assert!(got.is_some() && got == said.backend, "case {case}: {got:?}\n{said:#?}");
            assert!(
                said.candidates.is_empty() || got.is_some_and(|it| said.candidates.contains(&it))
            );
        }
    }
    println!("{reasons:?}");
    // It was no thousand times the same.
    for label in ["to-local", "to-remote", "no-endpoints", "no-local-endpoints", "source-range"] {
        assert!(reasons.get(label).is_some_and(|count| *count > 5), "{label}: {reasons:?}");
    }
    assert!(reasons.len() >= 8, "{reasons:?}");
}

#[test]
fn what_is_said_of_a_thousand_random_packets_is_what_becomes_of_them() {
    hold_against_what_happens(&Rig::new(false));
}

#[test]
fn it_is_what_becomes_of_them_too_where_they_meet_xdp_first() {
    let rig = Rig::new(true);
    hold_against_what_happens(&rig);
    let ended = rig.ended_at_xdp.get();
    println!("{ended} of {CASES} ended at XDP");
    assert!(ended > CASES / 4 && ended < CASES, "{ended}");
}

#[test]
fn a_thousand_questions_leave_flows_counts_clients_and_source_ports_as_they_were() {
    let rig = Rig::new(false);
    let mut dice = Dice(7);
    for _ in 0..200 {
        rig.arrives(&packet(&mut dice));
    }
    let before = rig.traces();
    let packets: Vec<_> = (0..CASES).map(|_| packet(&mut dice)).collect();
    assert_eq!(rig.agent.explain(&packets).len(), CASES);
    assert!(rig.traces() == before, "a question left a trace");
    let another = Packet { sport: Some(50_000), ..packets[0].clone() };
    rig.arrives(&another);
    assert!(rig.traces() != before, "but a packet leaves traces");
}
