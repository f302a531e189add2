//! `lb bench sync` through an API server: what it measures, and that nothing of it stays.

use std::{
    fs,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use futures::FutureExt as _;
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, ResourceExt as _, api::ListParams};
use lb_userspace::cluster::{synthetic::Cluster, trial::Trial};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::support::api_server::{ApiServer, Ask, Refusal};

const PATIENCE: Duration = Duration::from_secs(120);

/// A file that leads to the server.
fn kubeconfig(server: &ApiServer) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(&file, server.wire.kubeconfig()).unwrap();
    file
}

/// The command, told of the server.
fn command(kubeconfig: &Path, services: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
    command.args(["bench", "sync", "--services", services, "--endpoints", "3", "-o", "json"]);
    command.arg("--kubeconfig").arg(kubeconfig);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

async fn end(child: Child) -> Output {
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("an end").unwrap()
}

/// Names of what the command may have left in its namespaces.
async fn left(server: &ApiServer) -> Vec<String> {
    let all = ListParams::default();
    let services = Api::<Service>::all(server.admin.clone()).list(&all).await.unwrap();
    let slices = Api::<EndpointSlice>::all(server.admin.clone()).list(&all).await.unwrap();
    let services = services.items.iter().map(|it| (it.namespace(), it.name_any()));
    let slices = slices.items.iter().map(|it| (it.namespace(), it.name_any()));
    let in_bench = |namespace: &Option<String>| {
        namespace.as_ref().is_some_and(|namespace| namespace.starts_with("lb-bench-"))
    };
    let objects = services.chain(slices).filter(|(namespace, _)| in_bench(namespace));
    let objects = objects.map(|(_, name)| name);
    // Without its controller a real server keeps the namespace, marked as deleted.
    let namespaces = Api::<Namespace>::all(server.admin.clone()).list(&all).await.unwrap();
    let namespaces = namespaces.items.into_iter().filter(|it| {
        it.metadata.deletion_timestamp.is_none() && it.name_any().starts_with("lb-bench-")
    });
    objects.chain(namespaces.map(|it| it.name_any())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_in_an_api_server_is_measured_and_taken_away() {
    let server = ApiServer::start().await;
    let file = kubeconfig(&server);
    let Output { status, stdout, stderr } = end(command(file.path(), "20")).await;
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success() && stderr.is_empty(), "{status}: {stderr}");
    let document: Value = serde_json::from_slice(&stdout).unwrap();
    let cases = document["cases"].as_array().unwrap();
    let named: Vec<_> = cases
        .iter()
        .map(|case| (case["name"].as_str().unwrap(), case["unit"].as_str().unwrap()))
        .collect();
    assert_eq!(named, [("sync-cold-api", "s"), ("sync-one-api", "ms")]);
    for case in cases {
        assert_eq!((&case["services"], &case["endpoints"]), (&json!(20), &json!(3)), "{case}");
        assert!(case["value"].as_f64().unwrap() > 0.0, "{case}");
    }
    assert_eq!(cases[1]["samples"].as_array().unwrap().len(), 200);
    assert_eq!(left(&server).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_interrupts_it_leaves_nothing_behind() {
    let server = ApiServer::start().await;
    // So many are still being written, or measured, when the first is there.
    let file = kubeconfig(&server);
    let child = command(file.path(), "2000");
    let services = Api::<Service>::all(server.admin.clone());
    let begun = async {
        loop {
            let found = services.list(&ListParams::default()).await.unwrap();
            if found.items.iter().any(|it| it.name_any().starts_with("service-")) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.expect("a Service");
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let Output { status, stderr, .. } = end(child).await;
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.code() == Some(1) && stderr.starts_with("error: interrupted"), "{stderr}");
    assert_eq!(left(&server).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_stopped_leaves_no_request_that_arrives_later() {
    let server = ApiServer::start().await;
    let file = kubeconfig(&server);
    let namespace = "lb-bench-stopped".to_owned();
    let cluster = Cluster::new(2000, 3);
    let trial = Trial::begin(Some(file.path()), namespace, cluster).await.unwrap();
    server.gate.refuse(Ask::Create, "services", Refusal::Wait);
    let stop = CancellationToken::new();
    let mut filling = Box::pin(trial.fill(&stop));
    tokio::select! {
        ended = &mut filling => panic!("nothing is answered yet: {ended:?}"),
        () = server.gate.until_asked(Ask::Create, "services", 1) => {}
    }
    stop.cancel();
    assert!((&mut filling).now_or_never().is_none(), "a request is under way");
    server.gate.open();
    tokio::time::timeout(PATIENCE, filling).await.expect("an end").unwrap();
    let asked = server.gate.asked(Ask::Create, "services");
    assert!((1..2000).contains(&asked), "{asked} of 2000 Services were asked for");
    let made = left(&server).await;
    assert_eq!(made.iter().filter(|name| name.starts_with("service-")).count(), asked, "{made:?}");
    trial.remove().await.unwrap();
    assert_eq!(left(&server).await, Vec::<String>::new());
}
