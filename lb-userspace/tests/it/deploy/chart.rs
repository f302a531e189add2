//! The Helm chart, rendered by Helm.

use std::{fs, process::Output};

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    batch::v1::Job,
    core::v1::{ConfigMap, PodSpec, Secret},
    networking::v1::NetworkPolicy,
    rbac::v1::{Role, RoleBinding},
};
use serde_json::Value;

use super::{
    manifests::{
        bytes, check, documents, find, is_an_agent, may_hold_leases,
        may_read_what_it_watches_and_write_events,
    },
    printed, read, root, said, tool,
};

const CHART: &str = "deploy/helm/lb";

/// Everything that can be switched on.
const ALL: &str = "apiServer.host=192.0.2.1,metrics.address=0.0.0.0,podMonitor.enabled=true,\
                   prometheusRule.enabled=true,dashboard.enabled=true,config.mirrorEndpoints=true,\
                   config.xdpMode=native,imagePullSecrets[0].name=registry";

fn template(values: &str) -> Output {
    let mut helm = tool("helm");
    helm.args(["template", "lb", CHART, "--namespace", "kube-system"]);
    helm.args(["--kube-version", "1.34.0", "--set", values]).output().unwrap()
}

fn render(values: &str) -> Vec<Value> {
    let output = template(values);
    assert!(output.status.success(), "{}", said(&output));
    let documents = documents(&String::from_utf8(output.stdout).unwrap());
    documents.iter().for_each(check);
    documents
}

/// What Helm says to values that make no sense.
fn refusal(values: &str) -> String {
    let output = template(values);
    assert!(!output.status.success(), "{values}");
    said(&output)
}

fn pod(set: &DaemonSet) -> &PodSpec {
    set.spec.as_ref().unwrap().template.spec.as_ref().unwrap()
}

#[test]
fn helm_finds_nothing_wrong_with_the_chart() {
    printed(tool("helm").args(["lint", "--strict", CHART]));
    printed(tool("helm").args(["lint", "--strict", CHART, "--set", ALL]));
}

#[test]
fn every_document_is_what_its_kind_may_be_with_nothing_and_everything_switched_on() {
    let plain = render("");
    is_an_agent(&find::<DaemonSet>(&plain, "DaemonSet", "lb"));
    let role = find(&plain, "ClusterRole", "lb");
    may_read_what_it_watches_and_write_events(&role, false);
    may_hold_leases(&find(&plain, "Role", "lb"), &find(&plain, "RoleBinding", "lb"));
    let kinds = |documents: &[Value], kind: &str| {
        documents.iter().filter(|document| document["kind"] == kind).count()
    };
    assert_eq!(kinds(&plain, "PodMonitor") + kinds(&plain, "PrometheusRule"), 0);

    let all = render(ALL);
    is_an_agent(&find::<DaemonSet>(&all, "DaemonSet", "lb"));
    may_read_what_it_watches_and_write_events(&find(&all, "ClusterRole", "lb"), true);
    assert_eq!((kinds(&all, "PodMonitor"), kinds(&all, "PrometheusRule")), (1, 1));
    let rules: Value = find(&all, "PrometheusRule", "lb");
    let shipped = &documents(&read("deploy/monitoring/alerts.yaml"))[0];
    assert_eq!(rules["spec"], *shipped);
    let dashboard: ConfigMap = find(&all, "ConfigMap", "lb-dashboard");
    let json: Value = serde_json::from_str(&dashboard.data.unwrap()["lb.json"]).unwrap();
    let shipped: Value = serde_json::from_str(&read("deploy/grafana/lb.json")).unwrap();
    assert_eq!(json, shipped);
}

#[test]
fn the_agent_takes_the_configuration_that_is_rendered() {
    let documents = render(ALL);
    let map: ConfigMap = find(&documents, "ConfigMap", "lb");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &map.data.unwrap()["config.yaml"]).unwrap();
    let words = ["agent", "--print-config", "--config", file.path().to_str().unwrap()];
    let shown = crate::cli::lb(&words);
    assert_eq!(shown.code, 0, "{shown:?}");
    for line in [
        "healthAddress: 0.0.0.0:10256",
        "metricsAddress: 0.0.0.0:10249",
        "seedFile: /etc/lb/seed",
        "mirrorEndpoints: true",
        "xdpMode: native",
    ] {
        assert!(shown.stdout.lines().any(|it| it == line), "{line}\n{}", shown.stdout);
    }
    let set: DaemonSet = find(&documents, "DaemonSet", "lb");
    let container = &pod(&set).containers[0];
    let mounts = container.volume_mounts.as_ref().unwrap();
    assert!(mounts.iter().any(|mount| mount.mount_path == "/etc/lb"));
    let host = container.env.iter().flatten().find(|it| it.name == "KUBERNETES_SERVICE_HOST");
    assert_eq!(host.unwrap().value.as_deref(), Some("192.0.2.1"));
    let secret: Secret = find(&documents, "Secret", "lb-seed");
    assert_eq!(bytes(&secret, "seed").len(), 64);
}

#[test]
fn socket_termination_brings_what_it_needs_and_nothing_else_does() {
    for (values, wanted) in [("", false), ("config.socketTermination=true", true)] {
        let set: DaemonSet = find(&render(values), "DaemonSet", "lb");
        let container = &pod(&set).containers[0];
        let context = container.security_context.as_ref().unwrap();
        let added = context.capabilities.as_ref().unwrap().add.as_ref().unwrap();
        assert_eq!(added.iter().any(|it| it == "SYS_ADMIN"), wanted, "{added:?}");
        let mounts = container.volume_mounts.as_ref().unwrap();
        assert_eq!(mounts.iter().any(|it| it.mount_path == "/run/netns"), wanted, "{mounts:?}");
    }
}

#[test]
fn the_schema_knows_every_key_of_the_configuration_that_the_chart_does_not_set() {
    let schema: Value =
        serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap();
    let mut known: Vec<String> =
        schema["properties"]["config"]["properties"].as_object().unwrap().keys().cloned().collect();
    let set_here = [
        "nodeName",
        "bpffs",
        "socket",
        "source",
        "files",
        "seedFile",
        "metricsAddress",
        "healthAddress",
        "kubeconfig",
    ];
    known.extend(set_here.map(str::to_owned));
    known.sort();
    let shown = crate::cli::lb(&["agent", "--print-config"]).stdout;
    let mut keys: Vec<_> = shown
        .lines()
        .filter(|line| !line.starts_with([' ', '-']))
        .map(|line| line.split(':').next().unwrap().to_owned())
        .collect();
    keys.sort();
    assert_eq!(known, keys);
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    for (values, what) in [
        ("config.xdpMod=native", "'xdpMod' not allowed"),
        ("config.xdpMode=fast", "/config/xdpMode"),
        ("config.podCIDRs={10.244.0.0}", "/config/podCIDRs/0"),
        ("config.takeover=soon", "/config/takeover"),
        ("image.repositry=lb", "'repositry' not allowed"),
        ("health.port=70000", "/health/port"),
        ("maxUnavailable=many", "/maxUnavailable"),
        ("podMonitor.enabled=true", "metrics.address"),
        ("serviceAccount.create=false", "serviceAccount.name"),
    ] {
        let said = refusal(values);
        assert!(said.contains(what), "{values}: {said}");
    }
}

#[test]
fn before_the_release_goes_a_job_makes_every_node_uninstall() {
    let documents = render("apiServer.host=192.0.2.1,apiServer.port=8443");
    let job: Job = find(&documents, "Job", "lb-uninstall");
    let hook = &job.metadata.annotations.as_ref().unwrap()["helm.sh/hook"];
    assert_eq!(hook, "pre-delete");
    let pod = job.spec.unwrap().template.spec.unwrap();
    let container = &pod.containers[0];
    // As the binary reads them: the words are not a story of the chart alone.
    let args = container.args.as_ref().unwrap();
    let mut words: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(words, ["uninstall", "--daemonset=kube-system/lb", "--timeout=5m"]);
    words.push("--kubeconfig=/no/such/file");
    crate::cli::lb(&words).fails_with(1, "kubeconfig /no/such/file: ");
    let context = container.security_context.as_ref().unwrap();
    assert_eq!(context.run_as_non_root, Some(true));
    assert_eq!(context.capabilities.as_ref().unwrap().add, None);

    let role: Role = find(&documents, "Role", "lb-uninstall");
    let [rule] = &role.rules.unwrap()[..] else { panic!("one rule") };
    assert_eq!(rule.resource_names.as_deref(), Some(&["lb".to_owned()][..]));
    assert_eq!(rule.verbs, ["get", "patch"]);
    let binding: RoleBinding = find(&documents, "RoleBinding", "lb-uninstall");
    let account = pod.service_account_name.as_deref();
    assert_eq!(account, Some(binding.subjects.unwrap()[0].name.as_str()));
    let policy: NetworkPolicy = find(&documents, "NetworkPolicy", "lb-uninstall");
    let egress = policy.spec.unwrap().egress.unwrap();
    let ports = egress[0].ports.as_ref().unwrap();
    let ports: Vec<_> =
        ports.iter().map(|it| serde_json::to_value(&it.port).unwrap().as_i64().unwrap()).collect();
    assert_eq!(ports, [443, 6443, 8443, 53, 53]);

    assert!(render("uninstall.enabled=false").iter().all(|document| document["kind"] != "Job"));
}

#[test]
fn chart_and_binary_have_one_version() {
    let chart = &documents(&read(&format!("{CHART}/Chart.yaml")))[0];
    for key in ["version", "appVersion"] {
        assert_eq!(chart[key], env!("CARGO_PKG_VERSION"), "{key}");
    }
    assert!(root().join(CHART).join("templates/NOTES.txt").exists());
}
