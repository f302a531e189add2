//! Service behaviour as data: what the reference proxy of Kubernetes v1.36 does.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use lb_userspace::{
    cluster::{Change, Op, index::Index},
    model::{Node, NodePortAddresses},
};
use serde::{Deserialize, de::DeserializeOwned};

const CASES: &str = include_str!("../../cases/service_semantics.json");

/// A section as it is.
pub fn value(name: &str) -> serde_json::Value {
    let mut all: BTreeMap<String, serde_json::Value> = serde_json::from_str(CASES).unwrap();
    all.remove(name).unwrap_or_else(|| panic!("no section {name}"))
}

/// The names of all sections.
pub fn names() -> BTreeSet<String> {
    let all: BTreeMap<String, serde_json::Value> = serde_json::from_str(CASES).unwrap();
    all.into_keys().collect()
}

/// All cases of a section; a case that does not read as `T` fails the test.
pub fn section<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let mut all: BTreeMap<String, serde_json::Value> = serde_json::from_str(CASES).unwrap();
    let section = all.remove(name).unwrap_or_else(|| panic!("no section {name}"));
    serde_json::from_value(section).unwrap_or_else(|error| panic!("section {name}: {error}"))
}

/// A node, some objects, and what becomes of packets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowCase {
    pub name: String,
    pub ip_family: String,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub local_ips: Vec<IpAddr>,
    pub masquerade_all: bool,
    pub detect_local_cidr: Option<IpNet>,
    pub nodeport_addresses: Vec<IpNet>,
    pub service_cidrs: IpNet,
    pub services: Vec<Service>,
    pub slices: Vec<EndpointSlice>,
    pub flows: Vec<Flow>,
}

/// A packet and its fate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    pub name: String,
    pub src: IpAddr,
    pub proto: String,
    pub dst: IpAddr,
    pub port: u16,
    pub out: Outcome,
    pub masq: bool,
}

/// Every backend that may get the packet, or REJECT, DROP or NONE.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Outcome {
    Forward(Vec<String>),
    Word(String),
}

impl FlowCase {
    /// Every case of `packet_flows_reference`.
    pub fn all() -> Vec<Self> {
        section("packet_flows_reference")
    }

    /// The node that the case describes.
    pub fn node(&self) -> Node {
        Node {
            name: self.node_name.clone(),
            zone: None,
            addresses: vec![self.node_ip],
            local_addresses: self.local_ips.clone(),
            node_port_addresses: NodePortAddresses::Cidrs(self.nodeport_addresses.clone()),
            pod_cidrs: self.detect_local_cidr.into_iter().collect(),
            service_cidrs: vec![self.service_cidrs],
            masquerade_all: self.masquerade_all,
            ..Node::default()
        }
    }

    /// An index that has listed the case's objects.
    pub fn index(&self) -> Index {
        let mut index = Index::default();
        index.apply(Change::Service(Op::Reset(self.services.clone())));
        index.apply(Change::EndpointSlice(Op::Reset(self.slices.clone())));
        index
    }
}
