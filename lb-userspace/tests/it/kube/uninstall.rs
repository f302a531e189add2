//! The end of an installation, on every node: the agents' DaemonSet is turned into one that uninstalls.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Container};
use kube::Api;
use lb_userspace::{
    cluster::rollout::{Progress, RolloutError, uninstall},
    model::ObjectName,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{api_server::ApiServer, objects::object};

/// Far more than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn name() -> ObjectName {
    ObjectName::new("default", "lb")
}

/// Three nodes run the agent, as the controller saw it before anybody asked for the end.
fn agents(container: &str) -> DaemonSet {
    object(json!({
        "metadata": {"name": "lb", "namespace": "default", "generation": 7},
        "spec": {
            "selector": {"matchLabels": {"app": "lb"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                "metadata": {"labels": {"app": "lb"}},
                "spec": {
                    "hostNetwork": true,
                    "containers": [{
                        "name": container, "image": "lb:1", "args": ["agent"],
                        "livenessProbe": {"httpGet": {"path": "/livez", "port": 10256}},
                        "ports": [{"name": "health", "containerPort": 10256, "hostPort": 10256}],
                        "securityContext": {"capabilities": {"add": ["BPF", "NET_ADMIN", "PERFMON"]}},
                        "volumeMounts": [{"name": "bpffs", "mountPath": "/sys/fs/bpf"}],
                    }],
                },
            },
        },
        "status": status(6, 3),
    }))
}

fn status(generation: i64, done: i32) -> Value {
    json!({
        "observedGeneration": generation, "desiredNumberScheduled": 3, "currentNumberScheduled": 3,
        "updatedNumberScheduled": done, "numberAvailable": done, "numberMisscheduled": 0,
        "numberReady": done,
    })
}

async fn ask(server: &ApiServer, patience: Duration) -> (Result<Progress, RolloutError>, Vec<i32>) {
    let mut told = Vec::new();
    let outcome = uninstall(server.client(), &name(), patience, |it| told.push(it.done)).await;
    (outcome, told)
}

#[tokio::test]
async fn pods_uninstall_before_they_are_ready_and_the_end_is_when_all_of_them_are() {
    let (server, _double) = ApiServer::double().await;
    server.create(agents("lb")).await;
    let api = Api::<DaemonSet>::default_namespaced(server.admin.clone());
    let (tx, mut told) = mpsc::unbounded_channel();
    let client = server.client();
    let work = tokio::spawn(async move {
        uninstall(client, &name(), PATIENCE, |it| tx.send(it).unwrap()).await
    });

    // What the controller knew of the old pods is no news of the new ones.
    assert_eq!(told.recv().await, Some(Progress { done: 0, nodes: 3 }));
    let spec = api.get("lb").await.unwrap().spec.unwrap();
    let update = spec.update_strategy.unwrap().rolling_update.unwrap();
    let all = serde_json::to_value(update).unwrap();
    assert_eq!(all, json!({"maxUnavailable": "100%", "maxSurge": 0}), "all nodes at once");
    let pod = spec.template.spec.unwrap();
    assert_eq!(pod.host_network, Some(true));
    let [first] = &pod.init_containers.unwrap()[..] else { panic!("one container goes first") };
    let [then] = &pod.containers[..] else { panic!("one container stays") };
    let args = |it: &Container| it.args.clone().unwrap().join(" ");
    assert_eq!((args(first), args(then)), ("uninstall".into(), "uninstall --stay".into()));
    for container in [first, then] {
        assert_eq!(container.image.as_deref(), Some("lb:1"));
        assert!(container.security_context.as_ref().unwrap().capabilities.is_some());
        assert_eq!(container.volume_mounts.as_ref().unwrap()[0].mount_path, "/sys/fs/bpf");
        assert!(container.liveness_probe.is_none() && container.ports.is_none());
    }

    for done in [1, 2, 3] {
        assert!(!work.is_finished(), "{done} of 3 are still to come");
        server.patch::<DaemonSet>("lb", json!({"status": status(7, done)})).await;
        assert_eq!(told.recv().await, Some(Progress { done, nodes: 3 }));
    }
    assert_eq!(work.await.unwrap().unwrap(), Progress { done: 3, nodes: 3 });
}

#[tokio::test]
async fn a_second_try_goes_on_where_the_first_one_ended() {
    let (server, _double) = ApiServer::double().await;
    server.create(agents("lb")).await;
    server.patch::<DaemonSet>("lb", json!({"status": status(7, 2)})).await;
    let (outcome, _) = ask(&server, Duration::from_millis(10)).await;
    outcome.unwrap_err();
    server.patch::<DaemonSet>("lb", json!({"status": status(7, 3)})).await;
    let (outcome, _) = ask(&server, PATIENCE).await;
    assert_eq!(outcome.unwrap(), Progress { done: 3, nodes: 3 });
}

#[tokio::test]
async fn nodes_that_do_not_answer_in_time_are_counted() {
    let (server, _double) = ApiServer::double().await;
    server.create(agents("lb")).await;
    server.patch::<DaemonSet>("lb", json!({"status": status(7, 2)})).await;
    let (outcome, told) = ask(&server, Duration::from_millis(500)).await;
    let error = outcome.unwrap_err().to_string();
    assert_eq!(error, "DaemonSet default/lb: 2 of 3 nodes have uninstalled");
    assert_eq!(told, [2]);
}

#[tokio::test]
async fn a_daemonset_that_is_not_there_or_runs_something_else_is_named() {
    let (server, _double) = ApiServer::double().await;
    let error = ask(&server, PATIENCE).await.0.unwrap_err().to_string();
    assert!(error.starts_with("DaemonSet default/lb: ") && error.contains("not found"), "{error}");
    server.create(agents("proxy")).await;
    let error = ask(&server, PATIENCE).await.0.unwrap_err().to_string();
    assert!(error.contains("spec.template.spec.containers: none is called `lb`"), "{error}");
}
