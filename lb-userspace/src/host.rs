//! What the host knows about itself, read without any privilege.

use std::{
    fs::{self, Metadata},
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    time::Duration,
};

use nix::{
    ifaddrs::getifaddrs,
    sys::{
        socket::SockaddrStorage,
        stat::{major, minor},
    },
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

/// A lock of a whole file (flock(2)), as `/proc/locks` tells of it: only those of processes that are
/// seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLock {
    pub process: u32,
    /// Major and minor number.
    device: (u64, u64),
    inode: u64,
}

impl FileLock {
    /// Those of the table.
    pub fn all(table: &str) -> impl Iterator<Item = Self> {
        table.lines().filter_map(Self::parse)
    }

    /// `1: FLOCK  ADVISORY  WRITE 4711 00:2d:63 0 EOF`; who waits for one has an arrow there.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace().skip(1);
        if fields.next()? != "FLOCK" {
            return None;
        }
        let process = fields.nth(2)?.parse().ok()?;
        let mut file = fields.next()?.split(':');
        let mut number = || u64::from_str_radix(file.next()?, 16).ok();
        let device = (number()?, number()?);
        Some(Self { process, device, inode: file.next()?.parse().ok()? })
    }

    /// Whether it is of that file.
    pub fn is_of(&self, file: &Metadata) -> bool {
        self.device == (major(file.dev()), minor(file.dev())) && self.inode == file.ino()
    }
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
