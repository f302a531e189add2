//! Nodes, agents, and the first Service.

use std::path::Path;

use anyhow::{Context as _, Result};
use lb_userspace::lab::{Agent, AgentOptions, Host, Lab};
use serde_json::Value;

use super::{Options, Story};
use crate::{
    cluster::{Cluster, Names},
    endpoints,
    kubelet::Pod,
    manifests, screen,
    traffic::{Change, Traffic},
    world::{POD_RANGES, SERVICE_RANGES, WEB_V4, WEB_V6, World, node_address},
};

/// Requests of each client after each change.
const REQUESTS: usize = 1000;
const FEW_REQUESTS: usize = 200;

impl<'a> Story<'a> {
    /// The nodes come up, each with its agent.
    pub(super) fn begin(lab: &'a Lab, world: &'a World, options: &Options) -> Result<Self> {
        screen::heading(1, "Two nodes, an agent on each");
        let cluster = Cluster::create(lab, world)?;
        let start = |node| Agent::start(lab, node, agent(&options.lb, cluster.manifests.folder()));
        let [n1, n2] = &world.nodes;
        let agents = [start(n1)?, start(n2)?];
        let shell = |node, name| anyhow::Ok(Pod::network(lab, node, 2, name)?.0);
        let shells = [shell(n1, "shell-1")?, shell(n2, "shell-2")?];
        let requests = if options.fast { FEW_REQUESTS } else { REQUESTS };
        let story = Self {
            world,
            cluster,
            agents,
            shells,
            traffic: Traffic::new(requests),
            requests,
            step: 1,
            summary: Vec::new(),
            problems: 0,
        };
        story.show_nodes()?;
        Ok(story)
    }

    fn show_nodes(&self) -> Result<()> {
        let row = |(number, agent): (u8, &Agent)| {
            let brief = agent.lb(["status", "--brief"])?;
            let address = |v6| node_address(number, v6).to_string();
            let mode = xdp_mode(agent.node())?;
            let status = String::from_utf8_lossy(&brief.stdout).trim().to_owned();
            let name = agent.node().name().to_owned();
            anyhow::Ok(vec![name, address(false), address(true), mode.to_owned(), status])
        };
        let rows = (1..).zip(&self.agents).map(row).collect::<Result<Vec<_>>>()?;
        screen::table(&["NODE", "IPV4", "IPV6", "EXTERNAL TRAFFIC BY", "LB STATUS"], rows);
        screen::say(&format!("manifests: {}", self.cluster.manifests.folder().display()));
        Ok(())
    }

    /// Three pods and a Service that selects them; traffic begins.
    pub(super) fn a_service_is_created(&mut self) -> Result<()> {
        self.heading("A Service is created");
        self.cluster.start_ready("web", 3)?;
        self.cluster.start_ready("batch", 1)?;
        self.cluster.publish()?;
        screen::typed("kubectl apply -f service-web.yaml        # selector: app=web");
        let [s1, s2] = self.shells.clone();
        self.traffic.join("pod on n1, IPv4", &s1, WEB_V4);
        self.traffic.join("pod on n2, IPv6", &s2, WEB_V6);
        let at = self.cluster.manifests.put("service-web.yaml", manifests::WEB)?;
        let after = self.cluster.endpoints();
        let change = Change { at, before: &Names::new(), after: &after, gap: true };
        self.judge("service created", &change);
        self.traffic.hold("pod on n1, IPv4", &s1, WEB_V4)?;
        self.traffic.hold("pod on n2, IPv6", &s2, WEB_V6)?;
        screen::say("from now on each client also holds 8 connections open, through all steps");
        Ok(())
    }

    /// Which pods it is, from both ends.
    pub(super) fn its_endpoints_are_listed(&mut self) -> Result<()> {
        self.heading("Its endpoints are the pods that its selector finds");
        endpoints::pods(&self.cluster, "web");
        endpoints::backends(&self.agents[0], &self.cluster, "web")?;
        screen::say("batch-4 runs as well, has the label app=batch, and gets nothing");
        Ok(())
    }
}

fn agent(lb: &Path, manifests: &Path) -> AgentOptions {
    let pods = POD_RANGES.map(|range| ["--pod-cidr", range]);
    let services = SERVICE_RANGES.map(|range| ["--service-cidr", range]);
    let flags = pods.iter().chain(&services).flatten().chain(&["--xdp-mode", "native"]);
    AgentOptions {
        binary: lb.to_owned(),
        manifests: manifests.to_owned(),
        flags: flags.map(|&flag| flag.to_owned()).collect(),
        variables: Vec::new(),
    }
}

/// What the kernel says about the uplink.
pub(super) fn xdp_mode(node: &Host) -> Result<&'static str> {
    let output = node.command("ip")?.args(["-json", "link", "show", "eth0"]).output()?;
    let links: Value = serde_json::from_slice(&output.stdout).context("ip's JSON")?;
    Ok(match links[0]["xdp"]["mode"].as_u64() {
        Some(1) => "native XDP, tc behind",
        Some(2) => "generic XDP, tc behind",
        _ => "tc",
    })
}
