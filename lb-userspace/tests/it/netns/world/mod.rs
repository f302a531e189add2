//! Where the stories of real traffic happen: two nodes, pods on them, and a client outside. (Those of
//! DSR have a third node.)
//!
//! ```text
//!   pods 10.244.1.0/24        pods 10.244.2.0/24
//!        n1 192.168.10.1           n2 192.168.10.2
//!             └────────── router ──────────┘
//!                           │
//!                  client 203.0.113.9
//! ```
//!
//! The router sends every load-balancer address to n1, where the agent is.

mod pods;
mod traffic;

use std::{fs, net::IpAddr, path::PathBuf, time::Instant};

use lb_userspace::lab::{Agent, AgentOptions, Host, Lab, PATIENCE, link};
use serde_json::Value;

pub use self::{
    pods::{ECHO_PORT, POD_PORT, Pod},
    traffic::{Over, there_and_back},
};
use super::objects::NodeFacts;

/// Addresses that the world outside dials.
const SERVICES: [&str; 4] =
    ["198.51.100.0/24", "2001:db8:51::/64", "10.96.0.0/16", "fd00:10:96::/112"];

/// The two families, as places in pairs of addresses.
pub const V4: usize = 0;
pub const V6: usize = 1;
pub const FAMILIES: [usize; 2] = [V4, V6];

/// All machines. The lab goes last.
pub struct World {
    pub nodes: Vec<Host>,
    router: Host,
    pub client: Host,
    manifests: PathBuf,
    draft: PathBuf,
    pub lab: Lab,
}

impl World {
    /// The machines, joined; no pods yet, and manifests of the two nodes alone.
    pub fn new(label: &str) -> Self {
        let world = Self::bare(label);
        world.join_pods();
        world
    }

    /// The same with three nodes; whether the manifests say of each that it forwards by DSR.
    pub fn of_three(label: &str, dsr: [bool; 3]) -> Self {
        let world = Self::of(label, 3);
        world.join_pods();
        let nodes = (1..).zip(dsr).map(|(number, dsr)| NodeFacts { number, dsr }.manifest());
        world.put("nodes", &nodes.collect::<Vec<_>>());
        world
    }

    /// Ways from node to node for packets of pods.
    fn join_pods(&self) {
        let numbers = 1..=self.nodes.len() as u8;
        for number in numbers.clone() {
            for other in numbers.clone().filter(|other| *other != number) {
                for family in FAMILIES {
                    let net = pod_net(other, family);
                    self.node(number).route(&net, node_address(other, family)).unwrap();
                }
            }
        }
    }

    /// Two nodes without a way from one to the other for packets of pods.
    pub fn bare(label: &str) -> Self {
        Self::of(label, 2)
    }

    fn of(label: &str, count: u8) -> Self {
        let lab = Lab::new(label).unwrap();
        let router = lab.host("router").unwrap();
        router.forward().unwrap();
        for (bridge, v4, v6) in [
            ("inner", "192.168.10.254/24", "fd00:192:168::fe/64"),
            ("outer", "203.0.113.254/24", "2001:db8::fe/64"),
        ] {
            link::bridge(&router, bridge).unwrap();
            router.address(bridge, v4).unwrap();
            router.address(bridge, v6).unwrap();
        }
        let nodes: Vec<Host> = (1..=count).map(|number| node(&lab, &router, number)).collect();
        for net in SERVICES {
            let family = if net.contains(':') { V6 } else { V4 };
            router.route(net, node_address(1, family)).unwrap();
        }
        let client = lab.host("client").unwrap();
        plug(&client, &router, "outer");
        client.address("eth0", "203.0.113.9/24").unwrap();
        client.address("eth0", "2001:db8::9/64").unwrap();
        client.route("default", address("203.0.113.254")).unwrap();
        client.route("default", address("2001:db8::fe")).unwrap();
        let manifests = lab.folder().join("manifests");
        fs::create_dir(&manifests).unwrap();
        let draft = lab.folder().join("draft");
        let world = Self { nodes, router, client, manifests, draft, lab };
        let nodes = (1..=count).map(|number| NodeFacts { number, dsr: false }.manifest());
        world.put("nodes", &nodes.collect::<Vec<_>>());
        world
    }

    /// From now on packets to service addresses come to this node first.
    pub fn lead_to(&self, node: u8) {
        for net in SERVICES {
            let (flag, family) = if net.contains(':') { ("-6", V6) } else { ("-4", V4) };
            let via = node_address(node, family).to_string();
            let mut ip = self.router.command("ip").unwrap();
            ip.args([flag, "route", "replace", net, "via", &via]);
            assert!(ip.status().unwrap().success(), "a way to node {node}");
        }
    }

    /// What joins the nodes and the client.
    pub const fn router(&self) -> &Host {
        &self.router
    }

    /// A node by its number, from 1.
    pub fn node(&self, number: u8) -> &Host {
        &self.nodes[usize::from(number) - 1]
    }

    /// Replaces a file of manifests in one step; the moment when it was there to be read.
    pub fn put(&self, name: &str, objects: &[Value]) -> Instant {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.put_text(&format!("{name}.json"), &list.to_string())
    }

    /// The same with any text.
    pub fn put_text(&self, file: &str, text: &str) -> Instant {
        fs::write(&self.draft, text).unwrap();
        let moment = Instant::now();
        fs::rename(&self.draft, self.manifests.join(file)).unwrap();
        moment
    }

    /// How agents are started here, with more flags.
    pub fn options(&self, flags: &[&str]) -> AgentOptions {
        let ranges = [
            ["--pod-cidr", "10.244.0.0/16"],
            ["--pod-cidr", "fd00:10:244::/48"],
            ["--service-cidr", "10.96.0.0/16"],
            ["--service-cidr", "fd00:10:96::/112"],
            // Strangers in mid-stream are refused at once, as after the first ten minutes.
            ["--takeover", "0s"],
        ];
        let flags = ranges.iter().flatten().chain(flags);
        AgentOptions {
            binary: env!("CARGO_BIN_EXE_lb").into(),
            manifests: self.manifests.clone(),
            flags: flags.map(|&flag| flag.to_owned()).collect(),
            variables: Vec::new(),
        }
    }

    /// Starts the agent of a node, and waits until what the manifests say is in the kernel.
    pub fn agent(&self, node: u8, flags: &[&str]) -> Agent {
        let agent = Agent::start(&self.lab, self.node(node), self.options(flags)).unwrap();
        let status = agent.json(["status"]).unwrap();
        let mut lines = status["lines"].as_array().unwrap().iter();
        let uplinks = lines.find(|line| line["key"] == "Uplinks").unwrap()["detail"].as_str();
        let by = if flags.contains(&"native") { "eth0 (xdp native, tc)" } else { "eth0 (tc)" };
        assert!(uplinks.unwrap().contains(by), "{uplinks:?}");
        agent
    }
}

/// Asks the agent again, as soon as it has answered, until it shows what is waited for.
pub fn until_shown(agent: &Agent, words: &[&str], what: &str, shown: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + 10 * PATIENCE;
    loop {
        let document = agent.json(words).unwrap();
        if shown(&document) {
            return;
        }
        assert!(Instant::now() < deadline, "never {what}: {document:#}");
    }
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node's own address.
pub fn node_address(number: u8, family: usize) -> IpAddr {
    let texts = [format!("192.168.10.{number}"), format!("fd00:192:168::{number}")];
    address(&texts[family])
}

/// The range of a node's pods.
pub fn pod_net(node: u8, family: usize) -> String {
    [format!("10.244.{node}.0/24"), format!("fd00:10:244:{node}::/64")][family].clone()
}

fn pod_address(node: u8, number: u8, family: usize) -> IpAddr {
    let texts = [format!("10.244.{node}.{number}"), format!("fd00:10:244:{node}::{number:x}")];
    address(&texts[family])
}

fn node(lab: &Lab, router: &Host, number: u8) -> Host {
    let node = lab.node(&format!("n{number}")).unwrap();
    node.forward().unwrap();
    plug(&node, router, "inner");
    for (family, (length, gateway)) in
        [(24, "192.168.10.254"), (64, "fd00:192:168::fe")].into_iter().enumerate()
    {
        node.address("eth0", &format!("{}/{length}", node_address(number, family))).unwrap();
        node.route("default", address(gateway)).unwrap();
    }
    link::bridge(&node, "pods").unwrap();
    for (family, length) in [24, 64].into_iter().enumerate() {
        node.address("pods", &format!("{}/{length}", pod_address(number, 1, family))).unwrap();
    }
    node
}

/// A cable to the router, fit for XDP at the host's end.
fn plug(host: &Host, router: &Host, bridge: &str) {
    link::plug((host, "eth0"), (router, bridge), host.name()).unwrap();
    link::whole_checksums((host, "eth0")).unwrap();
    link::takes_xdp((router, host.name())).unwrap();
}
