//! The manifests for kustomize, as `kubectl apply -k` would send them.

use std::{fs, path::Path};

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::Container,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use serde_json::Value;

use super::{
    manifests::{
        check, documents, find, is_an_agent, may_hold_leases,
        may_read_what_it_watches_and_write_events,
    },
    printed, root, tool,
};

fn build(folder: &Path) -> Vec<Value> {
    let documents = documents(&printed(tool("kubectl").arg("kustomize").arg(folder)));
    documents.iter().for_each(check);
    documents
}

fn agent(documents: &[Value]) -> (DaemonSet, Container) {
    let set: DaemonSet = find(documents, "DaemonSet", "lb");
    is_an_agent(&set);
    let pod = set.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let container = pod.containers[0].clone();
    (set, container)
}

fn value<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let variable = container.env.iter().flatten().find(|variable| variable.name == name)?;
    variable.value.as_deref()
}

fn port(container: &Container, name: &str) -> Option<i32> {
    let ports = container.ports.iter().flatten();
    ports.filter(|port| port.name.as_deref() == Some(name)).map(|port| port.container_port).next()
}

#[test]
fn the_base_runs_an_agent_that_may_do_what_it_has_to_and_no_more() {
    let documents = build(&root().join("deploy/kustomize"));
    let (_, container) = agent(&documents);
    assert_eq!(port(&container, "health"), Some(10256));
    assert_eq!(port(&container, "metrics"), None, "metrics are on loopback");
    may_read_what_it_watches_and_write_events(&find(&documents, "ClusterRole", "lb"), true);
    may_hold_leases(&find(&documents, "Role", "lb"), &find(&documents, "RoleBinding", "lb"));
    let _: ClusterRole = find(&documents, "ClusterRole", "lb");
    let binding: ClusterRoleBinding = find(&documents, "ClusterRoleBinding", "lb");
    let subject = &binding.subjects.unwrap()[0];
    assert_eq!(subject.namespace.as_deref(), Some("kube-system"));
}

#[test]
fn the_canary_is_on_labelled_nodes_alone_and_takes_no_port_of_kube_proxy() {
    let documents = build(&root().join("deploy/kustomize/canary"));
    let (set, container) = agent(&documents);
    let selector = set.spec.unwrap().template.spec.unwrap().node_selector.unwrap();
    assert_eq!(selector["lb-canary"], "true");
    let ports: Vec<_> = container.ports.iter().flatten().map(|it| it.container_port).collect();
    assert_eq!(ports, [10356]);
    assert_eq!(value(&container, "LB_HEALTH_ADDRESS"), Some("0.0.0.0:10356"));
    assert_eq!(value(&container, "LB_METRICS_ADDRESS"), Some("127.0.0.1:10349"));
}

/// The base and one of its components.
fn with(component: &str) -> Vec<Value> {
    let overlay = tempfile::tempdir().unwrap();
    let up = "../".repeat(overlay.path().components().count() - 1);
    let of = |part: &str| {
        let path = root().join("deploy/kustomize").join(part);
        format!("{up}{}", path.strip_prefix("/").unwrap().display())
    };
    let text = format!("resources: [{}]\ncomponents: [{}]\n", of("base"), of(component));
    fs::write(overlay.path().join("kustomization.yaml"), text).unwrap();
    build(overlay.path())
}

#[test]
fn with_the_component_for_a_seed_every_agent_reads_the_same_secret() {
    let (set, container) = agent(&with("seed"));
    let file = Path::new(value(&container, "LB_SEED_FILE").expect("a file"));
    let mounts = container.volume_mounts.as_ref().unwrap();
    let mount = mounts.iter().find(|mount| Some(Path::new(&mount.mount_path)) == file.parent());
    let name = &mount.expect("a folder with it").name;
    let volumes = set.spec.unwrap().template.spec.unwrap().volumes.unwrap();
    let volume = volumes.iter().find(|volume| volume.name == *name).expect("a volume");
    let secret = volume.secret.as_ref().expect("a Secret");
    assert_eq!(secret.secret_name.as_deref(), Some("lb-seed"));
    assert_eq!(secret.optional, None, "without it a pod would hash otherwise than the others");
}

#[test]
fn with_the_component_for_monitoring_metrics_are_reachable_and_scraped() {
    let documents = with("monitoring");
    let (_, container) = agent(&documents);
    assert_eq!(value(&container, "LB_METRICS_ADDRESS"), Some("0.0.0.0:10249"));
    let monitor: Value = find(&documents, "PodMonitor", "lb");
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    assert_eq!(endpoint["port"], "metrics");
    assert_eq!(port(&container, "metrics"), Some(10249));
}
