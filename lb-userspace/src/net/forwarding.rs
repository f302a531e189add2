//! Whether this host may send packets on that are not its own.

use std::fs;

use crate::model::Family;

/// The kernel parameter, by its `sysctl` name, that keeps this host from sending packets of that
/// family on to other nodes. None if it may, or does not speak that family at all.
pub fn forwarding_off(family: Family) -> Option<&'static str> {
    let (name, path) = match family {
        Family::V4 => ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        Family::V6 => ("net.ipv6.conf.all.forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"),
    };
    let value = fs::read_to_string(path).ok()?;
    (value.trim() == "0").then_some(name)
}
