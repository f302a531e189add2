//! iptables: one chain has a rule a Service, whose own chain has a rule an endpoint that is taken with
//! a probability, whose chain translates.

use std::fmt::Write as _;

use super::endpoints;
use crate::{cluster::synthetic::Cluster, model::Family};

/// All Services.
pub fn all(cluster: &Cluster) -> String {
    let mut text = String::from("*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n");
    text += ":KUBE-POSTROUTING - [0:0]\n";
    for service in 0..cluster.services {
        text += &declared(cluster, service, true);
    }
    text += "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n";
    text += "-A POSTROUTING -j KUBE-POSTROUTING\n";
    text += "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n";
    text += "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n";
    text += "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n";
    text += "-A KUBE-POSTROUTING -j MASQUERADE --random-fully\n";
    text += &dispatch(cluster);
    for service in 0..cluster.services {
        text += &rules(cluster, service, true);
    }
    text + "COMMIT\n"
}

/// The last endpoint of a Service goes, or comes back. The chain that leads to Services is written
/// whole, as the proxy does; of their own chains only those of this Service.
pub fn change(cluster: &Cluster, service: u32, there: bool) -> String {
    let mut text = String::from("*nat\n:KUBE-SERVICES - [0:0]\n");
    text += &declared(cluster, service, true);
    text += &dispatch(cluster);
    text += &rules(cluster, service, there);
    if !there {
        let _ = writeln!(text, "-X {}", chain_of(service, cluster.endpoints - 1));
    }
    text + "COMMIT\n"
}

/// A Service's chains, made or emptied.
fn declared(cluster: &Cluster, service: u32, there: bool) -> String {
    let chains = endpoints(cluster, there).map(|endpoint| chain_of(service, endpoint));
    chains.chain([chain(service)]).map(|chain| format!(":{chain} - [0:0]\n")).collect()
}

/// The chain that leads to Services.
fn dispatch(cluster: &Cluster) -> String {
    let rule = |service| {
        let (address, port) = (cluster.cluster_ip(service, Family::V4), Cluster::PORT);
        let (name, chain) = (cluster.name(service), chain(service));
        format!(
            "-A KUBE-SERVICES -d {address}/32 -p tcp -m comment --comment \"{name}:http\" -m tcp \
             --dport {port} -j {chain}\n"
        )
    };
    (0..cluster.services).map(rule).collect()
}

/// The rules in a Service's own chains.
fn rules(cluster: &Cluster, service: u32, there: bool) -> String {
    let (mut text, endpoints) = (String::new(), endpoints(cluster, there));
    for endpoint in endpoints.clone() {
        let (chain, target) = (chain(service), chain_of(service, endpoint));
        let left = endpoints.end - endpoint;
        // The last takes what the others have left.
        let chance = match left {
            1 => String::new(),
            _ => {
                let probability = 1.0 / f64::from(left);
                format!(" -m statistic --mode random --probability {probability:.10}")
            }
        };
        let address = cluster.endpoint_ip(service, endpoint, Family::V4);
        let _ = writeln!(text, "-A {chain}{chance} -j {target}");
        let _ = writeln!(text, "-A {target} -s {address}/32 -j KUBE-MARK-MASQ");
        let _ = writeln!(text, "-A {target} -p tcp -m tcp -j DNAT --to-destination {address}:8080");
    }
    text
}

fn chain(service: u32) -> String {
    format!("KUBE-SVC-{service}")
}

fn chain_of(service: u32, endpoint: u32) -> String {
    format!("KUBE-SEP-{service}-{endpoint}")
}
