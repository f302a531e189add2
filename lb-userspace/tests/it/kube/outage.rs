//! The API server is down for a while: no affair of traffic, but of whoever asks how old all of it is.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use lb_userspace::{
    health::node::FRESH,
    lab::{Fate, Held, Host, Load},
};
use serde_json::json;

use super::{
    agent::CONVERGED,
    traffic::{agent, endpoints, service, slice, until_served_by},
};
use crate::{
    netns::{
        semantics::http,
        world::{V4, World, node_address},
    },
    support::{api_server::ApiServer, counted, full_size},
};

const HEALTH: &str = "127.0.0.1:10256";
const METRICS: &str = "127.0.0.1:10250";

fn status(host: &Host, path: &str) -> u16 {
    http(host, HEALTH.parse().unwrap(), path).0
}

/// Seconds since the server was last heard of, as the metric says.
fn age(host: &Host) -> f64 {
    let (_, _, said) = http(host, METRICS.parse().unwrap(), "/metrics");
    let line = said.lines().find_map(|line| line.strip_prefix("lb_source_age_seconds "));
    line.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_goes_on_while_the_server_is_down_and_its_age_is_told() {
    let outage = Duration::from_secs(if full_size() { 600 } else { 3 });
    let server = ApiServer::start().await;
    let world = tokio::task::block_in_place(|| World::new("outage"));
    let (here, there) = (world.pod(1, 10), world.pod(2, 10));
    server.create_node("n1", "a", "192.168.10.1").await;
    server.create_node("n2", "b", "192.168.10.2").await;
    let web: Service = server.create(service()).await;
    server.create(slice(&endpoints(&[&here, &there], &[]))).await;
    let flags = ["--health-address", HEALTH, "--metrics-address", METRICS];
    let (agent, wire) = agent(&world, &server, &flags);
    let node = world.node(1);
    let port = web.spec.unwrap().ports.unwrap()[0].node_port.unwrap() as u16;
    let target = SocketAddr::new(node_address(1, V4), port);
    let every = Duration::from_millis(100);
    let held = Held::open(&world.client, target, 32, every).unwrap();
    let load = Load::start(&world.client, target, Duration::from_millis(20));
    let served = |by: &[_]| tokio::task::block_in_place(|| until_served_by(&load, by));
    served(&[&here, &there]);
    assert_eq!(status(node, "/readyz"), 200);

    wire.down();
    let one = json!({"endpoints": endpoints(&[&there], &[])});
    server.patch::<EndpointSlice>("web", one).await;
    let mut told = age(node);
    while told < outage.as_secs_f64() {
        // The question itself takes its time; the age that it asks for is what passes.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = age(node);
        assert!(now > told, "the age went from {told} to {now}");
        told = now;
        let ready = if now < FRESH.as_secs_f64() - 1.0 { 200 } else { 503 };
        let asked = status(node, "/readyz");
        assert!(asked == ready || (now - FRESH.as_secs_f64()).abs() < 2.0, "{asked} at {now}");
    }
    // A proxy that keeps up with what it is told is well.
    assert_eq!((status(node, "/healthz"), status(node, "/livez")), (200, 200));
    served(&[&here, &there]);

    let back = Instant::now();
    wire.up();
    served(&[&there]);
    // Each kind is watched by itself, and readiness waits for all of them to be heard of again.
    while status(node, "/readyz") != 200 {
        assert!(back.elapsed() < 12 * CONVERGED, "not ready again");
        // What is asked for tells nobody when it changes.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = back.elapsed();
    let listed = agent.json(["get", "backends"]).unwrap();
    let stale = listed["items"].as_array().unwrap().iter();
    let stale = stale.filter(|row| row["address"] == here.addresses[V4].to_string().as_str());
    assert!(stale.into_iter().all(|row| row["state"] != "active"));
    let failed = load.since(0).into_iter().filter(|request| request.outcome.is_err()).count();
    let disturbed = held.connections().into_iter().filter(|one| one.fate != Fate::Alive).count();
    counted(told as usize, "s without the server");
    counted(load.ended(), "requests meanwhile");
    counted(failed + disturbed, "failed");
    counted(took.as_millis() as usize, "ms until all was as the server said");
    assert_eq!((failed, disturbed), (0, 0));
    if full_size() {
        assert!(took <= CONVERGED, "{took:?}");
    }
}
