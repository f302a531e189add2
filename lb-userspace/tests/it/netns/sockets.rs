//! Processes on a node and in its pods: translated when they dial, and told what they dialled.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use lb_userspace::lab::{Fate, Held, Host, PATIENCE};
use serde_json::json;

use super::{
    objects::{Front, PORT},
    world::{FAMILIES, Over, POD_PORT, V4, World, address, node_address, until_shown},
};

const TC: &[&str] = &["--xdp-mode", "off"];

/// A socket of that address's family that has dialled nobody.
pub fn udp_socket(host: &Host, towards: IpAddr) -> UdpSocket {
    let any = if towards.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = host.run(|| UdpSocket::bind((address(any), 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A datagram there and its answer, from whom it claims to be.
pub fn exchange(socket: &UdpSocket, target: SocketAddr) -> io::Result<(String, SocketAddr)> {
    socket.send_to(b"who?", target)?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer)?;
    let answer = String::from_utf8_lossy(&buffer[..length]).replace(" who?", "");
    Ok((answer, from))
}

/// The same IPv4 address as an IPv6 socket dials it.
fn mapped(target: SocketAddr) -> SocketAddr {
    match target.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), target.port()),
        IpAddr::V6(_) => target,
    }
}

#[test]
fn pods_and_the_node_itself_reach_backends_here_and_elsewhere_by_every_address() {
    let world = World::new("sock-reach");
    let (here, there, shell) = (world.pod(1, 10), world.pod(2, 10), world.pod(1, 20));
    let fronts = [(Front::new("here", 1), &here), (Front::new("there", 2), &there)];
    for (front, pod) in &fronts {
        world.put(front.name, &front.manifests(&[pod]));
    }
    let _agent = world.agent(1, TC);
    for (front, pod) in &fronts {
        for family in FAMILIES {
            let outside = front.outside(family);
            for target in outside.into_iter().chain([front.inside(family)]) {
                for over in Over::BOTH {
                    // A backend sees who really dials: no source is translated.
                    let sees = shell.addresses[family];
                    let peer = over.peer(&shell.host, target).map(|peer| peer.ip());
                    assert_eq!(peer.map_err(|e| e.kind()), Ok(sees), "{over:?} {target}");
                    assert_eq!(over.who(&shell.host, target), pod.name, "{over:?} {target}");
                    assert_eq!(over.who(world.node(1), target), pod.name, "{over:?} {target}");
                }
            }
        }
    }
}

#[test]
fn sockets_are_told_the_address_that_they_dialled() {
    let world = World::new("sock-told");
    let (there, shell) = (world.pod(2, 10), world.pod(1, 20));
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&there]));
    let _agent = world.agent(1, TC);
    // IPv4, IPv6, and IPv4 as IPv6 sockets dial it.
    for target in [web.inside(0), web.inside(1), mapped(web.inside(V4))] {
        let stream = shell.host.run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), target);

        let socket = udp_socket(&shell.host, target.ip());
        let told = exchange(&socket, target).unwrap();
        assert_eq!(told, (there.name.clone(), target), "an unconnected socket");

        let socket = udp_socket(&shell.host, target.ip());
        shell.host.run(|| socket.connect(target)).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), target);
        assert_eq!(exchange_connected(&socket), there.name, "a connected socket");
    }
}

fn exchange_connected(socket: &UdpSocket) -> String {
    socket.send(b"who?").unwrap();
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).replace(" who?", "")
}

#[test]
fn one_socket_that_talks_to_many_is_told_of_each_by_the_address_that_it_dialled_last() {
    let world = World::new("sock-many");
    let (one, two) = (world.pod(2, 10), world.pod(1, 10));
    let (plain, shell) = (world.pod(2, 11), world.pod(1, 20));
    // The first and the third have one backend.
    let fronts = [Front::new("one", 1), Front::new("two", 2), Front::new("three", 3)];
    let backends = [&one, &two, &one];
    for (front, pod) in fronts.iter().zip(backends) {
        world.put(front.name, &front.manifests(&[pod]));
    }
    let _agent = world.agent(1, TC);
    let socket = udp_socket(&shell.host, Ipv6Addr::UNSPECIFIED.into());
    for family in FAMILIES.into_iter().chain(FAMILIES) {
        for (front, pod) in fronts.iter().zip(backends) {
            let target = mapped(front.inside(family));
            assert_eq!(exchange(&socket, target).unwrap(), (pod.name.clone(), target));
        }
        // A peer that is no service's is told as it is.
        let target = mapped(SocketAddr::new(plain.addresses[family], POD_PORT));
        assert_eq!(exchange(&socket, target).unwrap(), (plain.name.clone(), target));
    }
}

#[test]
fn dialling_what_nobody_serves_fails_at_once_and_says_why() {
    let world = World::new("sock-refused");
    let (there, shell) = (world.pod(2, 10), world.pod(1, 20));
    let empty = Front::new("empty", 1);
    let local = Front::new("local", 2).with(json!({
        "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
    }));
    world.put("empty", &empty.manifests(&[]));
    world.put("local", &local.manifests(&[&there]));
    let _agent = world.agent(1, TC);
    let unallocated = ["10.96.77.1", "fd00:10:96::7701"];
    for family in FAMILIES {
        for over in Over::BOTH {
            let fails = |target: SocketAddr| {
                let answer = over.ask(&shell.host, target);
                answer.expect_err(&format!("{over:?} {target} must not answer")).kind()
            };
            // Also as IPv6 sockets dial IPv4.
            let forms: [fn(SocketAddr) -> SocketAddr; 2] = [|target| target, mapped];
            for form in forms {
                for target in empty.outside(family).into_iter().chain([empty.inside(family)]) {
                    assert_eq!(fails(form(target)), ErrorKind::ConnectionRefused, "{target}");
                }
                let unserved = SocketAddr::new(local.cluster_ip(family), PORT + 7);
                assert_eq!(fails(form(unserved)), ErrorKind::ConnectionRefused);
                assert_eq!(fails(form(local.inside(family))), ErrorKind::HostUnreachable);
                let nobody = SocketAddr::new(address(unallocated[family]), PORT);
                assert_eq!(fails(form(nobody)), ErrorKind::HostUnreachable);
            }
            // A policy for the outside does not hold for who is inside.
            for target in local.outside(family) {
                assert_eq!(over.who(&shell.host, target), there.name, "{over:?} {target}");
            }
        }
    }
    // Other nodes' ports are theirs, and the loopback nobody's.
    let other = SocketAddr::new(node_address(2, V4), empty.node_port());
    assert_eq!(Over::Tcp.ask(&shell.host, other).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn an_unconnected_socket_keeps_its_backend_and_chooses_again_when_it_leaves() {
    let world = World::new("sock-again");
    let pods = [world.pod(2, 10), world.pod(2, 11)];
    let shell = world.pod(1, 20);
    let dns = Front::new("dns", 1);
    world.put("dns", &dns.manifests(&[&pods[0], &pods[1]]));
    let agent = world.agent(1, TC);
    for family in FAMILIES {
        world.put("dns", &dns.manifests(&[&pods[0], &pods[1]]));
        until_backends(&agent, 12);
        let target = dns.inside(family);
        let socket = udp_socket(&shell.host, target.ip());
        let (first, _) = exchange(&socket, target).unwrap();
        for _ in 0..20 {
            assert_eq!(exchange(&socket, target).unwrap(), (first.clone(), target));
        }
        let (leaves, stays) = if first == pods[0].name { (0, 1) } else { (1, 0) };
        world.put("dns", &dns.manifests(&[&pods[stays]]));
        until_backends(&agent, 6);
        let told = exchange(&socket, target).unwrap();
        assert_eq!(told, (pods[stays].name.clone(), target), "{} has left", pods[leaves].name);
    }
}

/// Two families, three ports: six for each pod.
fn until_backends(agent: &lb_userspace::lab::Agent, count: usize) {
    until_shown(agent, &["get", "backends"], "so many backends", |document| {
        let rows = document["items"].as_array().unwrap().iter();
        rows.filter(|row| row["state"] == "active").count() == count
    });
}

#[test]
fn backends_share_the_sockets_of_a_node() {
    let world = World::new("sock-share");
    let pods = [world.pod(1, 10), world.pod(2, 10), world.pod(2, 11)];
    let shell = world.pod(1, 20);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pods[0], &pods[1], &pods[2]]));
    let _agent = world.agent(1, TC);
    let all: BTreeSet<String> = pods.iter().map(|pod| pod.name.clone()).collect();
    for family in FAMILIES {
        for over in Over::BOTH {
            // One of three stays unasked by 60 clients once in 10^10 times.
            let target = web.inside(family);
            let seen: BTreeSet<String> = (0..60).map(|_| over.who(&shell.host, target)).collect();
            assert_eq!(seen, all, "{over:?} {target}");
        }
    }
}

/// A load balancer's address that lets in so many and no others.
fn ranged(front: &Front, ranges: &[String]) -> Front {
    front.clone().with(json!({"loadBalancerSourceRanges": ranges}))
}

/// Asks again until it is so.
fn until(is_so: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + 10 * PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::yield_now();
    }
}

#[test]
fn source_ranges_hold_for_pods_and_the_node_itself_at_the_load_balancer_s_address_alone() {
    let world = World::new("sock-ranges");
    let there = world.pod(2, 10);
    let (inside, outside) = (world.pod(1, 20), world.pod(1, 21));
    let web = Front::new("web", 1);
    let hosts = |addresses: [IpAddr; 2]| addresses.map(|address| address.to_string());
    let single =
        |address: &String| format!("{address}/{}", if address.contains(':') { 128 } else { 32 });
    let only = |addresses: [String; 2]| -> Vec<String> { addresses.iter().map(single).collect() };
    world.put("web", &ranged(&web, &only(hosts(inside.addresses))).manifests(&[&there]));
    let agent = world.agent(1, TC);
    for family in FAMILIES {
        let balancer = SocketAddr::new(web.balancer(family), PORT);
        for over in Over::BOTH {
            assert_eq!(over.who(&inside.host, balancer), there.name, "{over:?} {balancer}");
            let kept_out = over.ask(&outside.host, balancer).unwrap_err().kind();
            let silence = match over {
                Over::Tcp => ErrorKind::TimedOut,
                Over::Udp => ErrorKind::PermissionDenied,
            };
            assert_eq!(kept_out, silence, "{over:?} {balancer} from a pod outside the ranges");
            let node = over.ask(world.node(1), balancer).unwrap_err().kind();
            assert_eq!(node, ErrorKind::HostUnreachable, "{over:?} {balancer} from the node");
            // Other addresses of the Service are not guarded.
            let others = [web.inside(family), web.on_node(1, family)];
            for from in [&inside.host, &outside.host, world.node(1)] {
                for target in others {
                    assert_eq!(over.who(from, target), there.name, "{over:?} {target}");
                }
            }
        }
        let socket = udp_socket(&outside.host, balancer.ip());
        let kept_out = exchange(&socket, balancer).unwrap_err().kind();
        assert_eq!(kept_out, ErrorKind::PermissionDenied, "an unconnected socket");
        assert_eq!(exchange(&socket, web.inside(family)).unwrap().0, there.name);
    }
    let drops = agent.json(["get", "drops"]).unwrap();
    let mut reasons = drops["items"].as_array().unwrap().iter();
    assert!(reasons.any(|row| row["reason"] == "source-range"), "{drops:#}");

    // Connections that are open stay when the ranges no longer name their client.
    let balancer = SocketAddr::new(web.balancer(V4), PORT);
    let held = Held::open(&inside.host, balancer, 4, Duration::from_millis(50)).unwrap();
    let nodes = FAMILIES.map(|family| node_address(1, family).to_string());
    world.put("web", &ranged(&web, &only(nodes)).manifests(&[&there]));
    until(|| Over::Tcp.who(world.node(1), balancer) == there.name, "the node is let in");
    assert_eq!(
        Over::Udp.ask(&inside.host, balancer).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
    let exchanges = |held: &Held| held.connections().iter().map(|one| one.exchanges).min();
    let before = exchanges(&held);
    until(|| exchanges(&held) > before, "open connections go on");
    assert!(held.connections().iter().all(|one| one.fate == Fate::Alive));

    // Without ranges everybody is let in again.
    world.put("web", &web.manifests(&[&there]));
    until(|| Over::Udp.who(&outside.host, balancer) == there.name, "no ranges");
    assert_eq!(Over::Tcp.who(&outside.host, balancer), there.name);
}
