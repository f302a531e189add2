//! Complete listings: by stream, by pages, slowly, and after the server forgot.

use std::time::{Duration, Instant};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use lb_userspace::cluster::watch::{Kind, Options};

use super::{
    agent::{Agent, CONVERGED, options},
    operator::service,
};
use crate::support::{
    api_server::{ApiServer, Ask, Refusal},
    counted, full_size,
};

#[tokio::test]
async fn nothing_is_planned_before_services_and_slices_are_both_listed() {
    for (slow, quick) in [("services", Kind::EndpointSlice), ("endpointslices", Kind::Service)] {
        let server = ApiServer::start().await;
        server.serve("web", &["10.1.0.1"]).await;
        server.gate.refuse(Ask::StreamList, slow, Refusal::Wait);
        let mut agent = Agent::watching(&server);
        agent.until("one is listed", |agent| agent.source(quick).listings == 1).await;
        server.gate.until_asked(Ask::StreamList, slow, 1).await;
        assert!(!agent.index.complete(), "complete while {slow} are not listed");
        assert_eq!(agent.replans, 0, "planned while {slow} are not listed");

        server.gate.open();
        agent.until_backends("web", &["10.1.0.1:8080"]).await;
    }
}

#[tokio::test]
async fn a_slow_list_holds_up_its_own_kind_only() {
    let server = ApiServer::start().await;
    server.serve("web", &["10.1.0.1"]).await;
    server.gate.refuse(Ask::StreamList, "nodes", Refusal::Wait);
    let mut agent = Agent::watching(&server);
    agent.until_backends("web", &["10.1.0.1:8080"]).await;
    assert_eq!(agent.source(Kind::Node).listings, 0);

    server.gate.open();
    agent.until("the nodes are listed", |agent| agent.source(Kind::Node).listings == 1).await;
}

#[tokio::test]
async fn a_server_that_refuses_streaming_lists_is_listed_plainly_and_never_asked_again() {
    let server = ApiServer::start().await;
    server.serve("web", &["10.1.0.1"]).await;
    server.gate.refuse_streaming();
    let mut agent = Agent::watching(&server);
    agent.until_backends("web", &["10.1.0.1:8080"]).await;
    assert!(agent.source(Kind::Service).plain_lists);

    server.gate.refuse_once(Ask::Watch, "services", GONE);
    server.wire.cut();
    let relisted = |agent: &Agent| agent.source(Kind::Service).listings == 2;
    agent.until("the Services are listed again", relisted).await;
    assert_eq!(server.gate.asked(Ask::StreamList, "services"), 1);
    assert_eq!(server.gate.asked(Ask::List, "services"), 2);
}

#[tokio::test]
async fn older_servers_that_call_the_parameters_bad_are_listed_plainly_too() {
    let server = ApiServer::start().await;
    server.serve("web", &["10.1.0.1"]).await;
    for resource in ["services", "endpointslices"] {
        let bad = Refusal::Status(400, "BadRequest", "unknown parameter sendInitialEvents");
        server.gate.refuse(Ask::StreamList, resource, bad);
    }
    let mut agent = Agent::watching(&server);
    agent.until_backends("web", &["10.1.0.1:8080"]).await;
}

#[tokio::test]
async fn a_streaming_list_that_does_not_end_is_given_up_for_a_plain_one() {
    let server = ApiServer::start().await;
    server.serve("web", &["10.1.0.1"]).await;
    server.gate.refuse(Ask::StreamList, "services", Refusal::Wait);
    let options = Options { list_patience: Duration::from_secs(1), ..options() };
    let mut agent = Agent::with(&server, options);
    agent.until_backends("web", &["10.1.0.1:8080"]).await;
    assert!(agent.source(Kind::Service).plain_lists);
}

#[tokio::test]
async fn a_plain_list_takes_all_of_its_pages() {
    let server = ApiServer::start().await;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        server.create(service(name)).await;
    }
    server.gate.refuse_streaming();
    let mut agent = Agent::with(&server, Options { page_size: 2, ..options() });
    agent.until_complete().await;
    agent.until("all five", |agent| names.iter().all(|name| agent.port(name).is_some())).await;
    assert!(server.gate.asked(Ask::List, "services") >= 3);
}

#[tokio::test]
async fn a_list_whose_pages_expire_is_taken_whole_the_next_time() {
    let server = ApiServer::start().await;
    server.create(service("a")).await;
    server.gate.refuse_streaming();
    server.gate.refuse_once(Ask::List, "services", GONE);
    let mut agent = Agent::with(&server, Options { page_size: 1, ..options() });
    server.create(service("b")).await;
    agent.until("both", |agent| agent.port("a").is_some() && agent.port("b").is_some()).await;
    assert_eq!(server.gate.asked(Ask::List, "services"), 2, "one refused, one whole");
}

#[tokio::test]
async fn what_was_deleted_during_an_outage_goes_when_the_server_no_longer_tells_that_history() {
    let in_the_answer = GONE;
    let in_the_stream = Refusal::Event(410, "Expired", "too old resource version");
    for gone in [in_the_answer, in_the_stream] {
        let server = ApiServer::start().await;
        let mut agent = Agent::watching(&server);
        server.serve("stays", &["10.1.0.1", "10.1.0.2"]).await;
        server.serve("goes", &["10.1.0.3"]).await;
        agent.until_backends("stays", &["10.1.0.1:8080", "10.1.0.2:8080"]).await;
        agent.until_backends("goes", &["10.1.0.3:8080"]).await;

        server.wire.down();
        server.delete::<Service>("goes").await;
        server.delete::<EndpointSlice>("goes").await;
        server.scale("stays", &["10.1.0.2"]).await;
        server.gate.refuse_once(Ask::Watch, "services", gone.clone());
        server.gate.refuse_once(Ask::Watch, "endpointslices", gone);
        server.wire.up();

        agent.until("the deleted Service is gone", |agent| agent.port("goes").is_none()).await;
        agent.until_backends("stays", &["10.1.0.2:8080"]).await;
        assert_eq!(agent.source(Kind::Service).listings, 2);
        assert_eq!(agent.source(Kind::EndpointSlice).listings, 2);
    }
}

/// With the pauses of an agent outside of tests, and at full size after outages that bring it to the
/// longest of them.
#[tokio::test]
async fn all_is_as_listed_within_five_seconds_of_the_return_of_a_server_that_forgot() {
    let (outages, restarts) = if full_size() { (4, 5) } else { (1, 2) };
    let mut longest = Duration::ZERO;
    for forgot in [false, true].repeat(outages) {
        let server = ApiServer::start().await;
        let mut agent = Agent::with(&server, Options::default());
        server.serve("stays", &["10.1.0.1", "10.1.0.2"]).await;
        server.serve("goes", &["10.1.0.3"]).await;
        agent.until_backends("stays", &["10.1.0.1:8080", "10.1.0.2:8080"]).await;
        agent.until_backends("goes", &["10.1.0.3:8080"]).await;

        server.wire.down();
        server.delete::<Service>("goes").await;
        server.delete::<EndpointSlice>("goes").await;
        server.scale("stays", &["10.1.0.2"]).await;
        let kinds = [Kind::Service, Kind::EndpointSlice];
        let waits = |agent: &Agent| kinds.iter().all(|it| agent.source(*it).restarts >= restarts);
        agent.until("the pauses have grown", waits).await;
        if forgot {
            server.gate.refuse_once(Ask::Watch, "services", GONE);
            server.gate.refuse_once(Ask::Watch, "endpointslices", GONE);
        }
        let back = Instant::now();
        server.wire.up();
        agent.until("the deleted Service is gone", |agent| agent.port("goes").is_none()).await;
        agent.until_backends("stays", &["10.1.0.2:8080"]).await;
        let took = back.elapsed();
        let listings = if forgot { 2 } else { 1 };
        for kind in kinds {
            assert_eq!(agent.source(kind).listings, listings, "{kind}");
        }
        longest = longest.max(took);
    }
    counted(2 * outages, "outages at the pauses that are shipped");
    counted(longest.as_millis() as usize, "ms after them, at most, until all was as listed");
    if full_size() {
        assert!(longest <= CONVERGED, "{longest:?} until all was as listed");
    }
}

/// Only the double compacts when told to.
#[tokio::test]
async fn a_server_that_compacted_its_history_is_listed_again() {
    let (server, double) = ApiServer::double().await;
    let mut agent = Agent::watching(&server);
    server.serve("goes", &["10.1.0.1"]).await;
    agent.until_backends("goes", &["10.1.0.1:8080"]).await;

    server.wire.down();
    server.delete::<Service>("goes").await;
    double.compact();
    server.wire.up();
    agent.until("the deleted Service is gone", |agent| agent.port("goes").is_none()).await;
    assert_eq!(agent.source(Kind::Service).listings, 2);
}

const GONE: Refusal = Refusal::Status(410, "Expired", "too old resource version");
