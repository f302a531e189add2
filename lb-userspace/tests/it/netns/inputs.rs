//! Wrong input and wrong places: each is told clearly, and nothing else is disturbed.

use std::{path::Path, process::Output};

use lb_userspace::lab::{Agent, Lab};
use serde_json::Value;

use super::{
    objects::Front,
    world::{FAMILIES, Over, Pod, World, until_shown},
};

const TC: &[&str] = &["--xdp-mode", "off"];

/// A Service that works, whatever comes.
fn working(label: &str) -> (Agent, Front, Pod, World) {
    let world = World::new(label);
    let pod = world.pod(2, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let agent = world.agent(1, TC);
    (agent, web, pod, world)
}

fn still_works(world: &World, front: &Front, pod: &Pod) {
    for family in FAMILIES {
        for target in front.outside(family) {
            for over in Over::BOTH {
                assert_eq!(over.who(&world.client, target), pod.name, "{over:?} {target}");
            }
        }
    }
}

/// Files, what is said of each, and by whom: the plan's list of what is left out, or the log.
const WRONG: [(&str, &str, &str); 5] = [
    (
        "port.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: bad-port, namespace: it}\n\
         spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 99999}]}\n",
        "port.yaml:4: Service it/bad-port: spec.ports[0].port: 99999 is not a port (1-65535)",
    ),
    (
        "fqdn.yaml",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {name: names, namespace: it, labels: {kubernetes.io/service-name: web}}\n\
         addressType: FQDN\nendpoints: [{addresses: [db.example.com]}]\n\
         ports: [{name: http, port: 80}]\n",
        "EndpointSlice it/names: addressType: FQDN has names, not addresses to send to",
    ),
    (
        "orphan.yaml",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {name: orphan, namespace: it}\naddressType: IPv4\n\
         endpoints: [{addresses: [10.0.0.1]}]\nports: [{name: http, port: 80}]\n",
        "EndpointSlice it/orphan: metadata.labels[kubernetes.io/service-name]: it names no Service",
    ),
    (
        "truncated.json",
        "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"trunc",
        "truncated.json:1: unclosed quote",
    ),
    (
        "gizmo.yaml",
        "apiVersion: example.com/v1\nkind: Gizmo\nmetadata: {name: g, namespace: it}\n",
        "gizmo.yaml:1: unknown kind `Gizmo` of example.com/v1: passed over",
    ),
];

#[test]
fn each_wrong_manifest_is_told_by_object_and_field_and_the_others_go_on() {
    let (agent, web, pod, world) = working("wrong");
    for (file, text, told) in WRONG {
        world.put_text(file, text);
        until_told(&agent, told);
    }
    still_works(&world, &web, &pod);
    // And a right one beside them is carried out.
    let other = Front::new("other", 2);
    world.put("other", &other.manifests(&[&pod]));
    until_shown(&agent, &["get", "services"], "the other Service", |document| {
        let mut rows = document["items"].as_array().unwrap().iter();
        rows.any(|row| row["name"] == "other")
    });
    still_works(&world, &other, &pod);
    let status = agent.lb(["status"]).unwrap();
    assert!(status.status.success(), "a wrong manifest is no failure: {}", said(&status));
}

/// Waits until the log or the plan's list of what is left out has that.
fn until_told(agent: &Agent, told: &str) {
    until_shown(agent, &["plan"], told, |document| {
        let log = std::fs::read_to_string(agent.log()).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ignored = document["ignored"].as_array().unwrap().iter().map(|one| {
            let [kind, namespace, name, reason] =
                ["kind", "namespace", "name", "reason"].map(|key| text(&one[key]));
            format!("{kind} {namespace}/{name}: {reason}")
        });
        log.contains(told) || ignored.into_iter().any(|line| line == told)
    });
}

#[test]
fn a_file_half_written_leaves_the_last_good_state_until_it_is_whole() {
    let (agent, web, pod, world) = working("half");
    let other = world.pod(1, 10);
    let list = |pods: &[&Pod]| {
        let items = web.manifests(pods);
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    };
    let whole = list(&[&other]);
    world.put_text("web.json", &whole[..whole.len() / 2]);
    until_told(&agent, "web.json:1: ");
    still_works(&world, &web, &pod);

    world.put_text("web.json", &whole);
    until_shown(&agent, &["get", "backends"], "the other pod alone", |document| {
        let mut rows = document["items"].as_array().unwrap().iter();
        let address = other.addresses[0].to_string();
        rows.any(|row| row["address"] == address.as_str())
    });
    still_works(&world, &web, &other);
}

#[test]
fn an_agent_without_the_privilege_to_use_bpf_says_so_and_leaves_nothing() {
    let lab = Lab::new("no-bpf").unwrap();
    let node = lab.node("n1").unwrap();
    let bpffs = lab.bpffs("n1").unwrap();
    let mut command = node.command("setpriv").unwrap();
    command.args(["--bounding-set", "-bpf,-sys_admin,-perfmon,-net_admin"]);
    let output = command.arg(env!("CARGO_BIN_EXE_lb")).args(agent(&lab, &bpffs)).output().unwrap();
    refused(&output, "this process lacks CAP_BPF", "run it as root");
    assert!(!bpffs.exists(), "a folder is left");
}

#[test]
fn an_agent_without_a_bpf_file_system_says_where_to_mount_one() {
    let lab = Lab::new("no-bpffs").unwrap();
    let node = lab.node("n1").unwrap();
    let bpffs = lab.folder().join("pins");
    let mut command = node.command(env!("CARGO_BIN_EXE_lb")).unwrap();
    let output = command.args(agent(&lab, &bpffs)).output().unwrap();
    refused(&output, "is not on a BPF file system", "mount");
    assert!(!bpffs.exists(), "a folder is left");
}

#[test]
fn a_bpf_file_system_that_others_share_is_refused_and_stays_open_to_them() {
    let lab = Lab::new("shared-bpffs").unwrap();
    let node = lab.node("n1").unwrap();
    let bpffs = lab.folder().join("bpf");
    std::fs::create_dir(&bpffs).unwrap();
    // A namespace of mounts, with a file system that goes with it.
    let script = r#"mount -t bpf bpf "$0" && chmod 755 "$0" || exit 9
timeout 60 "$@"; code=$?; stat -c 'mode %a' "$0"; ls -d "$0"/maps "$0"/links; exit $code"#;
    let mut command = node.command("unshare").unwrap();
    command.args(["--mount", "sh", "-c", script]).arg(&bpffs).arg(env!("CARGO_BIN_EXE_lb"));
    let output = command.args(agent(&lab, &bpffs)).output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is open to others, and it is the root of a mount"), "{said}");
    assert!(said.contains(&format!("such as {}/lb", bpffs.display())), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "mode 755\n", "{said}");
}

fn agent(lab: &Lab, bpffs: &Path) -> Vec<String> {
    let manifests = lab.folder().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    let socket = lab.folder().join("lb.sock");
    let words = ["agent", "--node-name", "n1"].map(str::to_owned).into_iter();
    let paths = [("-f", &*manifests), ("--bpffs", bpffs), ("--socket", &*socket)];
    let paths = paths
        .iter()
        .flat_map(|(flag, path)| [(*flag).to_owned(), path.to_str().unwrap().to_owned()]);
    words.chain(paths).collect()
}

/// One line what, one line what to do.
fn refused(output: &Output, what: &str, fix: &str) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    let lines: Vec<_> = said.lines().skip_while(|line| !line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].contains(what), "{said}");
    assert!(lines[1].starts_with("  fix: ") && lines[1].contains(fix), "{said}");
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}
