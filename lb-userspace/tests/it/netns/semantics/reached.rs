//! Clients that keep their backend, NodePorts that are in use, and endpoints that are nodes.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use lb_userspace::lab::{Host, Server};
use serde_json::json;

use super::{
    super::{
        objects::Front,
        world::{FAMILIES, Over, POD_PORT, Pod, V4, World, address, node_address},
    },
    TC, met, until,
};

#[test]
fn a_client_keeps_its_backend_at_every_address_until_affinity_is_switched_off() {
    let world = World::new("sem-affinity");
    let pods = [world.pod(1, 10), world.pod(2, 10), world.pod(2, 11), world.pod(1, 11)];
    let all: Vec<&Pod> = pods.iter().collect();
    let shells = [world.pod(1, 20), world.pod(1, 21)];
    let web = Front::new("web", 1).with(json!({
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}},
    }));
    world.put("web", &web.manifests(&all));
    let _agent = world.agent(1, TC);
    for family in FAMILIES {
        for over in Over::BOTH {
            for from in [&shells[0].host, &shells[1].host, world.node(1), &world.client] {
                let inside = !std::ptr::eq(from, &raw const world.client);
                let mut targets = web.outside(family).to_vec();
                targets.extend(inside.then(|| web.inside(family)));
                let everybody: BTreeSet<String> =
                    targets.iter().flat_map(|target| met(over, from, *target, 5)).collect();
                assert_eq!(everybody.len(), 1, "{over:?} {}: {everybody:?}", from.name());
            }
        }
    }
    world.put("web", &Front::new("web", 1).manifests(&all));
    until("affinity is off", || {
        met(Over::Tcp, &shells[0].host, web.inside(V4), 20).len() > 1
            && met(Over::Tcp, &world.client, web.on_node(1, V4), 20).len() > 1
    });
}

#[test]
fn a_live_node_port_is_in_use_on_the_node_and_nowhere_else() {
    let world = World::new("sem-bind");
    let (pod, shell) = (world.pod(1, 10), world.pod(1, 20));
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let _agent = world.agent(1, TC);
    let port = web.node_port();
    let bind = |host: &Host, at: &str, port: u16| {
        let at = SocketAddr::new(address(at), port);
        let result = host.run(|| TcpListener::bind(at).map(drop));
        let datagrams = host.run(|| UdpSocket::bind(at).map(drop));
        [result.map_err(|e| e.kind()), datagrams.map_err(|e| e.kind())]
    };
    let used = [Err(ErrorKind::AddrInUse); 2];
    let own = FAMILIES.map(|family| node_address(1, family).to_string());
    for at in ["0.0.0.0", "::", &own[0], &own[1]] {
        assert_eq!(bind(world.node(1), at, port), used, "{at}");
        assert_eq!(bind(world.node(1), at, port + 100), [Ok(()); 2], "{at}: another port");
    }
    assert_eq!(bind(world.node(1), "127.0.0.1", port), [Ok(()); 2], "no NodePort is there");
    assert_eq!(bind(&shell.host, "0.0.0.0", port), [Ok(()); 2], "a pod's ports are its own");
    world.put("web", &[]);
    until("the port is free again", || bind(world.node(1), "::", port) == [Ok(()); 2]);
}

#[test]
fn a_node_port_answers_at_an_address_that_the_node_got_later_and_no_longer_when_it_is_gone() {
    let world = World::new("sem-late");
    let (pod, web) = (world.pod(1, 10), Front::new("web", 1));
    world.put("web", &web.manifests(&[&pod]));
    let ranges = ["--nodeport-address", "192.168.10.0/24"];
    let _agent = world.agent(1, &[TC, &ranges].concat());
    let late = SocketAddr::new(address("192.168.10.77"), web.node_port());
    let node = world.node(1);
    node.address("eth0", "192.168.10.77/24").unwrap();
    until("it answers", || Over::Tcp.who(&world.client, late) == pod.name);
    assert_eq!(Over::Tcp.who(node, late), pod.name, "the node itself, too");
    node.ip("addr del 192.168.10.77/24 dev eth0").unwrap();
    until("it is gone", || Over::Tcp.who(node, late) != pod.name);
    assert_eq!(Over::Tcp.who(&world.client, web.on_node(1, V4)), pod.name, "others go on");
}

/// Endpoints that have their nodes' own addresses, as pods with `hostNetwork` have.
fn on_their_nodes(front: &Front, family: usize) -> serde_json::Value {
    let endpoints = [1, 2].map(|number| {
        json!({
            "addresses": [node_address(number, family)], "nodeName": format!("n{number}"),
            "conditions": {"ready": true},
        })
    });
    let kind = ["IPv4", "IPv6"][family];
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{}-{}", front.name, kind.to_lowercase()), "namespace": "it",
            "labels": {"kubernetes.io/service-name": front.name},
        },
        "addressType": kind, "endpoints": endpoints,
        "ports": [
            {"name": "http", "protocol": "TCP", "port": POD_PORT},
            {"name": "talk", "protocol": "UDP", "port": POD_PORT},
        ],
    })
}

#[test]
fn endpoints_with_their_nodes_own_addresses_are_reached_like_any_other() {
    let world = World::new("sem-hostnet");
    let shell = world.pod(1, 20);
    let at = SocketAddr::new(address("::"), POD_PORT);
    let _servers = [1, 2].map(|number| {
        let node = world.node(number);
        let name = format!("n{number}");
        (Server::http(node, at, &name).unwrap(), Server::udp(node, at, &name).unwrap())
    });
    let web = Front::new("web", 1);
    let slices = FAMILIES.map(|family| on_their_nodes(&web, family));
    world.put("web", &[&[web.service()], &slices[..]].concat());
    let _agent = world.agent(1, TC);
    let both = BTreeSet::from(["n1".to_owned(), "n2".to_owned()]);
    for family in FAMILIES {
        for over in Over::BOTH {
            for target in web.outside(family) {
                assert_eq!(met(over, &world.client, target, 30), both, "{over:?} {target}");
            }
        }
        // Over TCP: a datagram server that listens everywhere answers a pod of its node from the
        // address nearest to it, with or without a Service.
        for from in [&shell.host, world.node(1)] {
            assert_eq!(met(Over::Tcp, from, web.inside(family), 30), both, "{}", from.name());
        }
    }
}
