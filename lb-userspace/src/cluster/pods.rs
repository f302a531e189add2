//! `v1/Pod`s behind a Service's selector → [`Group`]s, by the rules of the API's EndpointSlice
//! controller. Used where no controller runs: manifests from files.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{api::core::v1, apimachinery::pkg::util::intstr::IntOrString};

use super::{
    endpoints::{Group, Member, Names, Port},
    parse::Problems,
};
use crate::model::Protocol;

/// Which pods a Service picks, and what of them it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRule {
    selector: Box<[(String, String)]>,
    ports: Box<[Wanted]>,
    publish_not_ready: bool,
    hints: Hints,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    name: Arc<str>,
    protocol: Protocol,
    target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Number(u16),
    /// A container port's name; each pod may give it another number.
    Name(String),
}

/// `spec.trafficDistribution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hints {
    None,
    SameZone,
    SameNode,
}

/// A pod as read: what an endpoint made from it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    labels: BTreeMap<String, String>,
    addresses: Vec<IpAddr>,
    ready: bool,
    terminating: bool,
    node: Option<Arc<str>>,
    name: Box<str>,
    uid: Arc<str>,
    ports: Vec<(String, Protocol, u16)>,
    weight: u16,
    /// What was left out, each naming its field.
    pub problems: Vec<String>,
}

impl PodRule {
    /// `None` where the Service selects nothing.
    pub fn read(spec: &v1::ServiceSpec) -> Option<Self> {
        let selector = spec.selector.clone().filter(|selector| !selector.is_empty())?;
        // What is wrong with a port has been said when the Service was read.
        let mut said = Problems::default();
        let ports = spec.ports.iter().flatten().filter_map(|port| wanted(port, &mut said));
        Some(Self {
            selector: selector.into_iter().collect(),
            ports: ports.collect(),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
            hints: match spec.traffic_distribution.as_deref() {
                Some("PreferClose" | "PreferSameZone") => Hints::SameZone,
                Some("PreferSameNode") => Hints::SameNode,
                _ => Hints::None,
            },
        })
    }

    /// Whether the pod's labels have all that the selector asks.
    pub fn selects(&self, pod: &Pod) -> bool {
        self.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    }

    /// What a selected pod adds to the Service.
    pub fn group(&self, pod: &Pod, zone: Option<&Arc<str>>) -> Group {
        let ready = self.publish_not_ready || (pod.ready && !pod.terminating);
        let hinted = |wanted: bool, name: Option<&Arc<str>>| {
            name.filter(|_| ready && wanted).into_iter().cloned().collect()
        };
        let member = |address: &IpAddr| Member {
            address: *address,
            ready,
            serving: pod.ready,
            terminating: pod.terminating,
            node: pod.node.clone(),
            zone: zone.cloned(),
            zone_hints: hinted(self.hints != Hints::None, zone),
            node_hints: hinted(self.hints == Hints::SameNode, pod.node.as_ref()),
            uid: Arc::clone(&pod.uid),
            pod: Some(pod.name.clone()),
            weight: pod.weight,
        };
        Group {
            ports: self.ports.iter().filter_map(|wanted| wanted.of(pod)).collect(),
            members: pod.addresses.iter().map(member).collect(),
        }
    }
}

impl Wanted {
    fn of(&self, pod: &Pod) -> Option<Port> {
        let Self { name, protocol, target } = self;
        let number = match target {
            Target::Number(number) => *number,
            Target::Name(wanted) => {
                let named = |(name, of, _): &&(String, _, _)| name == wanted && of == protocol;
                pod.ports.iter().find(named)?.2
            }
        };
        Some(Port { name: Arc::clone(name), protocol: *protocol, number })
    }
}

impl Pod {
    /// The pod's node, where one is known.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }

    /// `None` for a pod that has no address, or is over.
    pub fn read(object: &v1::Pod, names: &mut Names) -> Option<Self> {
        let status = object.status.as_ref()?;
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let mut problems = Problems::default();
        let several = status.pod_ips.iter().flatten().map(|entry| entry.ip.as_str());
        let single = status.pod_ip.as_deref().filter(|_| status.pod_ips.is_none());
        let addresses = several
            .chain(single)
            .enumerate()
            .filter_map(|(at, text)| problems.backend(format_args!("status.podIPs[{at}].ip"), text))
            .collect();
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let node = object.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        Some(Self {
            labels: object.metadata.labels.clone().unwrap_or_default(),
            addresses,
            ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            terminating: object.metadata.deletion_timestamp.is_some(),
            node: node.map(|name| names.get(name)),
            name: object.metadata.name.as_deref().unwrap_or_default().into(),
            uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
            ports: container_ports(object, &mut problems),
            weight: problems.weight(&object.metadata),
            problems: problems.0,
        })
    }
}

fn wanted(port: &v1::ServicePort, said: &mut Problems) -> Option<Wanted> {
    let target = match &port.target_port {
        None | Some(IntOrString::Int(0)) => Target::Number(said.port("port", port.port)?),
        Some(IntOrString::Int(number)) => Target::Number(said.port("targetPort", *number)?),
        Some(IntOrString::String(name)) => Target::Name(name.clone()),
    };
    let protocol = said.protocol("protocol", port.protocol.as_deref())?;
    let name = port.name.as_deref().unwrap_or_default().into();
    Some(Wanted { name, protocol, target })
}

/// The named ports of containers that run beside each other: init containers only as sidecars.
fn container_ports(object: &v1::Pod, problems: &mut Problems) -> Vec<(String, Protocol, u16)> {
    let Some(spec) = &object.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let mut found = Vec::new();
    for container in spec.containers.iter().chain(sidecars) {
        for port in container.ports.iter().flatten() {
            let Some(name) = port.name.clone() else { continue };
            let field = format!("spec.containers[{}].ports[{name}]", container.name);
            let protocol = problems.protocol(&field, port.protocol.as_deref());
            let number = problems.port(&field, port.container_port);
            found.extend(protocol.zip(number).map(|(protocol, number)| (name, protocol, number)));
        }
    }
    found
}
