//! Every metric there is: the code writes no other, and the documentation is made from this.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Without the prefix `lb_` and, for counters, without `_total`; kube-proxy's have theirs.
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

impl Metric {
    /// One of ours, or of [`KUBE_PROXY`].
    pub fn find(name: &str) -> Option<&'static Self> {
        METRICS.iter().chain(KUBE_PROXY).find(|metric| metric.name == name)
    }

    /// With its prefix.
    pub fn base_name(&self) -> String {
        if self.name.starts_with("kubeproxy_") {
            self.name.to_owned()
        } else {
            format!("lb_{}", self.name)
        }
    }

    /// As Prometheus knows it.
    pub fn full_name(&self) -> String {
        let base = self.base_name();
        match self.kind {
            Kind::Counter => base + "_total",
            Kind::Info => base + "_info",
            Kind::Gauge | Kind::Histogram => base,
        }
    }
}

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

const SERVICE: &[&str] = &["namespace", "service"];

/// All of them, by name.
pub const METRICS: &[Metric] = &[
    metric(
        "backend_connections",
        Kind::Counter,
        &["namespace", "service", "backend"],
        "Connections given to a backend; at most metricsBackends series",
    ),
    metric("build", Kind::Info, &["version"], "The version that runs"),
    metric("drops", Kind::Counter, &["reason"], "Packets and calls that were rejected or dropped"),
    metric("flows", Kind::Gauge, &["family"], "Flows that live"),
    metric("flows_capacity", Kind::Gauge, &["family"], "Flows that there is room for"),
    metric("map_capacity", Kind::Gauge, &["map"], "Entries that a map has room for"),
    metric(
        "map_entries",
        Kind::Gauge,
        &["map"],
        "Entries in use, of each map that agents fill: SERVICES, BACKENDS, ARENA, NODES, DRAINS, and of each family (_V4, _V6) FRONTENDS, LOCALS, SOURCES",
    ),
    metric("map_memory_bytes", Kind::Gauge, &["map"], "What the kernel charges for a map"),
    metric(
        "network_programming_duration_seconds",
        Kind::Histogram,
        &[],
        "From a change of endpoints (last-change-trigger-time) to the kernel",
    ),
    metric(
        "packets",
        Kind::Counter,
        &["direction", "verdict"],
        "Packets seen on uplinks, by what was done with them",
    ),
    metric(
        "program_attached",
        Kind::Gauge,
        &["interface", "hook", "mode"],
        "1 for each program that is on its hook",
    ),
    metric("refused_services", Kind::Gauge, &[], "Services that do not fit and stay as they were"),
    metric("service_bytes", Kind::Counter, SERVICE, "Bytes of a Service's packets on uplinks"),
    metric("service_connections", Kind::Counter, SERVICE, "New flows and sockets of a Service"),
    metric("service_packets", Kind::Counter, SERVICE, "A Service's packets on uplinks"),
    metric("source_age_seconds", Kind::Gauge, &[], "Since the API server was last heard of"),
    metric(
        "snat_ports_used_ratio",
        Kind::Gauge,
        &[],
        "Of the source ports towards that remote backend which uses most of them, how many live flows have",
    ),
    metric("sync_duration_seconds", Kind::Histogram, &[], "From a change's arrival to the kernel"),
    metric("last_sync_timestamp_seconds", Kind::Gauge, &[], "When the last change went in"),
    metric("watch_restarts", Kind::Counter, &["resource"], "Watches that ended and began anew"),
];

/// Those of kube-proxy that have a meaning here, by its names, by name.
pub const KUBE_PROXY: &[Metric] = &[
    metric(
        "kubeproxy_network_programming_duration_seconds",
        Kind::Histogram,
        &[],
        "As `lb_network_programming_duration_seconds`",
    ),
    metric(
        "kubeproxy_sync_proxy_rules_duration_seconds",
        Kind::Histogram,
        &[],
        "As `lb_sync_duration_seconds`",
    ),
    metric(
        "kubeproxy_sync_proxy_rules_endpoint_changes",
        Kind::Counter,
        &[],
        "Changes of EndpointSlices that were told",
    ),
    metric(
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
        Kind::Gauge,
        &[],
        "Those of them that are not in the kernel yet",
    ),
    metric(
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        Kind::Gauge,
        &[],
        "When the last change was told",
    ),
    metric(
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        Kind::Gauge,
        &[],
        "As `lb_last_sync_timestamp_seconds`",
    ),
    metric(
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        Kind::Gauge,
        &["traffic_policy"],
        "Service ports whose policy (internal, external) is Local, with endpoints but none here",
    ),
    metric(
        "kubeproxy_sync_proxy_rules_service_changes",
        Kind::Counter,
        &[],
        "Changes of Services that were told",
    ),
    metric(
        "kubeproxy_sync_proxy_rules_service_changes_pending",
        Kind::Gauge,
        &[],
        "Those of them that are not in the kernel yet",
    ),
];
