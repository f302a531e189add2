//! This node, put together from what it was told, what its Node object says, and what the host has.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Config, NodePortAddress};
use crate::{
    cluster::node::{NodeInfo, own_addresses},
    model::{Drains, Family, Node, NodePortAddresses},
};

impl Config {
    /// This node: the configuration goes first, then the Node object (`reported`) and the
    /// ServiceCIDR objects, then the addresses of the host's interfaces.
    pub fn node(
        &self,
        reported: Option<&NodeInfo>,
        service_cidrs: impl IntoIterator<Item = IpNet>,
        interfaces: &[IpAddr],
    ) -> Node {
        let known = reported.map_or(&[][..], |reported| &reported.addresses);
        let mut addresses = own_addresses(&self.node_addresses, known);
        if addresses.is_empty() {
            addresses = first_of_each_family(interfaces);
        }
        let local_addresses = match self.local_addresses.is_empty() {
            false => self.local_addresses.clone(),
            true => union(&addresses, interfaces),
        };
        let service_cidrs = match self.service_cidrs.is_empty() {
            false => self.service_cidrs.clone(),
            true => service_cidrs.into_iter().collect(),
        };
        let zone = reported.and_then(|reported| reported.zone.as_deref().map(str::to_owned));
        Node {
            name: self.node_name.clone(),
            zone: self.node_zone.clone().or(zone),
            addresses,
            local_addresses,
            node_port_addresses: self.node_port_addresses(),
            pod_cidrs: self.pod_cidrs.clone(),
            service_cidrs,
            masquerade_all: self.masquerade_all,
            drains: Drains::new(),
            nodes: None,
        }
    }

    fn node_port_addresses(&self) -> NodePortAddresses {
        let cidrs = self.node_port_addresses.iter().filter_map(|address| match address {
            NodePortAddress::Primary => None,
            NodePortAddress::Cidr(cidr) => Some(*cidr),
        });
        let cidrs: Vec<_> = cidrs.collect();
        if cidrs.is_empty() { NodePortAddresses::Primary } else { NodePortAddresses::Cidrs(cidrs) }
    }
}

/// The first address of each family that other hosts could know.
fn first_of_each_family(interfaces: &[IpAddr]) -> Vec<IpAddr> {
    let global = |address: &&IpAddr| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    };
    let first = |family| interfaces.iter().filter(global).find(|a| Family::of(**a) == family);
    [Family::V4, Family::V6].into_iter().filter_map(first).copied().collect()
}

fn union(first: &[IpAddr], second: &[IpAddr]) -> Vec<IpAddr> {
    let more = second.iter().filter(|address| !first.contains(address));
    first.iter().chain(more).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    fn addresses(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|one| one.parse().unwrap()).collect()
    }

    fn node(options: Options, reported: Option<&NodeInfo>) -> Node {
        let interfaces =
            addresses(&["127.0.0.1", "192.0.2.7", "192.0.2.8", "fe80::1", "2001:db8::7"]);
        let cidr = "10.96.0.0/12".parse().unwrap();
        Config::from_options(options, "n1").unwrap().node(reported, [cidr], &interfaces)
    }

    #[test]
    fn a_node_that_was_told_nothing_asks_its_interfaces() {
        let node = node(Options::default(), None);
        assert_eq!(node.addresses, addresses(&["192.0.2.7", "2001:db8::7"]));
        assert_eq!(node.local_addresses.len(), 5);
        assert_eq!(node.service_cidrs, ["10.96.0.0/12".parse().unwrap()]);
    }

    #[test]
    fn the_node_object_goes_before_the_interfaces_and_the_configuration_before_both() {
        let reported = NodeInfo {
            zone: Some("a".into()),
            addresses: addresses(&["198.51.100.1"]),
            ..NodeInfo::default()
        };
        let found = node(Options::default(), Some(&reported));
        assert_eq!(
            (found.zone.as_deref(), &found.addresses[..]),
            (Some("a"), &reported.addresses[..])
        );
        let given = Options {
            node_zone: Some("b".into()),
            node_addresses: Some(addresses(&["203.0.113.1"])),
            local_addresses: Some(addresses(&["203.0.113.1"])),
            service_cidrs: Some(vec!["10.0.0.0/24".parse().unwrap()]),
            ..Options::default()
        };
        let found = node(given, Some(&reported));
        assert_eq!(found.zone.as_deref(), Some("b"));
        assert_eq!(found.addresses, addresses(&["203.0.113.1"]));
        assert_eq!(found.local_addresses, found.addresses);
        assert_eq!(found.service_cidrs, ["10.0.0.0/24".parse().unwrap()]);
    }

    #[test]
    fn a_node_port_cidr_and_the_word_primary_reach_the_node() {
        let cidr = "192.0.2.0/24".parse().unwrap();
        let given = Some(vec![NodePortAddress::Cidr(cidr)]);
        let found = node(Options { node_port_addresses: given, ..Options::default() }, None);
        assert_eq!(found.node_port_addresses, NodePortAddresses::Cidrs(vec![cidr]));
        assert_eq!(node(Options::default(), None).node_port_addresses, NodePortAddresses::Primary);
    }
}
