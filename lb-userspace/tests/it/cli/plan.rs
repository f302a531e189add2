//! `lb plan -f`: a dump in, the plan out, nobody's permission needed.

use std::{fs, os::unix::process::CommandExt, path::PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::{lb, lb_with};

/// What `kubectl get svc,endpointslices,endpoints,nodes,pods -A -o yaml` prints, in small.
const DUMP: &str = include_str!("dump.yaml");

fn file(name: &str, text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    (folder, path)
}

fn plan(text: &str, arguments: &[&str]) -> super::Outcome {
    let (_folder, path) = file("dump.yaml", text);
    lb(&[&["plan", "--node-name", "n1", "-f", path.to_str().unwrap()], arguments].concat())
}

#[test]
fn a_dump_gives_the_frontends_and_backends_of_this_node() {
    let found = plan(DUMP, &["-o", "json"]);
    assert_eq!((found.code, found.stderr.as_str()), (0, ""));
    let plan = found.json();
    assert_eq!((&plan["apiVersion"], &plan["kind"]), (&json!("lb/v1"), &json!("Plan")));
    assert_eq!(plan["node"]["name"], "n1");
    assert_eq!(plan["node"]["zone"], "a");
    assert_eq!(plan["node"]["addresses"], json!(["192.168.0.1"]));
    assert_eq!(plan["node"]["serviceCIDRs"], json!(["10.96.0.0/12"]));
    let frontends: Vec<_> = plan["frontends"].as_array().unwrap().iter().collect();
    let by_type = |kind: &str, service: &str| {
        let found = |it: &&&serde_json::Value| it["type"] == kind && it["service"] == service;
        frontends.iter().find(found).copied().unwrap_or_else(|| panic!("{kind} {service}: {plan}"))
    };
    let web = by_type("ClusterIP", "web");
    assert_eq!((&web["address"], &web["port"]), (&json!("10.96.0.10"), &json!(80)));
    let backends = web["internal"]["backends"].as_array().unwrap();
    let short: Vec<_> =
        backends.iter().map(|it| (&it["address"], &it["port"], &it["local"])).collect();
    let (local, remote) = (json!("10.1.1.3"), json!("10.1.2.4"));
    let (port, yes, no) = (json!(8080), json!(true), json!(false));
    assert_eq!(short, [(&local, &port, &yes), (&remote, &port, &no)]);
    let node_port = by_type("NodePort", "web");
    assert_eq!((&node_port["address"], &node_port["port"]), (&json!("192.168.0.1"), &json!(30080)));
    // Without a selector: the Endpoints object that somebody wrote.
    let database = by_type("ClusterIP", "db");
    assert_eq!(database["internal"]["backends"][0]["address"], "198.51.100.9");
}

#[test]
fn the_dump_reads_the_same_as_json_and_from_standard_input() {
    let value: serde_json::Value = serde_saphyr::from_str(DUMP).unwrap();
    let json = serde_json::to_string_pretty(&value).unwrap();
    let as_yaml = plan(DUMP, &["-o", "json"]);
    assert_eq!(plan(&json, &["-o", "json"]).stdout, as_yaml.stdout);
    let input = lb_with(&["plan", "--node-name", "n1", "-f", "-", "-o", "json"], |_| {}, &json);
    assert_eq!(input.stdout, as_yaml.stdout);
}

/// Two Services in two namespaces, as JSON objects.
fn two_objects() -> [String; 2] {
    ["10.96.0.20", "10.96.0.21"].map(|address| {
        let spec = json!({"clusterIP": address, "ports": [{"port": 80}]});
        let metadata =
            json!({"name": "web", "namespace": if address.ends_with('0') { "" } else { "b" }});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
            .to_string()
    })
}

#[test]
fn json_objects_may_follow_each_other_and_an_empty_namespace_is_the_default() {
    let names = |text: &str| plan(text, &["-o", "name"]).stdout;
    let both = "service/b/web\nservice/default/web\n";
    assert_eq!(names(&two_objects().join("\n")), both);
    assert_eq!(names(&two_objects().concat()), both);
    let [first, second] = two_objects();
    let broken = plan(&format!("{first}\n{}", &second[..second.len() / 2]), &["-o", "name"]);
    assert_eq!(broken.code, 1, "{broken:?}");
    assert!(broken.stderr.contains("dump.yaml:2"), "{broken:?}");
}

#[test]
fn a_list_of_nothing_is_no_fault() {
    for list in [
        json!({"apiVersion": "v1", "kind": "List", "items": null}),
        json!({"apiVersion": "v1", "kind": "List"}),
        json!({"apiVersion": "v1", "kind": "ServiceList", "metadata": {}, "items": null}),
    ] {
        let found = plan(&list.to_string(), &["-o", "name"]);
        assert_eq!(
            (found.code, found.stdout.as_str(), found.stderr.as_str()),
            (0, "", ""),
            "{list}"
        );
    }
}

#[test]
fn ports_that_cannot_be_told_apart_are_a_fault_of_the_second() {
    let service = |second: serde_json::Value| {
        let spec = json!({"clusterIP": "10.96.0.20", "ports": [{"port": 80}, second]});
        let metadata = json!({"name": "web"});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
            .to_string()
    };
    let found = plan(&service(json!({"port": 81, "protocol": "TCP"})), &[]);
    assert!(found.stderr.contains("spec.ports[1].name"), "{found:?}");
    assert_eq!(plan(&service(json!({"port": 80, "protocol": "UDP"})), &[]).code, 0);
}

#[test]
fn a_plan_needs_no_privileges() {
    let nobody = 65534;
    let unprivileged = |command: &mut std::process::Command| {
        // Only root can become somebody else; anybody else is unprivileged already.
        if nix::unistd::geteuid().is_root() {
            command.uid(nobody).gid(nobody);
        }
    };
    let found =
        lb_with(&["plan", "--node-name", "n1", "-f", "-", "-o", "json"], unprivileged, DUMP);
    assert_eq!((found.code, found.stderr.as_str()), (0, ""));
    assert!(!found.json()["frontends"].as_array().unwrap().is_empty());
}

#[test]
fn the_table_has_a_line_for_each_address_and_fits_a_hundred_columns() {
    let long = DUMP.replace("name: web\n", &format!("name: {}\n", "w".repeat(63)));
    for text in [DUMP, &long] {
        let found = plan(text, &[]);
        assert!(found.stdout.lines().all(|line| line.chars().count() <= 100), "{}", found.stdout);
    }
    let found = plan(DUMP, &[]);
    let head: Vec<_> = found.stdout.lines().next().unwrap().split_whitespace().collect();
    let want = ["NAMESPACE", "NAME", "ADDRESS:PORT", "PROTO", "TYPE", "INTERNAL", "EXTERNAL"];
    assert_eq!(head, want);
    let web: Vec<_> = found.stdout.lines().filter(|line| line.contains(" web ")).collect();
    assert_eq!(web.len(), 2, "{}", found.stdout);
    assert!(plan(DUMP, &["-o", "wide"]).stdout.contains("10.1.1.3:8080,10.1.2.4:8080"));
}

#[test]
fn names_and_yaml_are_there_for_scripts() {
    assert_eq!(plan(DUMP, &["-o", "name"]).stdout, "service/default/db\nservice/default/web\n");
    let yaml: serde_json::Value =
        serde_saphyr::from_str(&plan(DUMP, &["-o", "yaml"]).stdout).unwrap();
    assert_eq!(yaml, plan(DUMP, &["-o", "json"]).json());
}

#[test]
fn a_service_with_a_bad_port_is_located_and_the_others_are_planned() {
    let found = plan(&DUMP.replace("      port: 5432\n", "      port: 543210\n"), &["-o", "json"]);
    assert_eq!(found.code, 1);
    let line = 1 + DUMP.lines().position(|line| line == "      port: 5432").unwrap();
    let want = format!(
        "dump.yaml:{line}: Service default/db: spec.ports[0].port: 543210 is not a port (1-65535)"
    );
    assert!(found.stderr.contains(&want), "{}", found.stderr);
    let plan = found.json();
    let services: Vec<_> = plan["frontends"].as_array().unwrap().iter().collect();
    assert!(services.iter().all(|it| it["service"] == "web") && !services.is_empty());
    let ignored = plan["ignored"].as_array().unwrap();
    assert!(ignored.iter().any(|it| it["kind"] == "Service" && it["name"] == "db"), "{ignored:?}");
}

#[test]
fn a_truncated_file_is_an_error_and_a_file_of_its_own_is_not_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("good.yaml"), DUMP).unwrap();
    fs::write(folder.path().join("cut.json"), r#"{"apiVersion": "v1", "kind": "Serv"#).unwrap();
    let path = folder.path().to_str().unwrap();
    let found = lb(&["plan", "--node-name", "n1", "-f", path, "-o", "name"]);
    assert_eq!(found.code, 1);
    assert!(found.stderr.contains("cut.json:1: "), "{}", found.stderr);
    assert_eq!(found.stdout, "service/default/db\nservice/default/web\n");
}

#[test]
fn an_unknown_kind_is_an_error_in_kubernetes_groups_and_a_warning_elsewhere() {
    let typing_error = format!("{DUMP}---\napiVersion: v1\nkind: Servise\nmetadata: {{name: x}}\n");
    let found = plan(&typing_error, &["-o", "name"]);
    assert_eq!(found.code, 1);
    assert!(found.stderr.contains("unknown kind `Servise` of v1"), "{}", found.stderr);
    let custom = format!("{DUMP}---\napiVersion: acme.io/v1\nkind: Gizmo\nmetadata: {{name: x}}\n");
    let found = plan(&custom, &["-o", "name"]);
    assert_eq!(found.code, 0);
    assert!(found.stderr.starts_with("warning: "), "{}", found.stderr);
}

#[test]
fn slices_that_cannot_be_used_are_named_among_the_ignored() {
    let odd = r"---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: fqdn, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: FQDN
endpoints: [{addresses: [db.example.com]}]
ports: [{name: http, port: 8080, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: nameless, namespace: default}
addressType: IPv4
endpoints: [{addresses: [10.9.9.9]}]
ports: [{name: http, port: 8080, protocol: TCP}]
";
    let found = plan(&format!("{DUMP}{odd}"), &["-o", "json"]);
    assert_eq!(found.code, 0, "{}", found.stderr);
    let plan = found.json();
    let ignored = plan["ignored"].as_array().unwrap();
    for name in ["fqdn", "nameless"] {
        assert!(ignored.iter().any(|it| it["name"] == name), "{name} in {ignored:?}");
    }
    assert!(!plan["frontends"].to_string().contains("10.9.9.9"));
}

#[test]
fn a_file_that_does_not_exist_is_an_error_that_names_it() {
    let found = lb(&["plan", "-f", "/nonexistent/dump.yaml"]);
    assert_eq!((found.code, found.stdout.as_str()), (1, ""));
    let first = found.stderr.lines().next().unwrap();
    assert_eq!(first, "error: /nonexistent/dump.yaml: no such file or folder");
}

#[test]
fn a_folder_and_a_file_are_read_together() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dump.yaml"), DUMP).unwrap();
    fs::write(folder.path().join("notes.txt"), "not a manifest").unwrap();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: extra}\nspec: {clusterIP: 10.96.0.99, ports: [{port: 1}]}\n";
    let (_other, path) = file("extra.conf", service);
    let folder = folder.path().to_str().unwrap();
    let found = lb(&["plan", "-f", folder, "-f", path.to_str().unwrap(), "-o", "name"]);
    let want = "service/default/db\nservice/default/extra\nservice/default/web\n";
    assert_eq!((found.code, found.stdout.as_str()), (0, want), "{}", found.stderr);
}
