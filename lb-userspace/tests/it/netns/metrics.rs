//! What a living agent tells to who scrapes it.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use lb_userspace::{
    lab::{Held, Host},
    observe::metrics::METRICS,
};

use super::{
    objects::Front,
    semantics::http,
    world::{Over, V4, World, address},
};

/// Known only to an agent that learns from an API server, or only once there is something to count.
const NOT_FROM_FILES: [&str; 2] = ["lb_source_age_seconds", "lb_watch_restarts_total"];

fn scrape(node: &Host) -> String {
    let (status, head, body) = http(node, SocketAddr::new(address("127.0.0.1"), 10249), "/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    body
}

/// The value of exactly this series.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}\n{text}")).parse().unwrap()
}

#[test]
fn every_metric_is_told_and_counts_what_has_happened() {
    let world = World::new("metrics");
    let (there, other) = (world.pod(2, 10), world.pod(2, 11));
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&there, &other]));
    let agent = world.agent(1, &["--xdp-mode", "off", "--metrics-backends", "1"]);
    let before = scrape(world.node(1));
    let connections = "lb_service_connections_total{namespace=\"it\",service=\"web\"}";
    assert_eq!(
        (value(&before, connections), value(&before, "lb_flows{family=\"ipv4\"}")),
        (0.0, 0.0)
    );
    assert_eq!(value(&before, "lb_snat_ports_used_ratio"), 0.0);

    let held =
        Held::open(&world.client, web.outside(V4)[1], 9, Duration::from_millis(100)).unwrap();
    Over::Tcp.ask(&world.client, SocketAddr::new(web.balancer(V4), 99)).unwrap_err();
    let text = scrape(world.node(1));
    drop(held);
    for metric in METRICS {
        let name = metric.full_name();
        let told = text.lines().any(|line| line.starts_with(&name));
        assert_eq!(told, !NOT_FROM_FILES.contains(&name.as_str()), "{name}\n{text}");
    }
    assert_eq!((value(&text, connections), value(&text, "lb_flows{family=\"ipv4\"}")), (9.0, 9.0));
    // The fuller of two backends has at least five of nine, and at most all.
    let ports = value(&text, "lb_snat_ports_used_ratio") * 28_976.0;
    assert!((4.999..9.001).contains(&ports), "{ports}");
    let backends = text.lines().filter(|line| line.starts_with("lb_backend_connections_total{"));
    assert_eq!(backends.count(), 1, "as many series as were asked for");
    let program = "lb_program_attached{interface=\"eth0\",hook=\"ingress\",mode=\"\"}";
    assert_eq!(value(&text, program), 1.0);
    assert!(value(&text, "lb_map_memory_bytes{map=\"FLOWS_V4\"}") > 1e6);
    let help = METRICS.iter().find(|metric| metric.name == "map_entries").unwrap().help;
    let maps = text
        .lines()
        .filter_map(|line| line.strip_prefix("lb_map_capacity{map=\"")?.split_once('"'));
    let (told, named): (BTreeSet<_>, BTreeSet<_>) = (
        maps.map(|(map, _)| map.trim_end_matches("_V4").trim_end_matches("_V6")).collect(),
        help.split(|c: char| !c.is_ascii_uppercase()).filter(|word| word.len() > 2).collect(),
    );
    assert_eq!(told, named, "as the documentation says");
    drop(agent);
}
