//! Why an endpoint is used here, or is not: the sentence for what [`super::service`] decided.

use super::{FrontendKind, PortPlan, Scope, topology::Mode};
use crate::model::{Endpoint, Family, Node};

/// Whether new connections may get the endpoint on this node, and why.
pub fn why(port: &PortPlan, all: &[Endpoint], endpoint: &Endpoint, node: &Node) -> (bool, String) {
    let holds = |scope| port.set(scope).backends.iter().any(|it| it.address == endpoint.address);
    let (cluster, local) = (holds(Scope::Cluster), holds(Scope::Local));
    if cluster || local {
        let how = if endpoint.ready { "ready" } else { "the last that serves, though terminating" };
        let whom = match (cluster, local) {
            (true, false) if reads_local(port) => "; not for clients that the policy keeps local",
            (false, _) => "; for clients that the policy keeps local",
            _ => "",
        };
        return (true, format!("{how}{whom}"));
    }
    (false, refusal(port, all, endpoint, node))
}

/// Whether any client of this port gets local endpoints only.
fn reads_local(port: &PortPlan) -> bool {
    let dialled = |kinds: fn(FrontendKind) -> bool| port.frontends.iter().any(|f| kinds(f.kind));
    (port.internal == Scope::Local && dialled(|kind| kind == FrontendKind::ClusterIp))
        || (port.external == Scope::Local && dialled(|kind| kind != FrontendKind::ClusterIp))
}

fn refusal(port: &PortPlan, all: &[Endpoint], endpoint: &Endpoint, node: &Node) -> String {
    if node.drains(endpoint) {
        return format!("drained here by an operator: `lb ready {}` ends that", endpoint.address);
    }
    let family: Vec<_> = all
        .iter()
        .filter(|it| Family::of(it.address.ip()) == port.family && !node.drains(it))
        .collect();
    if endpoint.terminating {
        return match endpoint.serving {
            true => "terminating, and others are ready".into(),
            false => "terminating, and it no longer serves".into(),
        };
    }
    if !endpoint.ready {
        return "not ready: its readiness probe fails, or has not passed yet".into();
    }
    match Mode::of(&family, node) {
        Mode::Zone(zone) if !endpoint.zone_hints.contains(zone) => {
            let zones: Vec<&str> = endpoint.zone_hints.iter().map(String::as_str).collect();
            format!(
                "ready, but its hints are for zone {}; this node is in {zone}",
                zones.join(", ")
            )
        }
        Mode::Node(_) if !endpoint.node_hints.contains(&node.name) => {
            "ready, but its hints are for other nodes".into()
        }
        _ => "ready, but on another node: the traffic policy is Local".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::{
        model::{ObjectName, Protocol, Service, ServicePort, TrafficPolicy},
        plan::service::plan,
    };

    fn endpoint(last: u8, node: &str) -> Endpoint {
        Endpoint {
            address: ([10, 0, 0, last], 80).into(),
            ready: true,
            serving: true,
            terminating: false,
            node: Some(node.into()),
            zone: None,
            zone_hints: BTreeSet::new(),
            node_hints: BTreeSet::new(),
            uid: "".into(),
            pod: None,
            weight: 1,
        }
    }

    /// What is said about each endpoint of a Service with that internal policy.
    fn said(policy: TrafficPolicy, all: &[Endpoint]) -> Vec<(bool, String)> {
        said_on(Node { name: "n1".into(), zone: Some("a".into()), ..Node::default() }, policy, all)
    }

    fn said_on(node: Node, policy: TrafficPolicy, all: &[Endpoint]) -> Vec<(bool, String)> {
        let service = Service {
            name: ObjectName::new("ns", "web"),
            cluster_ips: vec![[10, 96, 0, 1].into()],
            load_balancer_ips: vec![],
            external_ips: vec![],
            ports: vec![ServicePort {
                name: String::new(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: None,
            }],
            internal_policy: policy,
            external_policy: TrafficPolicy::Cluster,
            source_ranges: vec![],
            affinity_seconds: None,
            health_check_node_port: None,
            algorithm: None,
            has_selector: true,
        };
        let endpoints = BTreeMap::from([((String::new(), Protocol::Tcp), all.to_vec())]);
        let plan = plan(&service, &endpoints, &node);
        all.iter().map(|endpoint| why(&plan.ports[0], all, endpoint, &node)).collect()
    }

    #[test]
    fn an_endpoint_that_is_not_used_says_what_keeps_it_out() {
        let unready = Endpoint { ready: false, serving: false, ..endpoint(2, "n1") };
        let leaving = Endpoint { ready: false, terminating: true, ..endpoint(3, "n1") };
        let gone = Endpoint { serving: false, ..leaving.clone() };
        let found = said(TrafficPolicy::Cluster, &[endpoint(1, "n2"), unready, leaving, gone]);
        let wanted = [
            (true, "ready"),
            (false, "not ready: its readiness probe fails, or has not passed yet"),
            (false, "terminating, and others are ready"),
            (false, "terminating, and it no longer serves"),
        ];
        assert_eq!(found, wanted.map(|(used, why)| (used, why.to_owned())));
    }

    #[test]
    fn the_last_that_serves_is_used_while_it_terminates() {
        let leaving = Endpoint { ready: false, terminating: true, ..endpoint(3, "n1") };
        let found = said(TrafficPolicy::Cluster, &[leaving]);
        assert_eq!(found, [(true, "the last that serves, though terminating".to_owned())]);
    }

    #[test]
    fn a_drained_one_says_so_and_how_to_end_it() {
        let drains = [("10.0.0.1:80".parse().unwrap(), String::new())].into();
        let node = Node { name: "n1".into(), drains, ..Node::default() };
        let found = said_on(node, TrafficPolicy::Cluster, &[endpoint(1, "n1"), endpoint(2, "n1")]);
        let wanted = "drained here by an operator: `lb ready 10.0.0.1:80` ends that";
        assert_eq!(found, [(false, wanted.to_owned()), (true, "ready".to_owned())]);
    }

    #[test]
    fn policy_and_hints_are_named() {
        let found = said(TrafficPolicy::Local, &[endpoint(1, "n1"), endpoint(2, "n2")]);
        assert_eq!(found[0], (true, "ready; for clients that the policy keeps local".to_owned()));
        assert_eq!(found[1].1, "ready, but on another node: the traffic policy is Local");
        let hinted = |last, zone: &str| Endpoint {
            zone_hints: BTreeSet::from([zone.to_owned()]),
            ..endpoint(last, "n2")
        };
        let found = said(TrafficPolicy::Cluster, &[hinted(1, "a"), hinted(2, "b")]);
        let b = "ready, but its hints are for zone b; this node is in a";
        assert_eq!(found, [(true, "ready".to_owned()), (false, b.to_owned())]);
    }
}
