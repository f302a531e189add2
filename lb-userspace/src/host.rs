//! What the host knows about itself, read without any privilege.

use std::{fs, io, net::IpAddr, time::Duration};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::SockaddrStorage,
    time::{ClockId, clock_getres},
};

use crate::config::PortRange;

/// The host's name, in lower case.
pub fn name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_lowercase()
}

/// The kernel's release, such as `6.12.1`.
pub fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Every address of every interface.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let found = getifaddrs()?.filter_map(|interface| address_of(&interface.address?));
    Ok(found.collect())
}

/// The ports from which the kernel takes those of the host's own connections.
pub fn local_ports() -> io::Result<PortRange> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let range = text.split_whitespace().collect::<Vec<_>>().join("-");
    range.parse().map_err(io::Error::other)
}

fn address_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
}

/// How long a jiffy takes, in nanoseconds; zero if the kernel does not tell. It is what the coarse
/// clocks resolve.
pub fn jiffy() -> u64 {
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_knows_its_loopback_address_and_its_ephemeral_ports() {
        assert!(addresses().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
        let PortRange { first, last } = local_ports().unwrap();
        assert!(first < last);
    }
}
