//! The health servers of the reference, step by step; and what becomes of each section of its cases.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use lb_userspace::{
    cluster::{Change, Op, index::Index},
    health::{
        listen_addresses,
        node::NodeHealth,
        services::{Answer, Checks},
    },
    model::{Family, NameParts, Node, NodePortAddresses, ObjectName},
    plan::node_ports,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{
    cases::{names, section, value},
    objects::object,
};

fn service(key: &str) -> ObjectName {
    let (namespace, name) = key.split_once('/').unwrap();
    ObjectName::new(namespace, name)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceStep {
    r#do: Do,
    want: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Do {
    services: Option<BTreeMap<String, u16>>,
    endpoints: Option<BTreeMap<String, usize>>,
    proxy_healthy: Option<bool>,
}

#[test]
fn every_step_of_the_reference_s_health_checks_is_answered_alike() {
    let all = value("service_health_server_reference");
    let steps: Vec<ServiceStep> = serde_json::from_value(all["steps"].clone()).unwrap();
    assert_eq!(steps.len(), 15);
    let (mut checks, mut healthy) = (Checks::default(), true);
    for (at, step) in steps.into_iter().enumerate() {
        let Do { services, endpoints, proxy_healthy } = step.r#do;
        if let Some(services) = services {
            let ports = services.iter().map(|(key, port)| (service(key), *port)).collect();
            checks.set_services(&ports);
        }
        if let Some(endpoints) = endpoints {
            let counts = endpoints.iter().map(|(key, count)| (service(key), *count)).collect();
            checks.set_endpoints(&counts);
        }
        healthy = proxy_healthy.unwrap_or(healthy);
        for (key, wanted) in step.want {
            match key.as_str() {
                "open_ports" => {
                    let wanted: BTreeSet<u16> = serde_json::from_value(wanted).unwrap();
                    let open: BTreeSet<u16> = checks.ports().into_keys().collect();
                    assert_eq!(open, wanted, "step {at}");
                }
                "serviceProxyHealthy" => assert_eq!(wanted, json!(healthy), "step {at}"),
                key => {
                    let (status, count): (u16, usize) = serde_json::from_value(wanted).unwrap();
                    let NameParts { namespace, name } = &*service(key);
                    let body = json!({
                        "service": {"namespace": namespace, "name": name},
                        "localEndpoints": count,
                        "serviceProxyHealthy": healthy,
                    });
                    let Answer { status: found, weight, body: text } =
                        checks.answer(&service(key), healthy).unwrap();
                    let said: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!((found, weight, said), (status, count, body), "step {at} {key}");
                }
            }
        }
    }
}

/// The node's object, if there is one, as the reference's steps name them; everything else about health is time.
fn nodes_after(step: &str) -> Option<Vec<k8s_openapi::api::core::v1::Node>> {
    let with = |patch: Value| {
        let mut with = json!({"metadata": {"name": "n1"}});
        for (key, value) in patch.as_object().unwrap() {
            with[key] = value.clone();
        }
        Some(vec![object(with)])
    };
    match step {
        "node taint other" => {
            with(json!({"spec": {"taints": [{"key": "other", "effect": "NoSchedule"}]}}))
        }
        "node taint ToBeDeletedByClusterAutoscaler" => with(json!({"spec": {"taints": [
            {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"},
        ]}})),
        "taint removed" => with(json!({})),
        "node has deletionTimestamp" => with(json!({"metadata": {
            "name": "n1", "deletionTimestamp": "2026-01-01T00:00:00Z",
        }})),
        "node object unknown (never seen)" => Some(vec![]),
        _ => None,
    }
}

/// What a step of the reference's own health may say; `note` and `lastUpdated` are words about what
/// is asserted of every step.
const STEP: [&str; 8] =
    ["do", "healthz", "livez", "status", "nodeEligible", "healthy", "note", "lastUpdated"];

#[test]
fn every_step_of_the_reference_s_own_health_is_answered_alike() {
    let all = value("proxy_health_server_reference");
    let steps = all["steps"].as_array().unwrap();
    let mut health = NodeHealth::new(SignedDuration::from_secs(20));
    health.set_families(&[Family::V4, Family::V6]);
    let mut now = Timestamp::from_second(1_700_000_000).unwrap();
    let mut synced = None;
    let mut later = |seconds| {
        now += SignedDuration::from_secs(seconds);
        now
    };
    let mut replayed = 0;
    for step in steps {
        let keys = step.as_object().unwrap().keys();
        keys.for_each(|key| assert!(STEP.contains(&key.as_str()), "{key} is not looked at"));
        let what = step["do"].as_str().unwrap();
        let at = later(1);
        let (mut queue, mut sync) = (vec![], vec![]);
        let wait = match what {
            "start, nothing synced" => 0,
            "sync v4 and v6" | "sync both" => {
                sync = vec![Family::V4, Family::V6];
                0
            }
            "+25s with nothing queued" => 25,
            "queue v4, +25s" => {
                queue = vec![Family::V4];
                25
            }
            "queue v6, +25s" => {
                queue = vec![Family::V6];
                25
            }
            "queue both, +25s" => {
                queue = vec![Family::V4, Family::V6];
                25
            }
            "sync v4,v6, +5s" => {
                sync = vec![Family::V4, Family::V6];
                5
            }
            "sync v4 only" => {
                sync = vec![Family::V4];
                0
            }
            "sync v6" => {
                sync = vec![Family::V6];
                0
            }
            "queue during an already queued change" => {
                health.queue(Family::V4, at);
                health.queue(Family::V4, later(15));
                assert_eq!(health.livez(later(6)).0, 503, "the oldest counts");
                replayed += 1;
                continue;
            }
            what => {
                let objects =
                    nodes_after(what).unwrap_or_else(|| panic!("an unknown step: {what}"));
                let mut index = Index::default();
                index.apply(Change::Node(Op::Reset(objects)));
                health.eligible = index.node("n1").is_some_and(|node| !node.leaving);
                0
            }
        };
        queue.into_iter().for_each(|family| health.queue(family, at));
        for family in sync {
            health.sync(family, at);
            synced = Some(at);
        }
        let at = later(wait);
        let ((healthz, body), (livez, alive)) = (health.healthz(at), health.livez(at));
        assert_eq!(json!([healthz, livez]), json!([step["healthz"], step["livez"]]), "{what}");
        assert_eq!(alive.node_eligible, None);
        let expected = if body.healthy { Some(at) } else { synced };
        assert_eq!((body.last_updated, body.current_time), (expected, at), "{what}");
        for key in ["nodeEligible", "healthy"] {
            if let Some(wanted) = step.get(key) {
                assert_eq!(serde_json::to_value(&body).unwrap()[key], *wanted, "{what}: {key}");
            }
        }
        for (family, wanted) in step.get("status").and_then(Value::as_object).into_iter().flatten()
        {
            assert_eq!(json!(body.status[family.as_str()].healthy), *wanted, "{what}: {family}");
        }
        replayed += 1;
    }
    assert_eq!(replayed, 16);
}

#[test]
fn node_ports_never_answer_on_loopback_whatever_the_ranges_say() {
    // The reference's iptables mode may; its nftables mode, which is the law here, does not.
    let cases: Vec<(String, bool)> = section("nodeport_loopback_reference");
    assert_eq!(cases.len(), 8);
    for (cidrs, _) in cases {
        let cidrs = cidrs.split(',').filter_map(|cidr| cidr.parse().ok()).collect();
        let node = Node {
            local_addresses: ["127.0.0.1", "127.0.2.1", "::1", "192.168.0.1"]
                .map(|address| address.parse().unwrap())
                .to_vec(),
            node_port_addresses: NodePortAddresses::Cidrs(cidrs),
            ..Node::default()
        };
        let families = [Family::V4, Family::V6].into_iter();
        let answer: Vec<_> = families.flat_map(|f| node_ports::addresses(&node, f)).collect();
        assert!(answer.iter().all(|address| !address.is_loopback()), "{answer:?}");
    }
}

#[test]
fn health_checks_are_listened_for_where_the_reference_listens() {
    let all = value("service_health_server_reference");
    let rows = all["listen_addresses"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let (cidrs, local, wanted): (&[&str], &[&str], &[&str]) =
            match (row["family"].as_str(), row["nodeport_addresses"].as_str().unwrap()) {
                (Some("IPv4"), "match all") => (&["0.0.0.0/0"], &["192.0.2.1"], &["0.0.0.0"]),
                (Some("IPv6"), "match all") => (&["::/0"], &["2001:db8::1"], &["::"]),
                (None, "CIDR list") => (
                    &["192.0.2.0/24", "2001:db8::/64"],
                    &["192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1", "2001:db8:1::1"],
                    &["192.0.2.1", "192.0.2.2", "2001:db8::1"],
                ),
                other => panic!("{other:?}"),
            };
        let node = Node {
            local_addresses: local.iter().map(|address| address.parse().unwrap()).collect(),
            node_port_addresses: NodePortAddresses::Cidrs(
                cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            ),
            ..Node::default()
        };
        let found: Vec<String> = listen_addresses(&node).iter().map(ToString::to_string).collect();
        assert_eq!(found, wanted, "{row}");
    }
}

/// Every section of the shared cases: how much there is in it, and where it is replayed, or why it
/// cannot be. What is added to a section, or to what a section says beside its cases, is not known
/// here and fails.
const SECTIONS: &[(&str, usize, &str)] = &[
    ("_about", 5, "the notation"),
    (
        "bounded_frequency_runner_reference",
        4,
        "no pause between syncs: docs/kubernetes.md, how it differs",
    ),
    ("categorize_endpoints_reference", 32, "cluster::reference_services"),
    ("endpoints_update_reference", 18, "cluster::reference_endpoints"),
    ("endpointslice_event_dedup_reference", 7, "cluster::reference_endpoints"),
    ("endpointslice_event_reference", 10, "cluster::reference_endpoints"),
    ("endpointslice_merge_reference", 12, "cluster::reference_endpoints"),
    ("node_ip_detection_reference", 14, "cluster::reference_services"),
    ("node_manager_reference", 5, "nothing waits for or exits over a Node: it is followed"),
    ("nodeport_addresses_reference", 13, "cluster::reference_flows"),
    ("nodeport_loopback_reference", 8, "never on loopback, as its nftables mode: here"),
    ("packet_flows_reference", 41, "cluster::reference_flows and packet::explain_reference"),
    ("proxy_health_server_reference", 4, "here"),
    ("service_health_server_reference", 4, "here"),
    ("service_to_ports_reference", 18, "cluster::reference_services"),
    ("service_tracker_reference", 8, "cluster::index"),
    ("topology_label_reference", 3, "cluster::index: a zone changes plans, other labels do not"),
    ("trigger_time_reference", 3, "cluster::index"),
    ("udp_flow_cleanup_reference", 5, "packet::udp_reference"),
];

#[test]
fn no_section_of_the_cases_is_left_out_in_silence() {
    let listed: BTreeSet<String> = SECTIONS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(names(), listed);
    for (name, count, _) in SECTIONS {
        let found = match value(name) {
            Value::Array(cases) => cases.len(),
            Value::Object(parts) => parts.len(),
            other => panic!("{name}: {other}"),
        };
        assert_eq!(found, *count, "{name}");
    }
}
