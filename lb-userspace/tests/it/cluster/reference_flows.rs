//! Every packet of the reference's flow tests, decided by the plan.

use std::{collections::BTreeMap, net::SocketAddr};

use lb_userspace::{
    model::{Family, Node, NodePortAddresses, Protocol},
    plan::{Plan, node_ports},
};
use serde::Deserialize;

use crate::support::{
    cases::{FlowCase, Outcome, section},
    verdict::{self, Verdict},
};

#[test]
fn every_packet_of_the_reference_meets_the_reference_s_fate() {
    let mut packets = 0;
    for case in FlowCase::all() {
        let node = case.node();
        let mut plan = Plan::default();
        plan.update(&mut case.index(), &node);
        for flow in &case.flows {
            let protocol = match flow.proto.as_str() {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                other => panic!("{other}"),
            };
            let to = SocketAddr::new(flow.dst, flow.port);
            let wanted = match &flow.out {
                Outcome::Forward(to) => {
                    let mut to: Vec<_> = to.iter().map(|t| t.parse().unwrap()).collect();
                    to.sort();
                    Verdict::Forward(to, flow.masq)
                }
                Outcome::Word(word) => match word.as_str() {
                    "REJECT" => Verdict::Reject,
                    "DROP" => Verdict::Drop,
                    "NONE" => Verdict::None,
                    other => panic!("{other}"),
                },
            };
            let found = verdict::of(&plan, &node, flow.src, to, protocol);
            assert_eq!(found, wanted, "{} [{}]: {}", case.name, case.ip_family, flow.name);
            packets += 1;
        }
    }
    assert_eq!(packets, 207, "as many packets as the cases have");
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodePortCase {
    name: String,
    cidrs: Vec<ipnet::IpNet>,
    interface_addrs: Vec<ipnet::IpNet>,
    want: BTreeMap<String, NodePortAnswer>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodePortAnswer {
    ips: Vec<std::net::IpAddr>,
    match_all: bool,
}

#[test]
fn node_ports_answer_on_the_addresses_that_the_reference_picks() {
    let cases: Vec<NodePortCase> = section("nodeport_addresses_reference");
    assert_eq!(cases.len(), 13);
    for mut case in cases {
        let local: Vec<_> = case.interface_addrs.iter().map(ipnet::IpNet::addr).collect();
        let node = Node {
            local_addresses: local.clone(),
            node_port_addresses: NodePortAddresses::Cidrs(case.cidrs.clone()),
            ..Node::default()
        };
        for (family, key) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
            let mut wanted = case.want.remove(key).unwrap();
            wanted.ips.sort();
            let found = NodePortAnswer {
                ips: node_ports::matching(&local, &case.cidrs, family),
                match_all: node_ports::matches_all(&case.cidrs, family),
            };
            assert_eq!(found, wanted, "{} {key}", case.name);
            wanted.ips.retain(|address| !address.is_loopback());
            assert_eq!(node_ports::addresses(&node, family), wanted.ips, "{} {key}", case.name);
        }
    }
}
