//! nftables: a map leads from address, protocol and port to a chain a Service, which draws a chain an
//! endpoint, which translates.

use std::fmt::Write as _;

use super::endpoints;
use crate::{cluster::synthetic::Cluster, model::Family};

/// The mark of packets that get this node's address.
const MARK: &str = "0x4000";

/// The table with all Services, for one transaction.
pub fn all(cluster: &Cluster) -> String {
    let mut text = frame();
    let chains = (0..cluster.services).flat_map(|at| {
        let of_endpoints = endpoints(cluster, true).map(move |endpoint| chain_of(at, endpoint));
        of_endpoints.chain([chain(at), outside(at)])
    });
    for chain in chains {
        let _ = writeln!(text, "add chain ip bench {chain}");
    }
    for service in 0..cluster.services {
        for endpoint in endpoints(cluster, true) {
            text += &translation(cluster, service, endpoint);
        }
        text += &choice(cluster, service, true);
        let (chain, outside) = (chain(service), outside(service));
        let _ = writeln!(text, "add rule ip bench {outside} jump mark-for-masquerade");
        let _ = writeln!(text, "add rule ip bench {outside} goto {chain}");
        let (address, port) = (cluster.cluster_ip(service, Family::V4), Cluster::PORT);
        let _ = writeln!(
            text,
            "add element ip bench service-ips {{ {address} . tcp . {port} : goto {chain} }}"
        );
        if let Some(port) = cluster.node_port(service) {
            let _ = writeln!(
                text,
                "add element ip bench service-nodeports {{ tcp . {port} : goto {outside} }}"
            );
        }
    }
    text
}

/// The last endpoint of a Service goes, or comes back.
pub fn change(cluster: &Cluster, service: u32, there: bool) -> String {
    let last = cluster.endpoints - 1;
    let (mut text, chain) = (String::new(), chain_of(service, last));
    if there {
        let _ = writeln!(text, "add chain ip bench {chain}");
        text += &translation(cluster, service, last);
    }
    text += &choice(cluster, service, there);
    if !there {
        let _ = writeln!(text, "flush chain ip bench {chain}");
        let _ = writeln!(text, "delete chain ip bench {chain}");
    }
    text
}

/// What is there without any Service.
fn frame() -> String {
    let mut text = String::from("add table ip bench\n");
    for map in [
        "service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }",
        "service-nodeports { type inet_proto . inet_service : verdict ; }",
    ] {
        let _ = writeln!(text, "add map ip bench {map}");
    }
    for chain in [
        "services",
        "mark-for-masquerade",
        "masquerading",
        "prerouting { type nat hook prerouting priority dstnat ; }",
        "output { type nat hook output priority -100 ; }",
        "postrouting { type nat hook postrouting priority srcnat ; }",
    ] {
        let _ = writeln!(text, "add chain ip bench {chain}");
    }
    for rule in [
        "services ip daddr . meta l4proto . th dport vmap @service-ips",
        "services fib daddr type local meta l4proto . th dport vmap @service-nodeports",
        "prerouting jump services",
        "output jump services",
        "postrouting jump masquerading",
    ] {
        let _ = writeln!(text, "add rule ip bench {rule}");
    }
    let _ = writeln!(text, "add rule ip bench mark-for-masquerade mark set mark or {MARK}");
    let _ = writeln!(text, "add rule ip bench masquerading mark and {MARK} == 0 return");
    let _ = writeln!(text, "add rule ip bench masquerading mark set mark xor {MARK}");
    let _ = writeln!(text, "add rule ip bench masquerading masquerade fully-random");
    text
}

/// A Service's chain: one of its endpoints at random.
fn choice(cluster: &Cluster, service: u32, there: bool) -> String {
    let (mut text, chain) = (String::new(), chain(service));
    let endpoints = endpoints(cluster, there);
    let _ = writeln!(text, "flush chain ip bench {chain}");
    if endpoints.is_empty() {
        return text;
    }
    let _ = write!(text, "add rule ip bench {chain} numgen random mod {} vmap {{", endpoints.end);
    for endpoint in endpoints {
        let _ = write!(text, " {endpoint} : goto {},", chain_of(service, endpoint));
    }
    text.pop();
    text += " }\n";
    text
}

/// An endpoint's chain: what it sends to itself gets another source.
fn translation(cluster: &Cluster, service: u32, endpoint: u32) -> String {
    let chain = chain_of(service, endpoint);
    let address = cluster.endpoint_ip(service, endpoint, Family::V4);
    format!(
        "add rule ip bench {chain} ip saddr {address} jump mark-for-masquerade\n\
         add rule ip bench {chain} meta l4proto tcp dnat to {address}:8080\n"
    )
}

fn chain(service: u32) -> String {
    format!("service-{service}")
}

fn outside(service: u32) -> String {
    format!("external-{service}")
}

fn chain_of(service: u32, endpoint: u32) -> String {
    format!("endpoint-{service}-{endpoint}")
}
