//! Every EndpointSlice of the reference's tests, merged and changed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use lb_userspace::{
    cluster::{Change, Op, index::Index, name_of},
    model::{Family, Node, ObjectName},
    plan::service::local_ready,
};
use serde::Deserialize;
use serde_json::json;

use crate::support::{
    cases::section,
    objects::{apply_slice, dirty, index_of, name, object, slice, slice_of},
};

type Wanted = BTreeMap<String, Vec<Endpoint>>;
type Way<'a> = &'a dyn Fn(&mut Index);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoint {
    ep: String,
    ready: bool,
    serving: bool,
    terminating: bool,
    local: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MergeCase {
    name: String,
    #[serde(rename = "ip_family")]
    _family: String,
    node_name: String,
    #[serde(rename = "service")]
    _service: String,
    slices: Vec<EndpointSlice>,
    want_all_services: Wanted,
    want_local_ready: BTreeMap<String, usize>,
}

#[test]
fn slices_merge_as_in_the_reference_in_whatever_order_they_come() {
    let cases: Vec<MergeCase> = section("endpointslice_merge_reference");
    assert_eq!(cases.len(), 12);
    for MergeCase { name, node_name, slices, want_all_services, want_local_ready, .. } in cases {
        let wanted = (sorted(want_all_services), want_local_ready);
        let services = services_of(&slices);
        let at_once = index_of([Change::EndpointSlice(Op::Reset(slices.clone()))]);
        assert_eq!(found(&at_once, &services, &node_name), wanted, "{name}");
        let one_by_one = index_of(slices.clone().into_iter().map(apply_slice));
        assert_eq!(found(&one_by_one, &services, &node_name), wanted, "{name}");
        // Two objects of one name are one object told twice: there the order counts.
        if slices.len() == slices.iter().map(name_of).collect::<BTreeSet<_>>().len() {
            let backwards = index_of(slices.into_iter().rev().map(apply_slice));
            assert_eq!(found(&backwards, &services, &node_name), wanted, "{name}, backwards");
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateCase {
    name: String,
    node_name: String,
    previous_slices: Vec<Option<EndpointSlice>>,
    current_slices: Vec<Option<EndpointSlice>>,
    want_before: Wanted,
    want_after: Wanted,
    want_changed_services: BTreeSet<String>,
    /// Whether UDP flows may have to move: every case has UDP ports only.
    want_conntrack_cleanup: bool,
    want_local_ready: BTreeMap<String, usize>,
}

#[test]
fn slices_change_as_in_the_reference_whether_watched_or_listed_again() {
    let cases: Vec<UpdateCase> = section("endpoints_update_reference");
    assert_eq!(cases.len(), 18);
    for case in cases {
        let before: Vec<_> = case.previous_slices.iter().flatten().cloned().collect();
        let after: Vec<_> = case.current_slices.iter().flatten().cloned().collect();
        let services = services_of(before.iter().chain(&after));
        let watched = |index: &mut Index| {
            for (old, new) in case.previous_slices.iter().zip(&case.current_slices) {
                let op = match (old, new) {
                    (_, Some(new)) => Op::Apply(new.clone()),
                    (Some(old), None) => Op::Delete(name_of(old)),
                    (None, None) => continue,
                };
                index.apply(Change::EndpointSlice(op));
            }
        };
        let listed =
            |index: &mut Index| index.apply(Change::EndpointSlice(Op::Reset(after.clone())));
        let ways: [(&str, Way<'_>); 2] = [("watched", &watched), ("listed", &listed)];
        for (way, change) in ways {
            let what = format!("{}, {way}", case.name);
            let mut index = index_of([Change::EndpointSlice(Op::Reset(before.clone()))]);
            let first = found(&index, &services, &case.node_name).0;
            assert_eq!(first, sorted(case.want_before.clone()), "{what}");
            index.take_dirty();
            change(&mut index);
            let wanted = (sorted(case.want_after.clone()), case.want_local_ready.clone());
            assert_eq!(found(&index, &services, &case.node_name), wanted, "{what}");
            let changed: BTreeSet<_> = index.take_dirty().iter().map(ToString::to_string).collect();
            assert_eq!(changed, case.want_changed_services, "{what}");
            assert_eq!(!changed.is_empty(), case.want_conntrack_cleanup, "{what}");
        }
    }
}

fn services_of<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> BTreeSet<ObjectName> {
    let owner = |slice: &EndpointSlice| {
        let labels = slice.metadata.labels.as_ref()?;
        let service = labels.get("kubernetes.io/service-name")?;
        Some(ObjectName::new(slice.metadata.namespace.clone()?, service))
    };
    slices.into_iter().filter_map(owner).collect()
}

fn found(
    index: &Index,
    services: &BTreeSet<ObjectName>,
    node: &str,
) -> (Wanted, BTreeMap<String, usize>) {
    let node = Node { name: node.into(), ..Node::default() };
    let mut all = Wanted::new();
    let mut ready = BTreeMap::new();
    for service in services {
        let endpoints = index.endpoints(service);
        let local = local_ready(&[Family::V4, Family::V6], &endpoints, &node);
        if local > 0 {
            ready.insert(service.to_string(), local);
        }
        for ((port, protocol), endpoints) in endpoints {
            let endpoints = endpoints.into_iter().map(|endpoint| Endpoint {
                ep: endpoint.address.to_string(),
                ready: endpoint.ready,
                serving: endpoint.serving,
                terminating: endpoint.terminating,
                local: endpoint.node.as_deref() == Some(node.name.as_str()),
            });
            all.insert(format!("{service}|{port}|{protocol}"), endpoints.collect());
        }
    }
    (sorted(all), ready)
}

fn sorted(mut wanted: Wanted) -> Wanted {
    wanted.values_mut().for_each(|endpoints| endpoints.sort());
    wanted
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DedupCase {
    name: String,
    before: Content,
    after: Content,
    want_changed: bool,
    #[serde(rename = "note")]
    _note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    ports: Vec<(String, u16)>,
    endpoints: Vec<String>,
}

impl Content {
    fn slice(&self) -> EndpointSlice {
        let ports = self.ports.iter().map(|(name, port)| json!({"name": name, "port": port}));
        object(json!({
            "metadata": {
                "name": "svc1-1", "namespace": "ns",
                "labels": {"kubernetes.io/service-name": "svc1"},
            },
            "addressType": "IPv4",
            "ports": ports.collect::<Vec<_>>(),
            "endpoints": self.endpoints.iter().map(|ip| json!({"addresses": [ip]})).collect::<Vec<_>>(),
        }))
    }
}

#[test]
fn only_a_slice_that_differs_makes_its_service_dirty() {
    let cases: Vec<DedupCase> = section("endpointslice_event_dedup_reference");
    assert_eq!(cases.len(), 7);
    for case in cases {
        let mut index = index_of([apply_slice(case.before.slice())]);
        index.take_dirty();
        index.apply(apply_slice(case.after.slice()));
        assert_eq!(dirty(&mut index) == ["svc1"], case.want_changed, "{}", case.name);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventCase {
    name: String,
    #[serde(default)]
    start: Vec<String>,
    event: Option<BTreeMap<String, String>>,
    want_changed: Option<bool>,
    want_cache_size: Option<usize>,
}

/// The section's events are words; here is what each of them means. A word that is not listed
/// fails.
fn event(word: &str) -> Op<EndpointSlice> {
    let ready = ["10.0.1.1", "10.0.1.2"];
    let second = |conditions: serde_json::Value| {
        let endpoints = vec![
            json!({"addresses": ["10.0.1.1"]}),
            json!({"addresses": ["10.0.1.2"], "conditions": conditions}),
        ];
        slice_of("svc1-1", "svc1", endpoints)
    };
    Op::Apply(match word {
        "svc1-1" | "svc1-1 (identical)" => slice("svc1-1", "svc1", &ready),
        "svc1-2" => slice("svc1-2", "svc1", &["10.0.2.1"]),
        "label missing" => slice("svc1-1", "", &ready),
        "addressType FQDN" => {
            let mut slice = slice("svc1-1", "svc1", &["web.example"]);
            slice.address_type = "FQDN".into();
            slice
        }
        "svc1-1, one endpoint ready->not ready" => second(json!({"ready": false})),
        "svc1-1, one endpoint becomes terminating" => {
            second(json!({"ready": false, "serving": true, "terminating": true}))
        }
        other => panic!("unknown event {other:?}"),
    })
}

#[test]
fn slice_events_change_a_service_when_the_reference_says_so() {
    let cases: Vec<EventCase> = section("endpointslice_event_reference");
    let mut seen = 0;
    for EventCase { name, start, event: happens, want_changed, want_cache_size } in cases {
        let (Some(happens), Some(want_changed)) = (happens, want_changed) else {
            assert!(want_cache_size.is_some(), "{name}");
            continue;
        };
        seen += 1;
        let mut index = index_of(start.iter().map(|word| Change::EndpointSlice(event(word))));
        index.take_dirty();
        let (verb, word) = happens.first_key_value().unwrap();
        index.apply(Change::EndpointSlice(match verb.as_str() {
            "add" | "update" => event(word),
            "remove" => Op::Delete(crate::support::objects::name(word)),
            other => panic!("unknown verb {other}"),
        }));
        assert_eq!(!index.take_dirty().is_empty(), want_changed, "{name}");
    }
    assert_eq!(seen, 8);
}

#[test]
fn what_is_cached_of_a_service_goes_with_its_slices() {
    let cases: Vec<EventCase> = section("endpointslice_event_reference");
    let wanted: Vec<_> = cases.iter().filter_map(|case| case.want_cache_size).collect();
    assert_eq!(wanted, [0, 1], "after all were deleted, and after one of two was");
    let slices = ["svc1-1", "svc1-2"];
    let mut index = index_of(slices.map(|word| Change::EndpointSlice(event(word))));
    assert_eq!(index.slice_count(&name("svc1")), 2);
    index.apply(Change::EndpointSlice(Op::Delete(name("svc1-1"))));
    assert_eq!(index.slice_count(&name("svc1")), 1);
    index.apply(Change::EndpointSlice(Op::Delete(name("svc1-2"))));
    assert_eq!(index.slice_count(&name("svc1")), 0);
    assert_eq!(index.endpoints(&name("svc1")), lb_userspace::model::Endpoints::new());
}
