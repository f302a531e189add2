//! A tiny stand-in for the kubelet: pods as processes in namespaces.

use std::{
    io::{BufRead as _, BufReader},
    net::IpAddr,
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use lb_userspace::lab::{Host, Lab, Process, link};
use nix::sys::signal::Signal;

use crate::{
    manifests::PodFacts,
    world::{POD_BRIDGE, pod_ranges},
};

/// Where pods listen, in both families.
const LISTEN: &str = "[::]:8080";

/// A pod: its network, its process, and what its manifest says of it.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) app: &'static str,
    pub(crate) version: &'static str,
    pub(crate) node: String,
    /// IPv4 and IPv6.
    pub(crate) addresses: [String; 2],
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
    pub(crate) host: Host,
    process: Option<Process>,
}

impl Pod {
    /// A network for a pod on that node (1 or 2) with the `number`th address there.
    pub(crate) fn network(
        lab: &Lab,
        node: &Host,
        number: u8,
        name: &str,
    ) -> Result<(Host, [String; 2])> {
        let host = lab.pod(node, name)?;
        let digit = node.name().trim_start_matches('n').parse()?;
        let [v4, v6] = pod_ranges(digit);
        let port = format!("v-{name}");
        link::plug((&host, "eth0"), (node, POD_BRIDGE), &port)?;
        link::whole_checksums((&host, "eth0"))?;
        let addresses = [format!("{v4}.{number}"), format!("{v6}::{number:x}")];
        for (address, length) in addresses.iter().zip([24, 64]) {
            host.address("eth0", &format!("{address}/{length}"))?;
        }
        for gateway in [format!("{v4}.1"), format!("{v6}::1")] {
            host.route("default", gateway.parse::<IpAddr>()?)?;
        }
        Ok((host, addresses))
    }

    /// Gives the pod a process; returns once it answers.
    pub(crate) fn run(&mut self) -> Result<()> {
        self.process = Some(answer(&self.host, &self.name, LISTEN)?);
        Ok(())
    }

    /// `kill -9` for the pod's process: its port is closed at once, its address stays.
    pub(crate) fn crash(&mut self) -> Result<()> {
        self.process.take().context("the pod runs")?.end(Signal::SIGKILL)?;
        Ok(())
    }

    /// A pod without a process yet.
    pub(crate) fn new(
        (name, app, version): (String, &'static str, &'static str),
        node: &Host,
        (host, addresses): (Host, [String; 2]),
    ) -> Self {
        let node = node.name().to_owned();
        Self {
            name,
            app,
            version,
            node,
            addresses,
            ready: false,
            terminating: false,
            host,
            process: None,
        }
    }

    /// Whether its process runs.
    pub(crate) const fn is_alive(&self) -> bool {
        self.process.is_some()
    }

    /// Whether a Service may send to it.
    pub(crate) const fn is_endpoint(&self) -> bool {
        self.ready && !self.terminating
    }

    pub(crate) fn manifest(&self) -> String {
        PodFacts {
            name: &self.name,
            app: self.app,
            version: self.version,
            node: &self.node,
            addresses: &self.addresses,
            ready: self.ready,
            terminating: self.terminating,
        }
        .manifest()
    }
}

/// Starts a process that answers HTTP with that name; returns once it does.
pub(crate) fn answer(host: &Host, name: &str, listen: &str) -> Result<Process> {
    let mut command = host.command(std::env::current_exe()?)?;
    command.args(["pod", name, listen]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = Process::start(host, &mut command)?;
    let stdout = process.child().stdout.take().context("a pipe")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line == "ready\n", "{name} did not start");
    Ok(process)
}
