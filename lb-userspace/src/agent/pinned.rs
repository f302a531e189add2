//! What the pinned maps answer where no agent does: how the datapath is, what it knows of a Service,
//! and packets' fates. Nothing is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use lb_common::abi::{Backend, BackendState, Frontend, Kind, Scope, Service};

use super::{
    live::{Unread, unreadable},
    status,
};
use crate::{
    api::{
        Description, EndpointDescription, Explanation, FrontendDescription, InterfaceRow, Level,
        Packet, PortDescription, StatusLine, StatusReport,
    },
    cli::Failure,
    datapath::{adopt::ReadError, inventory, maps::Maps, object, rows, tc::Tc},
    explain, host,
    model::{Algorithm, Drains, Node, ObjectName},
    plan::tables::{BackendName, Image, PortKey, Tables, pod_networks},
};

/// How the datapath is.
pub(super) fn status(maps: &Maps, bpffs: &Path) -> Result<StatusReport, Unread> {
    let image = maps.image()?;
    let links = inventory::links(bpffs)?;
    let agent = "none answers: packets go on by what is pinned here, changes do not get into it";
    let drains: Vec<_> = maps.read_drains()?.into_keys().map(|at| at.to_string()).collect();
    let drained =
        (!drains.is_empty()).then(|| status::line("Drained", Level::Ok, drains.join(", ")));
    let lines = [
        status::line("Agent", Level::Fail, agent),
        status::line("Kernel", Level::Ok, status::release(tc_kind(&links))),
        sockets(&links),
        interfaces(&links),
        services(&image),
        status::flows(maps),
        status::fullest(&Tables::adopt(maps.capacities, &image).usage()),
        status::drops(maps, None),
    ];
    Ok(StatusReport { node: host::name(), lines: lines.into_iter().chain(drained).collect() })
}

/// How tc programs were held by who pinned these.
fn tc_kind(links: &[InterfaceRow]) -> Tc {
    let is_filter = |row: &InterfaceRow| row.mode.as_deref() == Some(inventory::FILTER);
    if links.iter().any(is_filter) { Tc::Filters } else { Tc::Links }
}

fn sockets(links: &[InterfaceRow]) -> StatusLine {
    let cgroups: BTreeSet<u64> =
        links.iter().filter(|row| row.interface == "cgroup").map(|row| row.index).collect();
    let inodes: Vec<_> = cgroups.iter().map(ToString::to_string).collect();
    match inodes.is_empty() {
        true => status::line("Sockets", Level::Fail, "no program is on any socket hook"),
        false => {
            status::line("Sockets", Level::Ok, format!("cgroup with inode {}", inodes.join(", ")))
        }
    }
}

/// Pins do not tell which of them are uplinks, and behind which there are pods.
fn interfaces(links: &[InterfaceRow]) -> StatusLine {
    let mut hooks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in links.iter().filter(|row| row.interface != "cgroup") {
        hooks.entry(&row.interface).or_default().push(&row.hook);
    }
    let shown: Vec<_> =
        hooks.into_iter().map(|(name, hooks)| format!("{name} ({})", hooks.join(", "))).collect();
    match shown.is_empty() {
        true => status::line("Interfaces", Level::Warn, "none"),
        false => status::line("Interfaces", Level::Ok, shown.join(", ")),
    }
}

fn services(image: &Image) -> StatusLine {
    let dialled = image.frontends.values().filter(|it| it.kind().and_then(rows::name_of).is_some());
    let ids: Vec<u32> = dialled.map(Frontend::service).collect();
    let keys = ids.iter().filter_map(|id| PortKey::parse(image.service_names.get(id)?));
    let names: BTreeSet<ObjectName> = keys.map(|key| key.service).collect();
    let active = |(_, row): &(u32, &Backend)| row.state() == BackendState::Active;
    let backends = image.live_backends().filter(active).count();
    let detail = format!("{}, with {} frontends and {backends} backends", names.len(), ids.len());
    status::line("Services", Level::Ok, detail)
}

/// What the maps hold of a Service, if they hold it.
pub(super) fn describe(maps: &Maps, name: &ObjectName) -> Result<Option<Description>, Unread> {
    let image = maps.image()?;
    let drains = maps.read_drains()?;
    let named = |(id, text): (&u32, &String)| Some((*id, PortKey::parse(text)?));
    let keys = image.service_names.iter().filter_map(named).filter(|(_, key)| key.service == *name);
    let mut described: Option<Description> = None;
    for (id, key) in keys {
        let Some(row) = image.services.get(&id) else { continue };
        let frontends = frontends(&image, id, row);
        // A port that was taken out keeps its name as long as flows may refer to it.
        if frontends.is_empty() {
            continue;
        }
        let description = described.get_or_insert_with(|| beginning(name, row));
        let ranges = image.sources.iter().filter(|(service, _)| *service == id);
        for (_, network) in ranges {
            let network = network.to_string();
            if !description.source_ranges.contains(&network) {
                description.source_ranges.push(network);
            }
        }
        description.ports.push(PortDescription {
            port_name: key.port_name,
            protocol: key.protocol.to_string(),
            family: key.family.name().to_owned(),
            frontends,
            endpoints: endpoints(maps, &image, &drains, id, row)?,
        });
    }
    Ok(described)
}

/// What is the same for all ports of a Service.
fn beginning(name: &ObjectName, row: &Service) -> Description {
    let seconds = row.affinity_seconds();
    Description {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        internal_traffic_policy: policy(row.internal()),
        external_traffic_policy: policy(row.external()),
        affinity_seconds: (seconds > 0).then_some(seconds),
        source_ranges: Vec::new(),
        health_check_node_port: None,
        slices: None,
        ports: Vec::new(),
        changes: Vec::new(),
        problems: Vec::new(),
        from_pins: true,
    }
}

fn policy(scope: Scope) -> String {
    match scope {
        Scope::Cluster | Scope::Nodes | Scope::Rest => "Cluster".to_owned(),
        Scope::Local => "Local".to_owned(),
    }
}

fn frontends(image: &Image, id: u32, row: &Service) -> Vec<FrontendDescription> {
    let of_service = image.frontends.iter().filter(|(_, frontend)| frontend.service() == id);
    let describe = |(place, frontend): (&crate::plan::tables::Place, &Frontend)| {
        let kind = frontend.kind()?;
        Some(FrontendDescription {
            kind: rows::name_of(kind)?.to_owned(),
            address: (place.address, place.port).into(),
            algorithm: algorithm(row, kind).name().to_owned(),
        })
    };
    of_service.filter_map(describe).collect()
}

/// How a backend is chosen for clients of such an address, as far as they are where one expects them.
const fn algorithm(row: &Service, kind: Kind) -> Algorithm {
    let ring = match kind {
        Kind::ClusterIp => row.ring_inside(),
        _ => row.ring_outside(),
    };
    match (row.takes_turns(), row.counts_connections(), ring) {
        (true, ..) => Algorithm::RoundRobin,
        (_, true, _) => Algorithm::LeastConnections,
        (.., true) => Algorithm::Maglev,
        (.., false) => Algorithm::Random,
    }
}

fn endpoints(
    maps: &Maps,
    image: &Image,
    drains: &Drains,
    id: u32,
    service: &Service,
) -> Result<Vec<EndpointDescription>, Unread> {
    let members: Vec<_> = image.live_backends().filter(|(_, row)| row.service() == id).collect();
    let counts = maps.backend_counts(members.iter().map(|(id, _)| *id));
    let counts = counts.map_err(rows::RowsError::from)?;
    let describe = |(id, row): &(u32, &Backend)| {
        let name = image.backend_names.get(id);
        let name = name.map_or_else(BackendName::default, |name| BackendName::parse(name));
        let address = rows::place_of(row);
        let state = rows::state_of(row, &address, &name.uid, drains);
        EndpointDescription {
            address,
            pod: None,
            used: row.state() == BackendState::Active,
            why: why(service, row, state, name.terminating),
            node: name.node,
            zone: name.zone,
            connections: counts.get(id).map_or(0, |count| count.connections),
        }
    };
    Ok(members.iter().map(describe).collect())
}

/// As much of a reason as the maps hold.
fn why(service: &Service, row: &Backend, state: &str, terminating: bool) -> String {
    let reads_local = [service.internal(), service.external()].contains(&Scope::Local);
    let text = match (state, row.is_in(Scope::Cluster), row.is_in(Scope::Local)) {
        ("active", true, false) if reads_local => {
            "active; not for clients that the policy keeps local"
        }
        ("active", false, _) => "active; for clients that the policy keeps local",
        ("active", true, _) => "active",
        ("drained", ..) => "drained here by an operator: it keeps what it has",
        ("gone", ..) => "gone for good: its connections are reset",
        _ if terminating => "terminating: it keeps what it has",
        _ => "it left, or was not ready: it keeps what it has",
    };
    text.to_owned()
}

/// Packets' fates by the pinned maps: the programs that explain are loaded on them for the question.
pub(super) fn explain(
    maps: &Maps,
    bpffs: &Path,
    packets: &[Packet],
) -> Result<Vec<Explanation>, Failure> {
    let object = object::load_explaining_pinned(bpffs)?;
    let node = node(maps).map_err(|error| unreadable(&error))?;
    Ok(explain::on_agent(&object, maps, &node, packets)?)
}

/// The node that the maps were written for, as far as it tells sources apart.
fn node(maps: &Maps) -> Result<Node, ReadError> {
    let image = maps.image()?;
    let own = image.frontends.iter().filter(|(_, it)| it.kind() == Some(Kind::NodeAddress));
    let mut local: BTreeSet<IpAddr> = own.map(|(place, _)| place.address).collect();
    // Loopback is in no map.
    local.extend(host::addresses().unwrap_or_default());
    Ok(Node {
        local_addresses: local.into_iter().collect(),
        pod_cidrs: image.settings.as_ref().map(pod_networks).unwrap_or_default(),
        ..Node::default()
    })
}
