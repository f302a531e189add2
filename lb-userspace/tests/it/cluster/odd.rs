//! Objects whose fields are of the wrong size or kind, or missing, beside good ones; and very many
//! slices of one Service.

use std::{collections::BTreeSet, fs, path::Path};

use lb_userspace::{
    cluster::files::{Batch, Severity, Source},
    plan::{Plan, ServicePlan},
};
use serde_json::{Value, json};

use crate::{
    packet::random::{Dice, inputs, seed},
    support::{
        counted, full_size,
        objects::{
            apply_service, apply_slice, complaints, http_of, index_of, name, object, slice,
            this_node, web,
        },
    },
};

/// Pairs of objects that are tried, and for the matrix of faults, unless `LB_INPUTS` says otherwise.
const INPUTS: (usize, usize) = (1_000, 5_000);

/// A Service and its slice with everything in them that is read; their addresses and ports are
/// their own.
fn pair(of: &str, network: u8) -> [Value; 2] {
    let at = |range: &str, last: u8| format!("{range}.{network}.{last}");
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": of, "namespace": "ns", "labels": {"app": of},
            "annotations": {"lb/algorithm": "maglev"},
        },
        "spec": {
            "type": "LoadBalancer", "selector": {"app": of},
            "clusterIP": at("10.96", 10), "clusterIPs": [at("10.96", 10), format!("fd00:{network}::10")],
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [
                {"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web",
                 "nodePort": 30_000 + u16::from(network)},
                {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353},
            ],
            "externalIPs": [at("203.0", 1)], "loadBalancerSourceRanges": ["198.18.0.0/15"],
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster",
            "healthCheckNodePort": 31_000 + u16::from(network), "publishNotReadyAddresses": false,
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}},
            "trafficDistribution": "PreferClose",
        },
        "status": {"loadBalancer": {"ingress": [{"ip": at("198.51", 1), "ipMode": "VIP"}]}},
    });
    let endpoint = |last: u8, node: &str| {
        json!({
            "addresses": [at("10.1", last)], "nodeName": node, "zone": "a",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "hints": {"forZones": [{"name": "a"}]},
            "targetRef": {"kind": "Pod", "name": format!("{of}-{last}"), "uid": format!("{of}{last}")},
        })
    };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{of}-1"), "namespace": "ns",
            "labels": {"kubernetes.io/service-name": of}, "annotations": {"lb/weight": "3"},
        },
        "addressType": "IPv4",
        "endpoints": [endpoint(1, "n1"), endpoint(2, "n2")],
        "ports": [
            {"name": "http", "port": 8080, "protocol": "TCP"},
            {"name": "dns", "port": 5353, "protocol": "UDP"},
        ],
    });
    [service, slice]
}

/// The places of everything in it but itself.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, it)| (key.clone(), it)).collect(),
        Value::Array(items) => {
            (0..).zip(items).map(|(n, it): (u32, _)| (n.to_string(), it)).collect()
        }
        _ => Vec::new(),
    };
    for (key, value) in below {
        let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        places(value, &at, found);
        found.push(at);
    }
}

/// Something that does not belong where it is put.
fn strange(dice: &mut Dice) -> Value {
    let values = [
        json!(null),
        json!(-1),
        json!(0),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(4_294_967_376_u64),
        json!(1e300),
        json!(0.5),
        json!(true),
        json!(""),
        json!("None"),
        json!("x".repeat(10_000)),
        json!("\u{0}\u{202e}"),
        json!("::ffff:10.96.2.99"),
        json!("0.0.0.0/0"),
        json!([]),
        json!([null]),
        json!([[[[]]], [[]], []]),
        json!({}),
        json!({"": null}),
    ];
    values[dice.below(values.len())].clone()
}

/// What says which object it is.
const IDENTITY: [&str; 5] =
    ["/apiVersion", "/kind", "/metadata", "/metadata/name", "/metadata/namespace"];

/// The place of what [`spoil`] says it did.
fn place_of(told: &str) -> &str {
    told.split(' ').next().unwrap_or_default()
}

/// Removes or replaces one to three fields of either.
fn spoil(objects: &mut [Value; 2], dice: &mut Dice) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..=dice.below(3) {
        let spoilt = &mut objects[dice.below(2)];
        let mut all = Vec::new();
        places(spoilt, "", &mut all);
        let Some(place) = all.get(dice.below(all.len().max(1))) else { continue };
        let (above, key) = place.rsplit_once('/').expect("a place below");
        let key = key.replace("~1", "/").replace("~0", "~");
        if dice.one_in(4) {
            match spoilt.pointer_mut(above).expect("what it is in") {
                Value::Object(fields) => drop(fields.remove(&key)),
                Value::Array(items) => drop(items.remove(key.parse().expect("a number"))),
                _ => unreachable!("it has something in it"),
            }
            told.push(format!("{place} removed"));
        } else {
            let new = strange(dice);
            let shown: String = new.to_string().chars().take(40).collect();
            told.push(format!("{place} {shown}"));
            *spoilt.pointer_mut(place).expect("a place") = new;
        }
    }
    told
}

/// What an agent on this node makes of the files of a folder: the plan of the good Service, and what
/// it says of what it left out.
fn planned(folder: &Path) -> (Option<ServicePlan>, Batch, Vec<String>) {
    let batch = Source::new(vec![folder.to_owned()]).read_once();
    let mut index = index_of(batch.changes.clone());
    let mut plan = Plan::default();
    plan.update(&mut index, &this_node());
    let told = complaints(&index);
    (plan.get(&name("good")).cloned(), batch, told)
}

fn put(folder: &Path, file: &str, objects: &[Value]) {
    let text: Vec<_> = objects.iter().map(ToString::to_string).collect();
    fs::write(folder.join(file), text.join("\n")).unwrap();
}

#[test]
fn whatever_is_wrong_in_an_object_is_told_with_its_name_and_another_service_does_not_notice() {
    let (seed, inputs) = (seed(), inputs(if full_size() { INPUTS.1 } else { INPUTS.0 }));
    println!("LB_SEED={seed} LB_INPUTS={inputs} repeats this");
    let mut dice = Dice(seed);
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "good.json", &pair("good", 1));
    let (good, batch, told) = planned(folder.path());
    assert!(good.is_some() && batch.reports.is_empty() && told.is_empty(), "{told:?}");

    let (mut refused, mut passed) = (0, 0);
    for _ in 0..inputs {
        let mut objects = pair("bad", 2);
        let spoilt = spoil(&mut objects, &mut dice);
        for (file, object) in ["bad-service.json", "bad-slice.json"].into_iter().zip(objects) {
            put(folder.path(), file, &[object]);
        }
        let (found, batch, told) = planned(folder.path());
        assert!(found == good, "{spoilt:?} changed the plan of the other: {found:?}");
        for report in batch.reports {
            let file = report.file.file_name().unwrap();
            assert!(file.to_string_lossy().starts_with("bad-"), "{spoilt:?}: {report}");
            let is_named = report.object.as_ref().is_some_and(|it| !it.name.name.is_empty());
            // What has no kind or name that can be read is told of by file and line.
            let is_nameless = spoilt.iter().any(|it| IDENTITY.contains(&place_of(it)));
            assert!(is_named || is_nameless && report.line.is_some(), "{spoilt:?}: {report}");
            refused += usize::from(report.severity == Severity::Error);
        }
        for complaint in &told {
            let kinds = ["Service ", "EndpointSlice "];
            assert!(
                kinds.iter().any(|kind| complaint.starts_with(kind)),
                "{spoilt:?}: {complaint}"
            );
            assert!(!complaint.contains("good"), "{spoilt:?}: {complaint}");
        }
        refused += told.len();
        passed += usize::from(told.is_empty());
    }
    counted(inputs, "spoilt pairs of objects");
    counted(refused, "fields or objects refused by name");
    assert!(refused > inputs / 4 && passed > 0, "{refused} refused, {passed} passed");
}

#[test]
fn a_service_has_the_endpoints_of_all_its_five_thousand_slices_and_its_neighbour_its_own() {
    let address = |n: u32| format!("10.7.{}.{}", n >> 8, n & 0xff);
    let slices = (0..5_000).map(|n| {
        // Every tenth repeats an endpoint of another slice.
        let also = address(n / 10 * 10);
        apply_slice(slice(&format!("web-{n}"), "web", &[&address(n), &also]))
    });
    let others = [
        apply_service(web("web", "10.96.0.10")),
        apply_service(web("other", "10.96.0.11")),
        apply_slice(slice("other-1", "other", &["10.0.0.1"])),
    ];
    let mut index = index_of(others.into_iter().chain(slices));
    assert_eq!((complaints(&index), index.slice_count(&name("web"))), (vec![], 5_000));
    let mut plan = Plan::default();
    plan.update(&mut index, &this_node());
    let backends = |service: &str| -> BTreeSet<String> {
        let port = &plan.get(&name(service)).unwrap().ports[0];
        port.cluster.backends.iter().map(|it| it.address.to_string()).collect()
    };
    let all: BTreeSet<_> = (0..5_000).map(|n| format!("{}:8080", address(n))).collect();
    assert_eq!(backends("web"), all);
    assert_eq!(backends("other"), ["10.0.0.1:8080".to_owned()].into());
}

#[test]
fn a_slice_without_ports_has_nothing_for_a_port_of_a_service_and_the_others_serve() {
    // For the API these are valid, and mean every port; a Service's are named (row 29).
    for none in [json!(null), json!([]), json!([{"name": "http"}])] {
        let mut portless = slice("web-1", "web", &["10.0.0.1"]);
        portless.ports = object(none);
        let index = index_of([
            apply_service(web("web", "10.96.0.10")),
            apply_slice(portless),
            apply_slice(slice("web-2", "web", &["10.0.0.2"])),
        ]);
        assert_eq!(http_of(&index, "web"), ["10.0.0.2:8080"]);
        assert_eq!(complaints(&index), Vec::<String>::new());
    }
}
