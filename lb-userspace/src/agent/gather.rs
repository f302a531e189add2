//! The agent's metrics, from its state and the kernel's counts: a few calls, however many Services.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use lb_common::{
    abi::Count,
    verdict::{Reason, Verdict},
};

use super::{locked, setup, state::State};
use crate::{
    datapath::{inventory, rates::Sample},
    model::ObjectName,
    observe::{Snapshot, http::Source, series::Value},
};

/// Gathers from the agent's state.
pub struct Gatherer(pub Arc<Mutex<State>>);

impl Source for Gatherer {
    fn snapshot(&self) -> Snapshot {
        gather(&locked(&self.0))
    }
}

/// Every metric, now.
pub fn gather(state: &State) -> Snapshot {
    let mut to = Snapshot::default();
    to.put("build", vec![("version", env!("CARGO_PKG_VERSION").to_owned())], Value::Info);
    let (services, backends) = state.tables.id_ends();
    match state.maps.sample(services, backends) {
        Ok(sample) => {
            reasons(&sample, &mut to);
            of_services(state, &sample, &mut to);
            of_backends(state, &sample, &mut to);
        }
        Err(error) => tracing::warn!(%error, "counts cannot be read"),
    }
    tables(state, &mut to);
    progress(state, &mut to);
    to
}

fn reasons(sample: &Sample, to: &mut Snapshot) {
    let mut verdicts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (reason, count) in Reason::ALL.iter().zip(&sample.reasons) {
        let direction = if matches!(reason, Reason::ReplyLocal) { "out" } else { "in" };
        let verdict = match reason.verdict() {
            Verdict::Pass => "pass",
            Verdict::Deliver => "deliver",
            Verdict::Forward => "forward",
            Verdict::Answer => "answer",
            Verdict::Reject => "reject",
            Verdict::Drop => "drop",
        };
        *verdicts.entry((direction, verdict)).or_default() += count.packets;
        if matches!(reason.verdict(), Verdict::Reject | Verdict::Drop) {
            to.counter("drops", vec![("reason", reason.label().to_owned())], count.refused);
        }
    }
    for ((direction, verdict), packets) in verdicts {
        let labels = vec![("direction", direction.to_owned()), ("verdict", verdict.to_owned())];
        to.counter("packets", labels, packets);
    }
}

/// All ports and families of a Service together.
fn of_services(state: &State, sample: &Sample, to: &mut Snapshot) {
    let mut sums: BTreeMap<&ObjectName, Count> = BTreeMap::new();
    for (id, key) in state.tables.ports() {
        let count = sample.services.get(id as usize).copied().unwrap_or_default();
        let sum = sums.entry(&key.service).or_default();
        *sum = sum.plus(count);
    }
    for (name, count) in sums {
        let labels = || vec![("namespace", name.namespace.clone()), ("service", name.name.clone())];
        to.counter("service_connections", labels(), count.connections);
        to.counter("service_packets", labels(), count.packets);
        to.counter("service_bytes", labels(), count.bytes);
    }
}

/// The first of them, as many as are wanted: a number that somebody chose, whatever the cluster is.
fn of_backends(state: &State, sample: &Sample, to: &mut Snapshot) {
    let mut sums: BTreeMap<(&ObjectName, String), u64> = BTreeMap::new();
    for member in state.tables.members() {
        let Some(key) = state.tables.port(member.service) else { continue };
        let place = std::net::SocketAddr::new(member.place.address, member.place.port);
        let series = (&key.service, place.to_string());
        if sums.len() >= state.config.metrics_backends as usize && !sums.contains_key(&series) {
            continue;
        }
        let count = sample.backends.get(member.id as usize).copied().unwrap_or_default();
        *sums.entry(series).or_default() += count.connections;
    }
    for ((name, backend), connections) in sums {
        let labels = vec![
            ("namespace", name.namespace.clone()),
            ("service", name.name.clone()),
            ("backend", backend),
        ];
        to.counter("backend_connections", labels, connections);
    }
}

fn tables(state: &State, to: &mut Snapshot) {
    let flows = state.maps.flows(setup::ticks());
    // Two entries each.
    to.gauge("flows", vec![], (flows.entries / 2) as f64);
    to.gauge("flows_capacity", vec![], (flows.capacity / 2) as f64);
    for used in state.tables.usage() {
        let labels = || vec![("map", used.map.to_owned())];
        to.gauge("map_entries", labels(), used.used as f64);
        to.gauge("map_capacity", labels(), used.capacity as f64);
    }
    for (map, bytes) in inventory::costs(&state.config.bpffs).unwrap_or_default() {
        to.gauge("map_memory_bytes", vec![("map", map)], bytes as f64);
    }
    for row in inventory::links(&state.config.bpffs).unwrap_or_default() {
        let uplink = state.hooks.uplinks.iter().find(|(name, _)| *name == row.interface);
        let mode = uplink.and_then(|(_, mode)| *mode).filter(|_| row.hook == "xdp");
        let labels = vec![
            ("interface", row.interface),
            ("hook", row.hook),
            ("mode", mode.unwrap_or_default().to_owned()),
        ];
        to.gauge("program_attached", labels, 1.0);
    }
}

fn progress(state: &State, to: &mut Snapshot) {
    let syncs = Value::Histogram(state.sync_times.clone());
    to.put("sync_duration_seconds", vec![], syncs);
    let programming = Value::Histogram(state.programming_times.clone());
    to.put("network_programming_duration_seconds", vec![], programming);
    to.gauge("refused_services", vec![], state.refused.len() as f64);
    if let Some(synced) = state.synced {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = now.saturating_sub(synced.at.elapsed());
        to.gauge("last_sync_timestamp_seconds", vec![], at.as_secs_f64());
    }
    let sources = state.sources.borrow();
    if let Some(age) = sources.age(Instant::now()) {
        to.gauge("source_age_seconds", vec![], age.as_secs_f64());
    }
    for (kind, status) in sources.iter() {
        to.counter("watch_restarts", vec![("resource", kind.to_string())], status.restarts);
    }
}
