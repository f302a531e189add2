//! What a person or a controller does to the cluster, past wire and gate.

use std::fmt::Debug;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::DaemonSet,
        core::v1::{Endpoints, Node, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::agent::Agent;
use crate::support::api_server::ApiServer;

/// A namespaced kind that operators write.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
{
}

impl Object for DaemonSet {}
impl Object for Service {}
impl Object for EndpointSlice {}
impl Object for Endpoints {}

impl ApiServer {
    pub async fn create<K: Object>(&self, object: K) -> K {
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    pub async fn get<K: Object>(&self, name: &str) -> K {
        self.api::<K>().get(name).await.unwrap()
    }

    pub async fn patch<K: Object>(&self, name: &str, patch: Value) -> K {
        let patch = Patch::Merge(patch);
        self.api::<K>().patch(name, &PatchParams::default(), &patch).await.unwrap()
    }

    pub async fn delete<K: Object>(&self, name: &str) {
        self.api::<K>().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// A Service with a slice of endpoints of its name.
    pub async fn serve(&self, name: &str, addresses: &[&str]) {
        self.create(service(name)).await;
        self.create(slice(name, name, addresses)).await;
    }

    /// Gives a slice other endpoints.
    pub async fn scale(&self, slice: &str, addresses: &[&str]) {
        self.patch::<EndpointSlice>(slice, json!({"endpoints": endpoints(addresses)})).await;
    }

    pub async fn create_node(&self, name: &str, zone: &str, address: &str) {
        let node = self.nodes();
        node.create(&PostParams::default(), &self::node(name, zone)).await.unwrap();
        self.move_node(name, address).await;
    }

    /// What a kubelet reports after its host got another address.
    pub async fn move_node(&self, name: &str, address: &str) {
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        let patch = Patch::Merge(status);
        self.nodes().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// What a cloud's controller writes when it has made, or removed, a load balancer.
    pub async fn balance(&self, service: &str, ingress: Value) {
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
        let services = self.api::<Service>();
        services.patch_status(service, &PatchParams::default(), &patch).await.unwrap();
    }

    pub async fn label_node(&self, name: &str, labels: Value) {
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        self.nodes().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Writes a Service and its slice and waits until the agent has them: whatever was written
    /// to these kinds before has then been told as well, or never will be.
    pub async fn settle(&self, agent: &mut Agent, marker: &str) {
        self.serve(marker, &["10.1.255.1"]).await;
        agent.until_backends(marker, &["10.1.255.1:8080"]).await;
    }

    fn api<K: Object>(&self) -> Api<K> {
        Api::default_namespaced(self.admin.clone())
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.admin.clone())
    }
}

/// A Service without a selector: in these tests nobody but the test writes endpoints.
pub fn service(name: &str) -> Service {
    object(json!({
        "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    }))
}

/// A slice of a Service; each address is ready and answers on 8080.
pub fn slice(name: &str, service: &str, addresses: &[&str]) -> EndpointSlice {
    object(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints(addresses),
    }))
}

/// A slice's endpoints, each meant for clients in a zone.
pub fn hinted(endpoints: &[(&str, &str)]) -> Value {
    let endpoints = endpoints.iter().map(|(address, zone)| {
        json!({"addresses": [address], "conditions": {"ready": true},
               "hints": {"forZones": [{"name": zone}]}})
    });
    endpoints.collect()
}

/// A hand-made Endpoints object.
pub fn hand_made(service: &str, address: &str) -> Endpoints {
    object(json!({
        "metadata": {"name": service},
        "subsets": [{
            "addresses": [{"ip": address}],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }],
    }))
}

fn endpoints(addresses: &[&str]) -> Value {
    let ready = |address| json!({"addresses": [address], "conditions": {"ready": true}});
    addresses.iter().map(ready).collect()
}

fn node(name: &str, zone: &str) -> Node {
    object(json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}}))
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}
