//! Kubernetes documents, read as strictly as `kubectl --validate=strict` does: what a type has no
//! field for is an error that names it.

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::DaemonSet,
        batch::v1::Job,
        core::v1::{ConfigMap, Container, PodSpec, Secret, ServiceAccount},
        networking::v1::NetworkPolicy,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The documents of a stream.
pub fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---").map(str::trim).filter(|part| {
        part.lines().any(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty())
    });
    parts
        .map(|part| {
            let part = part.strip_prefix("---").unwrap_or(part);
            serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{error}\n{part}"))
        })
        .collect()
}

/// The only document of a kind and name.
pub fn find<T: DeserializeOwned>(documents: &[Value], kind: &str, name: &str) -> T {
    let found: Vec<_> = documents
        .iter()
        .filter(|it| it["kind"] == kind && it["metadata"]["name"] == name)
        .collect();
    let [document] = &found[..] else { panic!("{kind} {name}: {} of them", found.len()) };
    serde_json::from_value((*document).clone()).unwrap()
}

/// Reads a document as its kind; nothing of it may be lost on the way.
pub fn check(document: &Value) {
    let kind = format!("{} {}", document["apiVersion"], document["kind"]).replace('"', "");
    match kind.as_str() {
        "apps/v1 DaemonSet" => strictly::<DaemonSet>(document),
        "batch/v1 Job" => strictly::<Job>(document),
        "v1 ConfigMap" => strictly::<ConfigMap>(document),
        "v1 Secret" => strictly::<Secret>(document),
        "v1 ServiceAccount" => strictly::<ServiceAccount>(document),
        "networking.k8s.io/v1 NetworkPolicy" => strictly::<NetworkPolicy>(document),
        "rbac.authorization.k8s.io/v1 Role" => strictly::<Role>(document),
        "rbac.authorization.k8s.io/v1 RoleBinding" => strictly::<RoleBinding>(document),
        "rbac.authorization.k8s.io/v1 ClusterRole" => strictly::<ClusterRole>(document),
        "rbac.authorization.k8s.io/v1 ClusterRoleBinding" => {
            strictly::<ClusterRoleBinding>(document);
        }
        "monitoring.coreos.com/v1 PodMonitor" => strictly::<operator::PodMonitor>(document),
        "monitoring.coreos.com/v1 PrometheusRule" => strictly::<operator::PrometheusRule>(document),
        other => panic!("nobody expects a {other}"),
    }
}

fn strictly<T: DeserializeOwned + Serialize>(document: &Value) {
    let read: T = serde_json::from_value(document.clone())
        .unwrap_or_else(|error| panic!("{error}\n{document:#}"));
    kept(document, &serde_json::to_value(&read).unwrap(), "");
}

/// Whether all of `given` is in `read`: a type drops what it has no field for.
fn kept(given: &Value, read: &Value, path: &str) {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => {
            for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let path = format!("{path}.{key}");
                let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty);
                match read.get(key) {
                    Some(read) => kept(value, read, &path),
                    None => assert!(is_empty, "{path} is no field"),
                }
            }
        }
        (Value::Array(given), Value::Array(read)) => {
            assert_eq!(given.len(), read.len(), "{path}");
            for (at, (given, read)) in given.iter().zip(read).enumerate() {
                kept(given, read, &format!("{path}[{at}]"));
            }
        }
        (given, read) => assert_eq!(given, read, "{path}"),
    }
}

/// What every agent's pod must be, however it is packed.
pub fn is_an_agent(set: &DaemonSet) {
    let spec = set.spec.as_ref().unwrap();
    let labels = spec.template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
    for (key, value) in spec.selector.match_labels.as_ref().unwrap() {
        assert_eq!(labels.get(key), Some(value), "the selector does not select: {key}");
    }
    // Where the plug-in for kubectl looks.
    assert_eq!(labels["app.kubernetes.io/name"], "lb");
    assert_eq!(labels["app.kubernetes.io/component"], "agent");
    let pod: &PodSpec = spec.template.spec.as_ref().unwrap();
    assert_eq!(pod.host_network, Some(true));
    assert_eq!(pod.priority_class_name.as_deref(), Some("system-node-critical"));
    let everything = pod.tolerations.iter().flatten().any(|toleration| {
        toleration.operator.as_deref() == Some("Exists") && toleration.key.is_none()
    });
    assert!(everything, "a node's taint keeps it away");
    let [container] = &pod.containers[..] else { panic!("one container") };
    is_confined(container);
    let probe = container.liveness_probe.as_ref().unwrap().http_get.as_ref().unwrap();
    assert_eq!(probe.path.as_deref(), Some("/livez"));
    assert!(container.readiness_probe.is_some() && container.startup_probe.is_some());
    let mounts = container.volume_mounts.as_ref().unwrap();
    let bpffs = mounts.iter().find(|mount| mount.mount_path == "/sys/fs/bpf").unwrap();
    assert_eq!(bpffs.mount_propagation.as_deref(), Some("HostToContainer"));
    let cgroup = mounts.iter().find(|mount| mount.mount_path == "/sys/fs/cgroup").unwrap();
    assert_eq!(cgroup.read_only, Some(true));
    for mount in mounts {
        let volumes = pod.volumes.as_ref().unwrap();
        assert!(volumes.iter().any(|it| it.name == mount.name), "{} is no volume", mount.name);
    }
}

/// Three capabilities, and nothing else that a container need not have.
fn is_confined(container: &Container) {
    let context = container.security_context.as_ref().unwrap();
    let capabilities = context.capabilities.as_ref().unwrap();
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
    let needed = ["BPF", "NET_ADMIN", "PERFMON"].map(str::to_owned);
    assert_eq!(capabilities.add.as_deref(), Some(&needed[..]));
    assert_eq!(context.allow_privilege_escalation, Some(false));
    assert_eq!(context.read_only_root_filesystem, Some(true));
    assert_eq!(context.privileged, None);
    // Both would forbid pins.
    assert_eq!(context.app_armor_profile.as_ref().unwrap().type_, "Unconfined");
    assert_eq!(context.se_linux_options.as_ref().unwrap().type_.as_deref(), Some("spc_t"));
}

/// The rights of the agent: (group, resource) and the verbs.
pub fn may_read_what_it_watches_and_write_events(role: &ClusterRole, mirrors: bool) {
    let mut rights = Vec::new();
    for rule in role.rules.iter().flatten() {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let verbs = rule.verbs.join(" ");
                rights.push((format!("{group}/{resource}"), verbs));
            }
        }
    }
    rights.sort();
    let follow = "get list watch";
    let mut expected = vec![
        ("/events", "create"),
        ("/nodes", follow),
        ("/services", follow),
        ("discovery.k8s.io/endpointslices", follow),
        ("networking.k8s.io/servicecidrs", follow),
    ];
    if mirrors {
        expected.insert(0, ("/endpoints", follow));
    }
    let rights: Vec<_> =
        rights.iter().map(|(what, verbs)| (what.as_str(), verbs.as_str())).collect();
    assert_eq!(rights, expected);
}

/// In its own namespace alone.
pub fn may_hold_leases(role: &Role, binding: &RoleBinding) {
    let [rule] = &role.rules.as_ref().unwrap()[..] else { panic!("one rule") };
    assert_eq!(rule.api_groups.as_deref(), Some(&["coordination.k8s.io".to_owned()][..]));
    assert_eq!(rule.resources.as_deref(), Some(&["leases".to_owned()][..]));
    assert_eq!(rule.verbs, ["get", "list", "watch", "create", "patch", "delete"]);
    let name = role.metadata.name.as_deref().unwrap();
    assert_eq!((binding.role_ref.kind.as_str(), binding.role_ref.name.as_str()), ("Role", name));
    assert_eq!(binding.metadata.namespace, binding.subjects.as_ref().unwrap()[0].namespace);
    assert_eq!(role.metadata.namespace, binding.metadata.namespace);
}

/// Of a Secret.
pub fn bytes(secret: &Secret, key: &str) -> Vec<u8> {
    let ByteString(bytes) = &secret.data.as_ref().unwrap()[key];
    bytes.clone()
}

/// The Prometheus operator's kinds, as far as they are used here: `k8s_openapi` has none of them.
mod operator {
    use std::collections::BTreeMap;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
    use serde::{Deserialize, Serialize};

    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub struct PodMonitor {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: PodMonitorSpec,
    }

    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct PodMonitorSpec {
        selector: LabelSelector,
        pod_metrics_endpoints: Vec<Endpoint>,
    }

    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Endpoint {
        port: String,
        path: String,
        interval: String,
        relabelings: Vec<Relabeling>,
    }

    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Relabeling {
        source_labels: Vec<String>,
        target_label: String,
    }

    #[derive(Deserialize, Serialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub struct PrometheusRule {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: Groups,
    }

    #[derive(Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    struct Groups {
        groups: Vec<Group>,
    }

    #[derive(Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    struct Group {
        name: String,
        rules: Vec<Rule>,
    }

    #[derive(Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        alert: String,
        expr: String,
        #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
        lasts: Option<String>,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    }
}

#[test]
fn a_field_that_a_kind_does_not_have_is_found() {
    let good = serde_json::json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "lb", "labels": {}},
    });
    check(&good);
    let mut bad = good;
    bad["metadata"]["lables"] = "x".into();
    let panic = std::panic::catch_unwind(|| check(&bad)).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), ".metadata.lables is no field");
}
