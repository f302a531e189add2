//! How agents tell each other that they forward by DSR.

use lb_userspace::cluster::{lease, watch::Options};

use super::agent::{Agent, options};
use crate::support::api_server::ApiServer;

#[tokio::test]
async fn an_agent_that_holds_a_lease_is_known_to_the_others_until_it_gives_it_up() {
    let server = ApiServer::start().await;
    server.create_node("n1", "a", "192.0.2.1").await;
    server.create_node("n2", "a", "192.0.2.2").await;
    let mut other = Agent::with(&server, Options { leases: true, ..options() });
    let forwards = |name: &'static str| {
        move |agent: &Agent| agent.index.cluster_nodes().get(name).is_some_and(|it| it.forwards)
    };
    other.until("both nodes", |agent| agent.index.cluster_nodes().len() == 2).await;
    assert!(!forwards("n1")(&other));
    let client = server.client();
    let holds = tokio::spawn(async move { lease::hold(client, "n1").await });
    other.until("the lease is seen", forwards("n1")).await;
    assert!(!forwards("n2")(&other), "who has none");
    holds.abort();
    // It counts while its holder is away.
    server.settle(&mut other, "marker").await;
    assert!(forwards("n1")(&other));
    lease::give_up(server.client(), "n1").await;
    other.until("it is gone", |agent| !forwards("n1")(agent)).await;
}
