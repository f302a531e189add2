//! What the plan tells of itself: its document, and which Services have changed.

use lb_userspace::{
    model::Node,
    plan::{Plan, output::document},
};
use serde_json::json;

use super::{leaving, planned, ready};
use crate::support::objects::{
    apply_service, apply_slice, index_of, name, object, service, slice, slice_of, this_node, web,
};

#[test]
fn the_plan_s_document_is_what_the_command_line_promises() {
    let everything = service(
        "web",
        json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.10",
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 30000,
            "sessionAffinity": "ClientIP", "loadBalancerSourceRanges": ["203.0.113.0/24"],
        }),
    );
    let mut everything = serde_json::to_value(everything).unwrap();
    everything["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}});
    let endpoints = vec![ready("10.1.1.1", "n1"), leaving("10.1.2.1", "n2")];
    let mut index = index_of([
        apply_service(object(everything)),
        apply_service(service("none", json!({"clusterIP": "None"}))),
        apply_slice(slice_of("web-1", "web", endpoints)),
    ]);
    let node = Node { zone: Some("a".into()), ..this_node() };
    let plan = planned(&mut index, &node);
    let found = serde_json::to_value(document(&plan, &node, index.ignored())).unwrap();
    let backend = json!({
        "address": "10.1.1.1", "port": 8080, "local": true, "node": "n1", "zone": null,
        "state": "active", "weight": 1,
    });
    let frontend = |kind: &str, address: &str, port: u16, masquerade: bool| {
        let (empty, ranges, algorithm) = match kind {
            "ClusterIP" => ("reject", json!([]), "random"),
            "LoadBalancer" => ("drop", json!(["203.0.113.0/24"]), "maglev"),
            _ => ("drop", json!([]), "maglev"),
        };
        json!({
            "namespace": "ns", "service": "web", "portName": "http", "protocol": "TCP",
            "type": kind, "address": address, "port": port,
            "internal": {"backends": [backend], "whenEmpty": "reject"},
            "external": {"backends": [backend], "whenEmpty": empty, "masquerade": masquerade},
            "affinitySeconds": 10800, "sourceRanges": ranges, "algorithm": algorithm,
        })
    };
    let wanted = json!({
        "apiVersion": "lb/v1", "kind": "Plan",
        "node": {
            "name": "n1", "zone": "a", "addresses": ["192.168.0.2"],
            "nodePortAddresses": ["192.168.0.2"], "podCIDRs": ["10.0.0.0/8"], "serviceCIDRs": [],
            "masqueradeAll": false,
        },
        "frontends": [
            frontend("ClusterIP", "10.96.0.10", 80, true),
            frontend("NodePort", "192.168.0.2", 30080, false),
            frontend("LoadBalancer", "198.51.100.1", 80, false),
        ],
        "healthChecks": [{"namespace": "ns", "service": "web", "port": 30000, "localEndpoints": 1}],
        "ignored": [{
            "kind": "Service", "namespace": "ns", "name": "none",
            "reason": "spec.clusterIP: None makes it headless",
        }],
    });
    assert_eq!(found, wanted);
}

#[test]
fn only_what_changed_is_named_and_an_equal_plan_is_no_change() {
    let mut index = index_of([
        apply_service(web("a", "10.96.0.1")),
        apply_service(web("b", "10.96.0.2")),
        apply_slice(slice("a-1", "a", &["10.0.0.1", "10.0.0.2"])),
    ]);
    let node = this_node();
    let mut plan = Plan::default();
    assert_eq!(plan.update(&mut index, &node), [name("a"), name("b")].into());
    assert_eq!(plan.update(&mut index, &node), [].into());
    index.apply(apply_slice(slice("a-1", "a", &["10.0.0.2", "10.0.0.1"])));
    assert_eq!(plan.update(&mut index, &node), [].into(), "another order is the same set");
    index.apply(apply_slice(slice("a-1", "a", &["10.0.0.2"])));
    assert_eq!(plan.update(&mut index, &node), [name("a")].into());
}
