//! The machines: two nodes behind a switch, and the world outside.
//!
//! ```text
//!   pods 10.244.1.0/24        pods 10.244.2.0/24
//!        n1 192.168.10.1           n2 192.168.10.2
//!             └────────── switch ──────────┘
//!                           │ 203.0.113.254
//!            client 203.0.113.9    physical 203.0.113.20
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use lb_userspace::lab::{Host, Lab, link};

/// The bridge that a node's pods are plugged into.
pub(crate) const POD_BRIDGE: &str = "pods";

/// Ranges that the agents are told of.
pub(crate) const POD_RANGES: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];
pub(crate) const SERVICE_RANGES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];

/// The Service's addresses, as its manifest has them.
pub(crate) const WEB_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 80)), 80);
pub(crate) const WEB_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x80)), 80);
pub(crate) const DB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 54)), 5432);
pub(crate) const NODE_PORT: u16 = 30080;

/// Every machine that is no pod.
pub(crate) struct World {
    pub(crate) nodes: [Host; 2],
    pub(crate) client: Host,
    pub(crate) physical: Host,
    // It only has to be there.
    _switch: Host,
}

impl World {
    pub(crate) fn build(lab: &Lab) -> Result<Self> {
        let switch = lab.host("switch")?;
        switch.forward()?;
        link::bridge(&switch, "inner")?;
        switch.address("inner", "192.168.10.254/24")?;
        switch.address("inner", "fd00:192:168::fe/64")?;
        link::bridge(&switch, "outer")?;
        switch.address("outer", "203.0.113.254/24")?;
        switch.address("outer", "2001:db8::fe/64")?;
        let nodes = [node(lab, &switch, 1)?, node(lab, &switch, 2)?];
        let client = outsider(lab, &switch, "client", 9)?;
        let physical = outsider(lab, &switch, "physical", 20)?;
        Ok(Self { nodes, client, physical, _switch: switch })
    }
}

/// A node's address on the segment that the nodes share.
pub(crate) fn node_address(number: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0x192, 0x168, 0, 0, 0, 0, u16::from(number)).into()
    } else {
        Ipv4Addr::new(192, 168, 10, number).into()
    }
}

fn node(lab: &Lab, switch: &Host, number: u8) -> Result<Host> {
    let node = lab.node(&format!("n{number}"))?;
    node.forward()?;
    plug(&node, switch, "inner")?;
    node.address("eth0", &format!("{}/24", node_address(number, false)))?;
    node.address("eth0", &format!("{}/64", node_address(number, true)))?;
    node.route("default", Ipv4Addr::new(192, 168, 10, 254).into())?;
    node.route("default", Ipv6Addr::new(0xfd00, 0x192, 0x168, 0, 0, 0, 0, 0xfe).into())?;

    link::bridge(&node, POD_BRIDGE)?;
    let ranges = pod_ranges(number);
    for (range, own) in ranges.iter().zip([".1/24", "::1/64"]) {
        node.address(POD_BRIDGE, &format!("{range}{own}"))?;
    }
    let other = 3 - number;
    for (range, end, v6) in pod_routes(other) {
        node.route(&format!("{range}{end}"), node_address(other, v6))?;
    }
    for (range, end, v6) in pod_routes(number) {
        switch.route(&format!("{range}{end}"), node_address(number, v6))?;
    }
    Ok(node)
}

/// The fixed part of the addresses of a node's pods, of either family.
pub(crate) fn pod_ranges(node: u8) -> [String; 2] {
    [format!("10.244.{node}"), format!("fd00:10:244:{node}")]
}

fn pod_routes(node: u8) -> [(String, &'static str, bool); 2] {
    let [v4, v6] = pod_ranges(node);
    [(v4, ".0/24", false), (v6, "::/64", true)]
}

fn outsider(lab: &Lab, switch: &Host, name: &str, number: u8) -> Result<Host> {
    let host = lab.host(name)?;
    plug(&host, switch, "outer")?;
    host.address("eth0", &format!("203.0.113.{number}/24"))?;
    host.address("eth0", &format!("2001:db8::{number}/64"))?;
    host.route("default", Ipv4Addr::new(203, 0, 113, 254).into())?;
    host.route("default", Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe).into())?;
    Ok(host)
}

/// A cable to the switch, fit for XDP at the host's end.
fn plug(host: &Host, switch: &Host, bridge: &str) -> Result<()> {
    link::plug((host, "eth0"), (switch, bridge), host.name())?;
    link::whole_checksums((host, "eth0"))?;
    link::takes_xdp((switch, host.name()))
}
