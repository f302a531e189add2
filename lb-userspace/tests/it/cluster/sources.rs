//! Where endpoints come from: slices, pods behind a selector, Endpoints made by hand.

use lb_userspace::{
    cluster::{Change, Op},
    model::{Endpoint, Protocol},
};
use serde_json::{Value, json};

use crate::support::objects::{
    apply_endpoints, apply_pod, apply_service, apply_slice, complaints, dirty, endpoints, http_of,
    index_of, name, node, object, pod, service, slice, web,
};

fn selecting(app: &str, extra: Value) -> Change {
    let mut spec = json!({
        "clusterIP": "10.96.0.1", "selector": {"app": app},
        "ports": [{"name": "http", "port": 80, "targetPort": "web"}],
    });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    apply_service(service(app, spec))
}

#[test]
fn a_selector_picks_its_pods_and_resolves_named_ports_pod_by_pod() {
    let mut other_port = pod("p2", "a", "10.0.0.2");
    let containers = &mut other_port.spec.as_mut().unwrap().containers;
    containers[0].ports.as_mut().unwrap()[0].container_port = 9090;
    let mut nameless = pod("p3", "a", "10.0.0.3");
    nameless.spec.as_mut().unwrap().containers[0].ports = None;
    let index = index_of([
        selecting("a", json!({})),
        apply_pod(pod("p1", "a", "10.0.0.1")),
        apply_pod(other_port),
        apply_pod(nameless),
        apply_pod(pod("p4", "b", "10.0.0.4")),
    ]);
    assert_eq!(http_of(&index, "a"), ["10.0.0.1:8080", "10.0.0.2:9090"]);
}

#[test]
fn a_pod_becomes_an_endpoint_with_all_that_is_known_of_it() {
    let mut weighted = pod("p", "a", "10.0.0.1");
    weighted.metadata.annotations = Some([("lb/weight".into(), "5".into())].into());
    let index = index_of([
        Change::Node(Op::Apply(node("n1", "zone-a"))),
        selecting("a", json!({"trafficDistribution": "PreferSameNode"})),
        apply_pod(weighted),
    ]);
    let wanted = Endpoint {
        address: "10.0.0.1:8080".parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some("n1".into()),
        zone: Some("zone-a".into()),
        zone_hints: ["zone-a".into()].into(),
        node_hints: ["n1".into()].into(),
        uid: "uid-p".into(),
        pod: Some("p".into()),
        weight: 5,
    };
    let key = ("http".to_string(), Protocol::Tcp);
    assert_eq!(index.endpoints(&name("a")), [(key, vec![wanted])].into());
}

#[test]
fn pods_follow_the_conditions_of_the_slice_controller() {
    // (phase, Ready, deleted, publishNotReadyAddresses) → (ready, serving, terminating)
    let table = [
        (("Running", "True", false, false), Some((true, true, false))),
        (("Running", "False", false, false), Some((false, false, false))),
        (("Running", "False", false, true), Some((true, false, false))),
        (("Running", "True", true, false), Some((false, true, true))),
        (("Running", "False", true, false), Some((false, false, true))),
        (("Running", "True", true, true), Some((true, true, true))),
        (("Succeeded", "True", false, true), None),
        (("Failed", "False", false, false), None),
    ];
    for ((phase, ready, deleted, publish), wanted) in table {
        let mut pod = pod("p", "a", "10.0.0.1");
        let status = pod.status.as_mut().unwrap();
        status.phase = Some(phase.into());
        status.conditions.as_mut().unwrap()[0].status = ready.into();
        pod.metadata.deletion_timestamp = deleted.then(|| object(json!("2026-01-01T00:00:00Z")));
        let service = selecting("a", json!({"publishNotReadyAddresses": publish}));
        let index = index_of([service, apply_pod(pod)]);
        let found = index.endpoints(&name("a")).into_values().flatten().next();
        let found = found.map(|e| (e.ready, e.serving, e.terminating));
        assert_eq!(found, wanted, "{phase} Ready={ready} deleted={deleted} publish={publish}");
    }
}

#[test]
fn a_zone_that_a_node_gets_later_reaches_the_endpoints_of_its_pods() {
    let service = selecting("a", json!({"trafficDistribution": "PreferClose"}));
    let mut index = index_of([service, apply_pod(pod("p", "a", "10.0.0.1"))]);
    index.take_dirty();
    index.apply(Change::Node(Op::Apply(node("n1", "zone-a"))));
    assert_eq!(dirty(&mut index), ["a"]);
    let endpoint = index.endpoints(&name("a")).into_values().flatten().next().unwrap();
    assert_eq!(endpoint.zone.as_deref(), Some("zone-a"));
    assert_eq!(endpoint.zone_hints, ["zone-a".into()].into());
}

#[test]
fn a_target_port_that_changes_moves_the_pods_although_the_service_looks_the_same() {
    let spec = |target: u16| json!({"ports": [{"name": "http", "port": 80, "targetPort": target}]});
    let mut index = index_of([selecting("a", spec(8080)), apply_pod(pod("p", "a", "10.0.0.1"))]);
    index.take_dirty();
    index.apply(selecting("a", spec(9090)));
    assert_eq!(dirty(&mut index), ["a"]);
    assert_eq!(http_of(&index, "a"), ["10.0.0.1:9090"]);
}

#[test]
fn slices_take_the_place_of_pods_so_that_a_dump_of_everything_counts_nothing_twice() {
    let mut index = index_of([
        selecting("a", json!({})),
        apply_pod(pod("p", "a", "10.0.0.1")),
        apply_slice(slice("a-1", "a", &["10.0.0.1", "10.0.0.2"])),
        apply_endpoints(endpoints("a", &["10.0.0.1", "10.0.0.2"])),
    ]);
    assert_eq!(http_of(&index, "a"), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    index.apply(Change::EndpointSlice(Op::Delete(name("a-1"))));
    assert_eq!(http_of(&index, "a"), ["10.0.0.1:8080"], "from pods, not from Endpoints");
}

#[test]
fn endpoints_made_by_hand_serve_a_service_without_a_selector() {
    let by_hand = object(json!({
        "metadata": {"name": "db", "namespace": "ns", "annotations": {"lb/weight": "3"}},
        "subsets": [{
            "addresses": [{"ip": "192.0.2.1", "nodeName": "n1", "targetRef": {"uid": "u"}}],
            "notReadyAddresses": [{"ip": "192.0.2.2"}],
            "ports": [{"port": 5432}],
        }],
    }));
    let index = index_of([
        apply_service(service("db", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 5432}]}))),
        apply_endpoints(by_hand),
    ]);
    let first = Endpoint {
        address: "192.0.2.1:5432".parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some("n1".into()),
        zone: None,
        zone_hints: [].into(),
        node_hints: [].into(),
        uid: "u".into(),
        pod: None,
        weight: 3,
    };
    let second = Endpoint {
        address: "192.0.2.2:5432".parse().unwrap(),
        ready: false,
        node: None,
        uid: "".into(),
        ..first.clone()
    };
    let key = (String::new(), Protocol::Tcp);
    assert_eq!(index.endpoints(&name("db")), [(key, vec![first, second])].into());
}

#[test]
fn endpoints_made_by_hand_are_ignored_as_soon_as_a_slice_names_the_service() {
    let mut index = index_of([
        apply_service(web("db", "10.96.0.1")),
        apply_endpoints(endpoints("db", &["192.0.2.1"])),
    ]);
    assert_eq!(http_of(&index, "db"), ["192.0.2.1:8080"]);
    index.take_dirty();
    let mut named_only = slice("db-1", "db", &["db.example"]);
    named_only.address_type = "FQDN".into();
    index.apply(apply_slice(named_only));
    assert_eq!(dirty(&mut index), ["db"]);
    assert_eq!(http_of(&index, "db"), [""; 0], "even by a slice without addresses");
    index.apply(Change::EndpointSlice(Op::Delete(name("db-1"))));
    assert_eq!(dirty(&mut index), ["db"]);
    assert_eq!(http_of(&index, "db"), ["192.0.2.1:8080"]);
}

#[test]
fn endpoints_that_ask_to_be_skipped_or_elect_a_leader_are_not_mirrored() {
    let mut skipped = endpoints("a", &["192.0.2.1"]);
    skipped.metadata.labels =
        Some([("endpointslice.kubernetes.io/skip-mirror".into(), "true".into())].into());
    let mut leader = endpoints("b", &["192.0.2.1"]);
    leader.metadata.annotations =
        Some([("control-plane.alpha.kubernetes.io/leader".into(), "{}".into())].into());
    let index = index_of([
        apply_service(web("a", "10.96.0.1")),
        apply_service(web("b", "10.96.0.2")),
        apply_endpoints(skipped),
        apply_endpoints(leader),
    ]);
    assert_eq!((http_of(&index, "a"), http_of(&index, "b")), (vec![], vec![]));
    assert_eq!(
        complaints(&index),
        [
            "Endpoints ns/a: metadata.labels[endpointslice.kubernetes.io/skip-mirror]: it asks to \
             be left alone",
            "Endpoints ns/b: metadata.annotations[control-plane.alpha.kubernetes.io/leader]: it \
             is a leader election",
        ],
    );
}

#[test]
fn only_the_first_thousand_addresses_of_a_subset_are_mirrored() {
    let many: Vec<_> = (0..1001).map(|n| format!("10.1.{}.{}", n / 250, n % 250 + 1)).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let index =
        index_of([apply_service(web("db", "10.96.0.1")), apply_endpoints(endpoints("db", &many))]);
    assert_eq!(http_of(&index, "db").len(), 1000);
    assert_eq!(
        complaints(&index),
        ["Endpoints ns/db: subsets[0]: 1001 addresses; the first 1000 are used"],
    );
}

#[test]
fn the_headless_label_on_its_slices_makes_a_service_unreachable() {
    let mut hidden = slice("a-1", "a", &["10.0.0.1"]);
    hidden
        .metadata
        .labels
        .as_mut()
        .unwrap()
        .insert("service.kubernetes.io/headless".into(), String::new());
    let index = index_of([
        selecting("a", json!({})),
        apply_pod(pod("p", "a", "10.0.0.1")),
        apply_slice(hidden),
    ]);
    assert_eq!(http_of(&index, "a"), [""; 0]);
}
