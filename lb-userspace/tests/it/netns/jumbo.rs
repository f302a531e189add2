//! Jumbo frames of 9000 bytes, end to end. veth takes a native XDP program only up to the length of a
//! page, so that tc serves such an uplink alone; generic XDP gets each packet in one piece.

use lb_userspace::lab::{Agent, Host, PATIENCE, udp_ask};

use super::{
    objects::Front,
    world::{FAMILIES, Over, World, there_and_back, until_shown},
};

/// What every link of the world carries, in bytes of an IP packet.
const JUMBO: u32 = 9000;

fn widen(host: &Host, interface: &str) {
    host.ip(&format!("link set dev {interface} mtu {JUMBO}")).unwrap();
}

/// Every cable, switch and port on the way from the client to a pod of `node`.
fn widened(world: &World, node: u8, pod: &Host) {
    // The programs that let these ends take what XDP sends would hold them to a page.
    for port in ["client", "n1", "n2"] {
        world.router().ip(&format!("link set dev {port} xdpdrv off")).unwrap();
    }
    for port in ["client", "n1", "n2", "inner", "outer"] {
        widen(world.router(), port);
    }
    widen(&world.client, "eth0");
    for number in [1, 2] {
        widen(world.node(number), "eth0");
    }
    for interface in ["v-10", "pods"] {
        widen(world.node(node), interface);
    }
    widen(pod, "eth0");
}

/// Ten megabytes and whole datagrams of nearly 9000 bytes, to a backend of `node`; the agent of node 1
/// serves its uplink as `by` says.
fn jumbo(label: &str, node: u8, mode: &str, by: &str) {
    let world = World::new(label);
    let pod = world.pod(node, 10);
    widened(&world, node, &pod.host);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let options = world.options(&["--xdp-mode", mode]);
    let agent = Agent::start(&world.lab, world.node(1), options).unwrap();
    until_shown(&agent, &["status"], by, |status| {
        let lines = status["lines"].as_array().unwrap();
        lines.iter().any(|line| line["detail"].as_str().is_some_and(|text| text.contains(by)))
    });
    // As long as fits with the headers, with some to spare for the answer's name.
    let question = "x".repeat(JUMBO as usize - 100);
    for family in FAMILIES {
        there_and_back(&world.client, web.bulk(family)[1], 10_000_000);
        let target = web.outside(family)[1];
        let answer = udp_ask(&world.client, target, &question).unwrap();
        assert!(answer == format!("{} {question}", pod.name), "{} bytes", answer.len());
        assert_eq!(Over::Tcp.who(&world.client, target), pod.name, "within {PATIENCE:?}");
    }
}

#[test]
fn jumbo_frames_pass_through_tc_to_backends_here_and_elsewhere() {
    jumbo("jumbo-tc-1", 1, "off", "eth0 (tc)");
    jumbo("jumbo-tc-2", 2, "off", "eth0 (tc)");
}

#[test]
fn jumbo_frames_pass_through_generic_xdp_to_backends_here_and_elsewhere() {
    jumbo("jumbo-skb-1", 1, "generic", "eth0 (xdp generic, tc)");
    jumbo("jumbo-skb-2", 2, "generic", "eth0 (xdp generic, tc)");
}

#[test]
fn where_the_driver_has_no_xdp_for_jumbo_frames_tc_serves_alone_and_says_so() {
    jumbo("jumbo-native", 2, "native", "eth0 (tc; no XDP: the driver has none for such an MTU)");
}
