//! `lb get services` and `lb get backends`.

use std::net::SocketAddr;

use super::{Row, human, per_second};
use crate::{
    api::{BackendRow, ServiceRow},
    cli::output::Column,
};

impl Row for ServiceRow {
    const KIND: &'static str = "ServiceList";
    const COLUMNS: &'static [Column] = &[
        Column::text("NAMESPACE"),
        Column::text("NAME"),
        Column::text("ADDRESS:PORT").address(),
        Column::text("PROTO"),
        Column::text("TYPE"),
        Column::text("BACKENDS"),
        Column::number("CONNS"),
        Column::number("CPS"),
        Column::number("PPS"),
        Column::number("BPS"),
        Column::number("DROPS"),
        Column::text("PORT-NAME").wide(),
        Column::number("PACKETS").wide(),
        Column::number("BYTES").wide(),
    ];
    const NOTHING: &'static str = "no services";

    fn cells(&self) -> Vec<String> {
        vec![
            self.namespace.clone(),
            self.name.clone(),
            SocketAddr::new(self.address, self.port).to_string(),
            self.protocol.clone(),
            self.kind.clone(),
            format!("{}/{}", self.backends_ready, self.backends_total),
            human(self.connections as f64),
            per_second(self.rate.map(|rate| rate.connections_per_second)),
            per_second(self.rate.map(|rate| rate.packets_per_second)),
            per_second(self.rate.map(|rate| rate.bytes_per_second)),
            human(self.drops as f64),
            self.port_name.clone(),
            self.packets.to_string(),
            self.bytes.to_string(),
        ]
    }

    fn name(&self) -> String {
        format!("service/{}/{}", self.namespace, self.name)
    }

    fn service(&self) -> Option<(&str, &str)> {
        Some((&self.namespace, &self.name))
    }
}

impl Row for BackendRow {
    const KIND: &'static str = "BackendList";
    const COLUMNS: &'static [Column] = &[
        Column::text("SERVICE"),
        Column::text("BACKEND").address(),
        Column::text("NODE"),
        Column::text("STATE"),
        Column::number("WEIGHT"),
        Column::number("SHARE%"),
        Column::number("CONNS"),
        Column::number("CPS"),
        Column::number("PPS"),
        Column::number("BPS"),
        Column::number("FLOWS").wide(),
        Column::number("LAST-SEEN").wide(),
        Column::number("PACKETS").wide(),
        Column::number("BYTES").wide(),
    ];
    const NOTHING: &'static str = "no backends";

    fn cells(&self) -> Vec<String> {
        let port = if self.port_name.is_empty() { &self.protocol } else { &self.port_name };
        vec![
            format!("{}/{}:{port}", self.namespace, self.service),
            SocketAddr::new(self.address, self.port).to_string(),
            self.node.clone().unwrap_or_else(|| "-".into()),
            self.state.clone(),
            self.weight.to_string(),
            format!("{:.1}", self.share),
            human(self.connections as f64),
            per_second(self.rate.map(|rate| rate.connections_per_second)),
            per_second(self.rate.map(|rate| rate.packets_per_second)),
            per_second(self.rate.map(|rate| rate.bytes_per_second)),
            self.open_flows.to_string(),
            self.last_seen_seconds.map_or_else(|| "-".into(), |seconds| format!("{seconds}s")),
            self.packets.to_string(),
            self.bytes.to_string(),
        ]
    }

    fn name(&self) -> String {
        format!("backend/{}", SocketAddr::new(self.address, self.port))
    }

    fn service(&self) -> Option<(&str, &str)> {
        Some((&self.namespace, &self.service))
    }
}
