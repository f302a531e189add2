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
        vec![
            self.port_of(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_without_a_name_is_called_as_in_the_tables_of_flows_and_drops() {
        let row = BackendRow {
            namespace: "shop".into(),
            service: "web".into(),
            port_name: String::new(),
            protocol: "TCP".into(),
            address: [10, 1, 1, 3].into(),
            port: 8080,
            node: None,
            state: "active".into(),
            weight: 1,
            share: 100.0,
            connections: 0,
            packets: 0,
            bytes: 0,
            open_flows: 0,
            last_seen_seconds: None,
            rate: None,
        };
        assert_eq!(row.cells()[0], "shop/web");
        assert_eq!(BackendRow { port_name: "http".into(), ..row }.cells()[0], "shop/web:http");
    }
}
