//! Virtual machines and the like on a node: their sockets are no sockets of the node, so that their
//! packets carry service addresses, and are translated at the node's end of their cables
//! (`podInterfaces`).

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use lb_userspace::lab::{Agent, Held, PATIENCE};
use serde_json::json;

use super::{
    nodes::go_on,
    objects::{Front, PORT},
    semantics::until,
    world::{FAMILIES, Over, Pod, V4, World, node_address, there_and_back, until_shown},
};

/// What the agent is told; the ends of machines' cables are called so.
const FLAGS: &[&str] = &["--xdp-mode", "off", "--pod-interface", "tap-*"];

/// The hooks that there are, as `interface hook`.
fn hooks(agent: &Agent) -> Vec<String> {
    let listed = agent.json(["get", "interfaces"]).unwrap();
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = listed["items"].as_array().unwrap().iter();
    rows.map(|row| {
        let interface = text(row, "interface");
        assert_eq!(
            row["mode"] == "pods",
            interface.starts_with("tap-") || interface.starts_with("v-")
        );
        format!("{interface} {}", text(row, "hook"))
    })
    .collect()
}

#[test]
fn a_virtual_machine_reaches_backends_here_and_elsewhere_by_every_address() {
    let world = World::new("vm-reach");
    let (here, there) = (world.pod(1, 10), world.pod(2, 10));
    let machine = world.machine(1, 30);
    let fronts = [(Front::new("here", 1), &here), (Front::new("there", 2), &there)];
    for (front, pod) in &fronts {
        world.put(front.name, &front.manifests(&[pod]));
    }
    let _agent = world.agent(1, FLAGS);
    for (front, pod) in &fronts {
        for family in FAMILIES {
            let outside = front.outside(family);
            for target in outside.into_iter().chain([front.inside(family)]) {
                for over in Over::BOTH {
                    assert_eq!(over.who(&machine.host, target), pod.name, "{over:?} {target}");
                    // As Kubernetes has it: an external address hides who comes, if the backend is
                    // elsewhere; a ClusterIP never does.
                    let hides = pod.node == 2 && outside.contains(&target);
                    let sees =
                        if hides { node_address(1, family) } else { machine.addresses[family] };
                    let peer = over.peer(&machine.host, target).map(|peer| peer.ip());
                    assert_eq!(peer.map_err(|e| e.kind()), Ok(sees), "{over:?} {target}");
                }
            }
            for target in front.bulk(family) {
                there_and_back(&machine.host, target, 3_000_000);
            }
        }
    }
}

#[test]
fn a_virtual_machine_that_serves_is_reached_by_everybody_and_by_itself() {
    let world = World::new("vm-serves");
    let (machine, shell) = (world.machine(1, 30), world.pod(1, 20));
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&machine]));
    let _agent = world.agent(1, FLAGS);
    for family in FAMILIES {
        for over in Over::BOTH {
            for target in web.outside(family).into_iter().chain([web.inside(family)]) {
                for from in [&machine.host, &shell.host, world.node(1)] {
                    assert_eq!(over.who(from, target), machine.name, "{over:?} {target}");
                }
                let peer = over.peer(&machine.host, target).map(|peer| peer.ip());
                let node = node_address(1, family);
                assert_eq!(peer.map_err(|e| e.kind()), Ok(node), "{over:?} {target}: itself");
            }
            for target in web.outside(family) {
                assert_eq!(over.who(&world.client, target), machine.name, "{over:?} {target}");
            }
        }
        there_and_back(&machine.host, web.bulk(family)[1], 3_000_000);
    }
}

#[test]
fn a_virtual_machine_that_the_node_routes_to_is_served_and_serves_too() {
    let world = World::new("vm-routed");
    let (there, machine) = (world.pod(2, 10), world.routed_machine(1, 40));
    let (web, own) = (Front::new("web", 1), Front::new("own", 2));
    world.put("web", &web.manifests(&[&there]));
    world.put("own", &own.manifests(&[&machine]));
    let _agent = world.agent(1, FLAGS);
    for family in FAMILIES {
        for over in Over::BOTH {
            for (front, pod) in [(&web, &there), (&own, &machine)] {
                for target in front.outside(family).into_iter().chain([front.inside(family)]) {
                    assert_eq!(over.who(&machine.host, target), pod.name, "{over:?} {target}");
                }
            }
            assert_eq!(over.who(&world.client, own.outside(family)[1]), machine.name);
        }
    }
}

#[test]
fn a_virtual_machine_is_refused_as_kubernetes_says() {
    let world = World::new("vm-refused");
    let there = world.pod(2, 10);
    let machine = world.machine(1, 30);
    let empty = Front::new("empty", 1);
    let local = Front::new("local", 2).with(json!({
        "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
    }));
    world.put("empty", &empty.manifests(&[]));
    world.put("local", &local.manifests(&[&there]));
    let _agent = world.agent(1, FLAGS);
    for family in FAMILIES {
        for over in Over::BOTH {
            let fails = |target: SocketAddr| {
                let answer = over.ask(&machine.host, target);
                answer.expect_err(&format!("{over:?} {target} must not answer")).kind()
            };
            for target in empty.outside(family).into_iter().chain([empty.inside(family)]) {
                assert_eq!(fails(target), ErrorKind::ConnectionRefused, "{over:?} {target}");
            }
            let unserved = SocketAddr::new(local.cluster_ip(family), PORT + 7);
            assert_eq!(fails(unserved), ErrorKind::ConnectionRefused, "{over:?} {unserved}");
            // A policy for the outside does not hold for who is inside, and hides nobody.
            for target in local.outside(family) {
                let peer = over.peer(&machine.host, target).map(|peer| peer.ip());
                assert_eq!(peer.map_err(|e| e.kind()), Ok(machine.addresses[family]), "{target}");
            }
        }
        let silent = Over::Tcp.ask(&machine.host, local.inside(family)).unwrap_err();
        assert!(matches!(silent.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{silent}");
    }
}

#[test]
fn machines_that_come_are_served_and_what_is_left_of_those_that_went_is_removed() {
    let world = World::new("vm-follow");
    let there = world.pod(2, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&there]));
    let mut agent = world.agent(1, FLAGS);
    assert!(!hooks(&agent).iter().any(|hook| hook.starts_with("tap-")));
    let first = world.machine(1, 30);
    let served = |machine: &Pod| {
        FAMILIES
            .iter()
            .all(|&family| Over::Tcp.who(&machine.host, web.inside(family)) == there.name)
    };
    until("the first is served", || served(&first));
    let second = world.machine(1, 31);
    until("the second is served too", || served(&second));
    until_shown(&agent, &["status"], "shown with the other hooks", |document| {
        let mut lines = document["lines"].as_array().unwrap().iter();
        let line = lines.find(|line| line["key"] == "Pod interfaces").unwrap();
        line["detail"] == "2 tap-*" && line["level"] == "ok"
    });

    // Packets do not need the agent, and the next one finds everything.
    let every = Duration::from_millis(50);
    let held = [Held::open(&second.host, web.inside(V4), 10, every).unwrap()];
    agent.kill().unwrap();
    go_on(&held);
    assert!(served(&second), "new connections while nobody is there");
    world.node(1).ip("link del tap-30").unwrap();
    agent.restart().unwrap();
    let of = |tap: &str| hooks(&agent).into_iter().filter(|it| it.contains(tap)).count();
    until("what was the first machine's is gone", || of("tap-30") + of("gone") == 0);
    assert_eq!(of("tap-31"), 2);
    go_on(&held);

    // An interface that is called otherwise is none of a machine any more.
    world.node(1).ip("link set tap-31 down\nlink set tap-31 name wire\nlink set wire up").unwrap();
    until("it is left alone", || of("wire") + of("tap-31") == 0);
}

#[test]
fn a_machine_is_served_by_filters_where_the_kernel_has_no_links_and_none_is_left_behind() {
    let world = World::new("vm-filters");
    let (there, machine) = (world.pod(2, 10), world.machine(1, 30));
    let (web, own) = (Front::new("web", 1), Front::new("own", 2));
    world.put("web", &web.manifests(&[&there]));
    world.put("own", &own.manifests(&[&machine]));
    let mut options = world.options(FLAGS);
    options.variables.push(("LB_TC_FILTERS", "1".to_owned()));
    let _agent = Agent::start(&world.lab, world.node(1), options).unwrap();
    for family in FAMILIES {
        for over in Over::BOTH {
            assert_eq!(over.who(&machine.host, web.inside(family)), there.name, "{over:?}");
            assert_eq!(over.who(&machine.host, own.inside(family)), machine.name, "{over:?}");
        }
    }
    let places = || {
        let tc = world.node(1).command("tc").unwrap().args(["qdisc", "show"]).output().unwrap();
        String::from_utf8(tc.stdout).unwrap().matches("clsact").count()
    };
    assert_eq!(places(), 2, "at the uplink and at the machine");
    world.node(1).ip("link set tap-30 down\nlink set tap-30 name wire\nlink set wire up").unwrap();
    until("it is none of a machine any more", || places() == 1);
}

#[test]
fn ordinary_pods_may_be_behind_the_same_interfaces() {
    let world = World::new("vm-pods");
    let (here, there, shell) = (world.pod(1, 10), world.pod(2, 10), world.pod(1, 20));
    let machine = world.machine(1, 30);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&here, &there]));
    let flags = [FLAGS, &["--pod-interface", "v-*"]].concat();
    let agent = world.agent(1, &flags);
    assert_eq!(hooks(&agent).iter().filter(|hook| hook.starts_with("v-")).count(), 4);
    for family in FAMILIES {
        for over in Over::BOTH {
            for target in web.outside(family).into_iter().chain([web.inside(family)]) {
                for from in [&shell.host, &here.host, &machine.host, world.node(1)] {
                    let served = over.who(from, target);
                    assert!([&here.name, &there.name].contains(&&served), "{target}: {served}");
                }
            }
        }
        // A pod's own sockets still talk to the backend itself, and it to them.
        let direct = SocketAddr::new(here.addresses[family], super::world::POD_PORT);
        assert_eq!(Over::Tcp.who(&shell.host, direct), here.name);
    }
}

#[test]
fn one_socket_of_a_machine_keeps_the_backend_of_its_flow_until_it_does_not_serve() {
    let world = World::new("vm-udp");
    let pods = [world.pod(1, 10), world.pod(2, 10)];
    let machine = world.machine(1, 30);
    let dns = Front::new("dns", 1);
    world.put("dns", &dns.manifests(&[&pods[0], &pods[1]]));
    let _agent = world.agent(1, FLAGS);
    for family in FAMILIES {
        world.put("dns", &dns.manifests(&[&pods[0], &pods[1]]));
        let target = dns.inside(family);
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = machine.host.run(|| UdpSocket::bind(any)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        machine.host.run(|| socket.connect(target)).unwrap();
        let ask = || {
            socket.send(b"who?").unwrap();
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).replace(" who?", "")
        };
        let first = ask();
        for _ in 0..20 {
            assert_eq!(ask(), first);
        }
        let stays = pods.iter().find(|pod| pod.name != first).unwrap();
        world.put("dns", &dns.manifests(&[stays]));
        until("the other answers", || ask() == stays.name);
    }
}
