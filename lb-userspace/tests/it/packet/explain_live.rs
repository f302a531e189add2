//! Questions while flows live: they are answered from the tables, and leave them as they are.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use aya::{
    TestRun as _, TestRunOptions,
    maps::HashMap,
    programs::SchedClassifier,
    sys::{Stats, enable_stats},
};
use lb_common::{
    abi::{Count, Settings, SocketChoice, SocketKey, SocketPeer},
    verdict::Reason,
};
use lb_userspace::{
    agent::ticks as setup_ticks,
    api::{DropRow, Explanation, FlowFilter, Packet, Verdict, Via},
    cli::{Exit, Failure},
    config::{Config, Options},
    datapath::{
        maps::Maps,
        object::{Object, Sizes, load_private},
        seen::drops,
    },
    explain::{Asked, Explainer, Private, on_agent},
    model::Node,
    plan::{
        Plan,
        tables::{self, Environment, Tables},
    },
};
use serde_json::json;

use crate::support::objects::{
    apply_service, apply_slice, index_of, object, service, slice_of, this_node,
};

const CLIENT: &str = "203.0.113.9";
const POD: &str = "10.0.7.7";
const CLUSTER_IP: &str = "10.96.0.10";
const EXTERNAL: &str = "198.51.100.1";
/// TC_ACT_UNSPEC: to the stack.
const TO_STACK: u32 = u32::MAX;

/// `ns/web` for TCP and UDP, with a backend here and one elsewhere; `ns/empty` without.
fn town() -> (Node, Plan) {
    let ports = json!([
        {"name": "http", "port": 80},
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "ss7", "port": 99, "protocol": "SCTP"},
    ]);
    let spec = json!({"clusterIP": CLUSTER_IP, "externalIPs": [EXTERNAL], "ports": ports});
    let endpoints = vec![
        json!({"addresses": ["10.0.0.1"], "nodeName": "n1"}),
        json!({"addresses": ["10.0.0.2"], "nodeName": "n2"}),
    ];
    let mut slice = slice_of("web-1", "web", endpoints);
    slice.ports = Some(object(json!([
        {"name": "http", "port": 8080},
        {"name": "dns", "port": 5353, "protocol": "UDP"},
        {"name": "ss7", "port": 9999, "protocol": "SCTP"},
    ])));
    let empty = json!({"clusterIP": "10.96.0.11", "ports": [{"port": 80}]});
    let mut index = index_of([
        apply_service(service("web", spec)),
        apply_service(service("empty", empty)),
        apply_slice(slice),
    ]);
    let mut node = this_node();
    node.service_cidrs = vec!["10.96.0.0/12".parse().unwrap()];
    let mut plan = Plan::default();
    plan.update(&mut index, &node);
    (node, plan)
}

fn config() -> Config {
    Config::from_options(Options::default(), "n1").unwrap()
}

/// All programs on tables of their own, as an agent has them.
pub struct Agent {
    pub object: Object,
    pub maps: Maps,
    node: Node,
}

impl Agent {
    fn new() -> Self {
        Self::in_charge_of(town())
    }

    /// The agent of that node, with that plan carried out.
    pub fn in_charge_of((node, plan): (Node, Plan)) -> Self {
        let mut object = load_private(Sizes::SMALL).unwrap();
        let mut maps = Maps::from_object(&mut object).unwrap();
        let sets = Sizes::SMALL;
        let base = Settings {
            flow_mask_v4: sets.flow_sets_v4 - 1,
            flow_mask_v6: sets.flow_sets_v6 - 1,
            ..Settings::default()
        };
        let settings = tables::settings(base, &node).unwrap();
        let environment = Environment {
            settings: &settings,
            node_addresses: &node.local_addresses.iter().copied().collect(),
            source_towards: &|_| Some(node.addresses[0]),
            dsr: None,
        };
        let plans: Vec<_> = plan.services().collect();
        let planned = Tables::new(maps.capacities).reset(&environment, &plans);
        assert_eq!(planned.refused, []);
        maps.apply(&planned.ops).unwrap();
        Self { object, maps, node }
    }

    pub fn explain(&self, packets: &[Packet]) -> Vec<Explanation> {
        on_agent(&self.object, &self.maps, &self.node, packets).unwrap()
    }

    /// Lets a packet come in on an uplink: true if it went up to a backend on this node.
    fn arrives(&self, packet: &Packet) -> bool {
        let frame = Asked::new(packet).unwrap().frame();
        let program: &SchedClassifier =
            self.object.program("uplink_ingress").unwrap().try_into().unwrap();
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
        program.test_run(options).unwrap().return_value == TO_STACK
    }

    /// A connection that a backend on this node has got.
    fn living_flow(&self) -> Packet {
        (40_000..40_100)
            .map(|sport| Packet { sport: Some(sport), ..tcp(CLIENT, EXTERNAL, 80) })
            .find(|packet| {
                let [answer] = &self.explain(std::slice::from_ref(packet))[..] else {
                    panic!("one answer")
                };
                answer.reason == Reason::ToLocal.label() && self.arrives(packet)
            })
            .expect("a port that hashes to the backend here")
    }

    /// Everything that packets change.
    fn traces(&self) -> Traces {
        let words =
            |words: &[AtomicU64]| words.iter().map(|word| word.load(Ordering::Acquire)).collect();
        let ids = 0..64;
        Traces {
            flows: [words(self.maps.flows_v4.words()), words(self.maps.flows_v6.words())],
            reasons: self.maps.reason_counts().unwrap(),
            services: self.maps.service_counts(ids.clone()).unwrap(),
            backends: self.maps.backend_counts(ids).unwrap(),
            sockets: [
                self.entries::<SocketPeer>("SOCKET_PEERS"),
                self.entries::<SocketChoice>("SOCKET_CHOICES"),
            ],
        }
    }

    fn drops(&self) -> Vec<DropRow> {
        drops(&self.maps, None, 0).unwrap()
    }

    fn entries<V: aya::Pod>(&self, name: &str) -> usize {
        let map = HashMap::<_, SocketKey, V>::try_from(self.object.map(name).unwrap()).unwrap();
        map.keys().count()
    }
}

#[derive(Debug, PartialEq)]
struct Traces {
    flows: [Vec<u64>; 2],
    reasons: Vec<(Reason, Count)>,
    services: BTreeMap<u32, Count>,
    backends: BTreeMap<u32, Count>,
    sockets: [usize; 2],
}

fn tcp(src: &str, dst: &str, port: u16) -> Packet {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    Packet { src, sport: None, proto: "tcp".into(), dst, port, flags: None }
}

fn of(proto: &str, packet: Packet) -> Packet {
    Packet { proto: proto.into(), ..packet }
}

fn flags(flags: &str, packet: Packet) -> Packet {
    Packet { flags: Some(flags.into()), ..packet }
}

fn places(places: &[&str]) -> Vec<SocketAddr> {
    places.iter().map(|place| place.parse().unwrap()).collect()
}

#[test]
fn a_question_leaves_flows_counters_and_sockets_as_they_were() {
    let agent = Agent::new();
    let flow = agent.living_flow();
    let before = agent.traces();
    assert!(before.flows[0].iter().any(|word| *word != 0));
    let questions = [
        flow.clone(),
        flags("ACK", flow.clone()),
        flags("RST", flow.clone()),
        Packet { sport: Some(1), ..flow },
        tcp(CLIENT, CLUSTER_IP, 80),
        of("udp", tcp(CLIENT, CLUSTER_IP, 53)),
        of("udp", tcp(POD, CLUSTER_IP, 53)),
        tcp(POD, CLUSTER_IP, 80),
        tcp("192.168.0.2", EXTERNAL, 80),
        tcp(CLIENT, "10.96.0.11", 80),
        tcp(POD, "10.96.0.11", 80),
    ];
    for answer in agent.explain(&questions) {
        assert!(matches!(answer.verdict, Verdict::Forward | Verdict::Reject), "{answer:?}");
    }
    assert_eq!(agent.traces(), before);
    assert!(agent.arrives(&questions[0]));
    assert_ne!(agent.traces(), before, "but a packet leaves traces");
}

#[test]
fn a_packet_of_a_living_flow_goes_its_flows_way_and_still_says_what_it_could_have_got() {
    let agent = Agent::new();
    let flow = agent.living_flow();
    for packet in [flow.clone(), flags("ACK", flow.clone())] {
        let [answer] = &agent.explain(&[packet])[..] else { panic!("one answer") };
        let wanted = Explanation {
            verdict: Verdict::Forward,
            reason: "to-local".into(),
            frontend: Some("ns/web:http".into()),
            backend: Some("10.0.0.1:8080".parse().unwrap()),
            source: Some(flow.src),
            candidates: places(&["10.0.0.1:8080", "10.0.0.2:8080"]),
            masquerade: true,
            via: Some(Via::Tc),
            node: None,
            steps: answer.steps.clone(),
        };
        assert_eq!(*answer, wanted);
        let told = |name: &str| answer.steps.iter().find(|step| step.name == name);
        let choice = "none: its flow is known, and goes to 10.0.0.1:8080";
        assert_eq!(told("choice").unwrap().detail, choice);
        assert_eq!(told("read on").unwrap().detail, "docs/datapath.md#to-local");
    }
}

#[test]
fn packets_in_mid_stream_belong_to_nobody_without_their_flow() {
    let (node, plan) = town();
    let private = Private::new(&config(), node, &plan).unwrap();
    let packets: Vec<_> = (1..=64)
        .map(|sport| flags("ACK", Packet { sport: Some(sport), ..tcp(CLIENT, EXTERNAL, 80) }))
        .collect();
    let answers = private.explain(&packets).unwrap();
    let (foreign, here): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.verdict == Verdict::Reject);
    assert!(foreign.len() > 10 && here.len() > 10);
    for answer in foreign {
        assert_eq!((answer.reason.as_str(), answer.backend), ("unknown-flow", None));
    }
    for answer in here {
        assert_eq!(answer.reason, "to-local", "only a backend here can have had it all along");
    }
}

#[test]
fn each_protocol_is_answered_for_sockets_and_from_outside() {
    let (node, plan) = town();
    let private = Private::new(&config(), node, &plan).unwrap();
    let questions = [
        of("udp", tcp(CLIENT, CLUSTER_IP, 53)),
        of("udp", tcp(POD, CLUSTER_IP, 53)),
        of("sctp", tcp(POD, CLUSTER_IP, 99)),
        of("sctp", tcp(CLIENT, CLUSTER_IP, 99)),
        of("udp", tcp(CLIENT, CLUSTER_IP, 80)),
        tcp(CLIENT, "10.96.0.99", 80),
        tcp(POD, "192.0.2.1", 80),
    ];
    let answers = private.explain(&questions).unwrap();
    let found: Vec<_> = answers
        .iter()
        .map(|it| (it.verdict, it.frontend.as_deref(), &it.candidates[..], it.via))
        .collect();
    let (dns, ss7) =
        (places(&["10.0.0.1:5353", "10.0.0.2:5353"]), places(&["10.0.0.1:9999", "10.0.0.2:9999"]));
    let (tc, socket) = (Some(Via::Tc), Some(Via::Socket));
    let wanted: [(_, _, &[_], _); 7] = [
        (Verdict::Forward, Some("ns/web:dns"), &dns, tc),
        (Verdict::Forward, Some("ns/web:dns"), &dns, socket),
        (Verdict::Forward, Some("ns/web:ss7"), &ss7, socket),
        (Verdict::Forward, Some("ns/web:ss7"), &ss7, tc),
        (Verdict::Reject, None, &[], tc),
        (Verdict::Drop, None, &[], tc),
        (Verdict::Pass, None, &[], socket),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_backend_sees_the_client_where_it_is_here_and_this_node_where_it_is_elsewhere() {
    let (node, plan) = town();
    let private = Private::new(&config(), node, &plan).unwrap();
    let packets: Vec<_> = (1..=64)
        .map(|sport| Packet { sport: Some(sport), ..tcp(CLIENT, EXTERNAL, 80) })
        .chain([tcp(POD, EXTERNAL, 80)])
        .collect();
    let mut seen = [0; 2];
    for (packet, answer) in packets.iter().zip(private.explain(&packets).unwrap()) {
        let here = answer.backend == Some("10.0.0.1:8080".parse().unwrap());
        let keeps = here || answer.via == Some(Via::Socket);
        let wanted = if keeps { packet.src } else { "192.168.0.2".parse().unwrap() };
        assert_eq!(answer.source, Some(wanted), "{answer:?}");
        seen[usize::from(here)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
}

#[test]
fn the_nodes_own_addresses_are_the_node_even_inside_the_pods_range_and_so_is_loopback() {
    let spec = json!({
        "type": "NodePort", "clusterIP": CLUSTER_IP, "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    });
    let endpoints = vec![json!({"addresses": ["10.0.0.2"], "nodeName": "n2"})];
    let mut index = index_of([
        apply_service(service("web", spec)),
        apply_slice(slice_of("web-1", "web", endpoints)),
    ]);
    let mut node = this_node();
    let more = ["10.0.1.1", "127.0.0.1"].map(|it| it.parse::<std::net::IpAddr>().unwrap());
    node.local_addresses.extend(more);
    let mut plan = Plan::default();
    plan.update(&mut index, &node);
    let private = Private::new(&config(), node, &plan).unwrap();
    let from = ["192.168.0.2", "10.0.1.1", "127.0.0.1", POD, CLIENT];
    let packets = from.map(|from| tcp(from, "192.168.0.2", 30080));
    let answers = private.explain(&packets).unwrap();
    let found: Vec<_> = answers.iter().map(|it| (it.verdict, it.masquerade)).collect();
    let (node, pod) = ((Verdict::Forward, true), (Verdict::Forward, false));
    assert_eq!(found, [node, node, node, pod, (Verdict::Drop, false)]);
}

#[test]
fn a_pod_that_may_meet_itself_is_masqueraded_and_one_that_cannot_is_not() {
    let (node, plan) = town();
    let private = Private::new(&config(), node, &plan).unwrap();
    // A backend here and one elsewhere, each of which may be chosen.
    let from = ["10.0.0.1", "10.0.0.2", POD];
    let packets: Vec<_> = (0..32)
        .flat_map(|port| {
            from.map(|from| Packet { sport: Some(1000 + port), ..tcp(from, CLUSTER_IP, 80) })
        })
        .collect();
    for (packet, answer) in packets.iter().zip(private.explain(&packets).unwrap()) {
        assert_eq!(answer.candidates.len(), 2);
        assert_eq!(answer.masquerade, packet.src.to_string() == "10.0.0.1", "{answer:?}");
    }
}

#[test]
fn ipv6_is_answered_alike() {
    let spec = json!({
        "clusterIP": "fd00:96::10", "ipFamilies": ["IPv6"],
        "ports": [{"name": "http", "port": 80}],
    });
    let endpoints = vec![
        json!({"addresses": ["fd00:1::1"], "nodeName": "n1"}),
        json!({"addresses": ["fd00:1::2"], "nodeName": "n2"}),
    ];
    let mut slice = slice_of("web-1", "web", endpoints);
    slice.address_type = "IPv6".into();
    let mut index = index_of([apply_service(service("web", spec)), apply_slice(slice)]);
    let mut node = this_node();
    node.addresses = vec!["2001:db8::1".parse().unwrap()];
    node.local_addresses = node.addresses.clone();
    node.pod_cidrs = vec!["fd00:1::/64".parse().unwrap()];
    let mut plan = Plan::default();
    plan.update(&mut index, &node);
    let private = Private::new(&config(), node, &plan).unwrap();
    let from = ["2001:db8:9::9", "fd00:1::7"];
    let to = [("fd00:96::10", 80), ("fd00:96::10", 81)];
    let packets: Vec<_> =
        from.into_iter().flat_map(|from| to.map(|(to, port)| tcp(from, to, port))).collect();
    let answers = private.explain(&packets).unwrap();
    let found: Vec<_> = answers
        .iter()
        .map(|it| (it.verdict, &it.candidates[..], it.masquerade, it.via.unwrap()))
        .collect();
    let both = places(&["[fd00:1::1]:8080", "[fd00:1::2]:8080"]);
    let wanted: [(_, &[_], _, _); 4] = [
        (Verdict::Forward, &both, true, Via::Tc),
        (Verdict::Reject, &[], false, Via::Tc),
        (Verdict::Forward, &both, false, Via::Socket),
        (Verdict::Reject, &[], false, Via::Socket),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_packet_that_cannot_be_is_named_by_its_place() {
    let agent = Agent::new();
    let packets = [tcp(CLIENT, CLUSTER_IP, 80), of("icmp", tcp(CLIENT, CLUSTER_IP, 80))];
    let error = on_agent(&agent.object, &agent.maps, &agent.node, &packets).unwrap_err();
    assert_eq!(error.to_string(), "packet 2: `icmp` is none of tcp, udp and sctp");
    assert_eq!(Failure::from(error).exit, Exit::Usage);
}

#[test]
fn a_thousand_packets_are_answered_in_order() {
    let agent = Agent::new();
    let packets: Vec<_> = (0..1000_u16)
        .map(|number| {
            let from = if number % 2 == 0 { CLIENT } else { POD };
            Packet { sport: Some(1000 + number), ..tcp(from, CLUSTER_IP, 80 + number % 3) }
        })
        .collect();
    let explainer = Explainer::new(&agent.object, &agent.maps, &agent.node).unwrap();
    let _counting = enable_stats(Stats::RunTime).unwrap();
    let runs = || {
        ["explain_packet", "explain_socket"]
            .map(|name| agent.object.program(name).unwrap().info().unwrap().run_count())
    };
    let before = runs();
    let began = Instant::now();
    let answers = explainer.explain(&packets).unwrap();
    println!("{} packets in {:?}", packets.len(), began.elapsed());
    let after = runs();
    // A run of a program is what a packet costs; all else is read once for all of them.
    assert_eq!([after[0] - before[0], after[1] - before[1]], [500, 500]);
    assert_eq!(answers.len(), packets.len());
    for (packet, answer) in packets.iter().zip(answers) {
        let wanted = if packet.port == 80 { Verdict::Forward } else { Verdict::Reject };
        assert_eq!(answer.verdict, wanted);
        let via = if packet.src.to_string() == POD { Via::Socket } else { Via::Tc };
        assert_eq!(answer.via, Some(via));
    }
}

#[test]
fn what_is_refused_is_the_last_example_of_its_reason() {
    let agent = Agent::new();
    let never = agent.drops().into_iter().find(|row| row.reason == "unallocated-address").unwrap();
    assert_eq!((never.count, never.last_example), (0, None));
    for sport in [7, 8] {
        agent.arrives(&Packet { sport: Some(sport), ..tcp(CLIENT, "10.96.0.99", 80) });
    }
    let [row, ..] = &agent.drops()[..] else { panic!("no rows") };
    let last = row.last_example.clone().unwrap();
    assert_eq!((row.reason.as_str(), row.count), ("unallocated-address", 2));
    assert_eq!(last.line(), format!("tcp {CLIENT}:8 > 10.96.0.99:80, {} s ago", last.seconds_ago));
    assert_eq!((last.hook.as_str(), last.service), ("ingress", None));
    assert!(row.doc.ends_with("#unallocated-address") && !row.hint.is_empty());
}

#[test]
fn a_living_flow_is_listed_with_both_its_directions() {
    let agent = Agent::new();
    let flow = agent.living_flow();
    let filter = |service: &str| FlowFilter {
        service: Some(service.into()),
        limit: 10,
        ..FlowFilter::default()
    };
    let rows = |filter| agent.maps.flow_rows(&filter, setup_ticks()).unwrap();
    let found = rows(filter("ns/web"));
    let client = SocketAddr::new(flow.src, flow.sport.unwrap());
    let there = found.iter().find(|row| row.role == "to-local").unwrap();
    let back = found.iter().find(|row| row.role == "reply-local").unwrap();
    let backend: SocketAddr = "10.0.0.1:8080".parse().unwrap();
    assert_eq!((there.source, there.new_destination), (client, backend));
    assert_eq!(
        (back.source, back.new_source, back.destination),
        (backend, there.destination, client)
    );
    assert_eq!(
        (there.state.as_str(), there.service.as_deref()),
        ("half-open", Some("ns/web:http"))
    );
    assert_eq!(rows(filter("ns/empty")), []);
    assert_eq!(rows(FlowFilter { limit: 1, ..filter("ns/web") }).len(), 1);
    let any = FlowFilter { limit: 10, ..FlowFilter::default() };
    for picks_there in [
        FlowFilter { src: Some(flow.src), ..any.clone() },
        FlowFilter { dst: Some(flow.dst), ..any.clone() },
    ] {
        let found = rows(picks_there);
        assert!(!found.is_empty() && found.iter().all(|row| row.role == "to-local"), "{found:?}");
    }
    let of_state = |state: &str| rows(FlowFilter { state: Some(state.into()), ..any.clone() });
    assert_eq!((of_state("half-open").len(), of_state("closing").len()), (rows(any).len(), 0));
}

#[test]
fn a_sample_of_ten_thousand_services_is_what_single_look_ups_say() {
    let agent = Agent::new();
    agent.living_flow();
    let sample = agent.maps.sample(10_000, 10_000).unwrap();
    let sums = agent.maps.service_counts(0..10_000).unwrap();
    assert_eq!(sample.services, sums.into_values().collect::<Vec<_>>());
    let reasons: Vec<_> = agent.maps.reason_counts().unwrap().into_iter().map(|it| it.1).collect();
    assert_eq!(sample.reasons, reasons);
    assert!(sample.services.iter().any(|count| count.connections > 0));
    let began = Instant::now();
    agent.maps.sample(10_000, 20_000).unwrap();
    println!("10,000 services and 20,000 backends are read in {:?}", began.elapsed());
}
