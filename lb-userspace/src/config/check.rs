//! What no single value shows: keys that contradict each other or the host.

use lb_common::limits::SNAT_PORTS;

use super::{Config, ConfigError, NodePortAddress, Period, PortRange, SourceKind, Timeouts};

/// What API servers give to NodePorts unless told otherwise.
const NODE_PORTS: PortRange = PortRange { first: 30000, last: 32767 };
/// Below this a flow table is of no use.
const LEAST_FLOW_TABLE: u64 = 1 << 20;

/// Refuses a configuration that cannot work, naming the key.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let err = |key, message: &str| Err(ConfigError::key(key, message));
    if config.node_name.is_empty() {
        return err("nodeName", "is empty");
    }
    if config.node_port_addresses.is_empty() {
        return err("nodePortAddresses", "is empty: say `primary` or at least one CIDR");
    }
    let primary = config.node_port_addresses.contains(&NodePortAddress::Primary);
    if primary && config.node_port_addresses.len() > 1 {
        return err("nodePortAddresses", "`primary` cannot be combined with anything else");
    }
    if let Some(address) = config.page_address.0.filter(|address| !address.ip().is_loopback()) {
        let message =
            format!("{address} is no loopback address, and the page asks nobody who he is");
        return Err(ConfigError::key("pageAddress", message));
    }
    if config.seed_file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
        return err("seedFile", "is empty: name a file, or leave the key out");
    }
    match (config.source, config.files.is_empty()) {
        (SourceKind::Files, true) => {
            return err("files", "source `files` needs at least one -f PATH");
        }
        (SourceKind::Kubernetes, false) => {
            return err("files", "files are not read with source `kubernetes`");
        }
        _ => {}
    }
    if config.snat_ports.overlaps(NODE_PORTS) {
        let message = format!("{} overlaps with NodePorts ({NODE_PORTS})", config.snat_ports);
        return Err(ConfigError::key("snatPorts", message));
    }
    if config.snat_ports.count() > SNAT_PORTS {
        let message = format!("{} are more than {SNAT_PORTS} ports", config.snat_ports);
        return Err(ConfigError::key("snatPorts", message));
    }
    if config.flow_table_bytes.0 < LEAST_FLOW_TABLE {
        let message = format!("{} is less than 1MiB", config.flow_table_bytes);
        return Err(ConfigError::key("flowTableBytes", message));
    }
    check_timeouts(&config.timeouts)
}

/// Refuses source ports that the kernel gives out as well (`net.ipv4.ip_local_port_range`): a
/// connection of the node's own could then meet a translated one.
pub fn check_local_ports(snat: PortRange, kernel: PortRange) -> Result<(), ConfigError> {
    if !snat.overlaps(kernel) {
        return Ok(());
    }
    let message = format!("{snat} overlaps with net.ipv4.ip_local_port_range ({kernel})");
    Err(ConfigError::key("snatPorts", message))
}

fn check_timeouts(timeouts: &Timeouts) -> Result<(), ConfigError> {
    let Timeouts { tcp, tcp_closing, half_open, udp, sctp } = *timeouts;
    let named = [
        ("timeouts.tcp", tcp),
        ("timeouts.tcpClosing", tcp_closing),
        ("timeouts.halfOpen", half_open),
        ("timeouts.udp", udp),
        ("timeouts.sctp", sctp),
    ];
    match named.into_iter().find(|(_, period)| *period < Period::from_secs(1)) {
        Some((key, period)) => Err(ConfigError::key(key, format!("{period} is less than 1s"))),
        None => Ok(()),
    }
}
