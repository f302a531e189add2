//! What the index holds, and what it says has changed.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use lb_userspace::{
    cluster::{Change, Op, index::Index},
    plan::Plan,
};
use serde::Deserialize;
use serde_json::json;

use crate::support::{
    cases::{section, value},
    objects::{
        apply_endpoints, apply_pod, apply_service, apply_slice, complaints, dirty, endpoints,
        http_of, index_of, name, node, object, pod, service, slice, this_node, web,
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrackerCase {
    name: String,
    #[serde(rename = "add")]
    _add: Option<Vec<String>>,
    want: Tracked,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tracked {
    /// Service ports.
    map: Option<usize>,
    updated: Option<usize>,
    health_ports: Option<BTreeMap<String, u16>>,
    pending: Option<usize>,
}

/// The section's steps, in its order; each says what it does to an index that the one before it
/// left, or to a new one.
fn tracker_steps() -> Vec<(&'static str, bool, Vec<Change>)> {
    let ports = |first: &str| json!([{"name": first, "port": 80}, {"name": "q", "port": 81}]);
    let of = |name: &str, spec: serde_json::Value| {
        let mut service = service(name, spec);
        service.metadata.namespace = Some("ns1".into());
        apply_service(service)
    };
    let local = json!({
        "type": "LoadBalancer", "clusterIP": "172.16.55.12", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 345, "ports": ports("portx"),
    });
    let local_svc1 = json!({
        "type": "LoadBalancer", "clusterIP": "172.16.55.4", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 345, "ports": ports("p"),
    });
    let plain = json!({"clusterIP": "172.16.55.4", "ports": ports("p")});
    let gone =
        |name: &str| Change::Service(Op::Delete(lb_userspace::model::ObjectName::new("ns1", name)));
    let headless = json!({"clusterIP": "None", "ports": [{"port": 1234, "protocol": "UDP"}]});
    vec![
        (
            "headless services never enter the map and never count as updated",
            true,
            vec![of("headless", headless), of("bare", json!({"clusterIP": "None"}))],
        ),
        (
            "ExternalName (even with clusterIP set) never enters the map",
            true,
            vec![of(
                "alias",
                json!({"type": "ExternalName", "clusterIP": "172.16.55.4", "externalName": "a.b", "ports": ports("p")}),
            )],
        ),
        (
            "add 4 services x2 ports (ClusterIP, NodePort, LB, LB+eTP Local hc 345)",
            true,
            vec![
                of("cluster-ip", json!({"clusterIP": "172.16.55.4", "ports": ports("p")})),
                of(
                    "node-port",
                    json!({"type": "NodePort", "clusterIP": "172.16.55.10", "ports": ports("p")}),
                ),
                of(
                    "load-balancer",
                    json!({"type": "LoadBalancer", "clusterIP": "172.16.55.11", "ports": ports("p")}),
                ),
                of("only-local-load-balancer", local),
            ],
        ),
        (
            "then reduce the first to 1 port (renamed) and delete 3",
            false,
            vec![
                of(
                    "cluster-ip",
                    json!({"clusterIP": "172.16.55.4", "ports": [{"name": "r", "port": 80}]}),
                ),
                gone("node-port"),
                gone("load-balancer"),
                gone("only-local-load-balancer"),
            ],
        ),
        (
            "ClusterIP -> LB eTP Local (hc 345)",
            true,
            vec![of("svc1", plain.clone()), of("svc1", local_svc1.clone())],
        ),
        ("update with no change", false, vec![of("svc1", local_svc1)]),
        ("LB -> ClusterIP", false, vec![of("svc1", plain.clone())]),
        (
            "add then delete before a sync leaves no pending change",
            true,
            vec![of("svc1", plain), gone("svc1")],
        ),
    ]
}

#[test]
fn services_are_tracked_as_in_the_reference() {
    let cases: Vec<TrackerCase> = section("service_tracker_reference");
    let steps = tracker_steps();
    assert_eq!(cases.len(), steps.len());
    let mut index = Index::default();
    for (case, (step, fresh, changes)) in cases.into_iter().zip(steps) {
        assert_eq!(case.name, step);
        if fresh {
            index = Index::default();
        }
        changes.into_iter().for_each(|change| index.apply(change));
        let updated = index.take_dirty().len();
        let health = index.services().filter_map(|service| {
            Some((service.name.to_string(), service.health_check_node_port?))
        });
        let Tracked { map, updated: wanted_updated, health_ports, pending } = case.want;
        let found = Tracked {
            map: map.and(Some(index.services().map(|service| service.ports.len()).sum())),
            updated: wanted_updated.and(Some(updated)),
            health_ports: health_ports.as_ref().and(Some(health.collect())),
            pending: pending.and(Some(updated)),
        };
        let wanted = Tracked { map, updated: wanted_updated, health_ports, pending };
        assert_eq!(found, wanted, "{step}");
    }
}

#[test]
fn the_index_is_complete_once_services_and_slices_have_both_been_listed() {
    let mut index = index_of([
        apply_service(web("web", "10.96.0.10")),
        apply_slice(slice("web-1", "web", &["10.0.0.1"])),
        Change::Node(Op::Reset(vec![node("n1", "a")])),
    ]);
    assert!(!index.complete(), "single objects are no listing");
    index.apply(Change::EndpointSlice(Op::Reset(vec![])));
    assert!(!index.complete(), "Services are missing");
    index.apply(Change::Service(Op::Reset(vec![])));
    assert!(index.complete());
}

#[test]
fn listing_the_same_objects_again_makes_nothing_dirty() {
    let services =
        || Change::Service(Op::Reset(vec![web("a", "10.96.0.1"), web("b", "10.96.0.2")]));
    let slices = || Change::EndpointSlice(Op::Reset(vec![slice("a-1", "a", &["10.0.0.1"])]));
    let pods = || Change::Pod(Op::Reset(vec![pod("p", "a", "10.0.0.9")]));
    let mirrors = || Change::Endpoints(Op::Reset(vec![endpoints("b", &["10.0.0.8"])]));
    let mut index = index_of([services(), slices(), pods(), mirrors()]);
    assert_eq!(dirty(&mut index), ["a", "b"]);
    for again in [services(), slices(), pods(), mirrors()] {
        index.apply(again);
    }
    assert_eq!(dirty(&mut index), [""; 0]);
}

#[test]
fn what_a_new_listing_does_not_name_is_gone() {
    let mut index = index_of([
        Change::Service(Op::Reset(vec![web("a", "10.96.0.1"), web("b", "10.96.0.2")])),
        Change::EndpointSlice(Op::Reset(vec![
            slice("a-1", "a", &["10.0.0.1"]),
            slice("a-2", "a", &["10.0.0.2"]),
        ])),
    ]);
    index.take_dirty();
    index.apply(Change::Service(Op::Reset(vec![web("a", "10.96.0.1")])));
    assert_eq!(index.service(&name("b")), None);
    assert_eq!(dirty(&mut index), ["b"]);
    index.apply(Change::EndpointSlice(Op::Reset(vec![slice("a-2", "a", &["10.0.0.2"])])));
    assert_eq!(http_of(&index, "a"), ["10.0.0.2:8080"]);
    assert_eq!(dirty(&mut index), ["a"]);
}

#[test]
fn a_service_that_another_proxy_gets_is_gone_here_and_returns_with_the_label_s_removal() {
    let ours = web("web", "10.96.0.10");
    let mut theirs: Service = ours.clone();
    theirs.metadata.labels =
        Some([("service.kubernetes.io/service-proxy-name".into(), String::new())].into());
    let mut index = index_of([apply_service(ours.clone())]);
    let mut plan = Plan::default();
    plan.update(&mut index, &this_node());
    index.apply(apply_service(theirs));
    assert_eq!(plan.update(&mut index, &this_node()), [name("web")].into());
    assert_eq!(plan.get(&name("web")), None);
    assert_eq!(
        complaints(&index),
        ["Service ns/web: the label service.kubernetes.io/service-proxy-name gives it to another \
          proxy"],
    );
    index.apply(apply_service(ours));
    assert_eq!(plan.update(&mut index, &this_node()), [name("web")].into());
    assert_eq!(complaints(&index), [""; 0]);
}

#[test]
fn an_endpoint_that_moves_between_slices_stays_throughout() {
    let mut index = index_of([
        apply_slice(slice("web-1", "web", &["10.0.0.1"])),
        apply_slice(slice("web-2", "web", &["10.0.0.2"])),
    ]);
    index.apply(apply_slice(slice("web-2", "web", &["10.0.0.1", "10.0.0.2"])));
    index.apply(apply_slice(slice("web-1", "web", &[])));
    assert_eq!(http_of(&index, "web"), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    index.apply(Change::EndpointSlice(Op::Delete(name("web-1"))));
    assert_eq!(http_of(&index, "web"), ["10.0.0.1:8080", "10.0.0.2:8080"]);
}

#[test]
fn a_slice_that_is_given_to_another_service_leaves_the_first() {
    let mut index = index_of([apply_slice(slice("s", "a", &["10.0.0.1"]))]);
    index.take_dirty();
    index.apply(apply_slice(slice("s", "b", &["10.0.0.1"])));
    assert_eq!(dirty(&mut index), ["a", "b"]);
    assert_eq!(http_of(&index, "a"), [""; 0]);
    assert_eq!(http_of(&index, "b"), ["10.0.0.1:8080"]);
}

#[test]
fn nodes_tell_their_zone_and_addresses_and_service_ranges_unite() {
    let index = index_of([
        Change::Node(Op::Apply(object(json!({
            "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "203.0.113.1"},
                {"type": "InternalIP", "address": "192.168.0.2"},
                {"type": "InternalIP", "address": "2001:db8::1"},
            ]},
        })))),
        Change::ServiceCidr(Op::Apply(object(json!({
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]},
        })))),
        Change::ServiceCidr(Op::Apply(object(json!({
            "metadata": {"name": "more"}, "spec": {"cidrs": ["10.112.0.0/16", "10.96.0.0/12", "x"]},
        })))),
    ]);
    let n1 = index.node("n1").unwrap();
    assert_eq!(n1.zone.as_deref(), Some("a"));
    let addresses: Vec<_> = n1.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.168.0.2", "2001:db8::1", "203.0.113.1"]);
    let pods: Vec<_> = n1.pod_cidrs.iter().map(ToString::to_string).collect();
    assert_eq!(pods, ["10.244.1.0/24", "fd00:1::/64"]);
    let ranges: Vec<_> = index.service_cidrs().iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.96.0.0/12", "10.112.0.0/16"]);
    assert_eq!(
        complaints(&index),
        ["ServiceCIDR more: spec.cidrs[2]: \"x\" is not an address range"],
    );
    assert_eq!(index.node("n2"), None);
}

#[test]
fn the_same_pod_told_twice_makes_nothing_dirty_and_a_foreign_pod_never_does() {
    let spec = json!({"clusterIP": "10.96.0.1", "selector": {"app": "a"},
        "ports": [{"name": "http", "port": 80, "targetPort": "web"}]});
    let mut index = index_of([apply_service(service("a", spec))]);
    index.take_dirty();
    index.apply(apply_pod(pod("p", "a", "10.0.0.1")));
    assert_eq!(dirty(&mut index), ["a"]);
    index.apply(apply_pod(pod("p", "a", "10.0.0.1")));
    index.apply(apply_pod(pod("q", "b", "10.0.0.2")));
    assert_eq!(dirty(&mut index), [""; 0]);
    index.apply(apply_pod(pod("p", "b", "10.0.0.1")));
    assert_eq!(dirty(&mut index), ["a"], "it no longer matches");
    assert_eq!(http_of(&index, "a"), [""; 0]);
}

#[test]
fn an_endpoints_object_told_twice_makes_nothing_dirty() {
    let mut index = index_of([apply_service(web("db", "10.96.0.1"))]);
    index.apply(apply_endpoints(endpoints("db", &["10.9.9.9"])));
    assert_eq!(dirty(&mut index), ["db"]);
    index.apply(apply_endpoints(endpoints("db", &["10.9.9.9"])));
    assert_eq!(dirty(&mut index), [""; 0]);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerCase {
    name: String,
    /// What happens to a Service's slice, and its trigger time.
    events: Vec<(String, String, Option<String>)>,
    want: BTreeMap<String, Vec<String>>,
}

#[test]
fn trigger_times_wait_until_they_are_taken_as_they_do_at_the_reference() {
    let cases: Vec<TriggerCase> =
        serde_json::from_value(value("trigger_time_reference")["cases"].clone()).unwrap();
    assert_eq!(cases.len(), 8);
    // `T+1s`, where T is noon. What began before the agent did is the agent's to leave out.
    let time = |text: &str| {
        let seconds: i64 =
            text.strip_prefix('T').unwrap().strip_suffix('s').unwrap().parse().unwrap();
        let noon: jiff::Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        noon + jiff::SignedDuration::from_secs(seconds)
    };
    for TriggerCase { name: case, events, want } in cases {
        let mut index = Index::default();
        for (number, (kind, service, trigger)) in events.iter().enumerate() {
            let change = if kind == "delete" {
                Change::EndpointSlice(Op::Delete(name(service)))
            } else {
                let mut slice = slice(service, service, &[&format!("10.0.0.{number}")]);
                slice.metadata.annotations = trigger.as_ref().map(|trigger| {
                    let key = "endpoints.kubernetes.io/last-change-trigger-time";
                    BTreeMap::from([(key.to_owned(), time(trigger).to_string())])
                });
                apply_slice(slice)
            };
            index.apply(change.clone());
            // Told again, it is no change.
            index.apply(change);
        }
        let lived = |times: Vec<jiff::Timestamp>| -> Vec<jiff::Timestamp> {
            times.into_iter().filter(|at| *at > time("T+0s")).collect()
        };
        let found: BTreeMap<_, _> = index
            .take_triggers()
            .into_iter()
            .map(|(service, times)| (service.name.clone(), lived(times)))
            .filter(|(_, times)| !times.is_empty())
            .collect();
        let want: BTreeMap<_, _> = want
            .into_iter()
            .map(|(service, times)| (service, times.iter().map(|at| time(at)).collect()))
            .collect();
        assert_eq!(found, want, "{case}");
        assert!(index.take_triggers().is_empty(), "{case}: taken once");
    }
}
