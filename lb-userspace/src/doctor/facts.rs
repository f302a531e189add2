//! What a host says about itself, in its files alone: no privilege is needed to look.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use crate::config::Config;

/// CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF, by their bits.
pub(super) const CAPABILITIES: [(&str, u32); 3] = [("NET_ADMIN", 12), ("PERFMON", 38), ("BPF", 39)];

/// Everything that the checks judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Such as `6.12.1`.
    pub kernel: String,
    /// Effective capabilities, a bit each.
    pub capabilities: u64,
    /// Whether the kernel's own types can be read.
    pub has_btf: bool,
    /// File systems of type `bpf` and `cgroup2`, and where they are mounted.
    pub mounts: Vec<(String, PathBuf)>,
    pub bpffs: PathBuf,
    pub cgroup_root: Option<PathBuf>,
    pub cgroup_root_exists: bool,
    /// Kernel parameters by their names, where they can be read.
    pub parameters: Vec<(&'static str, String)>,
    pub snat_ports: (u16, u16),
    /// Commands of the processes that there are.
    pub processes: Vec<String>,
    /// Name, MTU and whether it is up.
    pub interfaces: Vec<(String, u32, bool)>,
    /// Named in the configuration.
    pub wanted_interfaces: Vec<String>,
    pub pinned_maps: usize,
    pub pinned_links: usize,
    pub socket: PathBuf,
    /// Why the agent does not answer; `None` if it does.
    pub socket_problem: Option<String>,
    pub seed_file: Option<PathBuf>,
    pub seed_problem: Option<String>,
    /// Of manifests that cannot be read.
    pub missing_files: Vec<PathBuf>,
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
        Self {
            kernel: read("proc/sys/kernel/osrelease").trim().to_owned(),
            capabilities: capabilities(&read("proc/self/status")),
            has_btf: root.join("sys/kernel/btf/vmlinux").exists(),
            mounts: mounts(&read("proc/mounts")),
            bpffs: config.bpffs.clone(),
            cgroup_root_exists: config.cgroup_root.as_ref().is_none_or(|path| path.is_dir()),
            cgroup_root: config.cgroup_root.clone(),
            parameters: PARAMETERS.iter().filter_map(parameter).collect(),
            snat_ports: (config.snat_ports.first, config.snat_ports.last),
            processes: processes(&root.join("proc")),
            interfaces: interfaces(&root.join("sys/class/net")),
            wanted_interfaces: config.interfaces.clone(),
            pinned_maps: pins("maps"),
            pinned_links: pins("links"),
            socket_problem: socket_problem(&config.socket),
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

fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok()).unwrap_or(0)
}

fn mounts(table: &str) -> Vec<(String, PathBuf)> {
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        matches!(kind, "bpf" | "cgroup2").then(|| (kind.to_owned(), place.into()))
    };
    table.lines().filter_map(mount).collect()
}

fn processes(proc: &Path) -> Vec<String> {
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

fn interfaces(net: &Path) -> Vec<(String, u32, bool)> {
    let Ok(entries) = fs::read_dir(net) else { return Vec::new() };
    let interface = |entry: fs::DirEntry| {
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let mtu = read("mtu").trim().parse().ok()?;
        let is_up = read("operstate").trim() != "down";
        Some((entry.file_name().to_string_lossy().into_owned(), mtu, is_up))
    };
    let mut found: Vec<_> = entries.flatten().filter_map(interface).collect();
    found.sort();
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
