//! An agent that starts anew, and an API server that tells it only half of what the last one knew.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Service;
use lb_userspace::lab::{Fate, Held, Load, PATIENCE};

use super::traffic::{agent, endpoints, service, slice, until_served_by};
use crate::{
    netns::world::{V4, World, node_address},
    support::api_server::{ApiServer, Ask, Refusal},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_changes_nothing_before_nodes_are_listed() {
    let server = ApiServer::start().await;
    let world = tokio::task::block_in_place(|| World::new("late"));
    let (here, there) = (world.pod(1, 10), world.pod(2, 10));
    server.create_node("n1", "a", "192.168.10.1").await;
    server.create_node("n2", "b", "192.168.10.2").await;
    let web: Service = server.create(service()).await;
    // By its zone this node sends all to its own pod; without a Node it has no zone.
    server.create(slice(&endpoints(&[&here, &there], &["a", "b"]))).await;
    let (mut agent, _wire) = agent(&world, &server, &[]);
    let port = web.spec.unwrap().ports.unwrap()[0].node_port.unwrap() as u16;
    let target = SocketAddr::new(node_address(1, V4), port);
    let every = Duration::from_millis(20);
    let held = Held::open(&world.client, target, 32, every).unwrap();
    let load = Load::start(&world.client, target, every);
    tokio::task::block_in_place(|| until_served_by(&load, &[&here]));

    server.gate.refuse(Ask::StreamList, "nodes", Refusal::Wait);
    let (mut status, mut backends) = (
        agent.lb_command(["status"]).unwrap(),
        agent.lb_command(["get", "backends", "-o", "name"]).unwrap(),
    );
    let mut listed = || String::from_utf8(backends.output().unwrap().stdout).unwrap();
    let before = tokio::task::block_in_place(&mut listed);
    tokio::task::block_in_place(|| {
        agent.kill().unwrap();
        std::thread::scope(|scope| {
            let restart = scope.spawn(|| agent.restart());
            let deadline = Instant::now() + 10 * PATIENCE;
            let mut said = String::new();
            while !said.contains("not listed yet: nodes;") {
                assert!(Instant::now() < deadline && !restart.is_finished(), "{said}");
                said = String::from_utf8(status.output().unwrap().stdout).unwrap();
            }
            until_served_by(&load, &[&here]);
            assert_eq!(listed(), before, "what the maps hold");
            server.gate.open();
            restart.join().unwrap().unwrap();
        });
        until_served_by(&load, &[&here]);
    });
    let failed: Vec<_> = load.since(0).into_iter().filter(|it| it.outcome.is_err()).collect();
    assert!(failed.is_empty(), "{} failed, the first {:?}", failed.len(), failed.first());
    let disturbed = held.connections().into_iter().filter(|one| one.fate != Fate::Alive);
    assert_eq!(disturbed.collect::<Vec<_>>(), [], "connections that were there before");
}
