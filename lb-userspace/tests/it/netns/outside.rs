//! Clients outside the cluster: NodePorts, load-balancer and external addresses, by XDP and by tc.

use std::{collections::BTreeSet, io::ErrorKind};

use lb_userspace::lab::Host;
use serde_json::json;

use super::{
    objects::Front,
    world::{FAMILIES, Over, POD_PORT, World, address, node_address},
};

const CLIENT: [&str; 2] = ["203.0.113.9", "2001:db8::9"];

/// By native XDP with tc behind it, and by tc alone.
const NATIVE: &[&str] = &["--xdp-mode", "native"];
const TC: &[&str] = &["--xdp-mode", "off"];

#[test]
fn remote_backends_are_reached_by_every_address_through_xdp() {
    remote_backends_are_reached("out-remote-xdp", NATIVE);
}

#[test]
fn remote_backends_are_reached_by_every_address_through_tc_alone() {
    remote_backends_are_reached("out-remote-tc", TC);
}

/// They see this node's own address and a port of its range: their answers come back by it.
fn remote_backends_are_reached(label: &str, mode: &[&str]) {
    let world = World::new(label);
    let pod = world.pod(2, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let _agent = world.agent(1, mode);
    for (family, over, target) in every_way(&web) {
        assert_eq!(over.who(&world.client, target), pod.name, "{over:?} {target}");
        let peer = over.peer(&world.client, target).unwrap();
        assert_eq!(peer.ip(), node_address(1, family), "{over:?} {target}");
        assert!((1024..=29999).contains(&peer.port()), "{over:?} {target}: {peer}");
    }
}

#[test]
fn local_backends_are_reached_by_every_address_and_see_the_client_through_xdp() {
    local_backends_are_reached("out-local-xdp", NATIVE);
}

#[test]
fn local_backends_are_reached_by_every_address_and_see_the_client_through_tc_alone() {
    local_backends_are_reached("out-local-tc", TC);
}

fn local_backends_are_reached(label: &str, mode: &[&str]) {
    let world = World::new(label);
    let pod = world.pod(1, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let _agent = world.agent(1, mode);
    for (family, over, target) in every_way(&web) {
        assert_eq!(over.who(&world.client, target), pod.name, "{over:?} {target}");
        let peer = over.peer(&world.client, target).unwrap();
        assert_eq!(peer.ip(), address(CLIENT[family]), "{over:?} {target}");
    }
}

pub fn every_way(front: &Front) -> Vec<(usize, Over, std::net::SocketAddr)> {
    let ways = FAMILIES.into_iter().flat_map(|family| {
        let to = front.outside(family);
        to.into_iter().flat_map(move |to| Over::BOTH.map(|over| (family, over, to)))
    });
    ways.collect()
}

#[test]
fn backends_here_and_elsewhere_share_the_clients_of_each_address_through_xdp() {
    backends_share("out-share-xdp", NATIVE);
}

#[test]
fn backends_here_and_elsewhere_share_the_clients_of_each_address_through_tc_alone() {
    backends_share("out-share-tc", TC);
}

fn backends_share(label: &str, mode: &[&str]) {
    let world = World::new(label);
    let pods = [world.pod(1, 10), world.pod(2, 10), world.pod(2, 11)];
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pods[0], &pods[1], &pods[2]]));
    let _agent = world.agent(1, mode);
    let all: BTreeSet<String> = pods.iter().map(|pod| pod.name.clone()).collect();
    for (_, over, target) in every_way(&web) {
        // One of three stays unasked by 60 clients once in 10^10 times.
        let seen: BTreeSet<String> = (0..60).map(|_| over.who(&world.client, target)).collect();
        assert_eq!(seen, all, "{over:?} {target}");
    }
}

#[test]
fn addresses_without_endpoints_refuse_and_local_policies_stay_silent_through_xdp() {
    refusals("out-refuse-xdp", NATIVE);
}

#[test]
fn addresses_without_endpoints_refuse_and_local_policies_stay_silent_through_tc_alone() {
    refusals("out-refuse-tc", TC);
}

fn refusals(label: &str, mode: &[&str]) {
    let world = World::new(label);
    let remote = world.pod(2, 10);
    let empty = Front::new("empty", 1);
    let local = Front::new("local", 2).with(json!({"externalTrafficPolicy": "Local"}));
    world.put("empty", &empty.manifests(&[]));
    world.put("local", &local.manifests(&[&remote]));
    let _agent = world.agent(1, mode);
    for (_, over, target) in every_way(&empty) {
        assert_eq!(failure(over, &world.client, target), ErrorKind::ConnectionRefused, "{target}");
    }
    // A port that a ClusterIP does not serve, asked for from outside.
    for (family, over) in FAMILIES.into_iter().zip(Over::BOTH) {
        let target = (local.cluster_ip(family), POD_PORT).into();
        assert_eq!(failure(over, &world.client, target), ErrorKind::ConnectionRefused, "{target}");
    }
    // Silence takes a client's whole patience, so one of each transport shall do.
    for (target, over) in local.outside(0).into_iter().zip(Over::BOTH) {
        let kind = failure(over, &world.client, target);
        assert!(matches!(kind, ErrorKind::TimedOut | ErrorKind::WouldBlock), "{target}: {kind}");
    }
}

fn failure(over: Over, client: &Host, target: std::net::SocketAddr) -> ErrorKind {
    let answer = over.ask(client, target);
    answer.expect_err(&format!("{over:?} {target} must not answer")).kind()
}
