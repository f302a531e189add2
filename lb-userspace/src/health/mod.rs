//! What load balancers in front of the cluster ask: whether this node has endpoints of a Service
//! (`healthCheckNodePort`), and whether its proxy is well (`/healthz`, `/livez`).
//!
//! [`services`] and [`node`] decide, without a clock or a socket; [`server`] listens.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    model::{Family, Node, NodePortAddresses},
    plan::node_ports,
};

pub mod node;
pub mod server;
pub mod services;

/// Where `healthCheckNodePort` servers listen: as NodePorts, on the accepted addresses; on all of
/// them by one unspecified address, that of IPv6 where there is IPv6, for it takes IPv4 as well.
pub fn listen_addresses(node: &Node) -> BTreeSet<IpAddr> {
    let has = |family| node.local_addresses.iter().any(|a| Family::of(*a) == family);
    let families: Vec<Family> =
        [Family::V4, Family::V6].into_iter().filter(|family| has(*family)).collect();
    let all = |family: &Family| match &node.node_port_addresses {
        NodePortAddresses::Primary => false,
        NodePortAddresses::Cidrs(cidrs) => node_ports::matches_all(cidrs, *family),
    };
    if families.iter().all(all) {
        let any: IpAddr = if has(Family::V6) { [0_u16; 8].into() } else { [0_u8; 4].into() };
        return BTreeSet::from([any]);
    }
    families.into_iter().flat_map(|family| node_ports::addresses(node, family)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|one| one.parse().unwrap()).collect()
    }

    fn listens(cidrs: Option<&[&str]>, local: &[&str]) -> Vec<IpAddr> {
        let node_port_addresses = cidrs.map_or(NodePortAddresses::Primary, |cidrs| {
            NodePortAddresses::Cidrs(cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect())
        });
        let node = Node {
            addresses: ips(&local[..1]),
            local_addresses: ips(local),
            node_port_addresses,
            ..Node::default()
        };
        listen_addresses(&node).into_iter().collect()
    }

    #[test]
    fn where_all_addresses_answer_one_socket_listens_on_all_of_them() {
        assert_eq!(listens(Some(&["0.0.0.0/0"]), &["192.0.2.1"]), ips(&["0.0.0.0"]));
        assert_eq!(listens(Some(&["0.0.0.0/0"]), &["192.0.2.1", "2001:db8::1"]), ips(&["::"]));
    }

    #[test]
    fn where_some_answer_each_of_them_is_listened_on() {
        let local = ["192.0.2.1", "192.0.2.2", "198.51.100.1", "127.0.0.1"];
        assert_eq!(listens(Some(&["192.0.2.0/24"]), &local), ips(&["192.0.2.1", "192.0.2.2"]));
        assert_eq!(listens(None, &local), ips(&["192.0.2.1"]), "the primary one by default");
    }
}
