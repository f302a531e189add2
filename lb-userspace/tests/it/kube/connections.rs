//! Connections that break, freeze and are refused.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use lb_userspace::cluster::watch::{Kind, Options};

use super::{
    agent::{Agent, options},
    operator::service,
};
use crate::support::api_server::{ApiServer, Ask};

#[tokio::test]
async fn a_cut_connection_is_resumed_where_it_was_without_listing_again() {
    let server = ApiServer::start().await;
    let mut agent = Agent::watching(&server);
    server.serve("web", &["10.1.0.1"]).await;
    agent.until_backends("web", &["10.1.0.1:8080"]).await;

    for round in 2..5 {
        server.wire.cut();
        let address = format!("10.1.0.{round}");
        server.scale("web", &[&address]).await;
        agent.until_backends("web", &[&format!("{address}:8080")]).await;
    }
    let slices = agent.source(Kind::EndpointSlice);
    assert_eq!(slices.listings, 1);
    assert!(slices.restarts >= 3, "{slices:?}");
}

#[tokio::test]
async fn an_outage_leaves_the_plan_as_it_was_and_ends_with_what_happened_meanwhile() {
    let server = ApiServer::start().await;
    let mut agent = Agent::watching(&server);
    server.serve("stays", &["10.1.0.1"]).await;
    server.serve("goes", &["10.1.0.2"]).await;
    agent.until_backends("stays", &["10.1.0.1:8080"]).await;
    agent.until_backends("goes", &["10.1.0.2:8080"]).await;
    let replans = agent.replans;

    server.wire.down();
    server.delete::<Service>("goes").await;
    let failing = |agent: &Agent| {
        let services = agent.source(Kind::Service);
        services.problem.is_some() && services.restarts >= 3
    };
    agent.until("the outage is noticed and said", failing).await;
    assert_eq!(agent.backends("goes"), ["10.1.0.2:8080"]);
    assert_eq!(agent.replans, replans);

    server.wire.up();
    agent.until("the deleted Service is gone", |agent| agent.port("goes").is_none()).await;
    agent.until("all is well", |agent| agent.source(Kind::Service).problem.is_none()).await;
    assert_eq!(agent.backends("stays"), ["10.1.0.1:8080"]);
    assert_eq!(agent.source(Kind::Service).listings, 1);
}

#[tokio::test]
async fn a_half_open_connection_is_left_when_its_watch_should_have_ended() {
    let server = ApiServer::start().await;
    let options = Options {
        watch_timeout: Duration::from_secs(1),
        grace: Duration::from_millis(500),
        answer_patience: Duration::from_secs(1),
        ..options()
    };
    let mut agent = Agent::with(&server, options);
    server.serve("web", &["10.1.0.1"]).await;
    agent.until_backends("web", &["10.1.0.1:8080"]).await;

    server.wire.freeze();
    server.scale("web", &["10.1.0.2"]).await;
    agent.until_backends("web", &["10.1.0.2:8080"]).await;
    assert_eq!(agent.source(Kind::EndpointSlice).listings, 1);
}

/// Only the double sends bookmarks when told to.
#[tokio::test]
async fn a_connection_that_falls_silent_after_bookmarks_is_left_long_before_that() {
    let (server, double) = ApiServer::double().await;
    let options = Options { bookmark_patience: Duration::from_millis(500), ..options() };
    let mut agent = Agent::with(&server, options);
    server.serve("web", &["10.1.0.1"]).await;
    agent.until_backends("web", &["10.1.0.1:8080"]).await;
    // History goes on, but not for slices: only a bookmark brings this version.
    server.create(service("other")).await;
    let version = double.version().to_string();
    double.bookmark();
    let bookmarked =
        |agent: &Agent| agent.source(Kind::EndpointSlice).version.as_ref() == Some(&version);
    agent.until("the bookmark is there", bookmarked).await;

    server.wire.freeze();
    server.scale("web", &["10.1.0.2"]).await;
    agent.until_backends("web", &["10.1.0.2:8080"]).await;
    assert_eq!(agent.source(Kind::EndpointSlice).listings, 1);
}

/// Only the double sends bookmarks and compacts when told to.
#[tokio::test]
async fn a_bookmark_moves_the_place_to_resume_at_beyond_a_forgotten_history() {
    let (server, double) = ApiServer::double().await;
    let mut agent = Agent::watching(&server);
    agent.until("the nodes are listed", |agent| agent.source(Kind::Node).listings == 1).await;
    let listed_at = agent.source(Kind::Node).version;
    // History goes on, but not for nodes.
    server.serve("web", &["10.1.0.1"]).await;
    let version = double.version().to_string();
    assert_ne!(listed_at.as_ref(), Some(&version));

    double.bookmark();
    let moved = |agent: &Agent| agent.source(Kind::Node).version.as_ref() == Some(&version);
    agent.until("the place has moved", moved).await;
    double.compact();
    server.wire.cut();
    server.gate.until_asked(Ask::Watch, "nodes", 1).await;
    server.create_node("there", "a", "192.0.2.2").await;
    agent.until("the node is there", |agent| agent.index.node("there").is_some()).await;
    assert_eq!(agent.source(Kind::Node).listings, 1, "resumed, not listed again");
}

#[tokio::test]
async fn a_watch_that_the_server_ends_in_time_is_resumed_and_no_problem() {
    let server = ApiServer::start().await;
    let options = Options { watch_timeout: Duration::from_secs(1), ..options() };
    let mut agent = Agent::with(&server, options);
    server.serve("web", &["10.1.0.1"]).await;
    agent.until("a restart", |agent| agent.source(Kind::Service).restarts >= 1).await;
    server.serve("later", &["10.1.0.2"]).await;
    agent.until_backends("later", &["10.1.0.2:8080"]).await;
    let services = agent.source(Kind::Service);
    assert_eq!((services.listings, services.problem), (1, None));
}
