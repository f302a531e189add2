use std::net::IpAddr;

use ipnet::IpNet;
use lb_common::{
    abi::{CidrSet, Settings},
    addr::{Addr as _, V4, V6},
    limits::CIDRS,
};

use super::draft::slot;
use crate::model::Node;

/// More networks than the programs look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {count} networks of one family; {CIDRS} are supported")]
pub struct TooManyCidrs {
    what: &'static str,
    count: usize,
}

/// `base` with what it takes from the node.
///
/// # Errors
/// If there are more networks than fit.
pub fn settings(base: Settings, node: &Node) -> Result<Settings, TooManyCidrs> {
    let [pods_v4, pods_v6] = sets("podCIDRs", &node.pod_cidrs)?;
    let [services_v4, services_v6] = sets("serviceCIDRs", &node.service_cidrs)?;
    Ok(Settings {
        masquerade_all: u32::from(node.masquerade_all),
        pods_v4,
        pods_v6,
        services_v4,
        services_v6,
        own_v4: own(node, true),
        own_v6: own(node, false),
        ..base
    })
}

/// The node's own address of a family, which its sockets dial from unless they say otherwise.
fn own(node: &Node, v4: bool) -> [u8; 16] {
    let own = node.addresses.iter().find(|address| address.is_ipv4() == v4);
    own.map_or([0; 16], |address| slot(*address))
}

/// The networks of each family.
fn sets(what: &'static str, networks: &[IpNet]) -> Result<[CidrSet; 2], TooManyCidrs> {
    let mut sets = [CidrSet::EMPTY; 2];
    let mut counts = [0; 2];
    for network in IpNet::aggregate(&networks.to_vec()) {
        let family = usize::from(network.addr().is_ipv6());
        counts[family] += 1;
        if counts[family] <= CIDRS {
            let (network, mask) = (slot(network.network()), slot(network.netmask()));
            sets[family].set(counts[family] - 1, network, mask);
        }
    }
    match counts.into_iter().max() {
        Some(count) if count > CIDRS => Err(TooManyCidrs { what, count }),
        _ => Ok(sets),
    }
}

/// The networks whose sources count as pods: what [`settings`] wrote of the node.
pub fn pod_networks(settings: &Settings) -> Vec<IpNet> {
    let Settings { pods_v4, pods_v6, .. } = settings;
    let v4 = pods_v4.networks().map(|pair| pair.map(|slot| V4::from_slot(&slot).0.into()));
    let v6 = pods_v6.networks().map(|pair| pair.map(|slot| V6::from_slot(&slot).0.into()));
    let network = |[network, mask]: [IpAddr; 2]| IpNet::with_netmask(network, mask).ok();
    v4.chain(v6).filter_map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(service_cidrs: &[&str]) -> Node {
        let service_cidrs = service_cidrs.iter().map(|net| net.parse().unwrap()).collect();
        Node { service_cidrs, masquerade_all: true, ..Node::default() }
    }

    #[test]
    fn networks_go_to_the_set_of_their_family() {
        let node = node(&["10.96.0.0/12", "fd00:1::/112"]);
        let settings = settings(Settings::default(), &node).unwrap();
        assert!(settings.services_v4.contains(V4([10, 111, 255, 1])));
        assert!(!settings.services_v4.contains(V4([10, 112, 0, 1])));
        assert!(
            settings.services_v6.contains(V6([0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]))
        );
        assert!(settings.pods_v4.is_empty() && settings.pods_v6.is_empty());
        assert_eq!(settings.masquerade_all, 1);
    }

    #[test]
    fn the_networks_of_pods_can_be_read_back() {
        let pod_cidrs = ["0.0.0.0/0", "fd00:1::/64", "fd00:3::/64"];
        let pod_cidrs: Vec<IpNet> = pod_cidrs.iter().map(|net| net.parse().unwrap()).collect();
        let node = Node { pod_cidrs: pod_cidrs.clone(), ..Node::default() };
        let settings = settings(Settings::default(), &node).unwrap();
        assert_eq!(pod_networks(&settings), pod_cidrs);
        assert_eq!(pod_networks(&Settings::default()), []);
    }

    #[test]
    fn more_networks_than_fit_are_refused_by_name() {
        let node =
            node(&["10.0.0.0/24", "10.0.2.0/24", "10.0.4.0/24", "10.0.6.0/24", "10.0.8.0/24"]);
        let error = settings(Settings::default(), &node).unwrap_err();
        assert_eq!(error.to_string(), "serviceCIDRs has 5 networks of one family; 4 are supported");
    }
}
