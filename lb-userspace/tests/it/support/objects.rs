//! Kubernetes objects in a line or two.

use k8s_openapi::api::{
    core::v1::{Endpoints, Node, Pod, Service},
    discovery::v1::EndpointSlice,
};
use lb_userspace::{
    cluster::{Change, Op, index::Index},
    model::{self, ObjectName, Protocol},
};
use serde_json::{Value, json};

/// Reads an object from JSON.
pub fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A Service `ns/{name}` with this spec.
pub fn service(name: &str, spec: Value) -> Service {
    object(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec}))
}

/// A ClusterIP Service `ns/{name}` with port 80 called http.
pub fn web(name: &str, cluster_ip: &str) -> Service {
    service(name, json!({"clusterIP": cluster_ip, "ports": [{"name": "http", "port": 80}]}))
}

/// An IPv4 slice `ns/{name}` of `ns/{service}`, port 8080 called http, all endpoints ready.
pub fn slice(name: &str, service: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoints = addresses.iter().map(|address| json!({"addresses": [address]}));
    slice_of(name, service, endpoints.collect())
}

/// The same with endpoints in full.
pub fn slice_of(name: &str, service: &str, endpoints: Vec<Value>) -> EndpointSlice {
    object(json!({
        "metadata": {
            "name": name, "namespace": "ns",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080}],
    }))
}

/// A ready pod `ns/{name}` labelled `app: {app}` on node n1.
pub fn pod(name: &str, app: &str, address: &str) -> Pod {
    object(json!({
        "metadata": {
            "name": name, "namespace": "ns", "labels": {"app": app}, "uid": format!("uid-{name}"),
        },
        "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "ports": [{"name": "web", "containerPort": 8080}]},
        ]},
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }))
}

/// Endpoints `ns/{name}`, made by hand.
pub fn endpoints(name: &str, addresses: &[&str]) -> Endpoints {
    let addresses: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    object(json!({
        "metadata": {"name": name, "namespace": "ns"},
        "subsets": [{"addresses": addresses, "ports": [{"name": "http", "port": 8080}]}],
    }))
}

/// A Node in a zone.
pub fn node(name: &str, zone: &str) -> Node {
    object(json!({
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
    }))
}

/// The model's node n1 with one address and pods detected.
pub fn this_node() -> model::Node {
    model::Node {
        name: "n1".into(),
        addresses: vec![[192, 168, 0, 2].into()],
        local_addresses: vec![[192, 168, 0, 2].into()],
        pod_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        ..model::Node::default()
    }
}

/// `ns/{name}`.
pub fn name(name: &str) -> ObjectName {
    ObjectName::new("ns", name)
}

/// The addresses of port http in the index, sorted.
pub fn http_of(index: &Index, service: &str) -> Vec<String> {
    let all = index.endpoints(&name(service));
    let http = all.get(&("http".to_string(), Protocol::Tcp));
    http.into_iter().flatten().map(|endpoint| endpoint.address.to_string()).collect()
}

/// An index that has seen these.
pub fn index_of(changes: impl IntoIterator<Item = Change>) -> Index {
    let mut index = Index::default();
    for change in changes {
        index.apply(change);
    }
    index
}

/// Dirty names without their namespace.
pub fn dirty(index: &mut Index) -> Vec<String> {
    index.take_dirty().into_iter().map(|name| name.name.clone()).collect()
}

/// What was left out, a sentence each.
pub fn complaints(index: &Index) -> Vec<String> {
    index.ignored().iter().map(ToString::to_string).collect()
}

pub fn apply_service(service: Service) -> Change {
    Change::Service(Op::Apply(service))
}

pub fn apply_slice(slice: EndpointSlice) -> Change {
    Change::EndpointSlice(Op::Apply(slice))
}

pub fn apply_pod(pod: Pod) -> Change {
    Change::Pod(Op::Apply(pod))
}

pub fn apply_endpoints(endpoints: Endpoints) -> Change {
    Change::Endpoints(Op::Apply(endpoints))
}
