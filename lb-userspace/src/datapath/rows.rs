//! The rows of `lb get`, from the maps alone: an agent need not run.

use std::{collections::BTreeMap, net::SocketAddr};

use aya::maps::MapError;
use lb_common::abi::{Backend, BackendState, Kind};

use super::{adopt::ReadError, counters::CountError, maps::Maps, rates::Rates};
use crate::{
    api::{BackendRow, ServiceRow},
    model::Drains,
    plan::tables::{BackendName, Image, PortKey},
};

/// Rows that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Count(#[from] CountError),
    #[error("map EXAMPLES cannot be read")]
    Examples(#[source] MapError),
}

/// One row for each frontend.
///
/// # Errors
/// If a map cannot be read.
pub fn services(maps: &Maps, rates: Option<&Rates>) -> Result<Vec<ServiceRow>, RowsError> {
    services_of(maps, &maps.image()?, rates)
}

/// One row for each backend of each Service port; `now` is the tick that programs see.
///
/// # Errors
/// If a map cannot be read.
pub fn backends(
    maps: &Maps,
    rates: Option<&Rates>,
    now: u32,
) -> Result<Vec<BackendRow>, RowsError> {
    backends_of(maps, &maps.image()?, rates, now)
}

/// Both, out of one look at the maps.
///
/// # Errors
/// If a map cannot be read.
pub fn both(
    maps: &Maps,
    rates: Option<&Rates>,
    now: u32,
) -> Result<(Vec<ServiceRow>, Vec<BackendRow>), RowsError> {
    let image = maps.image()?;
    Ok((services_of(maps, &image, rates)?, backends_of(maps, &image, rates, now)?))
}

fn services_of(
    maps: &Maps,
    image: &Image,
    rates: Option<&Rates>,
) -> Result<Vec<ServiceRow>, RowsError> {
    let counts = maps.service_counts(image.service_names.keys().copied())?;
    let mut backends: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
    for (_, row) in image.live_backends() {
        let (ready, total) = backends.entry(row.service()).or_default();
        *ready += usize::from(row.state() == BackendState::Active);
        *total += 1;
    }
    let mut rows: Vec<ServiceRow> = image
        .frontends
        .iter()
        .filter_map(|(place, frontend)| {
            let kind = name_of(frontend.kind()?)?;
            let key = PortKey::parse(image.service_names.get(&frontend.service())?)?;
            let (ready, total) = backends.get(&frontend.service()).copied().unwrap_or_default();
            let count = counts.get(&frontend.service()).copied().unwrap_or_default();
            Some(ServiceRow {
                namespace: key.service.namespace.clone(),
                name: key.service.name.clone(),
                port_name: key.port_name,
                address: place.address,
                port: place.port,
                protocol: key.protocol.to_string(),
                kind: kind.to_owned(),
                backends_ready: ready,
                backends_total: total,
                connections: count.connections,
                packets: count.packets,
                bytes: count.bytes,
                drops: count.refused,
                rate: rates.and_then(|rates| rates.service(frontend.service())),
            })
        })
        .collect();
    rows.sort_by(|a, b| {
        (&a.namespace, &a.name, &a.port_name, a.address, a.port).cmp(&(
            &b.namespace,
            &b.name,
            &b.port_name,
            b.address,
            b.port,
        ))
    });
    Ok(rows)
}

fn backends_of(
    maps: &Maps,
    image: &Image,
    rates: Option<&Rates>,
    now: u32,
) -> Result<Vec<BackendRow>, RowsError> {
    let drains = maps.read_drains()?;
    let flows = maps.flows(now);
    let counts = maps.backend_counts(image.live_backends().map(|(id, _)| id))?;
    let mut totals: BTreeMap<u32, u64> = BTreeMap::new();
    for (id, row) in image.live_backends() {
        let connections = counts.get(&id).map_or(0, |count| count.connections);
        *totals.entry(row.service()).or_default() += connections;
    }
    let mut rows: Vec<BackendRow> = image
        .live_backends()
        .filter_map(|(id, row)| {
            let key = PortKey::parse(image.service_names.get(&row.service())?)?;
            let name = image
                .backend_names
                .get(&id)
                .map_or_else(BackendName::default, |name| BackendName::parse(name));
            let place = place_of(row);
            let count = counts.get(&id).copied().unwrap_or_default();
            let total = totals.get(&row.service()).copied().unwrap_or_default();
            Some(BackendRow {
                namespace: key.service.namespace.clone(),
                service: key.service.name.clone(),
                port_name: key.port_name,
                protocol: key.protocol.to_string(),
                address: place.ip(),
                port: place.port(),
                state: state_of(row, &place, &name.uid, &drains).to_owned(),
                node: name.node,
                weight: row.weight(),
                share: share(count.connections, total),
                connections: count.connections,
                packets: count.packets,
                bytes: count.bytes,
                // Two entries each.
                open_flows: flows.open.get(&id).copied().unwrap_or(0) / 2,
                last_seen_seconds: rates.and_then(|rates| rates.seen(id)),
                rate: rates.and_then(|rates| rates.backend(id)),
            })
        })
        .collect();
    rows.sort_by(|a, b| {
        (&a.namespace, &a.service, &a.port_name, a.address, a.port).cmp(&(
            &b.namespace,
            &b.service,
            &b.port_name,
            b.address,
            b.port,
        ))
    });
    Ok(rows)
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// What a frontend that clients dial is called; addresses alone are none.
pub const fn name_of(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::ClusterIp => Some("ClusterIP"),
        Kind::NodePort => Some("NodePort"),
        Kind::LoadBalancer => Some("LoadBalancer"),
        Kind::ExternalIp => Some("ExternalIP"),
        Kind::ClusterAddress
        | Kind::NodeAddress
        | Kind::VirtualAddress
        | Kind::AnyNodePort
        | Kind::PeerAddress => None,
    }
}

/// A backend's state in one word; who drained one that another pod got the place of drained nobody.
pub fn state_of(row: &Backend, at: &SocketAddr, uid: &str, drains: &Drains) -> &'static str {
    let is_same = |drained: &String| drained.is_empty() || uid.is_empty() || drained == uid;
    match row.state() {
        BackendState::Active => "active",
        BackendState::Retired if drains.get(at).is_some_and(is_same) => "drained",
        BackendState::Retired => "retired",
        BackendState::Gone => "gone",
        BackendState::Free => "free",
    }
}

/// The address and port of a backend.
pub fn place_of(row: &Backend) -> SocketAddr {
    let port = u16::from_be_bytes(row.port());
    let [a, b, c, d, ..] = *row.address();
    if row.is_v6() { (*row.address(), port).into() } else { ([a, b, c, d], port).into() }
}
