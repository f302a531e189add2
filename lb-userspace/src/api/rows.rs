//! What commands show: one struct per line of a table.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Rate;

/// One address and port of a Service: `lb get services`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    pub namespace: String,
    pub name: String,
    pub port_name: String,
    pub address: IpAddr,
    pub port: u16,
    pub protocol: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Backends that new connections may get.
    pub backends_ready: usize,
    /// Those and the ones that only keep what they have.
    pub backends_total: usize,
    pub connections: u64,
    pub packets: u64,
    pub bytes: u64,
    pub drops: u64,
    #[serde(flatten)]
    pub rate: Option<Rate>,
}

/// One backend of a Service port: `lb get backends`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRow {
    pub namespace: String,
    pub service: String,
    pub port_name: String,
    pub protocol: String,
    pub address: IpAddr,
    pub port: u16,
    pub node: Option<String>,
    pub state: String,
    pub weight: u16,
    /// Of the new connections of the Service port, in percent.
    pub share: f64,
    pub connections: u64,
    pub packets: u64,
    pub bytes: u64,
    /// Flows of clients outside that are open now; sockets of this node are none.
    #[serde(default)]
    pub open_flows: u64,
    /// Since it was last sent anything, where an agent noticed.
    #[serde(default)]
    pub last_seen_seconds: Option<u64>,
    #[serde(flatten)]
    pub rate: Option<Rate>,
}

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Warn,
    Fail,
}

/// One subsystem: `lb status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusLine {
    pub key: String,
    pub level: Level,
    pub detail: String,
}

/// All of `lb status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    pub node: String,
    pub lines: Vec<StatusLine>,
}

impl StatusReport {
    /// The worst level of any line.
    pub fn level(&self) -> Level {
        self.lines.iter().map(|line| line.level).max().unwrap_or(Level::Ok)
    }
}
