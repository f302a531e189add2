//! `lb describe service`: what the agent knows of one Service.

use std::{collections::BTreeMap, net::SocketAddr};

use super::state::State;
use crate::{
    api::{Description, EndpointDescription, FrontendDescription, PortDescription},
    model::{Endpoint, Family, ObjectName, TrafficPolicy},
    plan::{FrontendKind, PortPlan, tables::PortKey, why},
};

/// Everything about a Service, if there is one of that name for this proxy.
pub fn describe(state: &State, name: &ObjectName) -> Option<Description> {
    let service = state.index.service(name)?;
    let endpoints = state.index.endpoints(name);
    let plan = state.plan.get(name);
    let ports = plan.iter().flat_map(|plan| &plan.ports).map(|port| {
        let key = (port.port_name.clone(), port.protocol);
        describe_port(state, port, endpoints.get(&key).map_or(&[], Vec::as_slice))
    });
    let problems = state.ignored().into_iter().filter(|ignored| {
        ignored.kind == "Service"
            && ignored.namespace == name.namespace
            && ignored.name == name.name
    });
    Some(Description {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        internal_traffic_policy: word(service.internal_policy).to_owned(),
        external_traffic_policy: word(service.external_policy).to_owned(),
        affinity_seconds: service.affinity_seconds,
        source_ranges: service.source_ranges.iter().map(ToString::to_string).collect(),
        health_check_node_port: service.health_check_node_port,
        slices: Some(state.index.slice_count(name)),
        ports: ports.collect(),
        changes: state.changes.of(name),
        problems: problems.map(|ignored| ignored.reason).collect(),
        from_pins: false,
    })
}

fn describe_port(state: &State, port: &PortPlan, all: &[Endpoint]) -> PortDescription {
    let of_family = all.iter().filter(|it| Family::of(it.address.ip()) == port.family);
    let members = members(state, port);
    let endpoint = |endpoint: &Endpoint| {
        let (used, why) = why::why(port, all, endpoint, &state.node);
        EndpointDescription {
            address: endpoint.address,
            pod: endpoint.pod.clone(),
            node: endpoint.node.as_deref().map(str::to_owned),
            zone: endpoint.zone.as_deref().map(str::to_owned),
            used,
            why,
            connections: connections(state, members.get(&endpoint.address)),
        }
    };
    PortDescription {
        port_name: port.port_name.clone(),
        protocol: port.protocol.to_string(),
        family: port.family.name().to_owned(),
        frontends: port.frontends.iter().map(|it| frontend(port, it)).collect(),
        endpoints: of_family.map(endpoint).collect(),
    }
}

fn frontend(port: &PortPlan, frontend: &crate::plan::Frontend) -> FrontendDescription {
    let kind = match frontend.kind {
        FrontendKind::ClusterIp => "ClusterIP",
        FrontendKind::NodePort => "NodePort",
        FrontendKind::LoadBalancer => "LoadBalancer",
        FrontendKind::ExternalIp => "ExternalIP",
    };
    FrontendDescription {
        kind: kind.to_owned(),
        address: frontend.address,
        algorithm: port.algorithm_for(frontend.kind).name().to_owned(),
    }
}

/// The ids that the port's endpoints have in the maps: several, where one came back.
fn members(state: &State, port: &PortPlan) -> BTreeMap<SocketAddr, Vec<u32>> {
    let mut members = BTreeMap::<_, Vec<u32>>::new();
    let Some(service) = state.tables.service_id(&PortKey::of(port)) else { return members };
    for member in state.tables.members().filter(|member| member.service == service) {
        let address = SocketAddr::new(member.place.address, member.place.port);
        members.entry(address).or_default().push(member.id);
    }
    members
}

/// What an endpoint has got so far.
fn connections(state: &State, ids: Option<&Vec<u32>>) -> u64 {
    let counts = state.maps.backend_counts(ids.into_iter().flatten().copied());
    counts.map_or(0, |counts| counts.values().map(|count| count.connections).sum())
}

const fn word(policy: TrafficPolicy) -> &'static str {
    match policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    }
}
