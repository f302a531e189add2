//! Who answers for a Service: which endpoints are in which set, and how many health checks count.

use lb_userspace::{
    cluster::{Change, Op},
    model::Node,
    plan::{FrontendKind, Plan, SourceClass, WhenEmpty},
};
use serde_json::json;

use super::{first_port, leaving, planned, ready, texts};
use crate::support::objects::{
    apply_service, apply_slice, index_of, name, object, service, slice_of, this_node, web,
};

#[test]
fn without_ready_endpoints_those_that_serve_while_terminating_take_over() {
    let mut index = index_of([
        apply_service(web("web", "10.96.0.10")),
        apply_slice(slice_of("s", "web", vec![ready("10.0.0.1", "n1"), leaving("10.0.0.2", "n1")])),
    ]);
    let mut plan = planned(&mut index, &this_node());
    let port = first_port(&plan, "web");
    assert_eq!(texts(&port.cluster.backends), ["10.0.0.1:8080"]);
    assert_eq!(texts(&port.retired), ["10.0.0.2:8080"]);
    let endpoints = vec![leaving("10.0.0.1", "n1"), leaving("10.0.0.2", "n1")];
    index.apply(apply_slice(slice_of("s", "web", endpoints)));
    plan.update(&mut index, &this_node());
    let port = first_port(&plan, "web");
    assert_eq!(texts(&port.cluster.backends), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    assert_eq!(port.retired, []);
}

#[test]
fn local_policy_without_local_endpoints_drops_and_without_any_endpoints_rejects() {
    let spec = json!({
        "type": "NodePort", "clusterIP": "10.96.0.10",
        "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    });
    let mut index = index_of([
        apply_service(service("web", spec)),
        apply_slice(slice_of("s", "web", vec![ready("10.0.0.1", "n2")])),
    ]);
    let mut plan = planned(&mut index, &this_node());
    let port = first_port(&plan, "web");
    let outside = port.backends_for(FrontendKind::NodePort, SourceClass::Outside);
    assert_eq!((outside.backends.len(), outside.when_empty), (0, WhenEmpty::Drop));
    let inside = port.backends_for(FrontendKind::ClusterIp, SourceClass::Pod);
    assert_eq!((inside.backends.len(), inside.when_empty), (0, WhenEmpty::Drop));
    let short_cut = port.backends_for(FrontendKind::NodePort, SourceClass::Pod);
    assert_eq!(texts(&short_cut.backends), ["10.0.0.1:8080"]);
    index.apply(Change::EndpointSlice(Op::Reset(vec![])));
    plan.update(&mut index, &this_node());
    let port = first_port(&plan, "web");
    for source in [SourceClass::Outside, SourceClass::Pod, SourceClass::Node] {
        for kind in [FrontendKind::ClusterIp, FrontendKind::NodePort] {
            let set = port.backends_for(kind, source);
            assert_eq!((set.backends.len(), set.when_empty), (0, WhenEmpty::Reject));
        }
    }
}

#[test]
fn a_node_that_moves_to_another_zone_is_planned_for_again() {
    let hinted = |address: &str, zone: &str| json!({"addresses": [address], "hints": {"forZones": [{"name": zone}]}});
    let endpoints = vec![hinted("10.0.0.1", "a"), hinted("10.0.0.2", "b")];
    let mut index = index_of([
        apply_service(web("web", "10.96.0.1")),
        apply_slice(slice_of("s", "web", endpoints)),
    ]);
    let in_zone = |zone: &str| Node { zone: Some(zone.into()), ..this_node() };
    let mut plan = planned(&mut index, &in_zone("a"));
    assert_eq!(texts(&first_port(&plan, "web").cluster.backends), ["10.0.0.1:8080"]);
    assert_eq!(texts(&first_port(&plan, "web").retired), ["10.0.0.2:8080"]);
    assert_eq!(plan.update(&mut index, &in_zone("b")), [name("web")].into());
    assert_eq!(texts(&first_port(&plan, "web").cluster.backends), ["10.0.0.2:8080"]);
    assert_eq!(plan.update(&mut index, &in_zone("c")), [name("web")].into());
    let all = ["10.0.0.1:8080", "10.0.0.2:8080"];
    assert_eq!(texts(&first_port(&plan, "web").cluster.backends), all);
}

#[test]
fn health_checks_count_pods_of_this_node_once_over_ports_and_families_and_never_leaving_ones() {
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.10", "ports": [{"name": "http", "port": 80}],
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 30000,
    });
    let four = vec![ready("10.0.0.1", "n1"), ready("10.0.0.2", "n2"), leaving("10.0.0.3", "n1")];
    let mut four = slice_of("web-4", "web", four);
    four.ports = Some(object(json!([{"name": "http", "port": 1}, {"name": "more", "port": 2}])));
    let mut six = slice_of("web-6", "web", vec![ready("fd00::1", "n1")]);
    six.address_type = "IPv6".into();
    let mut index =
        index_of([apply_service(service("web", spec)), apply_slice(four), apply_slice(six)]);
    let plan = planned(&mut index, &this_node());
    let check = plan.get(&name("web")).unwrap().health_check.clone().unwrap();
    assert_eq!((check.port, check.local_endpoints), (30000, 1));
}

#[test]
fn a_health_check_counts_no_pod_of_a_family_that_the_service_does_not_have() {
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.10", "ports": [{"name": "http", "port": 80}],
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 30000,
    });
    let mut six = slice_of("web-6", "web", vec![ready("fd00::1", "n1"), ready("fd00::2", "n1")]);
    six.address_type = "IPv6".into();
    let mut index = index_of([apply_service(service("web", spec)), apply_slice(six)]);
    let plan = planned(&mut index, &this_node());
    let check = plan.get(&name("web")).unwrap().health_check.clone().unwrap();
    assert_eq!(check.local_endpoints, 0, "this node refuses IPv4, and IPv6 is nobody's");
}

#[test]
fn a_drained_backend_is_there_for_what_it_has_as_if_it_were_not_ready() {
    let with_uid = |address: &str, node: &str, uid: &str| json!({"addresses": [address], "nodeName": node, "targetRef": {"kind": "Pod", "name": uid, "uid": uid}});
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.10", "healthCheckNodePort": 30000,
        "externalTrafficPolicy": "Local", "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    });
    let endpoints = || vec![with_uid("10.1.1.1", "n1", "one"), with_uid("10.1.2.1", "n2", "two")];
    let mut index = index_of([
        apply_service(service("web", spec)),
        apply_slice(slice_of("web-1", "web", endpoints())),
    ]);
    let mut plan = planned(&mut index, &this_node());
    let drained = |uid: &str| Node {
        drains: [("10.1.1.1:8080".parse().unwrap(), uid.to_owned())].into(),
        ..this_node()
    };
    let health =
        |plan: &Plan| plan.get(&name("web")).unwrap().health_check.clone().unwrap().local_endpoints;
    assert_eq!(health(&plan), 1);
    for uid in ["one", ""] {
        plan.update(&mut index, &drained(uid));
        let port = first_port(&plan, "web");
        assert_eq!(texts(&port.cluster.backends), ["10.1.2.1:8080"], "{uid}");
        assert_eq!(texts(&port.retired), ["10.1.1.1:8080"]);
        assert!(port.retired[0].serving, "its UDP flows stay");
        // The last here: those that the policy keeps local get silence, as without any here.
        assert_eq!((port.local.backends.len(), port.local.when_empty), (0, WhenEmpty::Drop));
        assert_eq!(health(&plan), 0, "load balancers look elsewhere");
    }
    plan.update(&mut index, &drained("another"));
    let port = first_port(&plan, "web");
    assert_eq!(texts(&port.cluster.backends), ["10.1.1.1:8080", "10.1.2.1:8080"]);
    // All are drained: clients are refused, and no leaving one is woken up for them.
    let both = ["10.1.1.1:8080", "10.1.2.1:8080"].map(|at| (at.parse().unwrap(), String::new()));
    plan.update(&mut index, &Node { drains: both.into(), ..this_node() });
    let port = first_port(&plan, "web");
    assert_eq!((port.cluster.backends.len(), port.cluster.when_empty), (0, WhenEmpty::Reject));
    assert_eq!((port.local.backends.len(), port.local.when_empty), (0, WhenEmpty::Reject));
}
