//! Events that come twice or in the wrong order. No real server can be brought to that: these
//! tests are for the double alone.

use k8s_openapi::api::core::v1::Service;
use lb_userspace::cluster::watch::Kind;

use super::{agent::Agent, operator::service};
use crate::support::api_server::{ApiServer, Double, Order};

#[tokio::test]
async fn an_event_said_twice_in_a_row_counts_once() {
    let (server, double, mut agent) = a_busy_cluster_told(Order::Stuttered).await;
    until_it_is_as_it_should_be(&mut agent).await;
    server.settle(&mut agent, "marker").await;
    assert_eq!(agent.source(Kind::Service).listings, 1);
    assert_eq!(agent.source(Kind::Service).version, service_version(&server, "marker").await);
    drop(double);
}

#[tokio::test]
async fn events_told_backwards_lead_to_a_listing_and_to_the_truth() {
    let (_server, _double, mut agent) = a_busy_cluster_told(Order::Reversed).await;
    let relisted = |agent: &Agent| agent.source(Kind::Service).listings >= 2;
    agent.until("the Services are listed again", relisted).await;
    until_it_is_as_it_should_be(&mut agent).await;
}

#[tokio::test]
async fn old_news_told_all_over_again_do_not_bring_back_what_is_gone() {
    let (server, double, mut agent) = a_busy_cluster_told(Order::Repeated).await;
    until_it_is_as_it_should_be(&mut agent).await;
    double.release(Order::AsItHappened);
    server.settle(&mut agent, "marker").await;
    assert!(agent.port("short-lived").is_none());
    assert_eq!(agent.backends("web"), ["10.1.0.3:8080"]);
}

/// Changes upon changes while the watches are held up; then they are all told in some order.
async fn a_busy_cluster_told(order: Order) -> (ApiServer, Double, Agent) {
    let (server, double) = ApiServer::double().await;
    let mut agent = Agent::watching(&server);
    server.serve("web", &["10.1.0.1"]).await;
    server.create(service("gone")).await;
    agent.until_backends("web", &["10.1.0.1:8080"]).await;
    agent.until("both Services", |agent| agent.port("gone").is_some()).await;

    double.hold();
    server.create(service("short-lived")).await;
    server.scale("web", &["10.1.0.1", "10.1.0.2"]).await;
    server.delete::<Service>("gone").await;
    server.delete::<Service>("short-lived").await;
    server.create(service("new")).await;
    server.scale("web", &["10.1.0.3"]).await;
    double.release(order);
    (server, double, agent)
}

async fn until_it_is_as_it_should_be(agent: &mut Agent) {
    let so = |agent: &Agent| {
        let is = |name| agent.port(name).is_some();
        agent.backends("web") == ["10.1.0.3:8080"] && is("new") && !is("gone") && !is("short-lived")
    };
    agent.until("the plan is what the objects say", so).await;
}

async fn service_version(server: &ApiServer, name: &str) -> Option<String> {
    server.get::<Service>(name).await.metadata.resource_version
}
