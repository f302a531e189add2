//! The keys, as one place of configuration gives them: nothing is said unless it says so.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;
use ipnet::IpNet;
use serde::Deserialize;

use super::{
    timeouts::{self, TimeoutOption},
    values::{
        Bytes, Forwarding, InterfacePattern, Listen, NodePortAddress, Period, PortRange,
        SourceKind, XdpMode,
    },
};

/// Every key, all of them optional.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[command(next_help_heading = "Configuration")]
pub struct Options {
    /// A YAML file with these keys, in camelCase
    #[arg(long, env = "LB_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// This node [default: the host's name, in lower case]
    #[arg(long, env = "LB_NODE_NAME", value_name = "NAME", alias = "hostname-override")]
    pub node_name: Option<String>,
    /// This node's own addresses [default: the Node's status, else the interfaces']
    #[arg(
        long = "node-address",
        env = "LB_NODE_ADDRESSES",
        value_name = "IP",
        value_delimiter = ','
    )]
    pub node_addresses: Option<Vec<IpAddr>>,
    /// The zone this node is in [default: the Node's label]
    #[arg(long, env = "LB_NODE_ZONE", value_name = "ZONE")]
    pub node_zone: Option<String>,
    /// Every address of this host [default: the interfaces']
    #[arg(
        long = "local-address",
        env = "LB_LOCAL_ADDRESSES",
        value_name = "IP",
        value_delimiter = ','
    )]
    pub local_addresses: Option<Vec<IpAddr>>,
    /// Local addresses that answer NodePorts [default: primary]
    #[arg(
        long = "nodeport-address",
        env = "LB_NODE_PORT_ADDRESSES",
        value_name = "CIDR|primary",
        value_delimiter = ','
    )]
    pub node_port_addresses: Option<Vec<NodePortAddress>>,
    /// Which sources are pods of this cluster [default: none are told apart]
    #[arg(long = "pod-cidr", env = "LB_POD_CIDRS", value_name = "CIDR", value_delimiter = ',')]
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<IpNet>>,
    /// The ranges of ClusterIPs [default: the ServiceCIDR objects']
    #[arg(
        long = "service-cidr",
        env = "LB_SERVICE_CIDRS",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Option<Vec<IpNet>>,
    /// Give every packet to a service address a node's source address
    #[arg(long, env = "LB_MASQUERADE_ALL", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub masquerade_all: Option<bool>,
    /// Uplinks [default: the interfaces that routes to other hosts use]
    #[arg(long = "interface", env = "LB_INTERFACES", value_name = "NAME", value_delimiter = ',')]
    pub interfaces: Option<Vec<String>>,
    /// Where packets with service addresses may come out of pods without a host socket (globs)
    #[arg(
        long = "pod-interface",
        env = "LB_POD_INTERFACES",
        value_name = "GLOB",
        value_delimiter = ','
    )]
    pub pod_interfaces: Option<Vec<InterfacePattern>>,
    /// Whether packets are handled in the driver [default: auto]
    #[arg(long, env = "LB_XDP_MODE", value_enum)]
    pub xdp_mode: Option<XdpMode>,
    /// How packets get to backends on other nodes [default: snat]
    #[arg(long, env = "LB_FORWARDING", value_enum)]
    pub forwarding: Option<Forwarding>,
    /// The v2 cgroup whose processes get their sockets translated [default: the mount's root]
    #[arg(long, env = "LB_CGROUP_ROOT", value_name = "PATH")]
    pub cgroup_root: Option<PathBuf>,
    /// Where pins live [default: /sys/fs/bpf/lb]
    #[arg(long, env = "LB_BPFFS", value_name = "PATH")]
    pub bpffs: Option<PathBuf>,
    /// The agent's socket [default: /run/lb/lb.sock]
    #[arg(long, env = "LB_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where objects come from [default: files with -f, else kubernetes]
    #[arg(long, env = "LB_SOURCE", value_enum)]
    pub source: Option<SourceKind>,
    /// Manifests: YAML or JSON, files or folders
    #[arg(
        short = 'f',
        long = "file",
        env = "LB_FILES",
        value_name = "PATH",
        value_delimiter = ','
    )]
    pub files: Option<Vec<PathBuf>>,
    /// Source ports towards backends on other nodes [default: 1024-29999]
    #[arg(long, env = "LB_SNAT_PORTS", value_name = "FIRST-LAST")]
    pub snat_ports: Option<PortRange>,
    /// Memory for flows [default: 64MiB]
    #[arg(long, env = "LB_FLOW_TABLE_BYTES", value_name = "SIZE")]
    pub flow_table_bytes: Option<Bytes>,
    /// How long a flow may be silent: tcp, tcpClosing, halfOpen, udp, sctp
    #[arg(
        long = "timeout",
        env = "LB_TIMEOUTS",
        value_name = "NAME=DURATION",
        value_delimiter = ','
    )]
    #[serde(deserialize_with = "timeouts::from_map")]
    pub timeouts: Option<Vec<TimeoutOption>>,
    /// Reset the connections of clients whose backend is gone for good [default: true]
    #[arg(long, env = "LB_RESET_GONE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub reset_gone: Option<bool>,
    /// How long connections from before the first installation go unquestioned [default: 10m]
    #[arg(long, env = "LB_TAKEOVER", value_name = "DURATION")]
    pub takeover: Option<Period>,
    /// Destroy sockets of dead UDP backends; needs CAP_SYS_ADMIN
    #[arg(long, env = "LB_SOCKET_TERMINATION", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub socket_termination: Option<bool>,
    /// Read the Endpoints of Services without a selector from the API
    #[arg(long, env = "LB_MIRROR_ENDPOINTS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub mirror_endpoints: Option<bool>,
    /// The cluster's hash seed, the same file on every node [default: a built-in one]
    #[arg(long, env = "LB_SEED_FILE", value_name = "FILE")]
    pub seed_file: Option<PathBuf>,
    /// Let the socket change state: drain and ready
    #[arg(long, env = "LB_ENABLE_DRAIN", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_drain: Option<bool>,
    /// Where metrics are served, or `none` [default: 127.0.0.1:10249]
    #[arg(long, env = "LB_METRICS_ADDRESS", value_name = "IP:PORT")]
    pub metrics_address: Option<Listen>,
    /// How many backends get a series of their own in the metrics; 0: none [default: 1000]
    #[arg(long, env = "LB_METRICS_BACKENDS", value_name = "NUMBER")]
    pub metrics_backends: Option<u32>,
    /// Serve kube-proxy's metrics too, by its names, for dashboards that ask for those
    #[arg(long, env = "LB_KUBE_PROXY_METRICS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub kube_proxy_metrics: Option<bool>,
    /// Where health is served, or `none` [default: 0.0.0.0:10256]
    #[arg(long, env = "LB_HEALTH_ADDRESS", value_name = "IP:PORT")]
    pub health_address: Option<Listen>,
    /// Where the live page is served, on loopback [default: none]
    #[arg(long, env = "LB_PAGE_ADDRESS", value_name = "IP:PORT")]
    pub page_address: Option<Listen>,
    /// How to reach the API server [default: in-cluster, else the usual places]
    #[arg(long, env = "LB_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}
