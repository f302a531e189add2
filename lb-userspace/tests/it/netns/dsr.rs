//! DSR over three nodes: packets go through two of them, answers through one.

use std::{env, net::SocketAddr, time::Duration};

use lb_userspace::lab::{Agent, Fate, Held, Host, allow_many_files};
use serde_json::{Value, json};

use super::{
    nodes::go_on,
    objects::{Front, NodeFacts},
    world::{FAMILIES, Over, Pod, World, address, node_address, there_and_back, until_shown},
};

const NATIVE: &[&str] = &["--xdp-mode", "native", "--forwarding", "dsr"];
const TC: &[&str] = &["--xdp-mode", "off", "--forwarding", "dsr"];
const OFTEN: Duration = Duration::from_millis(200);

/// The three agents; the last may be left out.
fn agents(world: &World, count: u8, mode: &[&str]) -> Vec<Agent> {
    (1..=count).map(|node| world.agent(node, mode)).collect()
}

/// The first addresses of each kind: NodePort of node 1, load balancer, external address.
fn targets(front: &Front) -> impl Iterator<Item = (SocketAddr, usize)> {
    FAMILIES.into_iter().flat_map(|family| front.outside(family).map(|target| (target, family)))
}

/// The client's own address.
fn client_address(family: usize) -> std::net::IpAddr {
    address(["203.0.113.9", "2001:db8::9"][family])
}

/// Asks so often that every node with a backend has had its turn; who answered.
fn answers(from: &Host, over: Over, target: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = (0..30).map(|_| over.who(from, target)).collect();
    names.sort();
    names.dedup();
    names
}

fn names(pods: &[&Pod]) -> Vec<String> {
    pods.iter().map(|pod| pod.name.clone()).collect()
}

#[test]
fn backends_of_all_nodes_answer_the_client_straight_and_see_its_address_through_xdp() {
    straight("dsr-xdp", NATIVE);
}

#[test]
fn backends_of_all_nodes_answer_the_client_straight_and_see_its_address_through_tc_alone() {
    straight("dsr-tc", TC);
}

fn straight(label: &str, mode: &[&str]) {
    let world = World::of_three(label, [true; 3]);
    let pods = [1, 2, 3].map(|node| world.pod(node, 10 * node));
    let pods: Vec<&Pod> = pods.iter().collect();
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&pods));
    let agents = agents(&world, 3, mode);
    for (target, family) in targets(&web) {
        for over in Over::BOTH {
            assert_eq!(answers(&world.client, over, target), names(&pods), "{over:?} {target}");
            let peer = over.peer(&world.client, target).unwrap();
            assert_eq!(peer.ip(), client_address(family), "{over:?} {target}");
        }
    }
    // Not one packet needed the first node's memory.
    until_shown(&agents[0], &["status"], "by DSR", |status| {
        let lines = status["lines"].as_array().unwrap();
        lines.iter().any(|line| {
            line["key"] == "Forwarding" && line["detail"] == "dsr, 3 of 3 nodes: n1, n2, n3"
        })
    });
}

#[test]
fn an_explanation_names_the_node_that_a_packet_is_sent_to() {
    let world = World::of_three("dsr-explain", [true; 3]);
    let pod = world.pod(2, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let agents = agents(&world, 2, TC);
    let target = web.outside(0)[1].to_string();
    let first = agents[0].json(["explain", "tcp", "203.0.113.9:40000", &target]).unwrap();
    assert_eq!((&first["reason"], &first["node"]), (&json!("to-node"), &json!("n2")), "{first:#}");
    let second = agents[1].json(["explain", "tcp", "203.0.113.9:40000", &target]).unwrap();
    assert_eq!(second["reason"], "to-local", "{second:#}");
}

#[test]
fn a_node_without_an_agent_is_served_by_snat_and_the_others_are_not() {
    let world = World::of_three("dsr-rest", [true, true, false]);
    let (there, bare) = (world.pod(2, 10), world.pod(3, 20));
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&there, &bare]));
    let _agents = agents(&world, 2, TC);
    for (target, family) in targets(&web) {
        for over in Over::BOTH {
            assert_eq!(answers(&world.client, over, target), names(&[&there, &bare]));
        }
        let peers = (0..30).map(|_| Over::Tcp.peer(&world.client, target).unwrap().ip());
        let mut peers: Vec<_> = peers.collect();
        peers.sort();
        peers.dedup();
        let mut expected = vec![client_address(family), node_address(1, family)];
        expected.sort();
        assert_eq!(peers, expected, "{target}");
    }
}

#[test]
fn ten_megabytes_pass_although_their_envelopes_do_not_fit_through_xdp() {
    megabytes("dsr-mtu-xdp", NATIVE);
}

#[test]
fn ten_megabytes_pass_although_their_envelopes_do_not_fit_through_tc_alone() {
    megabytes("dsr-mtu-tc", TC);
}

/// The client's packets fit every link; with an outer header they do not. And answers meet a small hop
/// on their way to the client, of which the first node, not the backend's, is told.
fn megabytes(label: &str, mode: &[&str]) {
    let world = World::of_three(label, [true; 3]);
    let pod = world.pod(2, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let _agents = agents(&world, 3, mode);
    for family in FAMILIES {
        there_and_back(&world.client, web.bulk(family)[1], 10_000_000);
    }
    world.router().ip("link set dev outer mtu 1280").unwrap();
    for family in FAMILIES {
        for target in web.bulk(family) {
            there_and_back(&world.client, target, 10_000_000);
        }
    }
}

/// How many connections each family has open in [`connections_outlive`]; `LB_DSR_FLOWS` says
/// otherwise.
fn flows() -> usize {
    env::var("LB_DSR_FLOWS").ok().and_then(|count| count.parse().ok()).unwrap_or(200)
}

#[test]
fn connections_outlive_every_change_of_the_ring_and_another_first_node_through_xdp() {
    connections_outlive("dsr-ring-xdp", NATIVE);
}

#[test]
fn connections_outlive_every_change_of_the_ring_and_another_first_node_through_tc_alone() {
    connections_outlive("dsr-ring-tc", TC);
}

/// The manifests where these pods are ready, and those take leave: they serve what they have.
fn leaving(front: &Front, ready: &[&Pod], leaving: &[&Pod]) -> Vec<Value> {
    let all: Vec<&Pod> = ready.iter().chain(leaving).copied().collect();
    let mut objects = front.manifests(&all);
    for endpoint in objects.iter_mut().filter_map(|it| it["endpoints"].as_array_mut()).flatten() {
        if leaving.iter().any(|pod| endpoint["targetRef"]["name"] == pod.name) {
            endpoint["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
        }
    }
    objects
}

/// Each change meets connections of its own, which were opened over the ring before it: a slot remembers
/// one node, see [`a_slot_remembers_one_node`].
fn connections_outlive(label: &str, mode: &[&str]) {
    allow_many_files().unwrap();
    let world = World::of_three(label, [true; 3]);
    // Ports of connections that are closed rest for a minute.
    world.client.sysctls(&[("net.ipv4.ip_local_port_range", "1024 65535")]).unwrap();
    let pods: Vec<Pod> = [1, 2, 3].map(|node| world.busy_pod(node, 10 * node)).into();
    let moved = world.busy_pod(2, 21);
    let [one, two, three] = [&pods[0], &pods[1], &pods[2]];
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[one, two]));
    let agents = agents(&world, 3, mode);
    let changes = [
        // A node is added,
        (web.manifests(&[one, two, three]), 3),
        // one is drained,
        (leaving(&web, &[one, three], &[two]), 2),
        // endpoints move from one node to another.
        (leaving(&web, &[&moved, three], &[one, two]), 1),
    ];
    for (objects, first) in changes {
        let held = FAMILIES.map(|family| {
            Held::open(&world.client, web.outside(family)[1], flows(), OFTEN).unwrap()
        });
        go_on(&held);
        world.put("web", &objects);
        agents.iter().for_each(|agent| synced(agent, &objects));
        go_on(&held);
        // And clients come to another node first.
        world.lead_to(first);
        go_on(&held);
        let all = held.iter().flat_map(Held::connections);
        assert_eq!(all.filter(|connection| connection.fate == Fate::Alive).count(), 2 * flows());
    }
    for over in Over::BOTH {
        let now = answers(&world.client, over, web.outside(0)[1]);
        let mut expected = names(&[&moved, three]);
        expected.sort();
        assert_eq!(now, expected, "{over:?}: new ones go where the ring leads now");
    }
}

#[test]
fn a_slot_remembers_one_node() {
    let world = World::of_three("dsr-twice", [true; 3]);
    let pods: Vec<Pod> = [1, 2, 3].map(|node| world.pod(node, 10 * node)).into();
    let [one, two, three] = [&pods[0], &pods[1], &pods[2]];
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[one]));
    let agents = agents(&world, 3, TC);
    let open = || {
        FAMILIES.map(|family| Held::open(&world.client, web.outside(family)[1], 8, OFTEN).unwrap())
    };
    // Every slot leads to the one node that has a pod that is ready.
    let lead_to = |ready: &Pod| {
        let others: Vec<&Pod> = pods.iter().filter(|pod| pod.name != ready.name).collect();
        let objects = leaving(&web, &[ready], &others);
        world.put("web", &objects);
        agents.iter().for_each(|agent| synced(agent, &objects));
    };
    let first = open();
    lead_to(two);
    let second = open();
    go_on(&first);
    go_on(&second);
    // Twice to another node: who was with the first is told at once, whoever came first.
    lead_to(three);
    let third = open();
    for held in first {
        assert!(held.ends().iter().all(|end| matches!(end, Fate::Reset(_))), "{:?}", held.ends());
    }
    go_on(&second);
    // And back: nobody is lost.
    lead_to(two);
    go_on(&second);
    go_on(&third);
    lead_to(three);
    go_on(&second);
    go_on(&third);
}

#[test]
fn a_change_to_snat_resets_what_other_nodes_serve_and_one_back_disturbs_nobody() {
    let world = World::of_three("dsr-snat", [true; 3]);
    let (here, there) = (world.pod(1, 10), world.pod(2, 20));
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&here, &there]));
    let mut agents = agents(&world, 3, TC);
    let open = || {
        FAMILIES.map(|family| Held::open(&world.client, web.outside(family)[1], 20, OFTEN).unwrap())
    };
    let mut change = |dsr: bool| {
        let nodes = (1..=3).map(|number| NodeFacts { number, dsr }.manifest());
        world.put("nodes", &nodes.collect::<Vec<_>>());
        for agent in &mut agents {
            agent.terminate().unwrap();
            agent.sets("--forwarding", if dsr { "dsr" } else { "snat" });
            agent.restart().unwrap();
        }
    };
    let held = open();
    change(false);
    let snat = open();
    // The first node knows the flows of its own pod; of others it never knew.
    for held in held {
        let all = held.settled(3);
        assert!(all.iter().any(|one| one.server == there.name), "{all:?}");
        for one in all {
            let is_reset = matches!(one.fate, Fate::Reset(_));
            assert_eq!(is_reset, one.server == there.name, "{one:?}");
            assert!(is_reset || one.fate == Fate::Alive, "{one:?}");
        }
    }
    go_on(&snat);
    change(true);
    go_on(&snat);
    for over in Over::BOTH {
        let both = names(&[&here, &there]);
        assert_eq!(answers(&world.client, over, web.outside(0)[1]), both, "{over:?}");
    }
}

/// Waits until an agent has these endpoints, ready or not.
fn synced(agent: &Agent, objects: &[Value]) {
    let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] == true;
    let endpoints = objects.iter().filter_map(|it| it["endpoints"].as_array()).flatten();
    let mut wanted: Vec<String> = endpoints
        .filter(ready)
        .map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned())
        .collect();
    wanted.sort();
    until_shown(agent, &["get", "backends"], "the new endpoints", |shown| {
        let rows = shown["items"].as_array().unwrap();
        let active = rows.iter().filter(|row| row["state"] == "active");
        let mut active: Vec<String> =
            active.map(|row| row["address"].as_str().unwrap().to_owned()).collect();
        active.sort();
        active.dedup();
        active == wanted
    });
}
