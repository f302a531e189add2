//! stand-in
use ipnet::IpNet;
use std::{
    collections::BTreeSet,
    net::{IpAddr, UdpSocket},
};
#[derive(Clone, Debug)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub ethernet: bool,
    pub kind: Option<String>,
}
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub interfaces: Vec<Interface>,
    pub with: Vec<(String, IpAddr)>,
}
pub fn snapshot() -> Snapshot {
    let mut interfaces = Vec::new();
    let mut with = Vec::new();
    for i in nix::ifaddrs::getifaddrs().unwrap() {
        if i.interface_name == "lo" {
            continue;
        }
        if let Some(a) = i.address {
            if let Some(a) = a.as_sockaddr_in() {
                with.push((i.interface_name.clone(), a.ip().into()));
            }
            if let Some(a) = a.as_sockaddr_in6() {
                with.push((i.interface_name.clone(), a.ip().into()));
            }
        }
        let index = nix::net::if_::if_nametoindex(i.interface_name.as_str()).unwrap();
        if !interfaces.iter().any(|x: &Interface| x.index == index) {
            interfaces.push(Interface {
                index,
                name: i.interface_name.clone(),
                ethernet: true,
                kind: Some("veth".into()),
            });
        }
    }
    Snapshot { interfaces, with }
}
pub fn uplinks(s: &Snapshot, node: &[IpAddr], _: &[IpAddr], _: &[IpNet]) -> BTreeSet<u32> {
    s.interfaces
        .iter()
        .filter(|i| s.with.iter().any(|(n, a)| *n == i.name && node.contains(a)))
        .map(|i| i.index)
        .collect()
}
pub fn source_towards(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let s = UdpSocket::bind((any, 0)).ok()?;
    s.connect((to, 9)).ok()?;
    s.local_addr().ok().map(|a| a.ip())
}
pub fn forwarding_off() -> Vec<String> {
    Vec::new()
}
