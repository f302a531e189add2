//! Questions while flows live: they are answered from the tables, and leave them as they are.

mod answers;
mod living;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{TestRun as _, TestRunOptions, maps::HashMap, programs::SchedClassifier};
use lb_common::{
    abi::{Count, Settings, SocketChoice, SocketKey, SocketPeer},
    verdict::Reason,
};
use lb_userspace::{
    api::{DropRow, Explanation, Packet},
    config::{Config, Options},
    datapath::{
        maps::Maps,
        object::{Object, Sizes, load_private},
        seen::drops,
    },
    explain::{Asked, on_agent},
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
            source_towards: &|_| Ok(Some(node.addresses[0])),
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
