//! Wrong input and wrong places: each is told clearly, and nothing else is disturbed.

use std::{
    fs::{self, Permissions},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use lb_userspace::lab::{Agent, Held, Lab, Process};
use serde_json::Value;

use super::{
    nodes::go_on,
    objects::Front,
    world::{FAMILIES, Over, Pod, World, until_shown},
};

const TC: &[&str] = &["--xdp-mode", "off"];
const OFTEN: Duration = Duration::from_millis(10);

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
        let log = fs::read_to_string(agent.log()).unwrap();
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
    fs::create_dir(&bpffs).unwrap();
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

#[test]
fn a_bpf_file_system_that_is_read_only_is_named_and_what_is_on_it_goes_on() {
    let (mut first, web, pod, world) = working("read-only");
    let held = [Held::open(&world.client, web.outside(0)[0], 6, OFTEN).unwrap()];
    first.kill().unwrap();
    // A namespace of mounts, where nobody may write to the agent's pins.
    let script = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" || exit 9
exec timeout 60 "$@""#;
    let mut command = world.node(1).command("unshare").unwrap();
    command.args(["--mount", "sh", "-c", script]).arg(first.bpffs()).arg(env!("CARGO_BIN_EXE_lb"));
    let manifests = world.options(&[]).manifests;
    command.args(["agent", "--node-name", "n1", "-f"]).arg(manifests);
    command.arg("--bpffs").arg(first.bpffs()).arg("--socket").arg(first.socket());
    let output = command.arg("--cgroup-root").arg(world.node(1).cgroup()).output().unwrap();
    let what = format!("{} is read-only: nothing can be pinned there", first.bpffs().display());
    refused(&output, &what, "remount,rw");
    still_works(&world, &web, &pod);
    first.restart().unwrap();
    still_works(&world, &web, &pod);
    go_on(&held);
}

#[test]
fn a_bpf_file_system_that_is_unmounted_under_an_agent_is_missed_and_nothing_else() {
    let world = World::new("unmounted");
    let (pod, other) = (world.pod(2, 10), world.pod(1, 10));
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let bpffs = world.lab.bpffs("n1").unwrap();
    let mounts = Mounts::of(&world, bpffs.parent().unwrap());
    let mut options = world.options(TC);
    options.binary = mounts.lb(&world);
    let mut agent = Agent::start(&world.lab, world.node(1), options).unwrap();
    still_works(&world, &web, &pod);
    let held = [Held::open(&world.client, web.outside(0)[0], 6, OFTEN).unwrap()];

    mounts.change("umount --lazy");
    let says = |level: &str, word: &str| {
        until_shown(&agent, &["status"], word, |status| {
            let mut lines = status["lines"].as_array().unwrap().iter();
            let maps = lines.find(|line| line["key"] == "Maps").unwrap();
            maps["level"] == level && maps["detail"].as_str().unwrap().contains(word)
        });
    };
    says("fail", &format!("{} is not on a BPF file system", mounts.place.display()));
    still_works(&world, &web, &pod);
    // What changes is carried out all the same.
    let second = Front::new("second", 2);
    world.put("second", &second.manifests(&[&other]));
    until_shown(&agent, &["get", "services"], "the other Service", |document| {
        document["items"].as_array().unwrap().iter().any(|row| row["name"] == "second")
    });
    still_works(&world, &second, &other);
    go_on(&held);

    mounts.change("mount -t bpf bpf");
    says("ok", "fullest");
    // All is pinned again: the next agent finds what packets go by.
    agent.kill().unwrap();
    still_works(&world, &second, &other);
    agent.restart().unwrap();
    still_works(&world, &web, &pod);
    go_on(&held);
}

/// A namespace of mounts, in which a place has a BPF file system of its own over one that is none.
struct Mounts {
    keeper: Process,
    place: PathBuf,
}

impl Mounts {
    fn of(world: &World, place: &Path) -> Self {
        let script =
            r#"mount -t tmpfs none "$0" && mount -t bpf bpf "$0" && echo there && read end"#;
        let mut command = world.node(1).command("unshare").unwrap();
        command.args(["--mount", "sh", "-c", script]).arg(place);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = Process::start(world.node(1), &mut command).unwrap();
        let mut said = [0; 6];
        keeper.child().stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"there\n");
        Self { keeper, place: place.to_owned() }
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/mnt", self.keeper.pid().unwrap())
    }

    /// The agent's binary, to run in there.
    fn lb(&self, world: &World) -> PathBuf {
        let path = world.lab.folder().join("lb-within");
        let (namespace, lb) = (self.namespace(), env!("CARGO_BIN_EXE_lb"));
        let script = format!("#!/bin/sh\nexec nsenter --mount={namespace} {lb} \"$@\"\n");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Runs a command about the place.
    fn change(&self, command: &str) {
        let words = command.split(' ');
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--mount={}", self.namespace())).args(words);
        let output = nsenter.arg(&self.place).output().unwrap();
        assert!(output.status.success(), "{command}: {}", said(&output));
    }
}

fn agent(lab: &Lab, bpffs: &Path) -> Vec<String> {
    let manifests = lab.folder().join("manifests");
    fs::create_dir(&manifests).unwrap();
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
