//! An agent that dies before any of its writes: what the programs answer in between, and what its
//! successor makes of it.

mod hooks;
mod words;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    sync::Arc,
    time::Duration,
};

use lb_common::abi::Settings;
use lb_userspace::{
    api::{Explanation, Packet, Verdict},
    datapath::{
        crash,
        maps::Maps,
        object::{Object, Sizes, Unused, load_only},
    },
    explain::Explainer,
    model::{ClusterNode, ClusterNodes, Node},
    plan::{
        Plan,
        tables::{self, Dsr, Environment, Image, Op, Tables},
    },
};
use serde_json::{Value, json};

use crate::support::{
    counted,
    objects::{
        apply_service, apply_slice, complaints, index_of, object, service, slice_of, this_node,
    },
};

const EXPLAINING: &[&str] = &["explain_packet", "explain_socket"];

/// Everything is read back many times.
const SIZES: Sizes =
    Sizes { services: 64, backends: 256, arena_lines: 4096, flow_sets_v4: 16, flow_sets_v6: 16 };

/// What ends an agent in these stories.
struct Killed;

/// Who is killed says nothing.
fn be_quiet() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Killed>() {
            before(info);
        }
    }));
}

/// What is asked for at one time: Services by name, each with its address, more of its spec, and the
/// last bytes of its endpoints' addresses, which tell the node as well.
type Wish = &'static [(&'static str, u8, &'static str, &'static [u8])];

/// Endpoints from here on are on this node, and from [`THIRD`] on on a third one, which is new then.
const HERE: u8 = 100;
const THIRD: u8 = 200;

const BEFORE: Wish = &[
    ("stays", 10, "{}", &[1, 2]),
    ("grows", 11, "{}", &[3, 4]),
    ("shrinks", 12, "{}", &[5, 6, 7]),
    ("empties", 13, "{}", &[8]),
    ("goes", 14, r#"{"externalIPs": ["198.51.100.14"]}"#, &[9, 10]),
    ("changes", 15, r#"{"externalIPs": ["198.51.100.15"]}"#, &[11, 12]),
    ("leaves-its-address", 16, "{}", &[13]),
    ("has-both-families", 18, r#"{"ipFamilies": ["IPv4", "IPv6"]}"#, &[14, 15]),
    ("leaves-a-family", 19, r#"{"ipFamilies": ["IPv4", "IPv6"]}"#, &[16]),
    ("sends-datagrams", 20, r#"{"externalIPs": ["198.51.100.20"], "protocol": "UDP"}"#, &[17, 18]),
    ("comes-home", 21, r#"{"externalIPs": ["198.51.100.21"]}"#, &[19, 20]),
    ("leaves-home", 22, r#"{"externalIPs": ["198.51.100.22"]}"#, &[101, 102]),
    ("lets-others-in", 23, r#"{"type": "LoadBalancer", "ranges": ["203.0.113.0/24"]}"#, &[21, 103]),
    ("begins-to-ask", 24, r#"{"type": "LoadBalancer"}"#, &[22]),
    ("asks-no-more", 25, r#"{"type": "LoadBalancer", "ranges": ["203.0.113.0/24"]}"#, &[23]),
    (
        "forgets-its-clients",
        26,
        r#"{"externalIPs": ["198.51.100.26"], "sessionAffinity": "ClientIP"}"#,
        &[24, 25],
    ),
    (
        "closes-its-node-port",
        27,
        r#"{"type": "NodePort", "nodePort": 30027, "externalIPs": ["198.51.100.27"]}"#,
        &[50, 107],
    ),
    (
        "keeps-its-node-port",
        28,
        r#"{"type": "NodePort", "nodePort": 30028, "ipFamilies": ["IPv4", "IPv6"]}"#,
        &[51, 52],
    ),
    ("opens-a-node-port", 31, r#"{"externalIPs": ["198.51.100.31"]}"#, &[57, 109]),
    ("leaves-its-node-port", 29, r#"{"type": "NodePort", "nodePort": 30029}"#, &[53]),
];

const AFTER: Wish = &[
    ("stays", 10, "{}", &[1, 2]),
    ("grows", 11, "{}", &[3, 4, 30, 31, 32, 33]),
    ("shrinks", 12, "{}", &[6]),
    ("empties", 13, "{}", &[]),
    ("comes", 17, r#"{"externalIPs": ["198.51.100.17"]}"#, &[9, 34]),
    (
        "changes",
        15,
        r#"{"externalIPs": ["198.51.100.15", "198.51.100.25"], "sessionAffinity": "ClientIP",
            "externalTrafficPolicy": "Local", "type": "NodePort"}"#,
        &[11, 35],
    ),
    ("takes-its-address", 16, "{}", &[36, 37]),
    ("has-both-families", 18, r#"{"ipFamilies": ["IPv4", "IPv6"]}"#, &[15, 38, 104]),
    ("leaves-a-family", 19, "{}", &[16]),
    ("sends-datagrams", 20, r#"{"externalIPs": ["198.51.100.20"], "protocol": "UDP"}"#, &[18, 39]),
    ("comes-home", 21, r#"{"externalIPs": ["198.51.100.21"]}"#, &[105, 106]),
    ("leaves-home", 22, r#"{"externalIPs": ["198.51.100.22"]}"#, &[40, 201]),
    ("lets-others-in", 23, r#"{"type": "LoadBalancer", "ranges": ["192.0.2.0/24"]}"#, &[21, 103]),
    ("begins-to-ask", 24, r#"{"type": "LoadBalancer", "ranges": ["192.0.2.0/24"]}"#, &[22]),
    ("asks-no-more", 25, r#"{"type": "LoadBalancer"}"#, &[23]),
    ("forgets-its-clients", 26, r#"{"externalIPs": ["198.51.100.26"]}"#, &[25, 41]),
    ("closes-its-node-port", 27, r#"{"externalIPs": ["198.51.100.27"]}"#, &[50, 107]),
    (
        "keeps-its-node-port",
        28,
        r#"{"type": "NodePort", "nodePort": 30028, "ipFamilies": ["IPv4", "IPv6"]}"#,
        &[52, 54, 108],
    ),
    (
        "opens-a-node-port",
        31,
        r#"{"type": "NodePort", "nodePort": 30031, "externalIPs": ["198.51.100.31"]}"#,
        &[57, 109],
    ),
    ("takes-its-node-port", 30, r#"{"type": "NodePort", "nodePort": 30029}"#, &[55, 56]),
];

/// The places where somebody serves, or did: addresses by their last bytes, in each range that Services
/// have addresses of, and ports of this node.
fn places() -> Vec<(&'static str, SocketAddr)> {
    let v4 = |range: [u8; 3], last: u8| IpAddr::from([range[0], range[1], range[2], last]);
    let cluster = (10..=31).map(|last| v4([10, 96, 0], last));
    let external =
        [14, 15, 17, 20, 21, 22, 23, 24, 25, 26, 27, 31].map(|last| v4([198, 51, 100], last));
    let v6 = [18, 19, 28].map(|last| of_v6("fd00:96", last));
    let protocol =
        |at: &IpAddr| if *at == v4([10, 96, 0], 20) || *at == external[3] { "udp" } else { "tcp" };
    let addresses = cluster.chain(external).chain(v6);
    let node_ports = [30_027, 30_028, 30_029, 30_031].map(|port| (v4([192, 168, 0], 2), port));
    let node_ports = node_ports.into_iter().chain([(of_v6("fd00:192", 2), 30_028)]);
    addresses
        .map(|at| (protocol(&at), SocketAddr::new(at, 80)))
        .chain(node_ports.map(|at| ("tcp", at.into())))
        .collect()
}

fn of_v6(prefix: &str, last: u8) -> IpAddr {
    format!("{prefix}::{last}").parse().unwrap()
}

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    verdict: Verdict,
    candidates: Vec<SocketAddr>,
    /// With DSR, the node that it is sent to.
    node: Option<String>,
    /// Whether who gets it sees this node; only of what goes on.
    masquerade: Option<bool>,
}

impl Answer {
    /// Whether it is one of these. Where a policy and the endpoints change at once, those who come
    /// may be told for a moment as those who left would have been.
    fn is_whole(&self, old: &Self, new: &Self) -> bool {
        let whom = |it: &Self| (it.verdict, it.candidates.clone(), it.node.clone());
        [old, new].iter().any(|it| whom(self) == whom(it))
            && [old, new].iter().any(|it| self.masquerade == it.masquerade)
    }
}

struct World {
    object: Object,
    maps: Maps,
    node: Node,
    settings: Settings,
    forwards_by_dsr: bool,
}

impl World {
    fn new(forwards_by_dsr: bool) -> Self {
        let mut object = load_only(SIZES, EXPLAINING, Unused::default()).unwrap();
        let maps = Maps::from_object(&mut object).unwrap();
        let mut node = this_node();
        node.addresses.push(of_v6("fd00:192", 2));
        node.local_addresses.clone_from(&node.addresses);
        node.pod_cidrs.push("fd00:10::/64".parse().unwrap());
        node.service_cidrs =
            ["10.96.0.0/12", "fd00:96::/112"].map(|net| net.parse().unwrap()).into();
        let base = Settings {
            flow_mask_v4: SIZES.flow_sets_v4 - 1,
            flow_mask_v6: SIZES.flow_sets_v6 - 1,
            ..Settings::default()
        };
        let settings = tables::settings(base, &node).unwrap();
        Self { object, maps, node, settings, forwards_by_dsr }
    }

    /// An agent begins, reads everything back, and carries out the wish; the writes that it planned.
    fn reconcile(&mut self, wish: Wish) -> Vec<Op> {
        let nodes = || Arc::new(nodes(wish));
        self.node.nodes = self.forwards_by_dsr.then(nodes);
        let plan = plan(wish, &self.node);
        let mut tables = Tables::adopt(self.maps.capacities, &self.image());
        let node_addresses = self.node.local_addresses.iter().copied().collect();
        let addresses = &self.node.addresses;
        let towards =
            |to: IpAddr| Ok(addresses.iter().find(|at| at.is_ipv4() == to.is_ipv4()).copied());
        let environment = Environment {
            settings: &self.settings,
            node_addresses: &node_addresses,
            source_towards: &towards,
            dsr: Dsr::of(&self.node, 1),
        };
        let plans: Vec<_> = plan.services().collect();
        let planned = tables.reset(&environment, &plans);
        assert_eq!(planned.refused, []);
        self.maps.apply(&planned.ops).unwrap();
        // Time passes: what nobody can be reading is used again.
        for seconds in [1, 10, 100] {
            let ops: Vec<Op> = tables.reclaim(Duration::from_secs(seconds), &[].into());
            self.maps.apply(&ops).unwrap();
        }
        self.maps.tighten_gate().unwrap();
        planned.ops
    }

    fn image(&self) -> Image {
        self.maps.image().unwrap()
    }

    /// What clients outside, pods of the cluster and this node itself get at every place.
    fn answers(&self) -> BTreeMap<(IpAddr, SocketAddr), Answer> {
        let explainer = Explainer::new(&self.object, &self.maps, &self.node).unwrap();
        let sources = ["203.0.113.9", "192.0.2.9", "10.0.7.7", "2001:db8::9", "fd00:10::7:7"];
        let sources = sources.map(|source| source.parse::<IpAddr>().unwrap());
        let sources = [&sources[..], &self.node.addresses].concat();
        let places = places();
        let asked: Vec<_> = sources
            .iter()
            .flat_map(|source| places.iter().map(move |(proto, at)| (*source, *proto, *at)))
            .filter(|(source, _, at)| source.is_ipv4() == at.is_ipv4())
            .map(|(src, proto, at)| {
                let (proto, sport) = (proto.to_owned(), Some(40_000));
                Packet { src, sport, proto, dst: at.ip(), port: at.port(), flags: None }
            })
            .collect();
        let told = explainer.explain(&asked).unwrap();
        let answer = |(packet, told): (Packet, Explanation)| {
            let Explanation { verdict, mut candidates, masquerade, node, .. } = told;
            candidates.sort();
            let masquerade = (verdict == Verdict::Forward).then_some(masquerade);
            let at = SocketAddr::new(packet.dst, packet.port);
            ((packet.src, at), Answer { verdict, candidates, node, masquerade })
        };
        asked.into_iter().zip(told).map(answer).collect()
    }
}

/// The node that an endpoint is on.
const fn node_of(endpoint: u8) -> &'static str {
    match endpoint {
        THIRD.. => "n3",
        HERE.. => "n1",
        _ => "n2",
    }
}

/// This node, and those with endpoints.
fn nodes(wish: Wish) -> ClusterNodes {
    let node = |name: &str| {
        let last = name[1..].parse::<u8>().unwrap() + 1;
        let IpAddr::V6(v6) = of_v6("fd00:192", last) else { unreachable!("IPv6") };
        let v4 = Some([192, 168, 0, last].into());
        (name.to_owned(), ClusterNode { v4, v6: Some(v6), forwards: true })
    };
    let endpoints = wish.iter().flat_map(|(_, _, _, endpoints)| endpoints.iter().copied());
    endpoints.chain([HERE]).map(|endpoint| node(node_of(endpoint))).collect()
}

fn plan(wish: Wish, node: &Node) -> Plan {
    let objects = wish.iter().flat_map(|(name, last, more, endpoints)| {
        let mut spec: Value = serde_json::from_str(more).unwrap();
        let protocol = spec["protocol"].as_str().unwrap_or("TCP").to_owned();
        let mut ips = vec![format!("10.96.0.{last}")];
        let has_v6 = !spec["ipFamilies"].is_null();
        ips.extend(has_v6.then(|| of_v6("fd00:96", *last).to_string()));
        spec["clusterIP"] = json!(ips[0]);
        spec["clusterIPs"] = json!(ips);
        let node_port = spec["nodePort"].take();
        spec["ports"] = json!([
            {"name": "http", "port": 80, "protocol": protocol, "nodePort": node_port},
        ]);
        spec["loadBalancerSourceRanges"] = spec["ranges"].take();
        let is_balanced = spec["type"] == "LoadBalancer";
        let mut service = service(name, spec);
        if is_balanced {
            let ingress = json!([{"ip": format!("198.51.100.{last}")}]);
            service.status = Some(object(json!({"loadBalancer": {"ingress": ingress}})));
        }
        let slice = |family: &str, address: &dyn Fn(u8) -> IpAddr| {
            let endpoint =
                |last: &u8| json!({"addresses": [address(*last)], "nodeName": node_of(*last)});
            let endpoints = endpoints.iter().map(endpoint).collect();
            let mut slice = slice_of(&format!("{name}-{}", family.to_lowercase()), name, endpoints);
            family.clone_into(&mut slice.address_type);
            slice.ports.as_mut().unwrap()[0].protocol = Some(protocol.clone());
            apply_slice(slice)
        };
        let v4 = slice("IPv4", &|last| [10, 0, 0, last].into());
        let v6 = has_v6.then(|| slice("IPv6", &|last| of_v6("fd00:10", last)));
        [apply_service(service), v4].into_iter().chain(v6)
    });
    let mut index = index_of(objects);
    assert_eq!(complaints(&index), Vec::<String>::new());
    let mut plan = Plan::default();
    plan.update(&mut index, node);
    plan
}

#[test]
fn an_agent_may_die_before_any_write_and_every_service_gives_an_old_or_a_new_answer() {
    dies_before_every_write(World::new(false));
}

#[test]
fn so_may_one_whose_node_forwards_by_dsr() {
    dies_before_every_write(World::new(true));
}

fn dies_before_every_write(mut world: World) {
    world.reconcile(AFTER);
    let new = world.answers();
    world.reconcile(BEFORE);
    let old = world.answers();
    assert!(old.iter().filter(|(at, answer)| new[*at] != **answer).count() >= 30);
    be_quiet();

    let mut writes = 0;
    loop {
        world.reconcile(BEFORE);
        assert_eq!(world.answers(), old, "the way back, after {writes} writes");
        crash::after_here(writes, || panic_any(Killed));
        let died = catch_unwind(AssertUnwindSafe(|| world.reconcile(AFTER)));
        if crash::left_here().is_some() {
            died.expect("nobody was killed");
            break;
        }
        let died = died.expect_err("somebody was killed");
        assert!(died.is::<Killed>(), "after {writes} writes something else went wrong");
        for (at, answer) in world.answers() {
            let (old, new) = (&old[&at], &new[&at]);
            assert!(
                answer.is_whole(old, new),
                "{at:?} after {writes} writes: {answer:?}, and not {old:?} or {new:?}"
            );
        }
        world.reconcile(AFTER);
        assert_eq!(world.answers(), new, "the next agent, after {writes} writes");
        assert_eq!(world.reconcile(AFTER), [], "the maps are the plan's, after {writes} writes");
        writes += 1;
    }
    counted(writes as usize, "places to die at");
    assert!(writes >= 200, "{writes} writes are no reconciliation");
}
