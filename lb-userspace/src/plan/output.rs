//! `lb plan -o json`: the plan as a document that others script against.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::Serialize;

use super::{
    Backend, BackendSet, BackendState, Frontend, FrontendKind, Plan, PortPlan, SourceClass, Spread,
    WhenEmpty, masquerade::masquerades_at, node_ports,
};
use crate::model::{Algorithm, Family, Ignored, Node, Protocol};

/// `{"apiVersion": "lb/v1", "kind": "Plan", …}`; every list is sorted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub node: NodeOutput,
    pub frontends: Vec<FrontendOutput>,
    pub health_checks: Vec<HealthCheckOutput>,
    pub ignored: Vec<Ignored>,
}

/// This node as the plan saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeOutput {
    pub name: String,
    pub zone: Option<String>,
    pub addresses: Vec<IpAddr>,
    /// Those that answer NodePorts.
    pub node_port_addresses: Vec<IpAddr>,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Vec<IpNet>,
    pub masquerade_all: bool,
}

/// One address and port that clients dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendOutput {
    pub namespace: String,
    pub service: String,
    pub port_name: String,
    pub protocol: Protocol,
    #[serde(rename = "type")]
    pub kind: FrontendKind,
    pub address: IpAddr,
    pub port: u16,
    /// For pods and this node.
    pub internal: SetOutput,
    /// For everyone else.
    pub external: ExternalOutput,
    pub affinity_seconds: Option<u32>,
    /// Who may use it; empty: anyone.
    pub source_ranges: Vec<IpNet>,
    pub algorithm: Algorithm,
}

/// Who may answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetOutput {
    pub backends: Vec<BackendOutput>,
    pub when_empty: WhenEmpty,
}

/// Who may answer the outside, and whether its source is rewritten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExternalOutput {
    #[serde(flatten)]
    pub set: SetOutput,
    pub masquerade: bool,
    /// With DSR: the weight of each node that packets are sent to, which then chooses among its own of
    /// these backends. The others are served by SNAT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<BTreeMap<String, u32>>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendOutput {
    pub address: IpAddr,
    pub port: u16,
    pub local: bool,
    pub node: Option<String>,
    pub zone: Option<String>,
    pub state: BackendState,
    pub weight: u16,
}

/// One health-check server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckOutput {
    pub namespace: String,
    pub service: String,
    pub port: u16,
    pub local_endpoints: usize,
}

/// The document of a plan for `node`; `ignored` is what was left out before planning.
pub fn document(plan: &Plan, node: &Node, mut ignored: Vec<Ignored>) -> Document {
    ignored.extend(plan.ignored());
    ignored.sort();
    let ports = plan.services().flat_map(|service| &service.ports);
    let frontends = ports.flat_map(|port| port.frontends.iter().map(|f| frontend(port, f, node)));
    Document {
        api_version: "lb/v1",
        kind: "Plan",
        node: node_output(node),
        frontends: frontends.collect(),
        health_checks: plan.services().filter_map(health_check).collect(),
        ignored,
    }
}

fn frontend(port: &PortPlan, frontend: &Frontend, node: &Node) -> FrontendOutput {
    let Frontend { kind, address } = *frontend;
    let spread = port.spread.as_ref().filter(|_| kind != FrontendKind::ClusterIp);
    // With DSR only what is served by SNAT.
    let masquerade = masquerades_at(node, kind, port.external, SourceClass::Outside)
        && spread.is_none_or(|spread| !spread.rest.is_empty());
    FrontendOutput {
        namespace: port.service.namespace.clone(),
        service: port.service.name.clone(),
        port_name: port.port_name.clone(),
        protocol: port.protocol,
        kind,
        address: address.ip(),
        port: address.port(),
        internal: set(port.backends_for(kind, SourceClass::Pod)),
        external: ExternalOutput {
            set: set(port.backends_for(kind, SourceClass::Outside)),
            masquerade,
            nodes: spread.map(|Spread { nodes, .. }| {
                nodes.iter().map(|(name, weight)| (name.to_string(), *weight)).collect()
            }),
        },
        affinity_seconds: port.affinity_seconds,
        source_ranges: match kind {
            FrontendKind::LoadBalancer => port.source_ranges.clone(),
            _ => Vec::new(),
        },
        algorithm: port.algorithm_for(kind),
    }
}

fn set(set: &BackendSet) -> SetOutput {
    let BackendSet { backends, when_empty } = set;
    SetOutput { backends: backends.iter().map(backend).collect(), when_empty: *when_empty }
}

fn backend(backend: &Backend) -> BackendOutput {
    let Backend { address, local, node, zone, state, weight, uid: _, serving: _ } = backend;
    BackendOutput {
        address: address.ip(),
        port: address.port(),
        local: *local,
        node: node.as_deref().map(str::to_owned),
        zone: zone.as_deref().map(str::to_owned),
        state: *state,
        weight: *weight,
    }
}

fn health_check(plan: &super::ServicePlan) -> Option<HealthCheckOutput> {
    let super::HealthCheck { port, local_endpoints } = plan.health_check.clone()?;
    let crate::model::NameParts { namespace, name } = &*plan.name;
    let (namespace, service) = (namespace.clone(), name.clone());
    Some(HealthCheckOutput { namespace, service, port, local_endpoints })
}

fn node_output(node: &Node) -> NodeOutput {
    let families = [Family::V4, Family::V6].into_iter();
    NodeOutput {
        name: node.name.clone(),
        zone: node.zone.clone(),
        addresses: node.addresses.clone(),
        node_port_addresses: families.flat_map(|f| node_ports::addresses(node, f)).collect(),
        pod_cidrs: node.pod_cidrs.clone(),
        service_cidrs: node.service_cidrs.clone(),
        masquerade_all: node.masquerade_all,
    }
}
