//! What load balancers and monitoring ask this node over HTTP.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
};

use lb_userspace::lab::PATIENCE;
use serde_json::json;

use super::{
    super::{
        objects::Front,
        world::{Over, V4, World, address, node_address},
    },
    TC, http, until,
};

#[test]
fn load_balancers_are_told_whether_this_node_has_endpoints_and_is_well() {
    let world = World::new("sem-health");
    let (here, there) = (world.pod(1, 10), world.pod(2, 10));
    let web = Front::new("web", 1).with(json!({
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 31999,
    }));
    world.put("web", &web.manifests(&[&here, &there]));
    let _agent = world.agent(1, TC);
    let check = SocketAddr::new(node_address(1, V4), 31999);
    until("the server answers", || {
        world.client.run(|| TcpStream::connect_timeout(&check, PATIENCE)).is_ok()
    });
    let (status, head, body) = http(&world.client, check, "/any/path");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let expected = |count| {
        json!({
            "service": {"namespace": "it", "name": "web"},
            "localEndpoints": count, "serviceProxyHealthy": true,
        })
    };
    assert_eq!((status, body), (200, expected(1)));
    for header in [
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-load-balancing-endpoint-weight: 1",
    ] {
        assert!(head.contains(header), "{head}");
    }

    world.put("web", &web.manifests(&[&there]));
    until("no endpoint is left here", || http(&world.client, check, "/").0 == 503);
    let (_, _, body) = http(&world.client, check, "/");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), expected(0));
    // The policy is for the outside: it meets silence, and pods go where there is somebody.
    let outside = Over::Tcp.ask(&world.client, web.on_node(1, V4)).unwrap_err();
    assert_eq!(outside.kind(), ErrorKind::TimedOut, "{outside}");
    assert_eq!(Over::Tcp.who(world.node(1), web.on_node(1, V4)), there.name);

    world.put("web", &web.manifests(&[&here]));
    until("one is here again", || http(&world.client, check, "/").0 == 200);

    let node = SocketAddr::new(node_address(1, V4), 10256);
    for path in ["/healthz", "/livez"] {
        let (status, _, body) = http(&world.client, node, path);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["healthy"]), (200, &json!(true)), "{path}: {body}");
        assert_eq!(body.get("nodeEligible").is_some(), path == "/healthz");
        assert_eq!(body["lastUpdated"], body["currentTime"]);
    }
}

#[test]
fn kube_proxy_s_metrics_are_served_by_its_names_where_they_are_asked_for() {
    let world = World::new("sem-metrics");
    let there = world.pod(2, 10);
    let local = json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"});
    world.put("local", &Front::new("local", 1).with(local).manifests(&[&there]));
    let outside_alone = json!({"externalTrafficPolicy": "Local"});
    world.put("outside", &Front::new("outside", 2).with(outside_alone).manifests(&[&there]));
    world.put("empty", &Front::new("empty", 3).manifests(&[]));
    let scrape = |node: u8| {
        let target = SocketAddr::new(address("127.0.0.1"), 10249);
        let (status, _, body) = http(world.node(node), target, "/metrics");
        assert_eq!(status, 200);
        body
    };
    let _agents = [world.agent(1, &[TC, &["--kube-proxy-metrics"]].concat()), world.agent(2, TC)];
    assert!(!scrape(2).contains("kubeproxy_"), "nobody asked for them");
    for (path, said) in [("/healthz", "ok"), ("/proxyMode", "lb")] {
        let target = SocketAddr::new(address("127.0.0.1"), 10249);
        let (status, _, body) = http(world.node(1), target, path);
        assert_eq!((status, body.as_str()), (200, said), "{path}");
    }
    let body = scrape(1);
    let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
    let silent = |policy: &str| {
        let series = format!("{name}{{traffic_policy=\"{policy}\"}} ");
        let line = body.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap_or_else(|| panic!("no {series} in {body}")).parse::<f64>().unwrap()
    };
    // Three ports of each Service, in whatever families.
    assert_eq!([silent("internal"), silent("external")], [3.0, 6.0]);
    for line in [
        "# TYPE kubeproxy_network_programming_duration_seconds histogram",
        "kubeproxy_sync_proxy_rules_service_changes_pending 0.0",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0.0",
        "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge",
        "# TYPE kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds gauge",
    ] {
        assert!(body.lines().any(|found| found == line), "{line} in\n{body}");
    }
    let series = |name: &str| {
        let value = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {body}")).parse::<f64>().unwrap()
    };
    assert!(series("kubeproxy_sync_proxy_rules_duration_seconds_count") >= 1.0);
    assert!(series("kubeproxy_sync_proxy_rules_service_changes_total") >= 3.0);
    assert!(series("kubeproxy_sync_proxy_rules_endpoint_changes_total") >= 2.0);
}
