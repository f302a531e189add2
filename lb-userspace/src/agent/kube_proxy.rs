//! What kube-proxy's metrics tell, for dashboards that were made for it.

use std::{collections::BTreeSet, time::Instant};

use super::{gather::seconds, state::State};
use crate::{
    cluster::{Change, Op},
    observe::{Snapshot, series::Value},
    plan::{FrontendKind, Plan, PortPlan},
};

/// Changes that were told, and those of them that are not in the kernel yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    services: Count,
    slices: Count,
    last: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: u64,
    pending: u64,
}

impl Told {
    /// Counts a change: of each object, if it is a listing.
    pub fn put(&mut self, change: &Change) {
        let (count, objects) = match change {
            Change::Service(op) => (&mut self.services, objects(op)),
            Change::EndpointSlice(op) => (&mut self.slices, objects(op)),
            Change::Endpoints(_)
            | Change::Pod(_)
            | Change::Node(_)
            | Change::ServiceCidr(_)
            | Change::Lease(_) => {
                return;
            }
        };
        count.all += objects;
        count.pending += objects;
        self.last = Some(Instant::now());
    }

    /// All of them are in the kernel.
    pub const fn settle(&mut self) {
        self.services.pending = 0;
        self.slices.pending = 0;
    }
}

const fn objects<K>(op: &Op<K>) -> u64 {
    match op {
        Op::Apply(_) | Op::Delete(_) => 1,
        Op::Reset(all) => all.len() as u64,
    }
}

/// Adds kube-proxy's metrics.
pub(super) fn gather(state: &State, to: &mut Snapshot) {
    let histogram = |of: &_| Value::Histogram(Clone::clone(of));
    let programming = histogram(&state.programming_times);
    to.put("kubeproxy_network_programming_duration_seconds", vec![], programming);
    let syncs = histogram(&state.sync_times);
    to.put("kubeproxy_sync_proxy_rules_duration_seconds", vec![], syncs);
    let Told { services, slices, last } = state.told;
    to.counter("kubeproxy_sync_proxy_rules_service_changes", vec![], services.all);
    to.counter("kubeproxy_sync_proxy_rules_endpoint_changes", vec![], slices.all);
    let pending = |count: Count| count.pending as f64;
    to.gauge("kubeproxy_sync_proxy_rules_service_changes_pending", vec![], pending(services));
    to.gauge("kubeproxy_sync_proxy_rules_endpoint_changes_pending", vec![], pending(slices));
    if let Some(last) = last {
        let name = "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds";
        to.gauge(name, vec![], seconds(last));
    }
    if let Some(synced) = state.synced {
        let name = "kubeproxy_sync_proxy_rules_last_timestamp_seconds";
        to.gauge(name, vec![], seconds(synced.at));
    }
    let [internal, external] = without_local_endpoints(&state.plan);
    for (policy, count) in [("internal", internal), ("external", external)] {
        let labels = vec![("traffic_policy", policy.to_owned())];
        let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
        to.gauge(name, labels, count as f64);
    }
}

/// How many service ports have endpoints, but none that a Local policy allows here: of the internal
/// policy, and of the external one.
fn without_local_endpoints(plan: &Plan) -> [usize; 2] {
    // Both families of a port are one.
    let count = |is_silent: &dyn Fn(&PortPlan) -> bool| {
        let ports = plan.services().flat_map(|service| &service.ports);
        let silent = ports.filter(|port| is_silent(port));
        let names = silent.map(|port| (&port.service, &port.port_name, port.protocol));
        names.collect::<BTreeSet<_>>().len()
    };
    let is_external = |port: &PortPlan| {
        port.frontends.iter().any(|frontend| frontend.kind != FrontendKind::ClusterIp)
    };
    [
        count(&|port| port.is_silent(port.internal)),
        count(&|port| port.is_silent(port.external) && is_external(port)),
    ]
}
