//! What a host says about itself, in its files alone: no privilege is needed to look. What only its
//! kernel, its agent or its API server can say is in [`super::live`].

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use super::{
    live::{self, Live},
    proxies,
};
use crate::config::{Config, SourceKind, XdpMode};

/// CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF, by their bits.
pub(super) const CAPABILITIES: [(&str, u32); 3] = [("NET_ADMIN", 12), ("PERFMON", 38), ("BPF", 39)];

/// Everything that the checks judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Such as `6.12.1`.
    pub kernel: String,
    /// Effective capabilities, a bit each.
    pub capabilities: u64,
    /// Whether the kernel's own types can be read.
    pub has_btf: bool,
    /// File systems of type `bpf` and `cgroup2`.
    pub mounts: Vec<Mount>,
    pub bpffs: PathBuf,
    pub cgroup_root: Option<PathBuf>,
    pub cgroup_root_exists: bool,
    /// Whether it is a folder of the v2 hierarchy.
    pub cgroup_root_is_v2: bool,
    /// Kernel parameters by their names, where they can be read.
    pub parameters: Vec<(&'static str, String)>,
    /// Interfaces whose own reverse-path filter is strict.
    pub strict: Vec<String>,
    pub snat_ports: (u16, u16),
    /// Another proxy that runs beside.
    pub proxy: Option<String>,
    /// Name, MTU and whether it is up.
    pub interfaces: Vec<(String, u32, bool)>,
    /// Named in the configuration.
    pub wanted_interfaces: Vec<String>,
    pub pinned_maps: usize,
    pub pinned_links: usize,
    /// Pinned links of interfaces that are gone.
    pub stale_links: Vec<String>,
    /// Where the agents of this network namespace have their pins.
    pub agents: Vec<String>,
    pub xdp_mode: XdpMode,
    pub source: SourceKind,
    pub live: Live,
    pub socket: PathBuf,
    /// Why the agent does not answer; `None` if it does.
    pub socket_problem: Option<String>,
    pub seed_file: Option<PathBuf>,
    pub seed_problem: Option<String>,
    /// Of manifests that cannot be read.
    pub missing_files: Vec<PathBuf>,
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub kind: String,
    pub place: PathBuf,
    pub read_only: bool,
}

/// The parameters that matter here.
const PARAMETERS: &[&str] = &[
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.conf.all.rp_filter",
    "net.core.bpf_jit_enable",
];

impl Facts {
    /// Looks at a host whose `/proc` and `/sys` are under `root`.
    pub fn of(root: &Path, config: &Config) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let parameter = |name: &&'static str| {
            let value = read(&format!("proc/sys/{}", name.replace('.', "/")));
            let value = value.trim().to_owned();
            (!value.is_empty()).then_some((*name, value))
        };
        let problem = |error: io::Error| error.to_string();
        let seed = config.seed_file.as_ref();
        let pins = |folder: &str| {
            fs::read_dir(config.bpffs.join(folder)).map_or(0, |entries| entries.flatten().count())
        };
        let missing = config.files.iter().filter(|path| !path.exists());
        let interfaces = interfaces(&root.join("sys/class/net"));
        let live = if root == Path::new("/") { live::look(config) } else { Live::default() };
        let socket_problem = live.agent_problem.clone().or_else(|| socket_problem(&config.socket));
        Self {
            kernel: read("proc/sys/kernel/osrelease").trim().to_owned(),
            capabilities: capabilities(&read("proc/self/status")),
            has_btf: root.join("sys/kernel/btf/vmlinux").exists(),
            mounts: mounts(&read("proc/mounts")),
            bpffs: config.bpffs.clone(),
            cgroup_root_exists: config.cgroup_root.as_ref().is_none_or(|path| path.is_dir()),
            cgroup_root_is_v2: config
                .cgroup_root
                .as_ref()
                .is_none_or(|path| path.join("cgroup.procs").exists()),
            cgroup_root: config.cgroup_root.clone(),
            parameters: PARAMETERS.iter().filter_map(parameter).collect(),
            strict: strict(&root.join("proc/sys/net/ipv4/conf")),
            snat_ports: (config.snat_ports.first, config.snat_ports.last),
            proxy: proxies::beside(root),
            stale_links: stale_links(&config.bpffs.join("links"), &interfaces),
            interfaces: interfaces.into_iter().map(|(_, interface)| interface).collect(),
            wanted_interfaces: config.interfaces.clone(),
            pinned_maps: pins("maps"),
            pinned_links: pins("links"),
            agents: agents(&read("proc/self/net/unix")),
            xdp_mode: config.xdp_mode,
            source: config.source,
            live,
            socket_problem,
            socket: config.socket.clone(),
            seed_problem: seed.and_then(|file| fs::read(file).err().map(problem)),
            seed_file: config.seed_file.clone(),
            missing_files: missing.cloned().collect(),
        }
    }

    /// The value of a kernel parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The interfaces whose folder says so.
fn strict(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_strict = |entry: &fs::DirEntry| {
        let value = fs::read_to_string(entry.path().join("rp_filter")).unwrap_or_default();
        value.trim() == "1"
    };
    let names = entries.filter(is_strict).filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> =
        names.filter(|name| !matches!(name.as_str(), "all" | "default" | "lo")).collect();
    names.sort_unstable();
    names
}

fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok()).unwrap_or(0)
}

fn mounts(table: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        let read_only = fields.next()?.split(',').any(|option| option == "ro");
        matches!(kind, "bpf" | "cgroup2").then(|| Mount {
            kind: kind.to_owned(),
            place: place.into(),
            read_only,
        })
    };
    table.lines().filter_map(mount).collect()
}

/// Commands of the processes that `proc` shows: in a container its own alone.
pub(super) fn processes(proc: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let name = |entry: fs::DirEntry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(name.trim().to_owned())
    };
    let mut names: Vec<_> = entries.flatten().filter_map(name).collect();
    names.sort();
    names.dedup();
    names
}

/// Where the agents of this network namespace have their pins, by their signs ([`crate::agent`]).
fn agents(sockets: &str) -> Vec<String> {
    let sign = |line: &str| {
        let (_, pins) = line.split_once(" @lb/")?.1.split_once('/')?;
        Some(pins.to_owned())
    };
    let mut found: Vec<_> = sockets.lines().filter_map(sign).collect();
    found.sort();
    found.dedup();
    found
}

/// Links whose interface is gone: `ingress@7` is of interface 7.
fn stale_links(links: &Path, interfaces: &[(u32, (String, u32, bool))]) -> Vec<String> {
    let names = fs::read_dir(links).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_stale = |name: &String| match name.split_once('@') {
        Some(("xdp" | "ingress" | "egress", index)) => index
            .parse()
            .is_ok_and(|index: u32| interfaces.iter().all(|(known, _)| *known != index)),
        _ => false,
    };
    let mut found: Vec<_> = names.filter(is_stale).collect();
    found.sort();
    found
}

/// Each with its index.
fn interfaces(net: &Path) -> Vec<(u32, (String, u32, bool))> {
    let Ok(entries) = fs::read_dir(net) else { return Vec::new() };
    let interface = |entry: fs::DirEntry| {
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let mtu = read("mtu").trim().parse().ok()?;
        let index = read("ifindex").trim().parse().ok()?;
        let is_up = read("operstate").trim() != "down";
        Some((index, (entry.file_name().to_string_lossy().into_owned(), mtu, is_up)))
    };
    let mut found: Vec<_> = entries.flatten().filter_map(interface).collect();
    found.sort_by(|(_, one), (_, other)| one.cmp(other));
    found
}

fn socket_problem(socket: &Path) -> Option<String> {
    let is_socket = fs::metadata(socket).map(|it| it.file_type().is_socket());
    match is_socket {
        Err(error) => Some(error.to_string()),
        Ok(false) => Some("it is no socket".to_owned()),
        Ok(true) => UnixStream::connect(socket).err().map(|error| error.to_string()),
    }
}
