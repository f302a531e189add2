//! What the kernel's own tables make of a node's interfaces.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use ipnet::IpNet;
use lb_userspace::{
    model::Family,
    net::{
        Changes, Interface, Named, Route, Snapshot, forwarding_off, named, snapshot,
        source_towards, uplinks,
    },
};
use tokio::time::timeout;

use super::net_namespace::{alone, alone_async, ip};

/// The end of a wait for what will never come.
const PATIENCE: Duration = Duration::from_secs(10);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn index(snapshot: &Snapshot, name: &str) -> u32 {
    let found = snapshot.interfaces.values().find(|interface| interface.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {snapshot:#?}")).index
}

fn names(snapshot: &Snapshot, found: &BTreeSet<u32>) -> Vec<String> {
    found.iter().map(|index| snapshot.interfaces[index].name.clone()).collect()
}

/// A node as the usual network plug-ins leave it: one uplink, and pods behind a bridge.
fn node() {
    for line in [
        "link set lo up",
        "link add eth0 type veth peer name wire",
        "link set wire up",
        "link set eth0 up",
        "addr add 192.168.0.1/24 dev eth0",
        "addr add fd00::1/64 dev eth0 nodad",
        "route add default via 192.168.0.254",
        "link add cni0 type bridge",
        "addr add 10.244.0.1/24 dev cni0",
        "link set cni0 up",
        "link add veth1 type veth peer name pod1",
        "link set veth1 master cni0 up",
    ] {
        ip(line);
    }
}

#[test]
fn a_snapshot_says_what_an_interface_is() {
    alone_async(async || {
        node();
        ip("tuntap add mode tun name tun0");
        let seen = snapshot().await.unwrap();
        let device = |name: &str, kind: Option<&str>, ethernet, up| Interface {
            index: index(&seen, name),
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            ethernet,
            loopback: false,
            up,
            master: None,
            xdp: None,
        };
        let expected = [
            Interface { loopback: true, ..device("lo", None, false, true) },
            device("eth0", Some("veth"), true, true),
            device("wire", Some("veth"), true, true),
            device("cni0", Some("bridge"), true, true),
            Interface {
                master: Some(index(&seen, "cni0")),
                ..device("veth1", Some("veth"), true, true)
            },
            device("pod1", Some("veth"), true, false),
            device("tun0", Some("tun"), false, false),
        ];
        assert_eq!(seen.interfaces, expected.map(|each| (each.index, each)).into());
    });
}

#[test]
fn a_snapshot_holds_own_addresses_and_routes_of_every_table_but_the_local_one() {
    alone_async(async || {
        for line in [
            "link set lo up",
            "link add eth0 type veth peer name wire",
            "link set eth0 addrgenmode none",
            "link set wire addrgenmode none",
            "link set wire up",
            "link set eth0 up",
            "addr add 192.168.0.1 peer 192.168.0.2 dev eth0",
            "addr add fd00::1/64 dev eth0 nodad",
            "route add default dev eth0",
            "route add default via 192.168.0.2 dev eth0 table 1000",
            "route add 10.0.0.0/8 nexthop dev eth0 nexthop via 192.168.0.9 dev wire onlink",
            "route add throw 172.16.0.0/12 table 7",
            "-6 route add 2001:db8::/32 via fd00::2",
        ] {
            ip(line);
        }
        let seen = snapshot().await.unwrap();
        let (lo, eth0, wire) = (index(&seen, "lo"), index(&seen, "eth0"), index(&seen, "wire"));
        let own = [
            (lo, ["127.0.0.1", "::1"].map(address).into()),
            (eth0, ["192.168.0.1", "fd00::1"].map(address).into()),
        ];
        assert_eq!(seen.addresses, own.into());
        let route = |table, to, interfaces: &[u32]| Route {
            table,
            destination: net(to),
            interfaces: interfaces.iter().copied().collect(),
        };
        let routes = [
            route(7, "172.16.0.0/12", &[]),
            route(254, "0.0.0.0/0", &[eth0]),
            route(254, "10.0.0.0/8", &[eth0, wire]),
            route(254, "192.168.0.2/32", &[eth0]),
            route(254, "2001:db8::/32", &[eth0]),
            route(254, "fd00::/64", &[eth0]),
            route(1000, "0.0.0.0/0", &[eth0]),
        ];
        assert_eq!(seen.routes, routes.into());
    });
}

#[test]
fn the_uplink_of_a_node_is_found_and_the_bridge_to_its_pods_is_not() {
    alone_async(async || {
        node();
        let seen = snapshot().await.unwrap();
        let own = ["192.168.0.1", "fd00::1"].map(address);
        let others = ["192.168.0.2", "fd00::2"].map(address);
        assert_eq!(names(&seen, &uplinks(&seen, &own, &others, &[])), ["eth0"]);
    });
}

#[test]
fn the_tunnel_to_another_nodes_pods_becomes_an_uplink_with_its_route_and_ceases_with_it() {
    alone_async(async || {
        node();
        ip("link add flannel.1 type vxlan id 1 dev eth0 dstport 8472");
        ip("link set flannel.1 up");
        let pods = [net("10.244.1.0/24")];
        let now = async || {
            let seen = snapshot().await.unwrap();
            names(&seen, &uplinks(&seen, &[], &[], &pods))
        };
        assert_eq!(now().await, ["eth0"]);

        let mut changes = Changes::begin().unwrap();
        ip("route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink");
        timeout(PATIENCE, changes.next()).await.expect("news of the route").unwrap();
        assert_eq!(now().await, ["eth0", "flannel.1"]);

        ip("link del flannel.1");
        timeout(PATIENCE, changes.next()).await.expect("news of the end").unwrap();
        assert_eq!(now().await, ["eth0"]);
    });
}

#[test]
fn an_interface_that_the_configuration_names_is_taken_when_it_appears() {
    alone_async(async || {
        let configured = ["eth0".to_owned()];
        let mut changes = Changes::begin().unwrap();
        let before = named(&snapshot().await.unwrap(), &configured);
        assert_eq!(before, Named { found: [].into(), missing: configured.clone().into() });

        ip("link add eth0 type veth peer name wire");
        timeout(PATIENCE, changes.next()).await.expect("news of the interface").unwrap();
        let seen = snapshot().await.unwrap();
        let found = [index(&seen, "eth0")].into();
        assert_eq!(named(&seen, &configured), Named { found, missing: [].into() });
    });
}

#[test]
fn the_source_towards_a_host_is_the_one_that_the_route_prefers() {
    alone(|| {
        node();
        ip("addr add 192.168.0.7/24 dev eth0");
        ip("route add 198.18.0.0/16 via 192.168.0.254 src 192.168.0.7");
        ip("route add unreachable 198.19.0.0/16");
        ip("route add blackhole 198.20.0.0/16");
        ip("route add prohibit 198.21.0.0/16");
        let pairs = [
            ("203.0.113.9", Some("192.168.0.1")),
            ("198.18.0.1", Some("192.168.0.7")),
            ("10.244.0.9", Some("10.244.0.1")),
            ("198.19.0.1", None),
            ("198.20.0.1", None),
            ("198.21.0.1", None),
            ("fd00::2", Some("fd00::1")),
            ("2001:db8::1", None),
        ];
        let answers = pairs.map(|(to, _)| source_towards(address(to)).unwrap());
        assert_eq!(answers, pairs.map(|(_, source)| source.map(address)));
    });
}

#[test]
fn that_the_source_cannot_be_asked_for_is_not_that_there_is_no_way() {
    alone(|| {
        node();
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "61000 61000").unwrap();
        let taken = UdpSocket::bind("[::]:61000").unwrap();
        for to in ["203.0.113.9", "fd00::2"] {
            let error = source_towards(address(to)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{to}");
        }
        drop(taken);
        let answer = source_towards(address("203.0.113.9")).unwrap();
        assert_eq!(answer, Some(address("192.168.0.1")));
    });
}

#[test]
fn a_node_that_may_not_forward_names_the_parameter_of_each_family() {
    alone(|| {
        let set = |v4, v6| {
            fs::write("/proc/sys/net/ipv4/ip_forward", v4).unwrap();
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", v6).unwrap();
            [forwarding_off(Family::V4), forwarding_off(Family::V6)]
        };
        let (v4, v6) = (Some("net.ipv4.ip_forward"), Some("net.ipv6.conf.all.forwarding"));
        assert_eq!(set("0", "0"), [v4, v6]);
        assert_eq!(set("1", "0"), [None, v6]);
        assert_eq!(set("0", "1"), [v4, None]);
        assert_eq!(set("1", "1"), [None, None]);
    });
}
