//! What the load balancer knows and wants, as plain values: no Kubernetes, no BPF, no I/O.
//!
//! `cluster` turns objects into these, `plan` turns these into tables. Addresses here are
//! `std::net` values; they become big-endian bytes only at the edge to the kernel (`datapath`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Deref,
    sync::Arc,
};

use ipnet::IpNet;
use serde::Serialize;

/// `namespace/name` of a Kubernetes object. A copy is a pointer: many tables have the same names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<NameParts>);

/// The parts of an [`ObjectName`].
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameParts {
    /// Empty for an object of the cluster.
    pub namespace: String,
    pub name: String,
}

impl ObjectName {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self(Arc::new(NameParts { namespace: namespace.into(), name: name.into() }))
    }
}

impl Deref for ObjectName {
    type Target = NameParts;

    fn deref(&self) -> &NameParts {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A transport protocol that a Service port may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The IANA protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// IPv4 or IPv6; a Service is planned once per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// As Kubernetes writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// `internalTrafficPolicy` / `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    #[default]
    Cluster,
    Local,
}

/// A Service as the proxy sees it: headless and ExternalName ones never get here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: ObjectName,
    /// At most one of each family (docs/kubernetes.md, row 11).
    pub cluster_ips: Vec<IpAddr>,
    /// Load-balancer addresses with ipMode VIP (row 17).
    pub load_balancer_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    pub internal_policy: TrafficPolicy,
    pub external_policy: TrafficPolicy,
    /// `None`: no restriction (row 21); holds both families.
    pub source_ranges: Vec<IpNet>,
    /// Seconds; `None` is session affinity off.
    pub affinity_seconds: Option<u32>,
    /// Only for type LoadBalancer with external policy Local (row 69).
    pub health_check_node_port: Option<u16>,
    /// The `lb/algorithm` annotation.
    pub algorithm: Option<Algorithm>,
    /// Whether `spec.selector` has entries: decides who writes the endpoints (rows 91, 93).
    pub has_selector: bool,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// May be empty.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// `None` where no NodePort is allocated.
    pub node_port: Option<u16>,
}

/// How a backend is chosen for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    Random,
    Maglev,
    RoundRobin,
    LeastConnections,
}

impl Algorithm {
    /// As annotations and documents have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Maglev => "maglev",
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
        }
    }
}

/// One endpoint of one Service port, conditions already defaulted (row 30).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// `None` counts as remote (row 31).
    pub node: Option<Arc<str>>,
    pub zone: Option<Arc<str>>,
    pub zone_hints: BTreeSet<String>,
    pub node_hints: BTreeSet<String>,
    /// `targetRef.uid`: part of a backend's identity; empty when nobody said it.
    pub uid: Arc<str>,
    /// The pod's name, in the Service's namespace.
    pub pod: Option<String>,
    /// The `lb/weight` annotation; 1 unless said otherwise.
    pub weight: u16,
}

/// The merged endpoints of a Service by (port name, protocol), both families together,
/// in address order (rows 14, 32, 33).
pub type Endpoints = BTreeMap<(String, Protocol), Vec<Endpoint>>;

/// This node, after flags, Node object and interfaces have been put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Lower-case.
    pub name: String,
    pub zone: Option<String>,
    /// The node's own addresses, the primary one of each family first.
    pub addresses: Vec<IpAddr>,
    /// Every address of every interface of the node.
    pub local_addresses: Vec<IpAddr>,
    pub node_port_addresses: NodePortAddresses,
    /// Sources inside are pods of this cluster; empty: no detection (row 59).
    pub pod_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    pub masquerade_all: bool,
    pub drains: Drains,
    /// The cluster's nodes by their names, where packets are forwarded by DSR.
    pub nodes: Option<Arc<ClusterNodes>>,
}

impl Node {
    /// Whether an operator took the endpoint out of new choices here. Who got the address since then
    /// is another one.
    pub fn drains(&self, endpoint: &Endpoint) -> bool {
        let same =
            |uid: &String| uid.is_empty() || endpoint.uid.is_empty() || **uid == *endpoint.uid;
        self.drains.get(&endpoint.address).is_some_and(same)
    }
}

/// Nodes by their names.
pub type ClusterNodes = BTreeMap<String, ClusterNode>;

/// A node of the cluster, as DSR must know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its first address of each family.
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// Whether an agent there forwards by DSR.
    pub forwards: bool,
}

impl ClusterNode {
    /// Its address of a family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::from),
            Family::V6 => self.v6.map(IpAddr::from),
        }
    }
}

/// Backends that an operator took out of new choices on one node, by address and port; each with the
/// uid that it had then, empty where nobody said it.
pub type Drains = BTreeMap<SocketAddr, String>;

/// Which local addresses answer NodePorts (rows 45–48).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The node's primary address of each family.
    #[default]
    Primary,
    /// Local addresses inside one of these; a family without a CIDR means all of that family.
    Cidrs(Vec<IpNet>),
}

/// An object, or a part of one, that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Ignored {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    /// Names the field where one is to blame.
    pub reason: String,
}

impl Ignored {
    pub fn new(kind: &'static str, object: &ObjectName, reason: impl Into<String>) -> Self {
        let NameParts { namespace, name } = &**object;
        Self { kind, namespace: namespace.clone(), name: name.clone(), reason: reason.into() }
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, reason } = self;
        match namespace.as_str() {
            "" => write!(f, "{kind} {name}: {reason}"),
            _ => write!(f, "{kind} {namespace}/{name}: {reason}"),
        }
    }
}
