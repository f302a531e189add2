//! `discovery.k8s.io/v1 EndpointSlice` → [`Group`], and groups merged → [`Endpoints`].
//!
//! A group is what slices, hand-made Endpoints and pods have in common, kept small: names that
//! many endpoints share are held once.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::ObjectReference, discovery::v1};

use super::{annotation, label, parse::Problems};
use crate::model::{Endpoint, Endpoints, Family, ObjectName, Protocol};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Some members that all answer on the same ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub(super) ports: Box<[Port]>,
    pub(super) members: Box<[Member]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) name: Arc<str>,
    pub(super) protocol: Protocol,
    pub(super) number: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) address: IpAddr,
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) node: Option<Arc<str>>,
    pub(super) zone: Option<Arc<str>>,
    pub(super) zone_hints: Box<[Arc<str>]>,
    pub(super) node_hints: Box<[Arc<str>]>,
    pub(super) uid: Arc<str>,
    pub(super) pod: Option<Box<str>>,
    pub(super) weight: u16,
}

/// One copy of each name in use.
#[derive(Debug, Default)]
pub struct Names(HashSet<Arc<str>>);

impl Names {
    pub(super) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }

    /// Forgets names that nobody holds any more.
    pub(super) fn sweep(&mut self) {
        self.0.retain(|name| Arc::strong_count(name) > 1);
    }
}

/// An EndpointSlice as read.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// Whose it is; `None` where it does not say.
    pub service: Option<ObjectName>,
    /// What it adds; `None` for a slice that is left aside as a whole.
    pub group: Option<Group>,
    /// What was left out, each naming its field.
    pub problems: Vec<String>,
}

/// When the change that made the slice what it is happened, as the controller says.
pub fn trigger(object: &v1::EndpointSlice) -> Option<Timestamp> {
    annotation(&object.metadata, TRIGGER_TIME)?.parse().ok()
}

/// Reads an EndpointSlice.
pub fn read(object: &v1::EndpointSlice, names: &mut Names) -> Slice {
    let owner = label(&object.metadata, SERVICE_NAME).filter(|name| !name.is_empty());
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let service = owner.map(|name| ObjectName::new(namespace, name));
    let aside = |reason: String| (None, vec![reason]);
    let (group, problems) = if service.is_none() {
        aside(format!("metadata.labels[{SERVICE_NAME}]: it names no Service"))
    } else if label(&object.metadata, HEADLESS).is_some() {
        aside(format!("metadata.labels[{HEADLESS}]: it is not for proxies"))
    } else {
        match object.address_type.as_str() {
            "IPv4" => group(object, Family::V4, names),
            "IPv6" => group(object, Family::V6, names),
            "FQDN" => aside("addressType: FQDN has names, not addresses to send to".into()),
            other => aside(format!("addressType: {other:?} is not IPv4 or IPv6")),
        }
    };
    Slice { service, group, problems }
}

/// Unites what groups say about one Service.
///
/// The same address and port twice is one endpoint: one that is not terminating replaces what
/// was there, a terminating one never does.
pub fn merge<'a>(groups: impl IntoIterator<Item = &'a Group>) -> Endpoints {
    let mut found: BTreeMap<_, BTreeMap<SocketAddr, Endpoint>> = BTreeMap::new();
    for Group { ports, members } in groups {
        for port in ports.iter().filter(|_| !members.is_empty()) {
            let of_port = found.entry((port.name.to_string(), port.protocol)).or_default();
            for member in members {
                let address = SocketAddr::new(member.address, port.number);
                match of_port.entry(address) {
                    Entry::Vacant(place) => {
                        place.insert(member.endpoint(address));
                    }
                    Entry::Occupied(mut place) if !member.terminating => {
                        place.insert(member.endpoint(address));
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
    }
    found.into_iter().map(|(port, endpoints)| (port, endpoints.into_values().collect())).collect()
}

impl Member {
    fn endpoint(&self, address: SocketAddr) -> Endpoint {
        let Self { address: _, ready, serving, terminating, .. } = *self;
        let owned = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
        Endpoint {
            address,
            ready,
            serving,
            terminating,
            node: self.node.clone(),
            zone: self.zone.clone(),
            zone_hints: owned(&self.zone_hints),
            node_hints: owned(&self.node_hints),
            uid: Arc::clone(&self.uid),
            pod: self.pod.as_deref().map(String::from),
            weight: self.weight,
        }
    }
}

/// The name of a pod that is referred to.
pub(super) fn pod_name(target: &ObjectReference) -> Option<Box<str>> {
    let is_pod = target.kind.as_deref() == Some("Pod");
    target.name.as_deref().filter(|name| is_pod && !name.is_empty()).map(Box::from)
}

fn group(
    object: &v1::EndpointSlice,
    family: Family,
    names: &mut Names,
) -> (Option<Group>, Vec<String>) {
    let mut problems = Problems::default();
    let weight = problems.weight(&object.metadata);
    let ports = ports(object, names, &mut problems);
    let members = object
        .endpoints
        .iter()
        .enumerate()
        .filter_map(|(at, endpoint)| member(at, endpoint, family, weight, names, &mut problems))
        .collect();
    (Some(Group { ports: ports.into(), members }), problems.0)
}

fn ports(object: &v1::EndpointSlice, names: &mut Names, problems: &mut Problems) -> Vec<Port> {
    let mut found = Vec::new();
    for (at, port) in object.ports.iter().flatten().enumerate() {
        let Some(name) = &port.name else {
            problems.add(format_args!("ports[{at}].name"), "missing; an empty one would do");
            continue;
        };
        // No number, or 0, is how a slice says that it does not restrict ports.
        let Some(number) = port.port.filter(|number| *number != 0) else { continue };
        let number = problems.port(format_args!("ports[{at}].port"), number);
        let protocol =
            problems.protocol(format_args!("ports[{at}].protocol"), port.protocol.as_deref());
        if let (Some(number), Some(protocol)) = (number, protocol) {
            found.push(Port { name: names.get(name), protocol, number });
        }
    }
    found
}

fn member(
    at: usize,
    endpoint: &v1::Endpoint,
    family: Family,
    weight: u16,
    names: &mut Names,
    problems: &mut Problems,
) -> Option<Member> {
    let field = format!("endpoints[{at}].addresses[0]");
    let address = problems.backend(&field, endpoint.addresses.first()?)?;
    if Family::of(address) != family {
        problems.add(field, format_args!("{address} is not of the slice's addressType"));
        return None;
    }
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let hints = endpoint.hints.clone().unwrap_or_default();
    let zones = hints.for_zones.iter().flatten().map(|zone| names.get(&zone.name)).collect();
    let nodes = hints.for_nodes.iter().flatten().map(|node| names.get(&node.name)).collect();
    let target = endpoint.target_ref.as_ref();
    Some(Member {
        address,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.as_deref().map(|name| names.get(name)),
        zone: endpoint.zone.as_deref().map(|name| names.get(name)),
        zone_hints: zones,
        node_hints: nodes,
        uid: target.and_then(|target| target.uid.as_deref()).unwrap_or_default().into(),
        pod: target.and_then(pod_name),
        weight,
    })
}
