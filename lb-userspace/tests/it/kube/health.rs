//! Health checks that follow a cluster, and what people are told when one cannot be served.

use std::{collections::BTreeSet, net::SocketAddr};

use k8s_openapi::api::{
    core::v1::{Event, Service},
    discovery::v1::EndpointSlice,
};
use lb_userspace::{
    cluster::events::{Warning, publish, started},
    health::server::{Servers, Shared},
    model::ObjectName,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::agent::{Agent, HERE};
use crate::support::{api_server::ApiServer, objects::object};

/// A Service that asks for health checks on that port.
fn checked(port: u16) -> Service {
    object(json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port,
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    }))
}

/// A slice of one pod, on a node and in a state.
fn pod(number: u8, node: &str, ready: bool, terminating: bool) -> EndpointSlice {
    object(json!({
        "metadata": {
            "name": format!("web-{number}"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": pods(number, node, ready, terminating),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }))
}

fn pods(number: u8, node: &str, ready: bool, terminating: bool) -> Value {
    json!([{
        "addresses": [format!("10.1.0.{number}")], "nodeName": node,
        "conditions": {"ready": ready, "serving": true, "terminating": terminating},
    }])
}

/// A port that nobody listens on, of those that API servers take for this.
async fn free_port() -> u16 {
    for port in 30_000..32_768 {
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
    }
    panic!("no NodePort is free on this machine");
}

async fn status(port: u16) -> (u16, usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let count = body["localEndpoints"].as_u64().unwrap() as usize;
    (head.split(' ').nth(1).unwrap().parse().unwrap(), count)
}

/// What the agent's state does after each sync.
async fn follow(agent: &Agent, shared: &Shared, servers: &mut Servers) {
    let checks =
        || agent.plan.services().filter_map(|plan| Some((plan, plan.health_check.clone()?)));
    let ports = checks().map(|(plan, check)| (plan.name.clone(), check.port)).collect();
    let counts = checks().map(|(plan, check)| (plan.name.clone(), check.local_endpoints)).collect();
    {
        let mut health = shared.lock();
        health.checks.set_services(&ports);
        health.checks.set_endpoints(&counts);
    }
    let failed = servers.follow(&BTreeSet::from([[127, 0, 0, 1].into()])).await;
    assert!(failed.is_empty(), "{failed:?}");
}

/// How many ready pods of the Service the plan has on this node.
fn here(agent: &Agent) -> Option<usize> {
    let plan = agent.plan.get(&ObjectName::new("default", "web"))?;
    Some(plan.health_check.clone()?.local_endpoints)
}

#[tokio::test]
async fn a_rolling_restart_is_answered_200_then_503_then_200_at_the_moments_when_it_is_so() {
    let server = ApiServer::start().await;
    let mut agent = Agent::watching(&server);
    let (shared, port) = (Shared::default(), free_port().await);
    let mut servers = Servers::new(shared.clone());
    server.create(checked(port)).await;
    server.create(pod(1, HERE, true, false)).await;
    server.create(pod(2, "elsewhere", true, false)).await;
    agent.until("one pod is here", |agent| here(agent) == Some(1)).await;
    follow(&agent, &shared, &mut servers).await;
    assert_eq!(status(port).await, (200, 1));

    // It is told to go: it still serves who is there, but nobody new shall be sent.
    server.patch::<EndpointSlice>("web-1", json!({"endpoints": pods(1, HERE, false, true)})).await;
    agent.until("none is ready", |agent| here(agent) == Some(0)).await;
    follow(&agent, &shared, &mut servers).await;
    assert_eq!(status(port).await, (503, 0));
    let port_plan = agent.port("web").unwrap();
    assert_eq!(port_plan.local.backends.len(), 1, "it serves while it terminates");

    // Its successor is there before it is ready, then ready.
    server
        .patch::<EndpointSlice>("web-1", json!({"endpoints": pods(1, "elsewhere", true, false)}))
        .await;
    server.create(pod(3, HERE, false, false)).await;
    agent
        .until("the old one is gone", |agent| {
            agent.port("web").is_some_and(|port| port.local.backends.is_empty())
        })
        .await;
    follow(&agent, &shared, &mut servers).await;
    assert_eq!(status(port).await, (503, 0));
    server.patch::<EndpointSlice>("web-3", json!({"endpoints": pods(3, HERE, true, false)})).await;
    agent.until("the new one is ready", |agent| here(agent) == Some(1)).await;
    follow(&agent, &shared, &mut servers).await;
    assert_eq!(status(port).await, (200, 1));

    server.delete::<Service>("web").await;
    agent.until("the Service is gone", |agent| here(agent).is_none()).await;
    follow(&agent, &shared, &mut servers).await;
    assert_eq!(servers.addresses(), BTreeSet::new());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_and_listened_on_as_soon_as_it_is_free() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let shared = Shared::default();
    let web = ObjectName::new("default", "web");
    shared.lock().checks.set_services(&[(web.clone(), address.port())].into());
    let mut servers = Servers::new(shared);
    let at = BTreeSet::from([address.ip()]);
    let failed = servers.follow(&at).await;
    let named: Vec<(&ObjectName, SocketAddr)> =
        failed.iter().map(|error| (&error.service, error.address)).collect();
    assert_eq!(named, [(&web, address)]);
    drop(taken);
    assert!(servers.follow(&at).await.is_empty());
    assert_eq!(status(address.port()).await, (503, 0));
}

/// What becomes of warnings about a Service and about the node itself.
async fn published(warnings: [Warning; 2]) -> Vec<Event> {
    let server = ApiServer::start().await;
    let (tx, rx) = mpsc::channel(4);
    for warning in warnings {
        tx.send(warning).await.unwrap();
    }
    drop(tx);
    publish(server.client(), "n1".to_owned(), rx).await;
    let events = kube::Api::<Event>::namespaced(server.admin.clone(), "default");
    events.list(&kube::api::ListParams::default()).await.unwrap().items
}

#[tokio::test]
async fn a_warning_is_an_event_on_its_service_or_else_on_the_node() {
    let of_service = Warning {
        service: Some(ObjectName::new("default", "web")),
        reason: "FailedToStartServiceHealthcheck",
        message: "healthCheckNodePort: cannot listen on 0.0.0.0:31999: in use".to_owned(),
    };
    let of_node = Warning {
        service: None,
        reason: "FailedToStartProxierHealthcheck",
        message: "healthAddress 0.0.0.0:10256: in use".to_owned(),
    };
    let mut found = published([of_service.clone(), of_node.clone()]).await;
    found.sort_by_key(|event| event.involved_object.kind.clone());
    let [node, service] = found.as_slice() else { panic!("two events, not {found:?}") };
    for (event, warning, kind, name) in
        [(service, of_service, "Service", "web"), (node, of_node, "Node", "n1")]
    {
        let about = &event.involved_object;
        assert_eq!((about.kind.as_deref(), about.name.as_deref()), (Some(kind), Some(name)));
        assert_eq!(event.reason.as_deref(), Some(warning.reason));
        assert_eq!(event.message.as_deref(), Some(warning.message.as_str()));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
}

#[tokio::test]
async fn an_agent_that_starts_says_so_on_its_node() {
    let server = ApiServer::start().await;
    started(server.client(), "n1").await;
    let events = kube::Api::<Event>::namespaced(server.admin.clone(), "default");
    let found = events.list(&kube::api::ListParams::default()).await.unwrap().items;
    let [event] = found.as_slice() else { panic!("one event, not {found:?}") };
    let about = &event.involved_object;
    let named = [about.kind.as_deref(), about.name.as_deref(), about.uid.as_deref()];
    assert_eq!(named, [Some("Node"), Some("n1"), Some("n1")]);
    let said = [event.type_.as_deref(), event.reason.as_deref()];
    assert_eq!(said, [Some("Normal"), Some("Starting")]);
}
