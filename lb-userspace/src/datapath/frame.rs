//! One moment of a node, from the maps: what `lb top` and the live page show.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    inventory,
    maps::Maps,
    rates::Rates,
    rows::{self, RowsError, place_of},
    seen,
};
use crate::api::{ClientRow, FlowFilter, Frame, Rate};

/// Services that a frame has, the busiest first.
const SERVICES: usize = 200;
/// Backends, at most.
const BACKENDS: usize = 1000;
/// Clients that have a name of their own.
const CLIENTS: usize = 12;
/// Flows, at most.
const FLOWS: usize = 200;

/// A frame that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error("the pins cannot be listed: {0}")]
    Pins(#[from] std::io::Error),
}

/// What the maps tell now; `ticks` and `now` are the programs' clock.
///
/// # Errors
/// If a map or the pins cannot be read.
pub fn frame(
    maps: &Maps,
    bpffs: &Path,
    rates: Option<&Rates>,
    ticks: u32,
    now: u64,
) -> Result<Frame, FrameError> {
    let (mut services, mut backends) = rows::both(maps, rates, ticks)?;
    let busy = |rate: Option<Rate>| {
        let Rate { packets_per_second, connections_per_second, .. } = rate.unwrap_or_default();
        packets_per_second + connections_per_second
    };
    // Stable: those that are alike stay in the order of their names.
    services.sort_by(|a, b| busy(b.rate).total_cmp(&busy(a.rate)));
    let services_total = services.len();
    services.truncate(SERVICES);
    let shown: BTreeSet<_> = services.iter().map(|row| (row.port_of(), &row.protocol)).collect();
    backends.retain(|row| shown.contains(&(row.port_of(), &row.protocol)));
    backends.truncate(BACKENDS);
    let mut drops = seen::drops(maps, rates, now)?;
    drops.retain(|row| row.count > 0);
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Frame {
        at: age.as_millis() as u64,
        status: None,
        services,
        services_total,
        backends,
        drops,
        maps: inventory::maps(bpffs, maps, ticks)?,
        flows: maps.flow_rows(&FlowFilter { limit: FLOWS, ..FlowFilter::default() }, ticks)?,
        clients: clients(maps, ticks)?,
        last_sync_seconds: None,
        source_age_seconds: None,
    })
}

/// Who has flows to whom: the clients with most of them by name, the others together.
fn clients(maps: &Maps, ticks: u32) -> Result<Vec<ClientRow>, RowsError> {
    let counts = maps.client_flows(ticks);
    let mut totals: BTreeMap<IpAddr, u64> = BTreeMap::new();
    for ((client, _), flows) in &counts {
        *totals.entry(*client).or_default() += flows;
    }
    let mut ranks: Vec<_> = totals.into_iter().map(|(client, flows)| (flows, client)).collect();
    ranks.sort_by(|a, b| b.cmp(a));
    let named: BTreeSet<IpAddr> = ranks.into_iter().take(CLIENTS).map(|(_, it)| it).collect();
    let mut sums: BTreeMap<(u32, Option<IpAddr>), u64> = BTreeMap::new();
    for ((client, backend), flows) in counts {
        *sums.entry((backend, Some(client).filter(|it| named.contains(it)))).or_default() += flows;
    }
    let mut rows = Vec::new();
    for ((backend, client), flows) in sums.into_iter().take(BACKENDS) {
        let Some(row) = maps.backends.get(backend) else { continue };
        let Some(service) = maps.port_of(row.service())? else { continue };
        rows.push(ClientRow { client, service, backend: place_of(&row), flows });
    }
    Ok(rows)
}
