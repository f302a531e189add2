//! Small hops on long ways: connections find out what fits, through the address translation, and
//! datagrams that fit nowhere travel in parts.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use lb_userspace::lab::{Host, PATIENCE, Server};

use super::{
    objects::Front,
    world::{FAMILIES, Pod, World, address},
};
use crate::support::{counted, full_size};

const NATIVE: &[&str] = &["--xdp-mode", "native"];
const TC: &[&str] = &["--xdp-mode", "off"];

/// Ten megabytes there, and the same back.
const LENGTH: usize = 10_000_000;
/// Where pods send back what they get.
const ECHO: u16 = 9090;

/// A world with one Service, whose backend on `node` sends back what it gets.
struct Story {
    world: World,
    web: Front,
    pod: Pod,
    _echo: Server,
}

impl Story {
    fn new(label: &str, node: u8) -> Self {
        let world = World::new(label);
        let pod = world.pod(node, 10);
        let any = SocketAddr::new(address("::"), ECHO);
        let echo = Server::tcp_echo(&pod.host, any).unwrap();
        let web = Front::new("web", 1);
        let objects = serde_json::json!({
            "apiVersion": "v1", "kind": "List", "items": web.manifests(&[&pod]),
        });
        world.put_text("web.json", &objects.to_string().replace("8080", &ECHO.to_string()));
        Self { world, web, pod, _echo: echo }
    }
}

/// What came back of [`LENGTH`] bytes, and whether it was what went there.
fn echoed(from: &Host, to: SocketAddr) -> io::Result<(usize, bool)> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, 10 * PATIENCE)?;
        stream.set_read_timeout(Some(20 * PATIENCE))?;
        stream.set_write_timeout(Some(20 * PATIENCE))?;
        let mut writer = stream.try_clone()?;
        let sent: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
        thread::scope(|scope| {
            let write = scope.spawn(|| {
                writer.write_all(&sent)?;
                writer.shutdown(Shutdown::Write)
            });
            let mut back = Vec::with_capacity(LENGTH);
            stream.read_to_end(&mut back)?;
            write.join().expect("a writer ends")?;
            Ok((back.len(), back == sent))
        })
    })
}

/// What fits through the small hops.
const SMALL: u32 = 1280;

/// Makes a hop of so few bytes of this interface, and tells nobody else of it.
fn narrow(host: &Host, interface: &str) {
    host.ip(&format!("link set dev {interface} mtu {SMALL}")).unwrap();
}

/// What this host knows of how much fits on its way there.
fn known_mtu(host: &Host, to: SocketAddr) -> Option<u32> {
    let mut ip = host.command("ip").unwrap();
    let output = ip.args(["route", "get", &to.ip().to_string()]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let mut words = told.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1).map(|mtu| mtu.parse().unwrap())
}

/// Makes this host know nothing of how much fits on any way.
fn forget_mtus(host: &Host) {
    for family in ["-4", "-6"] {
        let mut ip = host.command("ip").unwrap();
        assert!(ip.args([family, "route", "flush", "cache"]).status().unwrap().success());
    }
}

/// The same as [`echoed`], and how long after it began the client knew of the small hop that its bytes
/// meet.
fn echoed_and_told(from: &Host, to: SocketAddr) -> (io::Result<(usize, bool)>, Option<Duration>) {
    assert_eq!(known_mtu(from, to), None, "{to}: nothing is known before the first bytes");
    thread::scope(|scope| {
        let begun = Instant::now();
        let transfer = scope.spawn(|| echoed(from, to));
        // Nobody tells of what a host learns about a path. Asking takes its time by itself.
        let told = loop {
            let ends = transfer.is_finished();
            let told = (known_mtu(from, to) == Some(SMALL)).then(|| begun.elapsed());
            if told.is_some() || ends {
                break told;
            }
        };
        (transfer.join().expect("a transfer ends"), told)
    })
}

/// The hop to the client and the hop to the pod are small: answers meet one, what was sent the other.
fn ten_megabytes(label: &str, node: u8, mode: &[&str]) {
    let story = Story::new(label, node);
    narrow(story.world.router(), "outer");
    narrow(story.world.node(node), "pods");
    let _agent = story.world.agent(1, mode);
    for family in FAMILIES {
        for target in story.web.outside(family) {
            // It would ask the client for small segments, and nobody would have to be told.
            forget_mtus(&story.pod.host);
            let (back, told) = echoed_and_told(&story.world.client, target);
            let back = back.unwrap_or_else(|error| panic!("{target}: {error}"));
            assert_eq!(back, (LENGTH, true), "{target} of {}", story.pod.name);
            let told = told.unwrap_or_else(|| panic!("{target}: the client was told of no MTU"));
            counted(1, "path MTUs that the client came to know");
            counted(told.as_millis() as usize, "ms until it knew them, all together");
            if full_size() {
                assert!(told <= Duration::from_secs(2), "{target}: told after {told:?}");
            }
        }
    }
}

#[test]
fn ten_megabytes_pass_small_hops_on_both_sides_to_a_remote_backend_through_xdp() {
    ten_megabytes("mtu-remote-xdp", 2, NATIVE);
}

#[test]
fn ten_megabytes_pass_small_hops_on_both_sides_to_a_remote_backend_through_tc_alone() {
    ten_megabytes("mtu-remote-tc", 2, TC);
}

#[test]
fn ten_megabytes_pass_small_hops_on_both_sides_to_a_local_backend_through_xdp() {
    ten_megabytes("mtu-local-xdp", 1, NATIVE);
}

#[test]
fn ten_megabytes_pass_small_hops_on_both_sides_to_a_local_backend_through_tc_alone() {
    ten_megabytes("mtu-local-tc", 1, TC);
}

#[test]
fn a_way_out_that_is_small_itself_is_told_by_this_node() {
    for (label, mode) in [("mtu-out-xdp", NATIVE), ("mtu-out-tc", TC)] {
        let story = Story::new(label, 2);
        for (family, flag) in ["-4", "-6"].into_iter().enumerate() {
            let net = super::world::pod_net(2, family);
            let via = super::world::node_address(2, family);
            let node = story.world.node(1);
            let mut ip = node.command("ip").unwrap();
            ip.args([flag, "route", "change", &net, "via", &via.to_string(), "mtu", "1280"]);
            assert!(ip.status().unwrap().success(), "a route of 1280 bytes");
        }
        let _agent = story.world.agent(1, mode);
        for family in FAMILIES {
            let target = story.web.outside(family)[1];
            let back = echoed(&story.world.client, target).unwrap();
            assert_eq!(back, (LENGTH, true), "{target} {mode:?}");
        }
    }
}

/// What comes back of a datagram of 8 kB.
fn datagram(from: &Host, to: SocketAddr) -> io::Result<Vec<u8>> {
    from.run(|| {
        let any: SocketAddr = if to.is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(5 * PATIENCE))?;
        socket.connect(to)?;
        socket.send(&question())?;
        let mut answer = vec![0; 65_536];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    })
}

fn question() -> Vec<u8> {
    (0..8192).map(|at| (at % 251) as u8).collect()
}

/// Both the datagram and its answer are longer than any link takes.
fn fragments(label: &str, node: u8, mode: &[&str]) {
    let world = World::new(label);
    let pods = [world.pod(node, 10), world.pod(node, 11)];
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pods[0], &pods[1]]));
    let _agent = world.agent(1, mode);
    // A busy machine may lose a datagram; rules that lose them would lose more than one.
    let mut lost = 0;
    for family in FAMILIES {
        for target in web.outside(family) {
            for _ in 0..10 {
                let answer = match datagram(&world.client, target) {
                    Ok(answer) => answer,
                    Err(error) => {
                        lost += 1;
                        assert!(lost <= 1, "{target}: {error}");
                        continue;
                    }
                };
                let whole = pods
                    .iter()
                    .any(|pod| answer == [pod.name.as_bytes(), b" ", &question()].concat());
                assert!(whole, "{target}: {} bytes", answer.len());
            }
        }
    }
}

#[test]
fn datagrams_in_parts_arrive_whole_at_one_remote_backend_and_so_do_answers_through_xdp() {
    fragments("frag-remote-xdp", 2, NATIVE);
}

#[test]
fn datagrams_in_parts_arrive_whole_at_one_remote_backend_and_so_do_answers_through_tc_alone() {
    fragments("frag-remote-tc", 2, TC);
}

#[test]
fn datagrams_in_parts_arrive_whole_at_one_local_backend_and_so_do_answers() {
    fragments("frag-local-xdp", 1, NATIVE);
    fragments("frag-local-tc", 1, TC);
}
