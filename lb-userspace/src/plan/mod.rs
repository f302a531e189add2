//! What this node should do: pure functions from the model to desired state.
//!
//! Nothing here does I/O, reads a clock or draws randomness.

pub mod arena;
pub mod ids;
pub mod maglev;
pub mod slots;
pub mod tables;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use ipnet::IpNet;
use serde::Serialize;

use crate::model::{Algorithm, Family, ObjectName, Protocol};

pub mod masquerade;
pub mod node_ports;
pub mod output;
pub mod service;
pub mod source;
pub mod table;
pub mod topology;
pub mod why;

pub use source::SourceClass;
pub use table::Plan;

/// Everything one Service asks of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    pub name: ObjectName,
    /// One for each port and family that the Service has an address or NodePort for.
    pub ports: Vec<PortPlan>,
    pub health_check: Option<HealthCheck>,
}

/// One Service port in one address family: some frontends that share backend sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    pub service: ObjectName,
    pub port_name: String,
    pub protocol: Protocol,
    pub family: Family,
    pub frontends: Vec<Frontend>,
    /// Endpoints usable anywhere in the cluster, topology applied (docs/kubernetes.md, rows 36 and 39).
    pub cluster: BackendSet,
    /// Endpoints usable on this node, hints ignored (row 37).
    pub local: BackendSet,
    /// Endpoints in the slices that no new connection may get: their TCP flows go on.
    pub retired: Vec<Backend>,
    /// The set for traffic to the ClusterIP (`internalTrafficPolicy`).
    pub internal: Scope,
    /// The set for outside sources at the other kinds of frontend (`externalTrafficPolicy`);
    /// pods and this node itself get `cluster` there (row 54, short circuit).
    pub external: Scope,
    pub affinity_seconds: Option<u32>,
    /// Of this family, for LoadBalancer frontends only; empty: no restriction.
    pub source_ranges: Vec<IpNet>,
    /// The annotation, or `None` for the defaults (random inside, Maglev outside).
    pub algorithm: Option<Algorithm>,
    /// How packets from outside get to their backends' nodes, if by DSR.
    pub spread: Option<Spread>,
}

/// Packets from outside are spread over the nodes that have endpoints, hints ignored, and each node
/// chooses among its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// The weight of each node whose agent takes part: that of its usable endpoints.
    pub nodes: BTreeMap<Arc<str>, u32>,
    /// Those of them, and of others, that have endpoints which serve, be it that they terminate: what
    /// may belong to a flow of theirs is asked about there.
    pub serving: BTreeSet<Arc<str>>,
    /// Usable endpoints that are elsewhere; whichever node a packet comes to serves them by SNAT.
    pub rest: Vec<Backend>,
    /// Whether this node has usable endpoints.
    pub usable_here: bool,
}

impl PortPlan {
    /// The set that a scope names.
    pub const fn set(&self, scope: Scope) -> &BackendSet {
        match scope {
            Scope::Cluster => &self.cluster,
            Scope::Local => &self.local,
        }
    }

    /// The set for traffic from `source` to a frontend of this kind.
    pub const fn backends_for(&self, kind: FrontendKind, source: SourceClass) -> &BackendSet {
        self.set(match (kind, source) {
            (FrontendKind::ClusterIp, _) => self.internal,
            (_, SourceClass::Outside) => self.external,
            (_, SourceClass::Node | SourceClass::Pod) => Scope::Cluster,
        })
    }

    /// Whether the port has a load balancer's address that does not let everybody in.
    pub fn bars_sources(&self) -> bool {
        let guarded = |frontend: &Frontend| frontend.kind == FrontendKind::LoadBalancer;
        !self.source_ranges.is_empty() && self.frontends.iter().any(guarded)
    }

    /// Whether there are endpoints, but none that this policy of the port allows here: what needs
    /// one is dropped in silence (rows 53, 54).
    pub fn is_silent(&self, policy: Scope) -> bool {
        policy == Scope::Local
            && self.local.backends.is_empty()
            && self.local.when_empty == WhenEmpty::Drop
    }

    /// How a backend is chosen at a frontend of this kind.
    pub fn algorithm_for(&self, kind: FrontendKind) -> Algorithm {
        self.algorithm.unwrap_or(match kind {
            FrontendKind::ClusterIp => Algorithm::Random,
            _ => Algorithm::Maglev,
        })
    }
}

/// Names one of a port's two backend sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Cluster,
    Local,
}

/// Backends in address order, and what happens while there are none (rows 52–54).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSet {
    pub backends: Vec<Backend>,
    pub when_empty: WhenEmpty,
}

impl BackendSet {
    /// Whether a backend is in it.
    pub fn has(&self, backend: &Backend) -> bool {
        self.backends.binary_search_by_key(&backend.address, |one| one.address).is_ok()
    }
}

/// The verdict of an empty backend set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenEmpty {
    /// TCP RST or ICMP port unreachable.
    Reject,
    /// Silence: there are endpoints, but not for this node.
    Drop,
}

/// An address and port that clients dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub kind: FrontendKind,
    pub address: SocketAddr,
}

/// Where a frontend's address comes from; decides policy and masquerade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum FrontendKind {
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
    #[serde(rename = "ExternalIP")]
    ExternalIp,
}

/// A backend as one Service port uses it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    pub address: SocketAddr,
    /// On this node.
    pub local: bool,
    pub node: Option<Arc<str>>,
    pub zone: Option<Arc<str>>,
    pub state: BackendState,
    pub weight: u16,
    /// With address, port and protocol the backend's identity: a reused address inherits nothing.
    pub uid: Arc<str>,
    /// Whether the endpoint serves; UDP flows leave one that does not (row 66).
    pub serving: bool,
}

/// Whether an endpoint is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    Active,
    Terminating,
}

/// A `healthCheckNodePort` server (rows 69, 70).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    /// Distinct local ready addresses over all ports.
    pub local_endpoints: usize,
}
