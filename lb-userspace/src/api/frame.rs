//! One moment of a node: what `lb top` and the live page show.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::{BackendRow, DropRow, FlowRow, MapRow, Rate, ServiceRow, StatusReport};

/// Bounded, whatever the cluster is: the busiest Services, and what belongs to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Frame {
    /// Milliseconds since 1970.
    pub at: u64,
    /// `None` where no agent answers.
    pub status: Option<StatusReport>,
    /// The busiest first.
    pub services: Vec<ServiceRow>,
    /// How many rows there are in all.
    pub services_total: usize,
    /// Of those Services.
    pub backends: Vec<BackendRow>,
    /// What was refused at least once.
    pub drops: Vec<DropRow>,
    pub maps: Vec<MapRow>,
    /// Some of them.
    pub flows: Vec<FlowRow>,
    /// Who has flows to which backend.
    pub clients: Vec<ClientRow>,
    pub last_sync_seconds: Option<f64>,
    pub source_age_seconds: Option<f64>,
}

/// A client's flows to one backend, those included that are closing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientRow {
    /// `None`: all the others together.
    pub client: Option<IpAddr>,
    /// `namespace/name:port`.
    pub service: String,
    pub backend: SocketAddr,
    pub flows: u64,
}

impl Frame {
    /// Where nobody measured how fast things are counted, the frame before tells.
    pub fn with_rates_since(mut self, before: &Self) -> Self {
        let seconds = self.at.saturating_sub(before.at) as f64 / 1000.0;
        if seconds <= 0.0 {
            return self;
        }
        let per = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let known: BTreeMap<_, _> = before.services.iter().map(|row| (row.key(), row)).collect();
        for row in self.services.iter_mut().filter(|row| row.rate.is_none()) {
            let Some(then) = known.get(&row.key()) else { continue };
            row.rate = Some(Rate {
                connections_per_second: per(row.connections, then.connections),
                packets_per_second: per(row.packets, then.packets),
                bytes_per_second: per(row.bytes, then.bytes),
                drops_per_second: per(row.drops, then.drops),
            });
        }
        let known: BTreeMap<_, _> = before.backends.iter().map(|row| (row.key(), row)).collect();
        for row in self.backends.iter_mut().filter(|row| row.rate.is_none()) {
            let Some(then) = known.get(&row.key()) else { continue };
            row.rate = Some(Rate {
                connections_per_second: per(row.connections, then.connections),
                packets_per_second: per(row.packets, then.packets),
                bytes_per_second: per(row.bytes, then.bytes),
                drops_per_second: 0.0,
            });
        }
        self
    }
}

impl ServiceRow {
    /// `namespace/name:port`, as other rows name it.
    pub fn port_of(&self) -> String {
        port_of(&self.namespace, &self.name, &self.port_name)
    }

    /// Tells it from every other row.
    pub fn key(&self) -> (String, SocketAddr, String) {
        (self.port_of(), SocketAddr::new(self.address, self.port), self.protocol.clone())
    }
}

impl BackendRow {
    /// `namespace/name:port`, as other rows name it.
    pub fn port_of(&self) -> String {
        port_of(&self.namespace, &self.service, &self.port_name)
    }

    /// Its address and port.
    pub const fn place(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Tells it from every other row but those of earlier owners of its place.
    pub fn key(&self) -> (String, SocketAddr, String) {
        (self.port_of(), self.place(), self.protocol.clone())
    }
}

fn port_of(namespace: &str, name: &str, port: &str) -> String {
    if port.is_empty() {
        format!("{namespace}/{name}")
    } else {
        format!("{namespace}/{name}:{port}")
    }
}
