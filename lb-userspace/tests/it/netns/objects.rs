//! The manifests of the stories: Services that can be reached in every way, and their endpoints.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::world::{ECHO_PORT, FAMILIES, POD_PORT, Pod, address, node_address, pod_net};

/// Where every Service serves, over TCP and UDP.
pub const PORT: u16 = 80;
/// Where every Service sends back all bytes.
pub const BULK: u16 = 81;

/// A Service with all kinds of addresses in both families; they follow from its number.
#[derive(Clone, Debug)]
pub struct Front {
    pub name: &'static str,
    pub number: u8,
    /// More of its `spec`, which wins.
    pub more: Value,
}

impl Front {
    pub const fn new(name: &'static str, number: u8) -> Self {
        Self { name, number, more: Value::Null }
    }

    pub fn with(self, more: Value) -> Self {
        Self { more, ..self }
    }

    pub fn cluster_ip(&self, family: usize) -> IpAddr {
        let Self { number, .. } = self;
        address(&[format!("10.96.0.{number}"), format!("fd00:10:96::{number:x}")][family])
    }

    /// The address in `status.loadBalancer`.
    pub fn balancer(&self, family: usize) -> IpAddr {
        let Self { number, .. } = self;
        address(&[format!("198.51.100.{number}"), format!("2001:db8:51::{number:x}")][family])
    }

    pub fn external(&self, family: usize) -> IpAddr {
        let number = self.number + 100;
        address(&[format!("198.51.100.{number}"), format!("2001:db8:51::{number:x}")][family])
    }

    pub fn node_port(&self) -> u16 {
        30000 + u16::from(self.number)
    }

    pub fn inside(&self, family: usize) -> SocketAddr {
        SocketAddr::new(self.cluster_ip(family), PORT)
    }

    pub fn on_node(&self, node: u8, family: usize) -> SocketAddr {
        SocketAddr::new(node_address(node, family), self.node_port())
    }

    /// How the world outside reaches it by node 1: NodePort, load balancer, external address.
    pub fn outside(&self, family: usize) -> [SocketAddr; 3] {
        [
            self.on_node(1, family),
            SocketAddr::new(self.balancer(family), PORT),
            SocketAddr::new(self.external(family), PORT),
        ]
    }

    /// The same ways to where it sends back all bytes.
    pub fn bulk(&self, family: usize) -> [SocketAddr; 3] {
        let [node, balancer, external] = self.outside(family);
        let node_port = 1000 + self.node_port();
        [
            SocketAddr::new(node.ip(), node_port),
            SocketAddr::new(balancer.ip(), BULK),
            SocketAddr::new(external.ip(), BULK),
        ]
    }

    /// Its manifest and that of its endpoints: these pods, all ready.
    pub fn manifests(&self, pods: &[&Pod]) -> Vec<Value> {
        let mut objects = vec![self.service()];
        objects.extend(FAMILIES.map(|family| self.slice(family, pods)));
        objects
    }

    pub fn service(&self) -> Value {
        let port = |name, protocol, port: u16, target: u16, node: u16| {
            json!({
                "name": name, "protocol": protocol, "port": port, "targetPort": target,
                "nodePort": node,
            })
        };
        let node = self.node_port();
        let mut spec = json!({
            "type": "LoadBalancer",
            "ipFamilyPolicy": "RequireDualStack",
            "ipFamilies": ["IPv4", "IPv6"],
            "clusterIP": self.cluster_ip(0),
            "clusterIPs": FAMILIES.map(|family| self.cluster_ip(family)),
            "externalIPs": FAMILIES.map(|family| self.external(family)),
            "ports": [
                port("http", "TCP", PORT, POD_PORT, node),
                port("talk", "UDP", PORT, POD_PORT, node),
                port("bulk", "TCP", BULK, ECHO_PORT, 1000 + node),
            ],
        });
        for (key, value) in self.more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let ingress = FAMILIES.map(|family| json!({"ip": self.balancer(family)}));
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name, "namespace": "it"},
            "spec": spec, "status": {"loadBalancer": {"ingress": ingress}},
        })
    }

    fn slice(&self, family: usize, pods: &[&Pod]) -> Value {
        let kind = ["IPv4", "IPv6"][family];
        let endpoints = pods.iter().map(|pod| {
            json!({
                "addresses": [pod.addresses[family]],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("n{}", pod.node),
                "targetRef": {
                    "kind": "Pod", "namespace": "it", "name": pod.name,
                    "uid": format!("uid-of-{}", pod.name),
                },
            })
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{}", self.name, kind.to_lowercase()), "namespace": "it",
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": kind,
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": [
                {"name": "http", "protocol": "TCP", "port": POD_PORT},
                {"name": "talk", "protocol": "UDP", "port": POD_PORT},
                {"name": "bulk", "protocol": "TCP", "port": ECHO_PORT},
            ],
        })
    }
}

/// What a Node's manifest says.
pub struct NodeFacts {
    pub number: u8,
    /// Whether its agent forwards by DSR.
    pub dsr: bool,
}

impl NodeFacts {
    pub fn manifest(&self) -> Value {
        let Self { number, dsr } = *self;
        let forwarding = if dsr { "dsr" } else { "snat" };
        let addresses = FAMILIES
            .map(|family| json!({"type": "InternalIP", "address": node_address(number, family)}));
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": format!("n{number}"), "annotations": {"lb/forwarding": forwarding},
            },
            "spec": {"podCIDRs": FAMILIES.map(|family| pod_net(number, family))},
            "status": {"addresses": addresses},
        })
    }
}
