//! The reference's verdicts on flows after endpoints changed, by packets through the programs: a flow
//! that the reference deletes must choose again, one that it keeps must not.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use lb_common::{abi::Settings, wire::proto};
use lb_userspace::{
    cluster::{Change, Op, index::Index},
    datapath::{
        maps::Maps,
        object::{Sizes, Unused},
    },
    model::{Node, NodePortAddresses},
    plan::{
        Plan,
        tables::{self, Environment, Tables},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    kernel::{Program, Programs},
    support::{ACK, SYN, Sample, packet},
};
use crate::support::cases::value;

const SIZES: Sizes =
    Sizes { services: 64, backends: 1024, arena_lines: 65_536, flow_sets_v4: 64, flow_sets_v6: 64 };
const TC_ACT_UNSPEC: u32 = u32::MAX;
const NODE: &str = "192.0.2.1";
const CLIENT: &str = "198.51.100.9";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flow {
    orig_dst: String,
    orig_port: u16,
    reply_src: IpAddr,
    reply_port: u16,
    proto: String,
    want: String,
}

/// The whole of the reference's section.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    service: UdpService,
    /// `serving` or `not serving`, by address and port.
    endpoints: BTreeMap<SocketAddr, String>,
    flows: Vec<Flow>,
    extra: Extra,
    #[serde(rename = "trigger")]
    _trigger: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UdpService {
    cluster_ip: IpAddr,
    external_ip: IpAddr,
    lb_vip: IpAddr,
    /// Name, port, protocol, NodePort.
    ports: Vec<(String, u16, String, Option<u16>)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Extra {
    name: String,
    flows: Vec<Flow>,
}

fn reference() -> Section {
    serde_json::from_value(value("udp_flow_cleanup_reference")).unwrap()
}

/// A node with the case's Service, in the kernel.
struct Rig {
    programs: Programs,
    maps: Maps,
    tables: Tables,
    plan: Plan,
    index: Index,
    node: Node,
    settings: Settings,
}

impl Rig {
    fn new(service: &UdpService) -> Self {
        let (programs, maps) = Programs::load(SIZES, Unused::default());
        let node = Node {
            name: "n1".into(),
            addresses: vec![NODE.parse().unwrap()],
            local_addresses: vec![NODE.parse().unwrap()],
            node_port_addresses: NodePortAddresses::Primary,
            ..Node::default()
        };
        let base = Settings { flow_mask_v4: 63, flow_mask_v6: 63, ..Settings::default() };
        let mut index = Index::default();
        index.apply(Change::Service(Op::Reset(vec![object(service)])));
        Self {
            tables: Tables::new(maps.capacities),
            settings: tables::settings(base, &node).unwrap(),
            plan: Plan::default(),
            programs,
            maps,
            index,
            node,
        }
    }

    /// Makes these, each with its readiness, the Service's endpoints.
    fn endpoints(&mut self, endpoints: &[(SocketAddr, bool)]) {
        self.index.apply(Change::EndpointSlice(Op::Reset(
            endpoints
                .iter()
                .enumerate()
                .map(|(at, (place, ready))| slice(at, *place, *ready))
                .collect(),
        )));
        self.plan.update(&mut self.index, &self.node);
        let addresses = self.node.local_addresses.iter().copied().collect();
        let environment = Environment {
            settings: &self.settings,
            node_addresses: &addresses,
            source_towards: &|_| Ok(Some(NODE.parse().unwrap())),
            dsr: None,
        };
        let plans: Vec<_> = self.plan.services().collect();
        let planned = self.tables.reset(&environment, &plans);
        assert_eq!(planned.refused, []);
        self.maps.apply(&planned.ops).unwrap();
    }

    /// Where a packet goes; `None` if it is left as it was, or answered.
    fn goes(&self, sample: &Sample) -> Option<SocketAddr> {
        let (action, out) = self.programs.run(Program::Ingress, &sample.bytes()).unwrap();
        if action != TC_ACT_UNSPEC {
            return None;
        }
        let out = Sample::read(&out);
        (out.dst != sample.dst).then_some(out.dst)
    }
}

fn object(service: &UdpService) -> Service {
    let port = |(name, port, protocol, node_port): &(String, u16, String, Option<u16>)| json!({"name": name, "port": port, "protocol": protocol, "nodePort": node_port});
    let ports: Vec<Value> = service.ports.iter().map(port).collect();
    serde_json::from_value(json!({
        "metadata": {"name": "s", "namespace": "ns"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": service.cluster_ip,
            "externalIPs": [service.external_ip], "ports": ports,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": service.lb_vip}]}},
    }))
    .unwrap()
}

/// A slice with one endpoint on this node, for all of the Service's ports.
fn slice(at: usize, place: SocketAddr, ready: bool) -> EndpointSlice {
    let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": place.port()});
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("s-{at}"), "namespace": "ns",
            "labels": {"kubernetes.io/service-name": "s"},
        },
        "addressType": "IPv4",
        "ports": [port("test-tcp", "TCP"), port("test-udp", "UDP"), port("test-sctp", "SCTP")],
        "endpoints": [{
            "addresses": [place.ip()], "nodeName": "n1",
            "conditions": {"ready": ready, "serving": ready},
        }],
    }))
    .unwrap()
}

/// Runs one flow: it is opened while its backend is the only one, then the endpoints become `after`,
/// then its next packet is sent. Whether the flow is where it was.
fn stays(rig: &mut Rig, flow: &Flow, number: usize, after: &[(SocketAddr, bool)]) -> bool {
    let protocol = match flow.proto.as_str() {
        "TCP" => proto::TCP,
        "SCTP" => proto::SCTP,
        _ => proto::UDP,
    };
    let dst = if flow.orig_dst == "<any local>" { NODE } else { &flow.orig_dst };
    let (src, dst) = (format!("{CLIENT}:{}", 40_000 + number), format!("{dst}:{}", flow.orig_port));
    let backend = SocketAddr::new(flow.reply_src, flow.reply_port);
    // Port 0: a packet from before the Service was known, which nobody translated.
    let only = [(backend, true)];
    rig.endpoints(if flow.reply_port == 0 { &[] } else { &only });
    let before = (flow.reply_port != 0).then(|| rig.goes(&packet(protocol, &src, &dst, SYN)));
    rig.endpoints(after);
    let later = rig.goes(&packet(protocol, &src, &dst, ACK));
    match before {
        Some(before) => before == later,
        None => later.is_none(),
    }
}

fn replay(service: &UdpService, flows: Vec<Flow>, after: &[(SocketAddr, bool)]) -> usize {
    let mut rig = Rig::new(service);
    let mut replayed = 0;
    for (number, flow) in flows.iter().enumerate() {
        assert!(["kept", "deleted"].contains(&flow.want.as_str()), "{}", flow.want);
        let kept = stays(&mut rig, flow, number, after);
        let Flow { orig_dst, orig_port, reply_src, reply_port, proto, want } = flow;
        assert_eq!(
            kept,
            want == "kept",
            "{proto} {orig_dst}:{orig_port} at {reply_src}:{reply_port} is to be {want}"
        );
        replayed += 1;
    }
    replayed
}

#[test]
fn every_flow_of_the_reference_is_kept_or_moved_as_the_reference_says() {
    let Section { service, endpoints, flows, .. } = reference();
    let is_serving = |state: &str| match state {
        "serving" => true,
        "not serving" => false,
        other => panic!("{other}"),
    };
    let after: Vec<(SocketAddr, bool)> =
        endpoints.iter().map(|(place, state)| (*place, is_serving(state))).collect();
    assert_eq!(replay(&service, flows, &after), 72);
}

#[test]
fn a_udp_service_with_nobody_who_serves_keeps_its_flows() {
    let Section { service, extra: Extra { name, flows }, .. } = reference();
    assert_eq!(name, "UDP service with zero serving endpoints: nothing of it is deleted");
    let nobody = [("10.240.0.4:9090".parse().unwrap(), false)];
    assert_eq!(replay(&service, flows, &nobody), 2);
}
