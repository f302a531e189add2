//! Where a Service answers, by what rules, and which one where two would.

use lb_userspace::{
    cluster::{Change, Op},
    model::{Algorithm, Node, NodePortAddresses},
    plan::{FrontendKind, Plan},
};
use serde_json::json;

use super::{first_port, frontends, planned, texts};
use crate::support::objects::{
    apply_service, apply_slice, index_of, name, object, service, slice, this_node, web,
};

#[test]
fn a_dual_stack_service_is_planned_once_per_family_with_that_family_s_endpoints() {
    let spec = json!({
        "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::10"],
        "ipFamilies": ["IPv4", "IPv6"], "externalIPs": ["203.0.113.1", "2001:db8::1"],
        "ports": [{"name": "http", "port": 80}],
    });
    let mut v6 = slice("web-6", "web", &["fd00:1::1"]);
    v6.address_type = "IPv6".into();
    let mut index = index_of([
        apply_service(service("web", spec)),
        apply_slice(slice("web-4", "web", &["10.0.0.1"])),
        apply_slice(v6),
    ]);
    let plan = planned(&mut index, &this_node());
    let found: Vec<_> = plan
        .get(&name("web"))
        .unwrap()
        .ports
        .iter()
        .map(|port| {
            let addresses: Vec<_> = port.frontends.iter().map(|f| f.address.to_string()).collect();
            (addresses, texts(&port.cluster.backends))
        })
        .collect();
    let of = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        found,
        [
            (of(&["10.96.0.10:80", "203.0.113.1:80"]), of(&["10.0.0.1:8080"])),
            (of(&["[fd00::10]:80", "[2001:db8::1]:80"]), of(&["[fd00:1::1]:8080"])),
        ],
    );
}

#[test]
fn node_ports_answer_at_the_primary_address_alone_unless_told_otherwise() {
    let spec = json!({
        "type": "NodePort", "clusterIP": "10.96.0.10",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    });
    let of = |node: &Node| {
        let plan = planned(&mut index_of([apply_service(service("web", spec.clone()))]), node);
        let mut found = frontends(&plan, "web");
        assert_eq!(found.remove(0), (FrontendKind::ClusterIp, "10.96.0.10:80".into()));
        found.into_iter().map(|(_, address)| address).collect::<Vec<_>>()
    };
    let addresses = ["192.168.0.2", "192.168.1.2", "127.0.0.1"];
    let mut node = Node {
        local_addresses: addresses.map(|address| address.parse().unwrap()).into(),
        ..this_node()
    };
    assert_eq!(of(&node), ["192.168.0.2:30080"]);
    node.node_port_addresses = NodePortAddresses::Cidrs(vec![]);
    assert_eq!(of(&node), ["192.168.0.2:30080", "192.168.1.2:30080"]);
    node.node_port_addresses = NodePortAddresses::Cidrs(vec!["192.168.1.0/24".parse().unwrap()]);
    assert_eq!(of(&node), ["192.168.1.2:30080"]);
    node.node_port_addresses = NodePortAddresses::Cidrs(vec!["127.0.0.0/8".parse().unwrap()]);
    assert_eq!(of(&node), [""; 0]);
}

#[test]
fn source_ranges_let_the_balancer_s_own_address_in_where_they_let_this_node_in() {
    let ranges_on = |node: &Node, given: &[&str]| {
        let spec = json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "ports": [{"port": 80}],
            "loadBalancerSourceRanges": given,
        });
        let mut service = serde_json::to_value(service("web", spec)).unwrap();
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}});
        let plan = planned(&mut index_of([apply_service(object(service))]), node);
        let found = first_port(&plan, "web").source_ranges;
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let ranges = |given: &[&str]| ranges_on(&this_node(), given);
    assert_eq!(ranges(&["203.0.113.0/24"]), ["203.0.113.0/24"]);
    assert_eq!(ranges(&["192.168.0.0/16"]), ["192.168.0.0/16", "198.51.100.1/32"]);
    assert_eq!(ranges(&["203.0.113.0/24", "0.0.0.0/0"]), [""; 0], "no restriction at all");
    assert_eq!(ranges(&["2001:db8::/32"]), [""; 0], "none for this family");
    let mut known_outside = this_node();
    known_outside.addresses.push("203.0.113.7".parse().unwrap());
    let found = ranges_on(&known_outside, &["203.0.113.0/24"]);
    assert_eq!(found, ["203.0.113.0/24"], "its primary address alone counts");
}

#[test]
fn an_address_that_is_both_a_balancer_s_and_external_keeps_the_balancer_s_ranges() {
    let spec = json!({
        "clusterIP": "10.96.0.10", "ports": [{"port": 80}], "externalIPs": ["198.51.100.1"],
    });
    let mut both = serde_json::to_value(service("web", spec)).unwrap();
    both["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}});
    let plan = planned(&mut index_of([apply_service(object(both))]), &this_node());
    assert_eq!(
        frontends(&plan, "web"),
        [
            (FrontendKind::ClusterIp, "10.96.0.10:80".to_string()),
            (FrontendKind::LoadBalancer, "198.51.100.1:80".to_string()),
        ],
    );
}

#[test]
fn of_two_services_with_one_address_the_first_by_name_has_it_until_it_goes() {
    let mut index = index_of([
        apply_service(web("b", "10.96.0.10")),
        apply_slice(slice("b-1", "b", &["10.0.0.2"])),
    ]);
    let node = this_node();
    let mut plan = planned(&mut index, &node);
    assert_eq!(plan.ignored(), []);
    index.apply(apply_service(web("a", "10.96.0.10")));
    let changed = plan.update(&mut index, &node);
    assert_eq!(changed, [name("a"), name("b")].into(), "the older one loses it");
    assert_eq!(frontends(&plan, "a"), [(FrontendKind::ClusterIp, "10.96.0.10:80".to_string())]);
    assert_eq!(frontends(&plan, "b"), []);
    let ignored: Vec<_> = plan.ignored().iter().map(ToString::to_string).collect();
    assert_eq!(ignored, ["Service ns/b: 10.96.0.10:80/TCP belongs to Service ns/a"]);
    index.apply(Change::Service(Op::Delete(name("a"))));
    let changed = plan.update(&mut index, &node);
    assert_eq!(changed, [name("a"), name("b")].into());
    assert_eq!(frontends(&plan, "b"), [(FrontendKind::ClusterIp, "10.96.0.10:80".to_string())]);
    assert_eq!(plan.ignored(), []);
}

#[test]
fn one_port_number_serves_two_services_with_different_protocols() {
    let of = |protocol: &str| {
        json!({
            "type": "NodePort", "clusterIP": if protocol == "TCP" { "10.96.0.1" } else { "10.96.0.2" },
            "ports": [{"port": 53, "protocol": protocol, "nodePort": 30053}],
        })
    };
    let mut index = index_of([
        apply_service(service("tcp", of("TCP"))),
        apply_service(service("udp", of("UDP"))),
    ]);
    let plan = planned(&mut index, &this_node());
    let node_port = (FrontendKind::NodePort, "192.168.0.2:30053".to_string());
    assert!(frontends(&plan, "tcp").contains(&node_port));
    assert!(frontends(&plan, "udp").contains(&node_port));
    assert_eq!(plan.ignored(), []);
}

#[test]
fn affinity_and_the_choice_of_an_algorithm_reach_every_port() {
    let mut with = service(
        "web",
        json!({
            "clusterIP": "10.96.0.10", "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        }),
    );
    with.metadata.annotations = Some([("lb/algorithm".into(), "round-robin".into())].into());
    let mut index = index_of([apply_service(with)]);
    let mut plan = planned(&mut index, &this_node());
    let ports = |plan: &Plan| {
        let ports = plan.get(&name("web")).unwrap().ports.clone();
        ports.into_iter().map(|p| (p.affinity_seconds, p.algorithm)).collect::<Vec<_>>()
    };
    assert_eq!(ports(&plan), [(Some(60), Some(Algorithm::RoundRobin)); 2]);
    let spec = json!({"clusterIP": "10.96.0.10", "sessionAffinity": "None",
        "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]});
    index.apply(apply_service(service("web", spec)));
    plan.update(&mut index, &this_node());
    assert_eq!(ports(&plan), [(None, None); 2]);
}

#[test]
fn a_service_without_an_address_of_a_family_has_no_frontend_there_at_all() {
    let spec = json!({
        "type": "NodePort", "clusterIP": "fd00::10", "externalIPs": ["203.0.113.1"],
        "ports": [{"port": 80, "nodePort": 30080}],
    });
    let mut index = index_of([apply_service(service("web", spec))]);
    let plan = planned(&mut index, &this_node());
    assert_eq!(frontends(&plan, "web"), [(FrontendKind::ClusterIp, "[fd00::10]:80".to_string())]);
}
