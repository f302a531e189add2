//! An agent with a kernel under it, told by an API server: policies and hints change, and traffic
//! that is under way follows without a fault.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use lb_userspace::lab::{Agent, AgentOptions, Fate, Held, Load, PATIENCE};
use serde_json::{Value, json};

use crate::{
    netns::world::{POD_PORT, Pod, V4, World, node_address},
    support::api_server::{ApiServer, Wire},
};

/// Requests in a row that show who answers now: of two that share alike, one stays unasked by so
/// many once in 10^9 times.
const ENOUGH: usize = 30;

/// An agent on node 1 whose objects come from the server, and the wire between them.
pub(super) fn agent(world: &World, server: &ApiServer, flags: &[&str]) -> (Agent, Wire) {
    let node = world.node(1);
    let listener = node.run(|| TcpListener::bind("127.0.0.1:0")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let wire = Wire::from(listener, server.wire.address());
    let kubeconfig = world.lab.folder().join("kubeconfig");
    std::fs::write(&kubeconfig, wire.kubeconfig()).unwrap();
    let kubeconfig = kubeconfig.display().to_string();
    let own = ["--xdp-mode", "off", "--kubeconfig", &kubeconfig];
    let options = world.options(&[&own, flags].concat());
    let options = AgentOptions { manifests: "".into(), ..options };
    let agent = tokio::task::block_in_place(|| Agent::start(&world.lab, node, options)).unwrap();
    (agent, wire)
}

pub(super) fn endpoints(pods: &[&Pod], hints: &[&str]) -> Value {
    let endpoint = |(number, pod): (usize, &&Pod)| {
        let mut endpoint = json!({
            "addresses": [pod.addresses[V4]], "nodeName": format!("n{}", pod.node),
            "conditions": {"ready": true},
        });
        if let Some(zone) = hints.get(number) {
            endpoint["hints"] = json!({"forZones": [{"name": zone}]});
        }
        endpoint
    };
    pods.iter().enumerate().map(endpoint).collect()
}

/// Waits until these, all of them and nobody else, have answered the last requests that began after
/// now.
pub(super) fn until_served_by(load: &Load, pods: &[&Pod]) {
    let names: BTreeSet<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    let found = load.wait(load.ended(), 10 * PATIENCE, |requests| {
        let last = requests.len().checked_sub(ENOUGH)?;
        let answers = requests[last..].iter().map(|request| request.outcome.as_deref().ok());
        (answers.collect::<Option<BTreeSet<_>>>()? == names).then_some(())
    });
    found.unwrap_or_else(|| panic!("never served by {names:?}: {:?}", load.since(0).last()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_and_hints_that_change_under_traffic_are_followed_without_a_fault() {
    let server = ApiServer::start().await;
    let world = tokio::task::block_in_place(|| World::new("kube-traffic"));
    let (here, there, shell) = (world.pod(1, 10), world.pod(2, 10), world.pod(1, 20));
    let pods = [&here, &there];
    server.create_node("n1", "a", "192.168.10.1").await;
    server.create_node("n2", "b", "192.168.10.2").await;
    let web: Service = server.create(service()).await;
    server.create(slice(&endpoints(&pods, &[]))).await;
    let (_agent, _wire) = agent(&world, &server, &[]);

    let spec = web.spec.unwrap();
    let ports = spec.ports.unwrap();
    let inside = SocketAddr::new(spec.cluster_ip.unwrap().parse().unwrap(), ports[0].port as u16);
    let node_port = ports[0].node_port.unwrap() as u16;
    let outside = SocketAddr::new(node_address(1, V4), node_port);
    let every = Duration::from_millis(5);
    let held = Held::open(&world.client, outside, 32, Duration::from_millis(100)).unwrap();
    let [from_outside, from_inside] = [(&world.client, outside), (&shell.host, inside)]
        .map(|(host, target)| Load::start(host, target, every));
    let served = |load: &Load, pods: &[&Pod]| {
        tokio::task::block_in_place(|| until_served_by(load, pods));
    };
    let policy = |field: &str, value: &str| json!({"spec": {field: value}});
    let hinted = |zones: &[&str]| json!({"endpoints": endpoints(&pods, zones)});
    served(&from_outside, &pods);
    served(&from_inside, &pods);

    server.patch::<Service>("web", policy("externalTrafficPolicy", "Local")).await;
    served(&from_outside, &[&here]);
    served(&from_inside, &pods);
    server.patch::<Service>("web", policy("internalTrafficPolicy", "Local")).await;
    served(&from_inside, &[&here]);

    // Local policies do not look at hints; those of all the cluster do.
    server.patch::<EndpointSlice>("web", hinted(&["b", "a"])).await;
    server.patch::<Service>("web", policy("internalTrafficPolicy", "Cluster")).await;
    served(&from_inside, &[&there]);
    served(&from_outside, &[&here]);
    server.patch::<Service>("web", policy("externalTrafficPolicy", "Cluster")).await;
    served(&from_outside, &[&there]);

    // This node moves to the other zone, and then one hint is missing.
    server.label_node("n1", json!({"topology.kubernetes.io/zone": "b"})).await;
    served(&from_outside, &[&here]);
    served(&from_inside, &[&here]);
    server.patch::<EndpointSlice>("web", hinted(&["b"])).await;
    served(&from_outside, &pods);
    served(&from_inside, &pods);

    for load in [&from_outside, &from_inside] {
        let failed: Vec<_> = load.since(0).into_iter().filter(|it| it.outcome.is_err()).collect();
        assert!(failed.is_empty(), "{} failed, the first {:?}", failed.len(), failed.first());
    }
    let disturbed = held.connections().into_iter().filter(|one| one.fate != Fate::Alive);
    assert_eq!(disturbed.collect::<Vec<_>>(), [], "connections that were there before");
}

pub(super) fn service() -> Service {
    crate::support::objects::object(json!({
        "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "ports": [
            {"name": "http", "port": 80, "protocol": "TCP", "targetPort": POD_PORT},
        ]},
    }))
}

pub(super) fn slice(endpoints: &Value) -> EndpointSlice {
    crate::support::objects::object(json!({
        "metadata": {"name": "web", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": POD_PORT, "protocol": "TCP"}],
        "endpoints": endpoints,
    }))
}
