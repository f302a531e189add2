//! Services and endpoints come, change and go, and the plan follows.

use futures::{StreamExt as _, stream};
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use lb_userspace::{
    cluster::watch::{Kind, Options},
    model::ObjectName,
    plan::{Frontend, FrontendKind},
};
use serde_json::json;

use super::{
    agent::{Agent, HERE, options},
    operator::{hand_made, hinted, service, slice},
};
use crate::support::api_server::ApiServer;

#[tokio::test]
async fn a_service_follows_its_endpoints_from_three_to_five_to_two_and_is_gone_when_deleted() {
    let server = ApiServer::start().await;
    let mut agent = Agent::watching(&server);
    server.serve("web", &["10.1.0.1", "10.1.0.2", "10.1.0.3"]).await;
    let three = ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080"];
    agent.until_backends("web", &three).await;

    server.scale("web", &["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"]).await;
    let five = [three.as_slice(), &["10.1.0.4:8080", "10.1.0.5:8080"]].concat();
    agent.until_backends("web", &five).await;

    server.scale("web", &["10.1.0.2", "10.1.0.5"]).await;
    agent.until_backends("web", &["10.1.0.2:8080", "10.1.0.5:8080"]).await;

    server.delete::<Service>("web").await;
    agent.until("the Service is gone", |agent| agent.port("web").is_none()).await;
}

#[tokio::test]
async fn services_that_were_there_before_the_agent_are_planned_too() {
    let server = ApiServer::start().await;
    server.serve("old", &["10.1.0.1"]).await;
    let mut agent = Agent::watching(&server);
    agent.until_backends("old", &["10.1.0.1:8080"]).await;
}

#[tokio::test]
async fn a_service_labelled_for_another_proxy_goes_and_comes_back_without_the_label() {
    let server = ApiServer::start().await;
    let mut agent = Agent::watching(&server);
    server.serve("web", &["10.1.0.1"]).await;
    agent.until_backends("web", &["10.1.0.1:8080"]).await;

    let label = |value| json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": value}}});
    server.patch::<Service>("web", label(json!("another"))).await;
    agent.until("the labelled Service is gone", |agent| agent.port("web").is_none()).await;
    let mut ignored = agent.index.ignored().into_iter();
    assert_eq!(ignored.find(|ignored| ignored.kind == "Service"), None, "not even told");

    server.patch::<Service>("web", label(json!(null))).await;
    agent.until_backends("web", &["10.1.0.1:8080"]).await;
}

#[tokio::test]
async fn a_slice_labelled_headless_takes_its_endpoints_away() {
    let server = ApiServer::start().await;
    let mut agent = Agent::watching(&server);
    server.serve("web", &["10.1.0.1"]).await;
    agent.until_backends("web", &["10.1.0.1:8080"]).await;

    let label = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    server.patch::<EndpointSlice>("web", label).await;
    agent.until_backends("web", &[]).await;
    assert_eq!(agent.index.slice_count(&ObjectName::new("default", "web")), 0, "not even told");
}

#[tokio::test]
async fn a_headless_service_is_never_told() {
    let server = ApiServer::start().await;
    let mut agent = Agent::watching(&server);
    let mut headless = service("headless");
    headless.spec.as_mut().unwrap().cluster_ip = Some("None".to_owned());
    server.create(headless).await;
    server.settle(&mut agent, "marker").await;
    assert!(agent.port("headless").is_none());
    assert_eq!(agent.index.ignored(), []);
}

#[tokio::test]
async fn a_service_gains_a_node_port_with_its_type_and_loses_everything_as_an_external_name() {
    let server = ApiServer::start().await;
    server.create_node(HERE, "a", "192.0.2.1").await;
    let mut agent = Agent::watching(&server);
    server.serve("web", &["10.1.0.1"]).await;
    let kinds = |agent: &Agent| -> Vec<_> {
        agent.frontends("web").iter().map(|frontend| frontend.kind).collect()
    };
    agent.until("a ClusterIP", |agent| kinds(agent) == [FrontendKind::ClusterIp]).await;

    let web: Service = server.patch("web", json!({"spec": {"type": "NodePort"}})).await;
    let port = web.spec.unwrap().ports.unwrap()[0].node_port.unwrap();
    let expected = Frontend {
        kind: FrontendKind::NodePort,
        address: format!("192.0.2.1:{port}").parse().unwrap(),
    };
    agent.until("a NodePort", |agent| agent.frontends("web").contains(&expected)).await;

    server.patch::<Service>("web", json!({"spec": {"type": "ClusterIP"}})).await;
    agent.until("no NodePort", |agent| kinds(agent) == [FrontendKind::ClusterIp]).await;

    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    server.patch::<Service>("web", external).await;
    agent.until("no frontend at all", |agent| agent.frontends("web").is_empty()).await;
}

#[tokio::test]
async fn a_service_goes_through_every_type_and_back_with_its_backends() {
    let server = ApiServer::start().await;
    server.create_node(HERE, "a", "192.0.2.1").await;
    let mut agent = Agent::watching(&server);
    server.serve("web", &["10.1.0.1"]).await;
    let kinds = |agent: &Agent| -> Vec<_> {
        agent.frontends("web").iter().map(|frontend| frontend.kind).collect()
    };
    let retyped = |kind: &str| json!({"spec": {"type": kind}});
    for round in ["first", "second"] {
        agent.until(round, |agent| kinds(agent) == [FrontendKind::ClusterIp]).await;
        agent.until_backends("web", &["10.1.0.1:8080"]).await;

        server.patch::<Service>("web", retyped("NodePort")).await;
        let both = [FrontendKind::ClusterIp, FrontendKind::NodePort];
        agent.until("a NodePort too", |agent| kinds(agent) == both).await;

        server.patch::<Service>("web", retyped("LoadBalancer")).await;
        server.balance("web", json!([{"ip": "198.51.100.7"}])).await;
        let address = Frontend {
            kind: FrontendKind::LoadBalancer,
            address: "198.51.100.7:80".parse().unwrap(),
        };
        agent.until("an address too", |agent| agent.frontends("web").contains(&address)).await;
        assert_eq!(kinds(&agent).len(), 3, "{:?}", kinds(&agent));

        // As the cloud's controller does when it takes the load balancer away.
        server.balance("web", json!([])).await;
        let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
        server.patch::<Service>("web", external).await;
        agent.until("no frontend at all", |agent| agent.frontends("web").is_empty()).await;

        let back = json!({"spec": {"type": "ClusterIP", "externalName": null}});
        server.patch::<Service>("web", back).await;
    }
    agent.until("back again", |agent| kinds(agent) == [FrontendKind::ClusterIp]).await;
    agent.until_backends("web", &["10.1.0.1:8080"]).await;
}

#[tokio::test]
async fn hand_made_endpoints_are_mirrored_until_a_slice_speaks_for_the_service() {
    let server = ApiServer::start().await;
    let options = Options { mirror_endpoints: true, ..options() };
    let mut agent = Agent::with(&server, options);
    server.create(service("database")).await;
    server.create(hand_made("database", "192.0.2.10")).await;
    agent.until_backends("database", &["192.0.2.10:8080"]).await;

    server.create(slice("by-hand", "database", &["192.0.2.20"])).await;
    agent.until_backends("database", &["192.0.2.20:8080"]).await;

    server.delete::<EndpointSlice>("by-hand").await;
    agent.until_backends("database", &["192.0.2.10:8080"]).await;

    server.delete::<Endpoints>("database").await;
    agent.until_backends("database", &[]).await;
}

#[tokio::test]
async fn endpoints_objects_are_not_even_asked_for_where_a_controller_mirrors_them() {
    let server = ApiServer::start().await;
    let mut agent = Agent::watching(&server);
    server.create(service("database")).await;
    server.create(hand_made("database", "192.0.2.10")).await;
    server.settle(&mut agent, "marker").await;
    assert_eq!(agent.backends("database"), [""; 0]);
    assert_eq!(agent.source(Kind::Endpoints).last_contact, None);
}

#[tokio::test]
async fn an_endpoint_that_moves_to_another_slice_is_never_missing() {
    let server = ApiServer::start().await;
    let mut agent = Agent::watching(&server);
    server.serve("web", &["10.1.0.1", "10.1.0.2"]).await;
    agent.until_backends("web", &["10.1.0.1:8080", "10.1.0.2:8080"]).await;

    server.create(slice("web-2", "web", &["10.1.0.2", "10.1.0.3"])).await;
    server.scale("web", &["10.1.0.1"]).await;
    server.delete::<EndpointSlice>("web").await;
    agent
        .until("only the second slice is left", |agent| {
            let backends = agent.backends("web");
            assert!(backends.contains(&"10.1.0.2:8080".to_owned()), "missing: {backends:?}");
            backends == ["10.1.0.2:8080", "10.1.0.3:8080"]
        })
        .await;
}

#[tokio::test]
async fn two_thousand_services_written_at_once_are_all_planned_and_all_go() {
    let server = ApiServer::start().await;
    let mut agent = Agent::watching(&server);
    agent.until_complete().await;
    let before = agent.plan.services().count();
    let names: Vec<_> = (0..2_000).map(|number| format!("web-{number}")).collect();

    let writes = stream::iter(&names)
        .for_each_concurrent(16, |name| async { drop(server.create(service(name)).await) });
    let all = |agent: &Agent| agent.plan.services().count() == before + names.len();
    tokio::join!(writes, agent.until("all are planned", all));

    let writes =
        stream::iter(&names).for_each_concurrent(16, |name| server.delete::<Service>(name));
    let none = |agent: &Agent| agent.plan.services().count() == before;
    tokio::join!(writes, agent.until("all are gone", none));
    assert_eq!(agent.source(Kind::Service).listings, 1, "the burst came by the watch alone");
}

#[tokio::test]
async fn a_node_that_changes_its_zone_gets_the_backends_hinted_for_that_zone() {
    let server = ApiServer::start().await;
    server.create_node(HERE, "a", "192.0.2.1").await;
    let mut agent = Agent::watching(&server);
    server.serve("web", &["10.1.0.1", "10.1.0.2"]).await;
    let hints = hinted(&[("10.1.0.1", "a"), ("10.1.0.2", "b")]);
    server.patch::<EndpointSlice>("web", json!({"endpoints": hints})).await;
    agent.until_backends("web", &["10.1.0.1:8080"]).await;

    server.label_node(HERE, json!({"topology.kubernetes.io/zone": "b"})).await;
    agent.until_backends("web", &["10.1.0.2:8080"]).await;
}

#[tokio::test]
async fn addresses_of_this_node_and_of_others_are_followed() {
    let server = ApiServer::start().await;
    server.create_node(HERE, "a", "192.0.2.1").await;
    server.create_node("there", "a", "192.0.2.2").await;
    let mut agent = Agent::watching(&server);
    let addresses = |agent: &Agent, name: &str| {
        let node = agent.index.node(name).cloned().unwrap_or_default();
        node.addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    agent.until("both nodes", |a| addresses(a, HERE) == ["192.0.2.1"]).await;
    agent.until("both nodes", |a| addresses(a, "there") == ["192.0.2.2"]).await;

    server.move_node("there", "192.0.2.3").await;
    agent.until("the other moved", |a| addresses(a, "there") == ["192.0.2.3"]).await;
    server.move_node(HERE, "192.0.2.4").await;
    agent.until("this one moved", |a| addresses(a, HERE) == ["192.0.2.4"]).await;
}
