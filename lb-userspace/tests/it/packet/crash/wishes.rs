//! What Services ask for before an agent begins and after it has ended, and where.

use std::net::{IpAddr, SocketAddr};

/// What is asked for at one time: Services by name, each with its address, more of its spec, and the
/// last bytes of its endpoints' addresses, which tell the node as well.
pub(super) type Wish = &'static [(&'static str, u8, &'static str, &'static [u8])];

/// Endpoints from here on are on this node, and from [`THIRD`] on on a third one, which is new then.
pub(super) const HERE: u8 = 100;
const THIRD: u8 = 200;

pub(super) const BEFORE: Wish = &[
    ("stays", 10, "{}", &[1, 2]),
    ("grows", 11, "{}", &[3, 4]),
    ("shrinks", 12, "{}", &[5, 6, 7]),
    ("empties", 13, "{}", &[8]),
    ("goes", 14, r#"{"externalIPs": ["198.51.100.14"]}"#, &[9, 10]),
    ("changes", 15, r#"{"externalIPs": ["198.51.100.15"]}"#, &[11, 12]),
    ("leaves-its-address", 16, "{}", &[13]),
    ("has-both-families", 18, r#"{"ipFamilies": ["IPv4", "IPv6"]}"#, &[14, 15]),
    ("leaves-a-family", 19, r#"{"ipFamilies": ["IPv4", "IPv6"]}"#, &[16]),
    ("sends-datagrams", 20, r#"{"externalIPs": ["198.51.100.20"], "protocol": "UDP"}"#, &[17, 18]),
    ("comes-home", 21, r#"{"externalIPs": ["198.51.100.21"]}"#, &[19, 20]),
    ("leaves-home", 22, r#"{"externalIPs": ["198.51.100.22"]}"#, &[101, 102]),
    ("lets-others-in", 23, r#"{"type": "LoadBalancer", "ranges": ["203.0.113.0/24"]}"#, &[21, 103]),
    ("begins-to-ask", 24, r#"{"type": "LoadBalancer"}"#, &[22]),
    ("asks-no-more", 25, r#"{"type": "LoadBalancer", "ranges": ["203.0.113.0/24"]}"#, &[23]),
    (
        "forgets-its-clients",
        26,
        r#"{"externalIPs": ["198.51.100.26"], "sessionAffinity": "ClientIP"}"#,
        &[24, 25],
    ),
    (
        "closes-its-node-port",
        27,
        r#"{"type": "NodePort", "nodePort": 30027, "externalIPs": ["198.51.100.27"]}"#,
        &[50, 107],
    ),
    (
        "keeps-its-node-port",
        28,
        r#"{"type": "NodePort", "nodePort": 30028, "ipFamilies": ["IPv4", "IPv6"]}"#,
        &[51, 52],
    ),
    ("opens-a-node-port", 31, r#"{"externalIPs": ["198.51.100.31"]}"#, &[57, 109]),
    ("leaves-its-node-port", 29, r#"{"type": "NodePort", "nodePort": 30029}"#, &[53]),
];

pub(super) const AFTER: Wish = &[
    ("stays", 10, "{}", &[1, 2]),
    ("grows", 11, "{}", &[3, 4, 30, 31, 32, 33]),
    ("shrinks", 12, "{}", &[6]),
    ("empties", 13, "{}", &[]),
    ("comes", 17, r#"{"externalIPs": ["198.51.100.17"]}"#, &[9, 34]),
    (
        "changes",
        15,
        r#"{"externalIPs": ["198.51.100.15", "198.51.100.25"], "sessionAffinity": "ClientIP",
            "externalTrafficPolicy": "Local", "type": "NodePort"}"#,
        &[11, 35],
    ),
    ("takes-its-address", 16, "{}", &[36, 37]),
    ("has-both-families", 18, r#"{"ipFamilies": ["IPv4", "IPv6"]}"#, &[15, 38, 104]),
    ("leaves-a-family", 19, "{}", &[16]),
    ("sends-datagrams", 20, r#"{"externalIPs": ["198.51.100.20"], "protocol": "UDP"}"#, &[18, 39]),
    ("comes-home", 21, r#"{"externalIPs": ["198.51.100.21"]}"#, &[105, 106]),
    ("leaves-home", 22, r#"{"externalIPs": ["198.51.100.22"]}"#, &[40, 201]),
    ("lets-others-in", 23, r#"{"type": "LoadBalancer", "ranges": ["192.0.2.0/24"]}"#, &[21, 103]),
    ("begins-to-ask", 24, r#"{"type": "LoadBalancer", "ranges": ["192.0.2.0/24"]}"#, &[22]),
    ("asks-no-more", 25, r#"{"type": "LoadBalancer"}"#, &[23]),
    ("forgets-its-clients", 26, r#"{"externalIPs": ["198.51.100.26"]}"#, &[25, 41]),
    ("closes-its-node-port", 27, r#"{"externalIPs": ["198.51.100.27"]}"#, &[50, 107]),
    (
        "keeps-its-node-port",
        28,
        r#"{"type": "NodePort", "nodePort": 30028, "ipFamilies": ["IPv4", "IPv6"]}"#,
        &[52, 54, 108],
    ),
    (
        "opens-a-node-port",
        31,
        r#"{"type": "NodePort", "nodePort": 30031, "externalIPs": ["198.51.100.31"]}"#,
        &[57, 109],
    ),
    ("takes-its-node-port", 30, r#"{"type": "NodePort", "nodePort": 30029}"#, &[55, 56]),
];

/// The places where somebody serves, or did: addresses by their last bytes, in each range that Services
/// have addresses of, and ports of this node.
pub(super) fn places() -> Vec<(&'static str, SocketAddr)> {
    let v4 = |range: [u8; 3], last: u8| IpAddr::from([range[0], range[1], range[2], last]);
    let cluster = (10..=31).map(|last| v4([10, 96, 0], last));
    let external =
        [14, 15, 17, 20, 21, 22, 23, 24, 25, 26, 27, 31].map(|last| v4([198, 51, 100], last));
    let v6 = [18, 19, 28].map(|last| of_v6("fd00:96", last));
    let protocol =
        |at: &IpAddr| if *at == v4([10, 96, 0], 20) || *at == external[3] { "udp" } else { "tcp" };
    let addresses = cluster.chain(external).chain(v6);
    let node_ports = [30_027, 30_028, 30_029, 30_031].map(|port| (v4([192, 168, 0], 2), port));
    let node_ports = node_ports.into_iter().chain([(of_v6("fd00:192", 2), 30_028)]);
    addresses
        .map(|at| (protocol(&at), SocketAddr::new(at, 80)))
        .chain(node_ports.map(|at| ("tcp", at.into())))
        .collect()
}

pub(super) fn of_v6(prefix: &str, last: u8) -> IpAddr {
    format!("{prefix}::{last}").parse().unwrap()
}

/// The node that an endpoint is on.
pub(super) const fn node_of(endpoint: u8) -> &'static str {
    match endpoint {
        THIRD.. => "n3",
        HERE.. => "n1",
        _ => "n2",
    }
}
