//! Nodes as they are: behind an overlay, with the firewall of a network plug-in, with cards that
//! finish checksums and segments, and with neighbours that change.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use lb_userspace::lab::{Fate, Held, Host, PATIENCE, Tunnel, link};
use tokio::net::TcpSocket;

use super::{
    objects::Front,
    sockets::{exchange, udp_socket},
    world::{FAMILIES, Over, World, address, node_address, pod_net, there_and_back},
};

const NATIVE: &[&str] = &["--xdp-mode", "native"];
const TC: &[&str] = &["--xdp-mode", "off"];
const OFTEN: Duration = Duration::from_millis(20);
const MEGABYTE: usize = 1_000_000;

/// Node 1's and node 2's ends of the overlay.
fn overlay_address(node: u8, family: usize) -> String {
    [format!("10.200.0.{node}"), format!("fd00:200::{node}")][family].clone()
}

#[test]
fn nodes_joined_by_vxlan_reach_each_others_pods_over_it() {
    let world = World::bare("vxlan");
    assert!(link::has_vxlan(world.node(1)), "this kernel is built without VXLAN");
    for (own, other) in [(1, 2), (2, 1)] {
        let node = world.node(own);
        let [local, remote] = [own, other].map(|number| node_address(number, 0));
        link::vxlan(node, "vx0", 1, local, remote).unwrap();
        for (family, length) in [24, 64].into_iter().enumerate() {
            node.address("vx0", &format!("{}/{length}", overlay_address(own, family))).unwrap();
            let gateway = address(&overlay_address(other, family));
            node.route(&pod_net(other, family), gateway).unwrap();
        }
    }
    let (there, shell) = (world.pod(2, 10), world.pod(1, 20));
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&there]));
    let _agent = world.agent(1, NATIVE);
    for family in FAMILIES {
        for target in web.outside(family) {
            for over in Over::BOTH {
                assert_eq!(over.who(&world.client, target), there.name, "{over:?} {target}");
                // The node's address on the overlay, for that is the way back.
                let peer = over.peer(&world.client, target).unwrap();
                assert_eq!(peer.ip().to_string(), overlay_address(1, family), "{over:?} {target}");
            }
        }
        assert_eq!(Over::Udp.who(&shell.host, web.inside(family)), there.name);
        // The client's segments fit its own link and not the tunnel, until it is told.
        there_and_back(&world.client, web.bulk(family)[0], MEGABYTE);
    }
}

/// As WireGuard and IPIP are: packets on such devices begin with their IP header.
#[test]
fn nodes_joined_by_a_tunnel_without_ethernet_reach_each_others_pods_over_it() {
    let world = World::bare("raw");
    let ends = [1, 2].map(|number| (world.node(number), "tun0"));
    let _tunnel = Tunnel::between(ends[0], ends[1]).unwrap();
    for (own, other) in [(1, 2), (2, 1)] {
        let node = world.node(own);
        for (family, length) in [24, 64].into_iter().enumerate() {
            node.address("tun0", &format!("{}/{length}", overlay_address(own, family))).unwrap();
            let net = pod_net(other, family);
            node.ip(&format!("route add {net} dev tun0")).unwrap();
        }
    }
    let (here, there, shell) = (world.pod(1, 10), world.pod(2, 10), world.pod(2, 20));
    let fronts = [(Front::new("here", 1), &here), (Front::new("there", 2), &there)];
    for (front, pod) in &fronts {
        world.put(front.name, &front.manifests(&[pod]));
    }
    let agent = world.agent(1, NATIVE);
    let status = agent.json(["status"]).unwrap();
    let shown = status["lines"].to_string();
    assert!(shown.contains("tun0 (tc)"), "{shown}");
    // In over Ethernet and on by the tunnel; the answers the other way.
    for (front, pod) in &fronts {
        for family in FAMILIES {
            for target in front.outside(family) {
                for over in Over::BOTH {
                    assert_eq!(over.who(&world.client, target), pod.name, "{over:?} {target}");
                }
            }
            there_and_back(&world.client, front.bulk(family)[1], MEGABYTE);
        }
    }
    // In by the tunnel: to a backend here, whose answers leave by it, and back to where it came from.
    for net in ["198.51.100.0/24", "2001:db8:51::/64", "10.96.0.0/16", "fd00:10:96::/112"] {
        world.node(2).ip(&format!("route add {net} dev tun0")).unwrap();
    }
    for (front, pod) in &fronts {
        for family in FAMILIES {
            for target in &front.outside(family)[1..] {
                for over in Over::BOTH {
                    assert_eq!(over.who(&shell.host, *target), pod.name, "{over:?} {target}");
                }
            }
            there_and_back(&shell.host, front.bulk(family)[1], MEGABYTE);
        }
    }
    // What nobody serves is refused at once.
    for family in FAMILIES {
        let unserved = SocketAddr::new(fronts[0].0.cluster_ip(family), 9);
        let error = shell.host.run(|| TcpStream::connect_timeout(&unserved, PATIENCE)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{unserved}");
    }
}

/// What network plug-ins put on their nodes.
const FIREWALL: &str = "
table inet plugin {
    chain input {
        type filter hook input priority filter; policy accept;
        ct state invalid drop
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
        ip saddr 10.244.0.0/16 accept
        ip daddr 10.244.0.0/16 accept
        ip6 saddr fd00:10:244::/48 accept
        ip6 daddr fd00:10:244::/48 accept
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
        ip6 saddr fd00:10:244::/48 ip6 daddr != fd00:10:244::/48 masquerade
    }
}";

fn firewall(node: &Host) {
    let mut nft = node.command("nft").unwrap();
    let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(FIREWALL.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft");
    let filters = ["all", "default", "eth0", "pods"]
        .map(|interface| format!("net.ipv4.conf.{interface}.rp_filter"));
    let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), "1")).collect();
    node.sysctls(&filters).unwrap();
}

fn flush_conntrack(node: &Host) {
    for family in ["ipv4", "ipv6"] {
        run(node.command("conntrack").unwrap().args(["-F", "-f", family]));
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

#[test]
fn a_network_plug_ins_firewall_and_a_flushed_conntrack_disturb_nobody_through_xdp() {
    plug_in("cni-xdp", NATIVE);
}

#[test]
fn a_network_plug_ins_firewall_and_a_flushed_conntrack_disturb_nobody_through_tc_alone() {
    plug_in("cni-tc", TC);
}

fn plug_in(label: &str, mode: &[&str]) {
    let world = World::new(label);
    let (here, there) = (world.pod(1, 10), world.pod(2, 10));
    world.nodes.iter().for_each(firewall);
    let fronts = [(Front::new("here", 1), &here), (Front::new("there", 2), &there)];
    for (front, pod) in &fronts {
        world.put(front.name, &front.manifests(&[pod]));
    }
    let _agent = world.agent(1, mode);
    for (front, pod) in &fronts {
        for family in FAMILIES {
            let targets = front.outside(family);
            for target in targets {
                let answers = Over::BOTH.map(|over| over.who(&world.client, target));
                assert_eq!(answers, [&pod.name; 2].map(Clone::clone), "{target}");
            }
            // In mid-flow: the client speaks next, over what it already has.
            let mut stream = dial(&world.client, front.bulk(family)[1]);
            let socket = udp_socket(&world.client, targets[0].ip());
            for round in 0..4 {
                echo(&mut stream, b"still there?");
                let told = exchange(&socket, targets[0]).unwrap();
                assert_eq!(told, (pod.name.clone(), targets[0]), "round {round}");
                world.nodes.iter().for_each(flush_conntrack);
            }
        }
    }
}

fn dial(from: &Host, target: SocketAddr) -> TcpStream {
    let stream = from.run(|| TcpStream::connect_timeout(&target, PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn echo(stream: &mut TcpStream, said: &[u8]) {
    stream.write_all(said).unwrap();
    let mut heard = vec![0; said.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, said);
}

#[test]
fn megabytes_pass_tc_egress_with_checksums_and_segments_left_to_the_card() {
    let world = World::new("offload");
    let pod = world.pod(1, 10);
    // Checksums stay unfinished and segments whole from the pod to the last cable, where both are
    // finished; the client's own stack then checks the sums.
    for end in [(&pod.host, "eth0"), (world.node(1), "eth0")] {
        ethtool(end, &["tx", "on", "tso", "on", "gso", "on"]);
    }
    // An XDP program at the other end would switch segmentation off here.
    world.router().ip("link set dev n1 xdp off\nlink set dev client xdp off").unwrap();
    ethtool((world.router(), "client"), &["tx", "off", "tso", "off", "gso", "off"]);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let _agent = world.agent(1, TC);
    for family in FAMILIES {
        let before = sent_on_uplink(&world);
        there_and_back(&world.client, web.bulk(family)[1], 10 * MEGABYTE);
        let after = sent_on_uplink(&world);
        let [bytes, packets] = [0, 1].map(|at| after[at] - before[at]);
        assert!(bytes > 10_000_000, "{bytes} bytes");
        assert!(bytes / packets > 1600, "{packets} packets of {bytes} bytes: none was whole");
    }
}

fn ethtool((host, interface): (&Host, &str), features: &[&str]) {
    run(host.command("ethtool").unwrap().args(["-K", interface]).args(features));
}

/// Bytes and packets that have left node 1.
fn sent_on_uplink(world: &World) -> [u64; 2] {
    let mut ip = world.node(1).command("ip").unwrap();
    let output = ip.args(["-json", "-stats", "link", "show", "eth0"]).output().unwrap();
    let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    ["bytes", "packets"].map(|what| links[0]["stats64"]["tx"][what].as_u64().unwrap())
}

#[test]
fn one_client_port_to_two_addresses_of_a_local_backend_is_two_flows() {
    let world = World::new("same-port");
    let pod = world.pod(1, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let _agent = world.agent(1, TC);
    for family in FAMILIES {
        let targets = web.outside(family);
        // One socket, three addresses: each answer comes from the one that was asked.
        let socket = udp_socket(&world.client, targets[0].ip());
        for target in targets.into_iter().cycle().take(9) {
            assert_eq!(exchange(&socket, target).unwrap(), (pod.name.clone(), target));
        }
        let port = 45_000 + family as u16;
        let mut streams = web.bulk(family).map(|to| dial_from(&world.client, port, to));
        for round in ["one", "two", "three"] {
            streams.iter_mut().for_each(|stream| echo(stream, round.as_bytes()));
        }
    }
}

/// A connection from that port, which others may use as well.
fn dial_from(from: &Host, port: u16, target: SocketAddr) -> TcpStream {
    let any = if target.is_ipv4() { "0.0.0.0" } else { "::" };
    let stream = from.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = match target {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::new(address(any), port))?;
            tokio::time::timeout(PATIENCE, socket.connect(target)).await??.into_std()
        })
    });
    let stream = stream.unwrap_or_else(|error: std::io::Error| panic!("{target}: {error}"));
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn a_neighbour_that_changes_its_address_is_followed_while_no_agent_runs_through_xdp() {
    neighbour_changes("neighbour-xdp", NATIVE);
}

#[test]
fn a_neighbour_that_changes_its_address_is_followed_while_no_agent_runs_through_tc_alone() {
    neighbour_changes("neighbour-tc", TC);
}

/// Another card takes over on node 2, and says so once, as they do.
fn neighbour_changes(label: &str, mode: &[&str]) {
    let world = World::new(label);
    let pod = world.pod(2, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let mut agent = world.agent(1, mode);
    let held =
        FAMILIES.map(|family| Held::open(&world.client, web.outside(family)[0], 4, OFTEN).unwrap());
    agent.kill().unwrap();
    let announce =
        [("net.ipv4.conf.eth0.arp_notify", "1"), ("net.ipv6.conf.eth0.ndisc_notify", "1")];
    world.node(2).sysctls(&announce).unwrap();
    world.node(2).ip("link set dev eth0 address 02:00:00:00:22:22").unwrap();
    // A client's patience is two seconds: whoever is not answered in that time counts as silent.
    go_on(&held);
    for family in FAMILIES {
        for (over, target) in Over::BOTH.into_iter().zip(web.outside(family)) {
            assert_eq!(over.who(&world.client, target), pod.name, "{over:?} {target}");
        }
    }
    go_on(&held);
}

/// Waits until each connection has had more answers; none may have been disturbed.
#[track_caller]
pub fn go_on<const N: usize>(held: &[Held; N]) {
    for held in held {
        assert_eq!(held.settled(3).into_iter().find(|one| one.fate != Fate::Alive), None);
    }
}
