//! The recording that the page is fed from.

use lb_userspace::api::{
    BackendRow, ClientRow, DropRow, Example, Frame, Level, MapRow, Rate, ServiceRow, StatusLine,
    StatusReport,
};

use super::FRAMES;

const fn rate(connections: f64, packets: f64) -> Rate {
    Rate {
        connections_per_second: connections,
        packets_per_second: packets,
        bytes_per_second: packets * 700.0,
        drops_per_second: 0.0,
    }
}

fn service(name: &str, port_name: &str, ready: usize, total: usize, rate: Rate) -> ServiceRow {
    ServiceRow {
        namespace: "shop".into(),
        name: name.into(),
        port_name: port_name.into(),
        address: [10, 96, 0, 10].into(),
        port: 80,
        protocol: if port_name == "dns" { "UDP" } else { "TCP" }.into(),
        kind: "ClusterIP".into(),
        backends_ready: ready,
        backends_total: total,
        connections: 40_000,
        packets: 900_000,
        bytes: 800_000_000,
        drops: 3,
        rate: Some(rate),
    }
}

fn backend(of: &ServiceRow, last: u8, weight: u16, share: f64, state: &str) -> BackendRow {
    let Rate { connections_per_second, packets_per_second, .. } = of.rate.unwrap();
    let part = if state == "active" { share / 100.0 } else { 0.0 };
    BackendRow {
        namespace: of.namespace.clone(),
        service: of.name.clone(),
        port_name: of.port_name.clone(),
        protocol: of.protocol.clone(),
        address: [10, 244, last % 3 + 1, last].into(),
        port: 8080,
        node: Some(format!("node-{}", last % 3 + 1)),
        state: state.into(),
        weight,
        share,
        connections: (40_000.0 * share / 100.0) as u64,
        packets: 1,
        bytes: 1,
        open_flows: 5,
        last_seen_seconds: Some(1),
        rate: Some(rate(connections_per_second * part, packets_per_second * part)),
    }
}

/// One moment: traffic swells and ebbs; in the second third packets are refused.
pub fn frame(number: u64) -> Frame {
    let swell = 1.0 + (number as f64 / 6.0).sin() / 3.0;
    let web = service("web", "http", 4, 5, rate(120.0 * swell, 5200.0 * swell));
    let api = service("api", "grpc", 2, 2, rate(30.0, 2400.0 / swell));
    let dns = service("resolver-with-a-rather-long-name", "dns", 2, 2, rate(9.0, 310.0));
    let mut backends = vec![
        backend(&web, 11, 1, 24.8, "active"),
        backend(&web, 12, 1, 25.4, "active"),
        backend(&web, 13, 2, 12.1, "active"),
        backend(&web, 14, 1, 25.1, "active"),
        backend(&web, 15, 1, 12.6, "drained"),
    ];
    backends.extend([21, 22].map(|last| backend(&api, last, 1, 50.0, "active")));
    backends.extend([31, 32].map(|last| backend(&dns, last, 1, 50.0, "active")));
    let clients = backends.iter().filter(|row| row.state == "active").flat_map(|row| {
        let one = |(client, flows): (Option<u8>, u64)| ClientRow {
            client: client.map(|last| [203, 0, 113, last].into()),
            service: row.port_of(),
            backend: row.place(),
            flows,
        };
        [(Some(9), 14), (Some(10), 6), (Some(77), 3), (None, 9)].map(one)
    });
    let clients = clients.collect();
    let drops = [("no-endpoints", 40.0), ("source-range", 12.0), ("no-route", 0.0)];
    let drops = drops.map(|(reason, most)| {
        let now = if (FRAMES / 3..2 * FRAMES / 3).contains(&number) { most * swell } else { 0.0 };
        DropRow {
            reason: reason.into(),
            verdict: "reject".into(),
            count: 7 + number * 3,
            rate: Some(Rate { drops_per_second: now, ..Rate::default() }),
            last_example: Some(Example {
                seconds_ago: 3,
                protocol: "tcp".into(),
                source: Some("203.0.113.9:40000".parse().unwrap()),
                destination: "198.51.100.7:80".parse().unwrap(),
                service: Some("shop/web:http".into()),
                hook: "xdp".into(),
            }),
            hint: "start pods that are ready: `lb describe service` shows each".into(),
            doc: format!("docs/datapath.md#{reason}"),
        }
    });
    let maps =
        [("FLOWS_V4", 410_000, 524_288), ("ARENA", 61_000, 1_048_576), ("SERVICES", 9, 65_536)];
    let maps = maps.map(|(name, used, capacity)| MapRow {
        name: name.into(),
        kind: "array".into(),
        used: Some(used),
        capacity,
        bytes: 1 << 20,
    });
    let line = |key: &str, level, detail: &str| StatusLine {
        key: key.into(),
        level,
        detail: detail.into(),
    };
    Frame {
        at: 1_790_000_000_000 + number * 2000,
        status: Some(StatusReport {
            node: "node-1".into(),
            lines: vec![
                line("Kernel", Level::Ok, "6.18.5"),
                line("Uplinks", Level::Ok, "eth0 (xdp native, tc)"),
                line("Flows", Level::Warn, "205000 of 262144 (78 %)"),
            ],
        }),
        services: vec![web, api, dns],
        services_total: 3,
        backends,
        drops: drops.into(),
        maps: maps.into(),
        flows: vec![],
        clients,
        last_sync_seconds: Some(number as f64),
        source_age_seconds: Some(0.4),
    }
}
