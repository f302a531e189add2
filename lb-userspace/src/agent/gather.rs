//! The agent's metrics, from its state and the kernel's counts: a few calls, however many Services.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Instant, SystemTime},
};

use lb_common::{
    abi::Count,
    limits,
    verdict::{Reason, Verdict},
};

use super::{kube_proxy, locked, setup, state::State};
use crate::{
    config::PortRange,
    datapath::{inventory, maps::Maps, rates::Sample},
    model::ObjectName,
    observe::{Snapshot, http::Source, series::Value},
    plan::tables::{Member, Place, Tables, Use},
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
    let snat_ports = state.config.snat_ports;
    counts(&state.tables, &state.maps, state.config.metrics_backends, &mut to);
    fill(&state.tables, &state.maps, snat_ports, &mut to);
    let capacity = limits::DRAINS as usize;
    usage(Use { map: "DRAINS", used: state.drains.len(), capacity }, &mut to);
    pinned(state, &mut to);
    progress(state, &mut to);
    if state.config.kube_proxy_metrics {
        kube_proxy::gather(state, &mut to);
    }
    to
}

/// What the programs have counted; at most so many backends have a series of their own.
pub fn counts(tables: &Tables, maps: &Maps, most_backends: u32, to: &mut Snapshot) {
    let (services, backends) = tables.id_ends();
    match maps.sample(services, backends) {
        Ok(sample) => {
            reasons(&sample, to);
            of_services(tables, &sample, to);
            of_backends(tables, &sample, most_backends, to);
        }
        Err(error) => tracing::warn!(%error, "counts cannot be read"),
    }
}

/// How full everything is.
pub fn fill(tables: &Tables, maps: &Maps, snat_ports: PortRange, to: &mut Snapshot) {
    let flows = maps.flows(setup::ticks());
    for (family, fill) in [("ipv4", flows.v4), ("ipv6", flows.v6)] {
        let labels = || vec![("family", family.to_owned())];
        // Two entries each.
        to.gauge("flows", labels(), (fill.entries / 2) as f64);
        to.gauge("flows_capacity", labels(), (fill.capacity / 2) as f64);
    }
    let most = ports_used(tables.members(), &flows.by_backend).into_values().max().unwrap_or(0);
    to.gauge("snat_ports_used_ratio", vec![], most as f64 / f64::from(snat_ports.count()));
    tables.usage().into_iter().for_each(|used| usage(used, to));
}

fn usage(Use { map, used, capacity }: Use, to: &mut Snapshot) {
    let labels = || vec![("map", map.to_owned())];
    to.gauge("map_entries", labels(), used as f64);
    to.gauge("map_capacity", labels(), capacity as f64);
}

/// How many source ports live flows have towards each remote backend: an endpoint of several Services
/// has them once, for replies are told apart by the ports.
fn ports_used(
    members: impl Iterator<Item = Member>,
    entries: &BTreeMap<u32, u64>,
) -> BTreeMap<Place, u64> {
    let mut used = BTreeMap::new();
    for member in members.filter(|member| !member.local) {
        // Two entries for each flow.
        let flows = entries.get(&member.id).copied().unwrap_or(0) / 2;
        *used.entry(member.place).or_default() += flows;
    }
    used
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
fn of_services(tables: &Tables, sample: &Sample, to: &mut Snapshot) {
    let mut sums: BTreeMap<&ObjectName, Count> = BTreeMap::new();
    for (id, key) in tables.ports() {
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
fn of_backends(tables: &Tables, sample: &Sample, most: u32, to: &mut Snapshot) {
    let mut sums: BTreeMap<(&ObjectName, String), u64> = BTreeMap::new();
    for member in tables.members() {
        let Some(key) = tables.port(member.service) else { continue };
        let place = std::net::SocketAddr::new(member.place.address, member.place.port);
        let series = (&key.service, place.to_string());
        if sums.len() >= most as usize && !sums.contains_key(&series) {
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

/// What is known by the pins.
fn pinned(state: &State, to: &mut Snapshot) {
    for (map, bytes) in inventory::costs(&state.config.bpffs).unwrap_or_default() {
        to.gauge("map_memory_bytes", vec![("map", map)], bytes as f64);
    }
    for row in inventory::links(&state.config.bpffs).unwrap_or_default() {
        let uplink = state.hooks.uplinks.iter().find(|it| it.name == row.interface);
        let mode = uplink.and_then(|it| it.xdp).filter(|_| row.hook == "xdp");
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
        to.gauge("last_sync_timestamp_seconds", vec![], seconds(synced.at));
    }
    let sources = state.sources.borrow();
    if let Some(age) = sources.age(Instant::now()) {
        to.gauge("source_age_seconds", vec![], age.as_secs_f64());
    }
    for (kind, status) in sources.iter() {
        to.counter("watch_restarts", vec![("resource", kind.to_string())], status.restarts);
    }
}

/// A moment as Unix time.
pub(super) fn seconds(at: Instant) -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(at.elapsed()).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_endpoint_of_two_services_has_its_ports_once_and_a_local_one_none() {
        let place = |last: u8| Place { address: [10, 1, 2, last].into(), port: 80, protocol: 6 };
        let (shared, other, here) = (place(1), place(2), place(3));
        let member = |id, place, local| Member { id, service: 1, place, local };
        let members = [
            member(1, shared, false),
            member(2, shared, false),
            member(3, other, false),
            member(4, here, true),
        ];
        let entries = BTreeMap::from([(1, 20), (2, 6), (4, 100)]);
        let used = ports_used(members.into_iter(), &entries);
        assert_eq!(used, BTreeMap::from([(shared, 13), (other, 0)]));
    }
}
