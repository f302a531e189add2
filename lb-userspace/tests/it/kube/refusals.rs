//! Refusals: those that a person must resolve, and those that pass.

use lb_userspace::cluster::watch::{Kind, Options};
use std::time::Duration;

use super::agent::{Agent, options};
use crate::support::api_server::{ApiServer, Ask, Refusal};

const FORBIDDEN: Refusal = Refusal::Status(403, "Forbidden", "User \"lb\" cannot do that");

#[tokio::test]
async fn a_missing_permission_is_said_by_resource_and_verbs_and_needs_no_restart_once_granted() {
    let server = ApiServer::start().await;
    server.serve("web", &["10.1.0.1"]).await;
    server.gate.refuse(Ask::StreamList, "endpointslices", FORBIDDEN);
    let mut agent = Agent::watching(&server);
    let refused = |agent: &Agent| agent.source(Kind::EndpointSlice).problem.is_some();
    agent.until("the refusal is said", refused).await;
    assert_eq!(
        agent.source(Kind::EndpointSlice).problem.unwrap(),
        "not allowed to watch endpointslices.discovery.k8s.io: grant the verbs list and watch on \
         endpointslices.discovery.k8s.io to this agent (the server says: User \"lb\" cannot do \
         that)"
    );
    assert!(!agent.index.complete());

    server.gate.open();
    agent.until_backends("web", &["10.1.0.1:8080"]).await;
    assert_eq!(agent.source(Kind::EndpointSlice).problem, None);
}

#[tokio::test]
async fn where_lists_are_plain_the_verb_that_was_refused_is_list() {
    let server = ApiServer::start().await;
    server.gate.refuse_streaming();
    server.gate.refuse(Ask::List, "services", FORBIDDEN);
    let mut agent = Agent::watching(&server);
    let said = |agent: &Agent| agent.source(Kind::Service).problem.unwrap_or_default();
    agent.until("said", |agent| said(agent).starts_with("not allowed to list services: ")).await;
}

#[tokio::test]
async fn a_permission_withdrawn_under_way_leaves_the_last_known_state() {
    let server = ApiServer::start().await;
    let mut agent = Agent::watching(&server);
    server.serve("web", &["10.1.0.1"]).await;
    agent.until_backends("web", &["10.1.0.1:8080"]).await;

    server.gate.refuse(Ask::Watch, "endpointslices", FORBIDDEN);
    server.wire.cut();
    let refused = |agent: &Agent| agent.source(Kind::EndpointSlice).problem.is_some();
    agent.until("the refusal is said", refused).await;
    assert_eq!(agent.backends("web"), ["10.1.0.1:8080"]);

    server.scale("web", &["10.1.0.2"]).await;
    server.gate.open();
    agent.until_backends("web", &["10.1.0.2:8080"]).await;
    assert_eq!(agent.source(Kind::EndpointSlice).listings, 1);
}

#[tokio::test]
async fn a_server_in_trouble_is_asked_again_and_not_taken_for_one_without_streaming_lists() {
    let server = ApiServer::start().await;
    server.serve("web", &["10.1.0.1"]).await;
    for resource in ["services", "endpointslices"] {
        for _ in 0..3 {
            let trouble = Refusal::Status(500, "InternalError", "etcdserver: request timed out");
            server.gate.refuse_once(Ask::StreamList, resource, trouble);
        }
    }
    let mut agent = Agent::watching(&server);
    agent.until_backends("web", &["10.1.0.1:8080"]).await;
    assert_eq!(server.gate.asked(Ask::StreamList, "services"), 4);
    assert!(!agent.source(Kind::Service).plain_lists);
}

#[tokio::test]
async fn a_server_without_service_cidrs_is_no_obstacle_and_is_said() {
    let server = ApiServer::start().await;
    server.serve("web", &["10.1.0.1"]).await;
    let missing = Refusal::Status(404, "NotFound", "the server could not find the resource");
    server.gate.refuse(Ask::StreamList, "servicecidrs", missing);
    let options = Options { absent_pause: Duration::from_millis(50), ..options() };
    let mut agent = Agent::with(&server, options);
    agent.until_backends("web", &["10.1.0.1:8080"]).await;
    let said = |agent: &Agent| agent.source(Kind::ServiceCidr).problem;
    let expected = "the server does not serve servicecidrs.networking.k8s.io";
    agent.until("said", |agent| said(agent).as_deref() == Some(expected)).await;

    server.gate.open();
    agent.until("all is well after an upgrade", |agent| said(agent).is_none()).await;
    assert_eq!(agent.source(Kind::ServiceCidr).listings, 1);
}

#[tokio::test]
async fn who_may_never_read_nodes_is_not_kept_waiting_for_them() {
    let server = ApiServer::start().await;
    server.create_node("n1", "a", "192.168.10.1").await;
    server.gate.refuse(Ask::StreamList, "nodes", FORBIDDEN);
    let mut agent = Agent::watching(&server);
    let waits = |agent: &Agent| !agent.index.unlisted(&[Kind::Node]).is_empty();
    agent.until("the refusal is said", |agent| agent.source(Kind::Node).problem.is_some()).await;
    agent.until("nobody waits any more", |agent| !waits(agent)).await;

    // A permission that is withdrawn later leaves what is known.
    server.gate.open();
    agent.until("the node is known", |agent| agent.index.node("n1").is_some()).await;
    server.gate.refuse(Ask::Watch, "nodes", FORBIDDEN);
    server.wire.cut();
    agent.until("the refusal is said", |agent| agent.source(Kind::Node).problem.is_some()).await;
    assert!(agent.index.node("n1").is_some());
}
