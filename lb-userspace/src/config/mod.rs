//! What an agent is told: one table of keys, each of them a flag, an environment variable and a
//! line of a file.
//!
//! [`Options`] is what one of those places said, [`Config`] what holds: flag, environment, file,
//! default, in this order.

mod check;
pub mod kube_proxy;
mod merge;
mod node;
mod options;
mod timeouts;
mod values;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize as _, Serialize};

pub use self::{
    check::check_local_ports,
    options::Options,
    timeouts::{TimeoutOption, Timeouts},
    values::{
        Bytes, Forwarding, InterfacePattern, Listen, NodePortAddress, Period, PortRange,
        SourceKind, XdpMode,
    },
};
use crate::yaml;

/// The configuration that holds, every key of it.
///
/// Empty lists and `None` mean that the agent finds out by itself, as the table of keys says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Lower-case.
    pub node_name: String,
    pub node_addresses: Vec<IpAddr>,
    pub node_zone: Option<String>,
    pub local_addresses: Vec<IpAddr>,
    pub node_port_addresses: Vec<NodePortAddress>,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Vec<IpNet>,
    pub masquerade_all: bool,
    pub interfaces: Vec<String>,
    pub pod_interfaces: Vec<InterfacePattern>,
    pub xdp_mode: XdpMode,
    pub forwarding: Forwarding,
    pub cgroup_root: Option<PathBuf>,
    pub bpffs: PathBuf,
    pub socket: PathBuf,
    pub source: SourceKind,
    pub files: Vec<PathBuf>,
    pub snat_ports: PortRange,
    pub flow_table_bytes: Bytes,
    pub timeouts: Timeouts,
    pub reset_gone: bool,
    pub takeover: Period,
    pub socket_termination: bool,
    pub mirror_endpoints: bool,
    pub seed_file: Option<PathBuf>,
    pub enable_drain: bool,
    pub metrics_address: Listen,
    pub metrics_backends: u32,
    pub kube_proxy_metrics: bool,
    pub health_address: Listen,
    pub page_address: Listen,
    pub kubeconfig: Option<PathBuf>,
}

/// A configuration that cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {message}", .file.display())]
    Unreadable { file: PathBuf, message: String },
    #[error("{}:{line}: {key}: {message}", .file.display())]
    Wrong { file: PathBuf, line: u64, key: String, message: String },
    #[error("{key}: {message}")]
    Key { key: &'static str, message: String },
}

impl ConfigError {
    fn key(key: &'static str, message: impl Into<String>) -> Self {
        Self::Key { key, message: message.into() }
    }
}

/// Where pins live unless something else is said.
pub const BPFFS: &str = "/sys/fs/bpf/lb";
/// Where the agent listens unless something else is said.
pub const SOCKET: &str = "/run/lb/lb.sock";

impl Config {
    /// Puts flags and environment (`given`), the file that they name, and the defaults together.
    ///
    /// `host_name` is this host's name: the node's, unless something else is said.
    pub fn load(given: Options, host_name: &str) -> Result<Self, ConfigError> {
        let file = given.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        Self::from_options(given.or(file), host_name)
    }

    /// As [`Config::load`], with kube-proxy's own file behind ours; also says what of it means nothing
    /// here.
    pub fn load_with(
        given: Options,
        kube_proxy: &Path,
        host_name: &str,
    ) -> Result<(Self, Vec<String>), ConfigError> {
        let text = read_text(kube_proxy)?;
        let reading = kube_proxy::parse(kube_proxy, &text)?;
        let file = given.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let config = Self::from_options(given.or(file).or(reading.options), host_name)?;
        Ok((config, reading.without_effect))
    }

    /// Fills in the defaults and checks what came out.
    pub fn from_options(options: Options, host_name: &str) -> Result<Self, ConfigError> {
        let Options {
            config: _,
            node_name,
            node_addresses,
            node_zone,
            local_addresses,
            node_port_addresses,
            pod_cidrs,
            service_cidrs,
            masquerade_all,
            interfaces,
            pod_interfaces,
            xdp_mode,
            forwarding,
            cgroup_root,
            bpffs,
            socket,
            source,
            files,
            snat_ports,
            flow_table_bytes,
            timeouts,
            reset_gone,
            takeover,
            socket_termination,
            mirror_endpoints,
            seed_file,
            enable_drain,
            metrics_address,
            metrics_backends,
            kube_proxy_metrics,
            health_address,
            page_address,
            kubeconfig,
        } = options;
        let files = files.unwrap_or_default();
        let source_by_files =
            if files.is_empty() { SourceKind::Kubernetes } else { SourceKind::Files };
        let config = Self {
            node_name: node_name.as_deref().unwrap_or(host_name).trim().to_lowercase(),
            node_addresses: node_addresses.unwrap_or_default(),
            node_zone,
            local_addresses: local_addresses.unwrap_or_default(),
            node_port_addresses: node_port_addresses
                .unwrap_or_else(|| vec![NodePortAddress::Primary]),
            pod_cidrs: pod_cidrs.unwrap_or_default(),
            service_cidrs: service_cidrs.unwrap_or_default(),
            masquerade_all: masquerade_all.unwrap_or(false),
            interfaces: interfaces.unwrap_or_default(),
            pod_interfaces: pod_interfaces.unwrap_or_default(),
            xdp_mode: xdp_mode.unwrap_or_default(),
            forwarding: forwarding.unwrap_or_default(),
            cgroup_root,
            bpffs: bpffs.unwrap_or_else(|| BPFFS.into()),
            socket: socket.unwrap_or_else(|| SOCKET.into()),
            source: source.unwrap_or(source_by_files),
            files,
            snat_ports: snat_ports.unwrap_or(PortRange { first: 1024, last: 29999 }),
            flow_table_bytes: flow_table_bytes.unwrap_or(Bytes(64 << 20)),
            timeouts: Timeouts::from_options(&timeouts.unwrap_or_default()),
            reset_gone: reset_gone.unwrap_or(true),
            takeover: takeover.unwrap_or(Period::from_secs(600)),
            socket_termination: socket_termination.unwrap_or(false),
            mirror_endpoints: mirror_endpoints.unwrap_or(false),
            seed_file,
            enable_drain: enable_drain.unwrap_or(false),
            metrics_address: metrics_address
                .unwrap_or(Listen(Some(SocketAddr::from(([127, 0, 0, 1], 10249))))),
            metrics_backends: metrics_backends.unwrap_or(1000),
            kube_proxy_metrics: kube_proxy_metrics.unwrap_or(false),
            health_address: health_address
                .unwrap_or(Listen(Some(SocketAddr::from(([0, 0, 0, 0], 10256))))),
            page_address: page_address.unwrap_or(Listen(None)),
            kubeconfig,
        };
        check::check(&config)?;
        Ok(config)
    }

    /// The configuration as a file that would give the same configuration.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        serde_saphyr::to_string(self)
    }
}

fn read_file(file: &Path) -> Result<Options, ConfigError> {
    parse_file(file, &read_text(file)?)
}

fn read_text(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |error: std::io::Error| ConfigError::Unreadable {
        file: file.into(),
        message: error.to_string(),
    };
    fs::read_to_string(file).map_err(unreadable)
}

/// Reads the text of a configuration file; `file` is for the errors.
pub fn parse_file(file: &Path, text: &str) -> Result<Options, ConfigError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let mut path = String::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        let mut track = serde_path_to_error::Track::new();
        let yaml = serde_path_to_error::Deserializer::new(yaml::Strict(yaml), &mut track);
        let read = Option::<Options>::deserialize(yaml);
        path = track.path().to_string();
        read
    });
    read.map(Option::unwrap_or_default).map_err(|error| ConfigError::Wrong {
        file: file.into(),
        line: yaml::line_of(&error).unwrap_or(1),
        key: path,
        message: yaml::message_of(&error),
    })
}

#[cfg(test)]
mod tests;
