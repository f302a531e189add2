//! What is counted and seen, as commands show it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// How fast something is counted now; there is none without an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    pub connections_per_second: f64,
    pub packets_per_second: f64,
    pub bytes_per_second: f64,
    pub drops_per_second: f64,
}

/// A packet as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Example {
    pub seconds_ago: u64,
    /// `tcp`, `udp`, or the protocol's number.
    pub protocol: String,
    /// Not known of a socket: the kernel picks its source later.
    pub source: Option<SocketAddr>,
    pub destination: SocketAddr,
    /// `namespace/name:port`.
    pub service: Option<String>,
    /// `xdp`, `ingress`, `egress` or `socket`.
    pub hook: String,
}

impl Example {
    /// `tcp 203.0.113.9:40000 > 10.96.0.10:80, 3 s ago`
    pub fn line(&self) -> String {
        let Self { seconds_ago, protocol, source, destination, .. } = self;
        let bare = |place: &SocketAddr| match place.port() {
            0 => place.ip().to_string(),
            _ => place.to_string(),
        };
        let source = source.as_ref().map_or_else(|| "this node".into(), bare);
        format!("{protocol} {source} > {}, {seconds_ago} s ago", bare(destination))
    }
}

/// What was rejected or dropped for one reason: `lb get drops`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DropRow {
    pub reason: String,
    /// `reject` or `drop`.
    pub verdict: String,
    pub count: u64,
    #[serde(flatten)]
    pub rate: Option<Rate>,
    pub last_example: Option<Example>,
    /// What to do about it.
    pub hint: String,
    /// Where to read on.
    pub doc: String,
}

/// One map: `lb get maps`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapRow {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Not counted where an entry cannot be told from none.
    pub used: Option<u64>,
    pub capacity: u64,
    /// What the kernel charges for it.
    pub bytes: u64,
}

impl MapRow {
    /// How full it is, in percent.
    pub fn percent(&self) -> Option<f64> {
        Some(self.used? as f64 * 100.0 / self.capacity.max(1) as f64)
    }
}

/// One hook: `lb get interfaces`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceRow {
    /// An interface, or the cgroup of a socket hook.
    pub interface: String,
    pub index: u64,
    /// `xdp`, `ingress`, `egress`, or a socket hook such as `connect4`.
    pub hook: String,
    /// `native` or `generic` for XDP, `pods` for tc on an interface of pods, where an agent says so.
    pub mode: Option<String>,
}

/// One direction of a flow: `lb get flows`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowRow {
    pub protocol: String,
    pub state: String,
    /// Until it is forgotten.
    pub expires_in_seconds: u64,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// What its packets leave with.
    pub new_source: SocketAddr,
    pub new_destination: SocketAddr,
    /// `to-local`, `to-remote`, `reply-local` or `reply-remote`.
    pub role: String,
    /// `namespace/name:port`.
    pub service: Option<String>,
}

/// Which flows are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowFilter {
    /// `namespace/name`.
    pub service: Option<String>,
    pub src: Option<IpAddr>,
    pub dst: Option<IpAddr>,
    pub state: Option<String>,
    /// No more than these.
    pub limit: usize,
}

/// A packet or call as it happened: a line of `lb monitor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenPacket {
    pub verdict: String,
    pub reason: String,
    #[serde(flatten)]
    pub packet: Example,
    pub backend: Option<SocketAddr>,
    pub bytes: u32,
    /// Whether it made a flow.
    pub opened: bool,
}
