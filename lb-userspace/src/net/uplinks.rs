//! The interfaces by which packets of other hosts come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{Interface, Snapshot};

/// The interfaces over which a default route, an address of this node, another node, or pods of
/// another node are reached; never the loopback.
///
/// A device is not an uplink because it is there: bridges and cables to this node's own pods are
/// none, unless somebody else is reached over them.
pub fn uplinks(
    snapshot: &Snapshot,
    node_addresses: &[IpAddr],
    other_nodes: &[IpAddr],
    other_pods: &[IpNet],
) -> BTreeSet<u32> {
    let mut found = carriers(snapshot, node_addresses);
    for table in tables(snapshot).values() {
        found.extend(table.defaults());
        found.extend(other_nodes.iter().flat_map(|node| table.covering((*node).into())));
        for pods in other_pods {
            found.extend(table.covering(*pods));
            found.extend(table.within(*pods));
        }
    }
    found.retain(|index| snapshot.interfaces.get(index).is_some_and(|found| !found.loopback));
    found
}

/// What became of names in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// By index.
    pub found: BTreeSet<u32>,
    /// No interface has these names now; one that gets such a name later is in the next answer.
    pub missing: BTreeSet<String>,
}

/// Exactly the interfaces with these names.
pub fn named(snapshot: &Snapshot, names: &[String]) -> Named {
    let mut answer = Named::default();
    for name in names {
        match snapshot.interfaces.values().find(|interface| interface.name == *name) {
            Some(interface) => answer.found.insert(interface.index),
            None => answer.missing.insert(name.clone()),
        };
    }
    answer
}

/// The interfaces with such names; never the loopback.
pub fn matching(snapshot: &Snapshot, matches: impl Fn(&str) -> bool) -> BTreeSet<u32> {
    let of_name = |it: &&Interface| !it.loopback && matches(&it.name);
    snapshot.interfaces.values().filter(of_name).map(|interface| interface.index).collect()
}

fn carriers(snapshot: &Snapshot, node_addresses: &[IpAddr]) -> BTreeSet<u32> {
    let carries =
        |own: &BTreeSet<IpAddr>| node_addresses.iter().any(|address| own.contains(address));
    snapshot.addresses.iter().filter(|(_, own)| carries(own)).map(|(index, _)| *index).collect()
}

/// One routing table: indices of interfaces by destination.
#[derive(Default)]
struct Table(BTreeMap<IpNet, BTreeSet<u32>>);

/// Which table answers for a packet is a matter of rules that also know marks, senders and users,
/// so each table is asked. Of routes with one destination the spare ones (a worse metric) count
/// too: they are taken without notice.
fn tables(snapshot: &Snapshot) -> BTreeMap<u32, Table> {
    let mut tables = BTreeMap::<_, Table>::new();
    for route in &snapshot.routes {
        let table = tables.entry(route.table).or_default();
        table.0.entry(route.destination).or_default().extend(&route.interfaces);
    }
    tables
}

impl Table {
    /// The interfaces of every default route.
    fn defaults(&self) -> impl Iterator<Item = u32> {
        let default = |net: &IpNet| net.prefix_len() == 0;
        self.0.iter().filter(move |(net, _)| default(net)).flat_map(|(_, found)| found).copied()
    }

    /// The interfaces of the longest prefix that covers all of `net`.
    fn covering(&self, net: IpNet) -> impl Iterator<Item = u32> {
        let wider = (0..=net.prefix_len()).rev().filter_map(move |length| {
            let wider = IpNet::new(net.network(), length).expect("no longer than the net's own");
            self.0.get(&wider.trunc())
        });
        wider.take(1).flatten().copied()
    }

    /// The interfaces of the routes to parts of `net`. A single address is none of them: that is
    /// a pod of this node with an address borrowed from another's range.
    fn within(&self, net: IpNet) -> impl Iterator<Item = u32> {
        let parts = self.0.range(net.trunc()..).take_while(move |(part, _)| net.contains(*part));
        let parts = parts.filter(|(part, _)| part.prefix_len() < part.max_prefix_len());
        parts.flat_map(|(_, found)| found).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Route;

    const MAIN: u32 = 254;
    const LO: u32 = 1;
    const ETH0: u32 = 2;
    const ETH1: u32 = 3;
    const VXLAN: u32 = 4;
    const BRIDGE: u32 = 5;
    const POD: u32 = 6;

    /// A node with one uplink, and pods behind a bridge.
    fn node() -> Snapshot {
        let names = [
            (LO, "lo"),
            (ETH0, "eth0"),
            (ETH1, "eth1"),
            (VXLAN, "flannel.1"),
            (BRIDGE, "cni0"),
            (POD, "veth1"),
        ];
        let interfaces = names.map(|(index, name)| {
            let loopback = index == LO;
            let name = name.to_owned();
            let ethernet = !loopback;
            (
                index,
                Interface {
                    index,
                    name,
                    kind: None,
                    ethernet,
                    loopback,
                    up: true,
                    master: None,
                    xdp: None,
                },
            )
        });
        let mut node = Snapshot { interfaces: interfaces.into(), ..Snapshot::default() };
        for (index, own) in [
            (LO, "127.0.0.1"),
            (LO, "::1"),
            (ETH0, "192.168.0.1"),
            (ETH0, "fd00::1"),
            (BRIDGE, "10.244.0.1"),
        ] {
            node.addresses.entry(index).or_default().insert(address(own));
        }
        route(&mut node, MAIN, "0.0.0.0/0", &[ETH0]);
        route(&mut node, MAIN, "192.168.0.0/24", &[ETH0]);
        route(&mut node, MAIN, "10.244.0.0/24", &[BRIDGE]);
        route(&mut node, MAIN, "10.244.0.9/32", &[POD]);
        node
    }

    fn route(node: &mut Snapshot, table: u32, to: &str, interfaces: &[u32]) {
        let interfaces = interfaces.iter().copied().collect();
        node.routes.insert(Route { table, destination: net(to), interfaces });
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_default_route_makes_an_uplink_and_the_pods_own_devices_are_none() {
        assert_eq!(uplinks(&node(), &[], &[], &[]), [ETH0].into());
    }

    #[test]
    fn every_default_route_counts_spare_multipath_and_ipv6_and_other_tables_too() {
        let mut node = node();
        node.routes.clear();
        route(&mut node, MAIN, "0.0.0.0/0", &[ETH0, ETH1]);
        assert_eq!(uplinks(&node, &[], &[], &[]), [ETH0, ETH1].into());

        node.routes.clear();
        route(&mut node, MAIN, "::/0", &[ETH1]);
        assert_eq!(uplinks(&node, &[], &[], &[]), [ETH1].into());

        node.routes.clear();
        route(&mut node, MAIN, "0.0.0.0/0", &[ETH0]);
        route(&mut node, 2, "0.0.0.0/0", &[ETH1]);
        assert_eq!(uplinks(&node, &[], &[], &[]), [ETH0, ETH1].into());
    }

    #[test]
    fn the_interface_that_carries_an_address_of_the_node_is_an_uplink_unless_it_is_the_loopback() {
        let mut node = node();
        node.routes.clear();
        let own = ["192.168.0.1", "fd00::1", "127.0.0.1", "::1", "192.0.2.1"].map(address);
        assert_eq!(uplinks(&node, &own, &[], &[]), [ETH0].into());
        assert_eq!(uplinks(&node, &own[2..], &[], &[]), [].into());
    }

    #[test]
    fn another_node_is_reached_over_the_longest_prefix() {
        let mut node = node();
        route(&mut node, MAIN, "172.16.0.0/12", &[BRIDGE]);
        route(&mut node, MAIN, "172.16.1.0/24", &[ETH1]);
        let other = [address("172.16.1.7")];
        assert_eq!(uplinks(&node, &[], &other, &[]), [ETH0, ETH1].into());

        route(&mut node, MAIN, "172.16.1.7/32", &[VXLAN]);
        assert_eq!(uplinks(&node, &[], &other, &[]), [ETH0, VXLAN].into());
    }

    #[test]
    fn a_node_to_which_there_is_no_way_names_no_interface() {
        let mut node = node();
        route(&mut node, MAIN, "172.16.0.0/12", &[ETH1]);
        route(&mut node, MAIN, "172.16.1.0/24", &[]);
        assert_eq!(uplinks(&node, &[], &[address("172.16.1.7")], &[]), [ETH0].into());
        assert_eq!(uplinks(&node, &[], &[address("2001:db8::7")], &[]), [ETH0].into());
    }

    #[test]
    fn a_table_that_says_it_knows_no_way_leaves_the_answer_to_the_others() {
        let mut node = node();
        route(&mut node, 1, "172.16.1.0/24", &[]);
        route(&mut node, MAIN, "172.16.1.0/24", &[ETH1]);
        assert_eq!(uplinks(&node, &[], &[address("172.16.1.7")], &[]), [ETH0, ETH1].into());
    }

    #[test]
    fn the_tunnel_to_the_pods_of_another_node_is_an_uplink_in_both_families() {
        let mut node = node();
        route(&mut node, MAIN, "10.244.1.0/24", &[VXLAN]);
        route(&mut node, MAIN, "fd00:244:1::/64", &[ETH1]);
        let pods = ["10.244.1.0/24", "fd00:244:1::/64"].map(net);
        assert_eq!(uplinks(&node, &[], &[], &pods[..1]), [ETH0, VXLAN].into());
        assert_eq!(uplinks(&node, &[], &[], &pods), [ETH0, ETH1, VXLAN].into());
    }

    #[test]
    fn parts_of_another_nodes_pods_may_be_reached_over_different_interfaces() {
        let mut node = node();
        route(&mut node, MAIN, "10.244.1.0/26", &[VXLAN]);
        route(&mut node, MAIN, "10.244.1.128/26", &[ETH1]);
        route(&mut node, MAIN, "10.244.2.0/26", &[BRIDGE]);
        let pods = [net("10.244.1.0/24")];
        assert_eq!(uplinks(&node, &[], &[], &pods), [ETH0, ETH1, VXLAN].into());
    }

    #[test]
    fn a_pod_of_this_node_with_an_address_of_another_nodes_range_makes_no_uplink() {
        let mut node = node();
        route(&mut node, MAIN, "10.244.1.0/24", &[VXLAN]);
        route(&mut node, MAIN, "10.244.1.5/32", &[POD]);
        assert_eq!(uplinks(&node, &[], &[], &[net("10.244.1.0/24")]), [ETH0, VXLAN].into());
    }

    #[test]
    fn a_range_that_is_one_address_is_looked_up_like_a_node() {
        let mut node = node();
        route(&mut node, MAIN, "10.244.1.5/32", &[VXLAN]);
        assert_eq!(uplinks(&node, &[], &[], &[net("10.244.1.5/32")]), [ETH0, VXLAN].into());
    }

    #[test]
    fn a_route_over_an_interface_that_is_no_longer_there_is_left_out() {
        let mut node = node();
        node.interfaces.remove(&ETH0);
        assert_eq!(uplinks(&node, &[address("192.168.0.1")], &[], &[]), [].into());
    }

    #[test]
    fn interfaces_of_a_pattern_are_all_of_that_name_but_the_loopback() {
        let of = |start: &str| matching(&node(), |name| name.starts_with(start));
        assert_eq!(of("eth"), [ETH0, ETH1].into());
        assert_eq!(of("tap"), [].into());
        assert_eq!(of(""), [ETH0, ETH1, VXLAN, BRIDGE, POD].into());
    }

    #[test]
    fn interfaces_given_by_name_are_exactly_those_and_a_missing_one_is_named() {
        let names = ["eth1", "wg0", "cni0"].map(str::to_owned);
        let mut node = node();
        let before = Named { found: [ETH1, BRIDGE].into(), missing: ["wg0".to_owned()].into() };
        assert_eq!(named(&node, &names), before);

        node.interfaces.get_mut(&VXLAN).unwrap().name = "wg0".to_owned();
        let after = Named { found: [ETH1, VXLAN, BRIDGE].into(), missing: [].into() };
        assert_eq!(named(&node, &names), after);
    }
}
