//! On which of this node's addresses NodePorts answer.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Family, Node, NodePortAddresses};

/// The accepted addresses of a family, sorted. Loopback never answers.
pub fn addresses(node: &Node, family: Family) -> Vec<IpAddr> {
    let mut accepted = match &node.node_port_addresses {
        NodePortAddresses::Primary => primary(node, family).into_iter().collect(),
        NodePortAddresses::Cidrs(cidrs) => matching(&node.local_addresses, cidrs, family),
    };
    accepted.retain(|address| !address.is_loopback());
    accepted
}

/// The local addresses of a family that the CIDRs of that family name, loopback included, sorted.
pub fn matching(local: &[IpAddr], cidrs: &[IpNet], family: Family) -> Vec<IpAddr> {
    let all = matches_all(cidrs, family);
    let named = |address: &IpAddr| all || cidrs.iter().any(|cidr| cidr.contains(address));
    let local = local.iter().copied().filter(|address| Family::of(*address) == family);
    let mut matching: Vec<_> = local.filter(named).collect();
    matching.sort();
    matching.dedup();
    matching
}

/// Whether the CIDRs leave a family unrestricted: by /0, or by saying nothing about it.
pub fn matches_all(cidrs: &[IpNet], family: Family) -> bool {
    let mut of_family = cidrs.iter().filter(|cidr| Family::of(cidr.addr()) == family).peekable();
    of_family.peek().is_none() || of_family.any(|cidr| cidr.prefix_len() == 0)
}

/// The first of this node's own addresses of a family.
pub fn primary(node: &Node, family: Family) -> Option<IpAddr> {
    node.addresses.iter().copied().find(|address| Family::of(*address) == family)
}
