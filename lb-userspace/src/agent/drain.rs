//! `lb drain` and `lb ready`: an operator's word on single backends.
//!
//! A drained backend counts as one that is not ready: it keeps its flows, and no set has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    time::Instant,
};

use super::state::State;
use crate::{
    api::{BackendRef, DrainAnswer, DrainRow},
    datapath::apply::WriteError,
    model::{Drains, Endpoint, Node, ObjectName},
    plan::{PortPlan, Scope, ServicePlan, service},
};

/// A backend that goes by the name asked for, and its Services.
#[derive(Debug, Default)]
struct Found {
    uid: String,
    pod: Option<String>,
    /// As people call their ports.
    ports: BTreeSet<String>,
    services: BTreeSet<ObjectName>,
}

/// Takes backends out of new choices. Returns when the kernel has it.
pub fn drain(state: &mut State, backend: &BackendRef, force: bool) -> Result<DrainAnswer, String> {
    if !state.config.enable_drain {
        return Ok(DrainAnswer::Off);
    }
    let found = find(state, backend)?;
    if found.is_empty() {
        return Ok(DrainAnswer::Unknown);
    }
    let fresh: BTreeSet<SocketAddr> =
        found.keys().filter(|at| !state.drains.contains_key(at)).copied().collect();
    let mut drains = state.drains.clone();
    drains.extend(fresh.iter().map(|at| (*at, found[at].uid.clone())));
    let services: BTreeSet<_> = found.values().flat_map(|it| it.services.clone()).collect();
    let empty = left_empty(state, &services, &Node { drains, ..state.node.clone() });
    if !empty.is_empty() && !fresh.is_empty() && !force {
        return Ok(DrainAnswer::Last(empty));
    }
    let wanted: Vec<_> = fresh.iter().map(|at| (*at, found[at].uid.clone())).collect();
    all_or_none(state, &wanted, remember, forget)?;
    for at in &fresh {
        tracing::warn!(backend = %at, "drained by an operator");
    }
    carry_out(state)?;
    Ok(DrainAnswer::Done(rows(found, "drained", &fresh)))
}

/// Gives backends back. Returns when the kernel has it.
pub fn ready(state: &mut State, backend: &BackendRef) -> Result<DrainAnswer, String> {
    if !state.config.enable_drain {
        return Ok(DrainAnswer::Off);
    }
    let mut found = find(state, backend)?;
    // One that has left meanwhile can still be given back.
    if let BackendRef::Address(at) = backend
        && state.drains.contains_key(at)
    {
        found.entry(*at).or_default();
    }
    if found.is_empty() {
        return Ok(DrainAnswer::Unknown);
    }
    let fresh: BTreeSet<SocketAddr> =
        found.keys().filter(|at| state.drains.contains_key(at)).copied().collect();
    let wanted: Vec<_> = fresh.iter().map(|at| (*at, state.drains[at].clone())).collect();
    all_or_none(state, &wanted, forget, remember)?;
    for at in &fresh {
        tracing::warn!(backend = %at, "given back by an operator");
    }
    carry_out(state)?;
    Ok(DrainAnswer::Done(rows(found, "ready", &fresh)))
}

fn carry_out(state: &mut State) -> Result<(), String> {
    match state.carry_out(Instant::now()) {
        true => Ok(()),
        false => Err("it is noted, and not in the kernel yet: the agent goes on trying".to_owned()),
    }
}

/// A drained place, and the uid of who was there.
type Drained = (SocketAddr, String);
type Step<S, E> = fn(&mut S, &Drained) -> Result<(), E>;

/// Does it to all of these; if that fails at one, those before it are as they were again, or named.
fn all_or_none<S, E: fmt::Display>(
    state: &mut S,
    all: &[Drained],
    each: Step<S, E>,
    back: Step<S, E>,
) -> Result<(), String> {
    for (done, backend) in all.iter().enumerate() {
        if let Err(error) = each(state, backend) {
            let kept: Vec<_> = all[..done]
                .iter()
                .filter(|backend| back(state, backend).is_err())
                .map(|(at, _)| at.to_string())
                .collect();
            return Err(match kept.is_empty() {
                true => format!("{error}; nothing is changed"),
                false => format!(
                    "{error}; done all the same, for it could not be taken back: {}",
                    kept.join(", ")
                ),
            });
        }
    }
    Ok(())
}

fn remember(state: &mut State, (at, uid): &Drained) -> Result<(), WriteError> {
    state.maps.put_drain(*at, uid)?;
    state.drains.insert(*at, uid.clone());
    Ok(())
}

fn forget(state: &mut State, (at, _): &Drained) -> Result<(), WriteError> {
    state.maps.remove_drain(*at)?;
    state.drains.remove(at);
    Ok(())
}

/// Forgets drains of backends whose place somebody else has got.
pub fn forget_replaced(state: &mut State) {
    for at in replaced(state.plan.services(), &state.drains) {
        match forget(state, &(at, String::new())) {
            Ok(()) => tracing::info!(backend = %at, "is another pod now: no longer drained"),
            Err(error) => tracing::warn!("{error}"),
        }
    }
}

/// Drained places where only others are now. One that nobody is at may come back.
fn replaced<'a>(plans: impl Iterator<Item = &'a ServicePlan>, drains: &Drains) -> Vec<SocketAddr> {
    if drains.values().all(String::is_empty) {
        return Vec::new();
    }
    let mut there: BTreeMap<SocketAddr, BTreeSet<&str>> = BTreeMap::new();
    for port in plans.flat_map(|plan| &plan.ports) {
        let sets = port.cluster.backends.iter().chain(&port.local.backends).chain(&port.retired);
        for backend in sets.filter(|backend| drains.contains_key(&backend.address)) {
            there.entry(backend.address).or_default().insert(&backend.uid);
        }
    }
    let is_replaced = |(at, uid): &(&SocketAddr, &String)| {
        let is_other = |it: &&str| !it.is_empty() && *it != uid.as_str();
        !uid.is_empty() && there.get(at).is_some_and(|uids| uids.iter().all(is_other))
    };
    drains.iter().filter(is_replaced).map(|(at, _)| *at).collect()
}

/// Service ports that have no backend for new connections because of drains.
pub fn emptied(state: &State) -> Vec<String> {
    let drained = |plan: &&ServicePlan| {
        plan.ports.iter().flat_map(|port| &port.retired).any(|backend| {
            state.drains.get(&backend.address).is_some_and(|uid| {
                uid.is_empty() || backend.uid.is_empty() || **uid == *backend.uid
            })
        })
    };
    let services: Vec<_> = state.plan.services().filter(drained).map(|it| &it.name).collect();
    let without = Node { drains: BTreeMap::new(), ..state.node.clone() };
    let before = |name: &ObjectName| plan(state, name, &without);
    services
        .into_iter()
        .filter_map(|name| Some((before(name)?, state.plan.get(name)?)))
        .flat_map(|(before, after)| emptier(&before, after))
        .collect()
}

/// Every backend of that name, by its place.
fn find(state: &State, backend: &BackendRef) -> Result<BTreeMap<SocketAddr, Found>, String> {
    if !state.unlisted().is_empty() {
        return Err("not everything is listed yet; ask again".to_owned());
    }
    let names = |endpoint: &Endpoint, service: &ObjectName| match backend {
        BackendRef::Address(address) => endpoint.address == *address,
        BackendRef::Pod { namespace, name } => {
            service.namespace == *namespace && endpoint.pod.as_ref() == Some(name)
        }
    };
    let mut found: BTreeMap<SocketAddr, Found> = BTreeMap::new();
    for service in state.index.services() {
        for ((port, protocol), endpoints) in state.index.endpoints(&service.name) {
            for endpoint in endpoints.into_iter().filter(|it| names(it, &service.name)) {
                let entry = found.entry(endpoint.address).or_default();
                let port = if port.is_empty() { protocol.to_string() } else { port.clone() };
                entry.ports.insert(format!("{}:{port}", service.name));
                entry.services.insert(service.name.clone());
                entry.pod = endpoint.pod;
                entry.uid = endpoint.uid.to_string();
            }
        }
    }
    Ok(found)
}

fn plan(state: &State, name: &ObjectName, node: &Node) -> Option<ServicePlan> {
    Some(service::plan(state.index.service(name)?, &state.index.endpoints(name), node))
}

/// Ports of these Services that have backends now and would have none on such a node.
fn left_empty(state: &State, services: &BTreeSet<ObjectName>, node: &Node) -> Vec<String> {
    let both = |name: &ObjectName| Some((state.plan.get(name)?, plan(state, name, node)?));
    let pairs = services.iter().filter_map(both);
    pairs.flat_map(|(before, after)| emptier(before, &after)).collect()
}

/// The ports of which a set has backends before and none after.
fn emptier(before: &ServicePlan, after: &ServicePlan) -> Vec<String> {
    let after_of = |port: &PortPlan| {
        let same = |it: &&PortPlan| {
            (&it.port_name, it.protocol, it.family) == (&port.port_name, port.protocol, port.family)
        };
        after.ports.iter().find(same)
    };
    let mut found = BTreeSet::new();
    for port in &before.ports {
        let Some(after) = after_of(port) else { continue };
        let name = match port.port_name.as_str() {
            "" => format!("{}:{}", port.service, port.protocol),
            name => format!("{}:{name}", port.service),
        };
        for scope in [Scope::Cluster, Scope::Local] {
            let had = &port.set(scope).backends;
            if !had.is_empty() && after.set(scope).backends.is_empty() {
                let whom = match scope {
                    Scope::Cluster => "",
                    Scope::Local => " (on this node)",
                };
                found.insert(format!("{name}{whom}"));
            }
        }
    }
    found.into_iter().collect()
}

fn rows(
    found: BTreeMap<SocketAddr, Found>,
    state: &str,
    fresh: &BTreeSet<SocketAddr>,
) -> Vec<DrainRow> {
    let row = |(address, Found { pod, ports, .. })| DrainRow {
        address,
        pod,
        services: ports.into_iter().collect(),
        state: state.to_owned(),
        changed: fresh.contains(&address),
    };
    found.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Protocol, Service, ServicePort, TrafficPolicy};

    /// A Service whose endpoints are at these places and have these uids.
    fn plan_of(endpoints: &[(u8, &str)]) -> ServicePlan {
        let service = Service {
            name: ObjectName::new("ns", "web"),
            cluster_ips: vec![[10, 96, 0, 1].into()],
            load_balancer_ips: vec![],
            external_ips: vec![],
            ports: vec![ServicePort {
                name: String::new(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: None,
            }],
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            source_ranges: vec![],
            affinity_seconds: None,
            health_check_node_port: None,
            algorithm: None,
            has_selector: true,
        };
        let endpoint = |(last, uid): &(u8, &str)| Endpoint {
            address: place(*last),
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            zone: None,
            zone_hints: BTreeSet::new(),
            node_hints: BTreeSet::new(),
            uid: (*uid).into(),
            pod: None,
            weight: 1,
        };
        let endpoints = endpoints.iter().map(endpoint).collect();
        let endpoints = BTreeMap::from([((String::new(), Protocol::Tcp), endpoints)]);
        service::plan(&service, &endpoints, &Node::default())
    }

    fn place(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 80).into()
    }

    /// Places, and which of them cannot be put in and which not taken out.
    type Table = (BTreeSet<SocketAddr>, [Option<SocketAddr>; 2]);

    fn put((table, [stuck, _]): &mut Table, (at, _): &Drained) -> Result<(), &'static str> {
        if Some(*at) == *stuck {
            return Err("full");
        }
        table.insert(*at);
        Ok(())
    }

    fn take((table, [_, stuck]): &mut Table, (at, _): &Drained) -> Result<(), &'static str> {
        if Some(*at) == *stuck {
            return Err("broken");
        }
        table.remove(at);
        Ok(())
    }

    #[test]
    fn of_a_pod_s_places_all_are_drained_or_none_or_those_that_are_get_named() {
        let all = [1, 2, 3].map(|last| (place(last), String::new()));
        let places = |all: &[u8]| all.iter().map(|last| place(*last)).collect::<BTreeSet<_>>();
        for (stuck, wanted, left) in [
            ([None, None], Ok(()), &[1, 2, 3][..]),
            ([Some(place(3)), None], Err("full; nothing is changed".to_owned()), &[]),
            (
                [Some(place(3)), Some(place(2))],
                Err(format!(
                    "full; done all the same, for it could not be taken back: {}",
                    place(2)
                )),
                &[2],
            ),
        ] {
            let mut table = (BTreeSet::new(), stuck);
            assert_eq!(all_or_none(&mut table, &all, put, take), wanted);
            assert_eq!(table.0, places(left));
        }
    }

    #[test]
    fn a_drain_is_forgotten_once_another_pod_has_the_place_and_only_then() {
        let plan = plan_of(&[(1, "the-next"), (2, "the-same"), (3, ""), (4, "somebody")]);
        let drains = [(1, "the-first"), (2, "the-same"), (3, "unnamed-now"), (4, ""), (5, "gone")];
        let drains: Drains =
            drains.into_iter().map(|(last, uid)| (place(last), uid.to_owned())).collect();
        assert_eq!(replaced([&plan].into_iter(), &drains), [place(1)]);
    }

    #[test]
    fn two_services_may_still_know_the_one_that_was_drained() {
        let [old, new] = [plan_of(&[(1, "the-first")]), plan_of(&[(1, "the-next")])];
        let drains: Drains = [(place(1), "the-first".to_owned())].into();
        assert_eq!(replaced([&old, &new].into_iter(), &drains), []);
        assert_eq!(replaced([&new].into_iter(), &drains), [place(1)]);
    }
}
