//! An object read from a manifest, and what an API server would have refused in it.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        core::v1::{Endpoints, Node, Pod, Service, ServiceSpec},
        discovery::v1::EndpointSlice,
        networking::v1::ServiceCIDR,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::kinds::Kind;
use crate::{
    cluster::{Change, Op},
    model::ObjectName,
};

/// What tells one object from another.
pub(super) type Key = (Kind, ObjectName);

/// An object of a kind that is read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Endpoints(Box<Endpoints>),
    Pod(Box<Pod>),
    Node(Box<Node>),
    ServiceCidr(Box<ServiceCIDR>),
}

impl Object {
    pub fn metadata(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Service(object) => &mut object.metadata,
            Self::EndpointSlice(object) => &mut object.metadata,
            Self::Endpoints(object) => &mut object.metadata,
            Self::Pod(object) => &mut object.metadata,
            Self::Node(object) => &mut object.metadata,
            Self::ServiceCidr(object) => &mut object.metadata,
        }
    }

    /// The object as an addition to the cluster's state.
    pub fn apply(&self) -> Change {
        match self.clone() {
            Self::Service(object) => Change::Service(Op::Apply(*object)),
            Self::EndpointSlice(object) => Change::EndpointSlice(Op::Apply(*object)),
            Self::Endpoints(object) => Change::Endpoints(Op::Apply(*object)),
            Self::Pod(object) => Change::Pod(Op::Apply(*object)),
            Self::Node(object) => Change::Node(Op::Apply(*object)),
            Self::ServiceCidr(object) => Change::ServiceCidr(Op::Apply(*object)),
        }
    }

    /// The field and the fault, where an API server would have refused the object.
    ///
    /// Only what no type can say: a file has no server that looks at it first.
    pub fn fault(&self) -> Option<(String, String)> {
        match self {
            Self::Service(service) => service_fault(service),
            Self::EndpointSlice(slice) => slice_fault(slice),
            Self::Endpoints(endpoints) => endpoints_fault(endpoints),
            Self::Pod(_) | Self::Node(_) | Self::ServiceCidr(_) => None,
        }
    }
}

/// The removal of an object from the cluster's state.
pub(super) fn delete((kind, name): Key) -> Change {
    match kind {
        Kind::Service => Change::Service(Op::Delete(name)),
        Kind::EndpointSlice => Change::EndpointSlice(Op::Delete(name)),
        Kind::Endpoints => Change::Endpoints(Op::Delete(name)),
        Kind::Pod => Change::Pod(Op::Delete(name)),
        Kind::Node => Change::Node(Op::Delete(name)),
        Kind::ServiceCidr => Change::ServiceCidr(Op::Delete(name)),
    }
}

/// The complete listing of every kind: what is not in it is gone.
pub(super) fn reset<'a>(objects: impl IntoIterator<Item = &'a Arc<Object>>) -> Vec<Change> {
    let (mut services, mut slices, mut endpoints) = (vec![], vec![], vec![]);
    let (mut pods, mut nodes, mut cidrs) = (vec![], vec![], vec![]);
    for object in objects {
        match Object::clone(object) {
            Object::Service(object) => services.push(*object),
            Object::EndpointSlice(object) => slices.push(*object),
            Object::Endpoints(object) => endpoints.push(*object),
            Object::Pod(object) => pods.push(*object),
            Object::Node(object) => nodes.push(*object),
            Object::ServiceCidr(object) => cidrs.push(*object),
        }
    }
    vec![
        Change::Node(Op::Reset(nodes)),
        Change::ServiceCidr(Op::Reset(cidrs)),
        Change::Pod(Op::Reset(pods)),
        Change::Endpoints(Op::Reset(endpoints)),
        Change::EndpointSlice(Op::Reset(slices)),
        Change::Service(Op::Reset(services)),
    ]
}

fn service_fault(service: &Service) -> Option<(String, String)> {
    let spec = service.spec.as_ref();
    let field = |name: fn(&ServiceSpec) -> Option<&str>| spec.and_then(name);
    let needs_no_port = field(|spec| spec.cluster_ip.as_deref()) == Some("None")
        || field(|spec| spec.type_.as_deref()) == Some("ExternalName");
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    // What a file that was cut off looks like, too.
    if ports.is_empty() && !needs_no_port {
        return Some(("spec.ports".into(), "a Service needs a port".into()));
    }
    ports.iter().enumerate().find_map(|(index, port)| {
        let at = |field: &str| format!("spec.ports[{index}].{field}");
        not_a_port(port.port)
            .map(|fault| (at("port"), fault))
            // 0 is what a server writes for "none yet".
            .or_else(|| {
                let given = port.node_port.filter(|port| *port != 0)?;
                not_a_port(given).map(|fault| (at("nodePort"), fault))
            })
            .or_else(|| {
                not_a_protocol(port.protocol.as_deref()).map(|fault| (at("protocol"), fault))
            })
            .or_else(|| {
                // Endpoints could not be told apart.
                let name = port.name.as_deref().unwrap_or_default();
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                let twice = ports[..index].iter().any(|earlier| {
                    earlier.name.as_deref().unwrap_or_default() == name
                        && earlier.protocol.as_deref().unwrap_or("TCP") == protocol
                });
                twice.then(|| (at("name"), "another port has this name and protocol".into()))
            })
    })
}

fn slice_fault(slice: &EndpointSlice) -> Option<(String, String)> {
    let ports = slice.ports.iter().flatten();
    ports.enumerate().find_map(|(index, port)| {
        let given = port.port.filter(|port| *port != 0)?;
        not_a_port(given).map(|fault| (format!("ports[{index}].port"), fault)).or_else(|| {
            let fault = not_a_protocol(port.protocol.as_deref())?;
            Some((format!("ports[{index}].protocol"), fault))
        })
    })
}

fn endpoints_fault(endpoints: &Endpoints) -> Option<(String, String)> {
    endpoints.subsets.iter().flatten().enumerate().find_map(|(subset, found)| {
        found.ports.iter().flatten().enumerate().find_map(|(index, port)| {
            let fault = not_a_port(port.port)?;
            Some((format!("subsets[{subset}].ports[{index}].port"), fault))
        })
    })
}

fn not_a_port(port: i32) -> Option<String> {
    (!(1..=65535).contains(&port)).then(|| format!("{port} is not a port (1-65535)"))
}

fn not_a_protocol(protocol: Option<&str>) -> Option<String> {
    let protocol = protocol.filter(|given| !["TCP", "UDP", "SCTP"].contains(given))?;
    Some(format!("`{protocol}` is not a protocol (TCP, UDP or SCTP)"))
}
