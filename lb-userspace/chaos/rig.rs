//! The world that things break in.
//!
//! ```text
//!   client 203.0.113.9 ── front 203.0.113.1 │ lb │ back 192.168.20.1 ── switch ── b1 … bn
//!                                                                           └─ witness 192.168.20.2
//! ```
//! The Service's address is 198.51.100.1, which the client routes to the load balancer. Backends
//! route everything back through it. There is a second Service that is never touched. The witness
//! reaches backends past the load balancer: what happens to its connections is the machine's doing.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use lb_userspace::lab::{Agent, AgentOptions, Host, Lab, link};
use serde_json::Value;

use crate::{
    Scale,
    manifests::{Manifests, Said},
    servers::{self, Servers},
};

/// Where the Services' clients dial.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const TCP: u16 = 80;
pub(crate) const UDP: u16 = 53;

/// How long a change may take to reach the kernel on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything, and the agent on it.
pub(crate) struct Rig {
    pub(crate) agent: Agent,
    pub(crate) backends: Vec<Backend>,
    pub(crate) client: Host,
    pub(crate) lb: Host,
    pub(crate) witness: Host,
    manifests: Manifests,
    switch: Host,
    // Last: it takes the rest away.
    pub(crate) lab: Lab,
}

/// A machine that serves both Services.
pub(crate) struct Backend {
    pub(crate) id: u8,
    pub(crate) host: Host,
    /// None while its processes are dead.
    servers: Option<Servers>,
}

impl Rig {
    /// Builds the world with so many backends, all of them ready, and starts the agent.
    pub(crate) fn build(scale: &Scale, backends: u8, flags: &[&str]) -> Result<Self> {
        let lab = Lab::new("chaos")?;
        let (switch, lb, client) = (lab.host("switch")?, lab.node("lb")?, lab.host("client")?);
        link::bridge(&switch, "lan")?;
        lb.forward()?;
        link::veth((&client, "eth0"), (&lb, "front"))?;
        client.address("eth0", "203.0.113.9/24")?;
        lb.address("front", "203.0.113.1/24")?;
        client.route("default", Ipv4Addr::new(203, 0, 113, 1).into())?;
        link::plug((&lb, "back"), (&switch, "lan"), "lb")?;
        lb.address("back", "192.168.20.1/24")?;
        // Answers to sources that do not exist have a way, too.
        lb.route("default", Ipv4Addr::new(203, 0, 113, 9).into())?;
        for end in [(&client, "eth0"), (&lb, "back"), (&lb, "front")] {
            link::whole_checksums(end)?;
        }
        link::takes_xdp((&client, "eth0"))?;
        link::takes_xdp((&switch, "lb"))?;
        let witness = lab.host("witness")?;
        link::plug((&witness, "eth0"), (&switch, "lan"), "w")?;
        witness.address("eth0", "192.168.20.2/24")?;
        let backends = (1..=backends).map(|id| backend(&lab, &switch, id));
        let backends = backends.collect::<Result<Vec<_>>>()?;
        let manifests = Manifests::create(&lab.folder())?;
        let all: Vec<_> = backends.iter().map(|backend| (backend.id, Said::Ready)).collect();
        manifests.services()?;
        manifests.endpoints(&all)?;
        let options = AgentOptions {
            binary: scale.lb.clone(),
            manifests: manifests.folder.clone(),
            flags: all_flags(flags),
            variables: Vec::new(),
        };
        let agent = Agent::start(&lab, &lb, options)?;
        let rig = Self { agent, backends, client, lb, witness, manifests, switch, lab };
        rig.settle(&all)?;
        Ok(rig)
    }

    /// Tells the agent which backends there are; returns when the kernel has them.
    pub(crate) fn publish(&self, said: &[(u8, Said)]) -> Result<()> {
        self.write(said)?;
        self.settle(said)
    }

    /// Writes it down and does not wait.
    pub(crate) fn write(&self, said: &[(u8, Said)]) -> Result<()> {
        self.manifests.endpoints(said)
    }

    /// All backends, ready.
    pub(crate) fn everybody(&self) -> Vec<(u8, Said)> {
        self.backends.iter().map(|backend| (backend.id, Said::Ready)).collect()
    }

    /// Waits until exactly the ready ones take new connections. Each question is a process of its
    /// own, which paces this.
    pub(crate) fn settle(&self, said: &[(u8, Said)]) -> Result<()> {
        let mut ready: Vec<String> = said
            .iter()
            .filter(|(_, said)| *said == Said::Ready)
            .map(|(id, _)| address(*id).to_string())
            .collect();
        ready.sort();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut active = self.active()?;
            active.sort();
            if active == ready {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the kernel has {active:?}, and not {ready:?}");
            }
        }
    }

    /// Addresses of the TCP Service's backends that take new connections, as the maps have them.
    fn active(&self) -> Result<Vec<String>> {
        let listed = self.agent.json(["get", "backends"])?;
        let rows = listed["items"].as_array().context("a list of backends")?;
        let of_tcp = rows.iter().filter(|row| row["service"] == "tcp" && row["state"] == "active");
        Ok(of_tcp.filter_map(|row| row["address"].as_str().map(str::to_owned)).collect())
    }

    /// How many flows each backend of a Service has been given, in the order of their addresses.
    pub(crate) fn connections(&self, service: &str) -> Result<Vec<u64>> {
        let listed = self.agent.json(["get", "backends", "--sort-by", "backend"])?;
        let rows = listed["items"].as_array().context("a list of backends")?;
        let of_service = rows.iter().filter(|row| row["service"] == service);
        Ok(of_service.filter_map(|row| row["connections"].as_u64()).collect())
    }

    /// How many flows of a Service live; each is listed with both its directions.
    pub(crate) fn flows(&self, service: &str) -> Result<usize> {
        let listed = self.agent.json(["get", "flows", "--service", &format!("chaos/{service}")])?;
        Ok(listed["items"].as_array().context("a list of flows")?.len().div_ceil(2))
    }

    /// Adds a file of manifests.
    pub(crate) fn manifest(&self, name: &str, objects: &[Value]) -> Result<()> {
        self.manifests.put(name, objects)
    }

    /// Makes all links take packets of so many bytes. No program of ours may be on them; those that
    /// let others send by XDP go.
    pub(crate) fn widen(&self, mtu: u32) -> Result<()> {
        self.client.ip("link set dev eth0 xdpdrv off")?;
        self.switch.ip("link set dev lb xdpdrv off")?;
        let wide = |host: &Host, name: &str| host.ip(&format!("link set dev {name} mtu {mtu}"));
        wide(&self.client, "eth0")?;
        ["front", "back"].iter().try_for_each(|name| wide(&self.lb, name))?;
        for Backend { id, host, .. } in &self.backends {
            wide(host, "eth0")?;
            wide(&self.switch, &format!("b{id}"))?;
        }
        ["lb", "lan"].iter().try_for_each(|name| wide(&self.switch, name))
    }

    /// Ends a backend's processes as a crash would: the machine resets what it had open.
    pub(crate) fn crash(&mut self, id: u8) {
        self.backends[usize::from(id) - 1].servers = None;
    }

    /// Starts them again.
    pub(crate) fn revive(&mut self, id: u8) -> Result<()> {
        let backend = &mut self.backends[usize::from(id) - 1];
        backend.servers = Some(servers::start(&backend.host, id)?);
        Ok(())
    }

    /// The detail of a line of `lb status`.
    pub(crate) fn status(&self, key: &str) -> Result<String> {
        let report = self.agent.json(["status"])?;
        let lines = report["lines"].as_array().context("lines of status")?;
        let line = lines.iter().find(|line| line["key"] == key);
        let line = line.with_context(|| format!("status has no line {key}"))?;
        Ok(line["detail"].as_str().unwrap_or_default().to_owned())
    }

    /// How often the programs ended a packet for that reason.
    pub(crate) fn drops(&self, reason: &str) -> Result<u64> {
        Ok(self.all_drops()?.remove(reason).unwrap_or(0))
    }

    /// How often the programs ended a packet, by reason; only those that there were.
    pub(crate) fn all_drops(&self) -> Result<BTreeMap<String, u64>> {
        let detail = self.status("Drops")?;
        let (_, all) = detail.split_once("in all: ").context("drops are told in all")?;
        let parts = all.split(", ").filter(|part| *part != "none");
        parts
            .map(|part| {
                let (reason, number) = part.split_once(' ').context("a reason and a number")?;
                Ok((reason.to_owned(), number.parse()?))
            })
            .collect()
    }

    /// Gives the cluster another secret seed, which takes a new agent.
    pub(crate) fn reseed(&mut self, secret: &str) -> Result<()> {
        let file = self.lab.folder().join("seed");
        self.agent.terminate()?;
        if !file.exists() {
            self.agent.also(&["--seed-file", &file.display().to_string()]);
        }
        fs::write(&file, secret)?;
        self.agent.restart()
    }

    /// Everything that is pinned: paths below the pins' folder.
    pub(crate) fn pins(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for folder in ["maps", "links"] {
            let folder = self.agent.bpffs().join(folder);
            if folder.exists() {
                for entry in fs::read_dir(folder)? {
                    found.push(entry?.path());
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The number of the agent's process.
    pub(crate) fn agent_process(&self) -> Result<String> {
        let threads = fs::read_to_string(self.lb.cgroup().join("cgroup.threads"))?;
        let is_agent = |thread: &&str| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{thread}/{file}"));
            let is_process = |status: String| status.contains(&format!("Tgid:\t{thread}\n"));
            read("cmdline").is_ok_and(|line| line.contains("\0agent\0"))
                && read("status").is_ok_and(is_process)
        };
        threads.lines().find(is_agent).map(str::to_owned).context("the agent's process")
    }

    /// The time that the agent has computed, in the kernel too.
    pub(crate) fn agent_cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.agent_process()?))?;
        let (_, fields) = stat.rsplit_once(") ").context("a name in parentheses")?;
        // Fields 14 and 15 of proc_pid_stat(5), in hundredths of a second; the third comes first here.
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
        Ok(Duration::from_millis(10 * ticks.sum::<Result<u64, _>>()?))
    }

    /// Packets that the client's link had no room for.
    pub(crate) fn lost_on_link(&self) -> Result<u64> {
        let output =
            self.client.command("ip")?.args(["-s", "-j", "link", "show", "eth0"]).output()?;
        let links: Value = serde_json::from_slice(&output.stdout)?;
        let dropped = links[0]["stats64"]["tx"]["dropped"].as_u64();
        dropped.context("a count of packets that were dropped")
    }

    /// The agent's user and its effective capabilities.
    pub(crate) fn agent_is(&self) -> Result<(String, String)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.agent_process()?))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned()
        };
        Ok((field("Uid:"), field("CapEff:")))
    }

    /// What a command on the load balancer prints.
    pub(crate) fn on_lb(&self, words: &[&str]) -> Result<String> {
        let output = self.lb.command(words[0])?.args(&words[1..]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The TCP Service.
pub(crate) fn tcp() -> SocketAddr {
    (VIP, TCP).into()
}

/// The UDP Service.
pub(crate) fn udp() -> SocketAddr {
    (VIP, UDP).into()
}

/// The address of the backend with that number.
pub(crate) const fn address(id: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 20, 10 + id)
}

fn all_flags(flags: &[&str]) -> Vec<String> {
    let own = "--node-address 203.0.113.1 --node-address 192.168.20.1 --takeover 0s";
    own.split(' ').chain(flags.iter().copied()).map(str::to_owned).collect()
}

fn backend(lab: &Lab, switch: &Host, id: u8) -> Result<Backend> {
    let name = format!("b{id}");
    let host = lab.host(&name)?;
    link::plug((&host, "eth0"), (switch, "lan"), &name)?;
    link::whole_checksums((&host, "eth0"))?;
    host.address("eth0", &format!("{}/24", address(id)))?;
    host.route("default", Ipv4Addr::new(192, 168, 20, 1).into())?;
    // Thousands of connections arrive at once.
    host.sysctls(&[("net.core.somaxconn", "16384"), ("net.ipv4.tcp_max_syn_backlog", "65536")])?;
    let servers = Some(servers::start(&host, id)?);
    Ok(Backend { id, host, servers })
}
