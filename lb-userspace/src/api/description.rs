//! All about one Service: `lb describe service`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A Service as this node serves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    pub namespace: String,
    pub name: String,
    pub internal_traffic_policy: String,
    pub external_traffic_policy: String,
    pub affinity_seconds: Option<u32>,
    pub source_ranges: Vec<String>,
    pub health_check_node_port: Option<u16>,
    /// As far as an agent tells.
    pub slices: Option<usize>,
    pub ports: Vec<PortDescription>,
    /// The newest first.
    pub changes: Vec<ChangeRow>,
    /// What was left out of the Service, and why.
    pub problems: Vec<String>,
    /// Whether the pinned maps told it, for no agent answers: what is in no map is not known then.
    #[serde(default)]
    pub from_pins: bool,
}

/// One port in one family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortDescription {
    pub port_name: String,
    pub protocol: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    pub frontends: Vec<FrontendDescription>,
    pub endpoints: Vec<EndpointDescription>,
}

/// An address and port that clients dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendDescription {
    #[serde(rename = "type")]
    pub kind: String,
    pub address: SocketAddr,
    pub algorithm: String,
}

/// An endpoint, and what this node does with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointDescription {
    pub address: SocketAddr,
    #[serde(default)]
    pub pod: Option<String>,
    pub node: Option<String>,
    pub zone: Option<String>,
    /// Whether new connections may get it.
    pub used: bool,
    pub why: String,
    pub connections: u64,
}

/// One change of the Service that went to the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeRow {
    pub seconds_ago: u64,
    /// From its arrival to the last write.
    pub took_ms: f64,
    pub backends_before: usize,
    pub backends_after: usize,
}
