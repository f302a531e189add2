//! One packet's question and its answer.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A packet that might come: a line of `lb explain --packets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packet {
    pub src: IpAddr,
    /// Any will do if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// `tcp`, `udp` or `sctp`.
    pub proto: String,
    pub dst: IpAddr,
    pub port: u16,
    /// TCP flags by name, or what SCTP's first chunk is like; SYN if none are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Forward,
    Reject,
    Drop,
    /// Not ours, left untouched.
    Pass,
}

/// Which program decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    Xdp,
    Tc,
    Socket,
}

/// The fate of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub verdict: Verdict,
    pub reason: String,
    /// `namespace/name:port`.
    pub frontend: Option<String>,
    pub backend: Option<SocketAddr>,
    /// The address that the backend sees.
    pub source: Option<IpAddr>,
    /// Every backend that the packet could have got with another source port.
    pub candidates: Vec<SocketAddr>,
    pub masquerade: bool,
    pub via: Option<Via>,
    /// With DSR, the node that the packet is sent to, which then chooses a backend of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// How it came about; only for a question that is asked alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// One decision on a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    pub detail: String,
}
