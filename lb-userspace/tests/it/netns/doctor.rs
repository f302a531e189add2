//! `lb doctor` on hosts that are really broken, each in one way: it names what is wrong and what to do.
//!
//! It runs where the node's agent runs, but in mount and process namespaces of its own, so that what a
//! story mounts, hides or starts is nobody else's.

use std::{fs, net::SocketAddr, path::PathBuf};

use lb_userspace::lab::{Agent, Host, Process, Server, link};
use serde_json::Value;

use super::{
    objects::Front,
    world::{World, address, until_shown},
};

/// Moves the file systems that matter aside, mounts a `/sys` of this network namespace, and puts them
/// back; then what the story does, and the command.
const STAGE: &str = r#"
set -e
keep=$1 story=$2
shift 2
mkdir -p "$keep/bpf" "$keep/cgroup"
mount --move /sys/fs/bpf "$keep/bpf"
mount --move /sys/fs/cgroup "$keep/cgroup"
mount -t sysfs sysfs /sys
mount --move "$keep/bpf" /sys/fs/bpf
mount --move "$keep/cgroup" /sys/fs/cgroup
eval "$story"
exec "$@"
"#;

/// A node whose agent serves a Service.
struct Scene {
    agent: Agent,
    seed: PathBuf,
    world: World,
}

/// What is not well: check, level, what to do.
type Unwell = Vec<(String, String, String)>;

impl Scene {
    fn new(label: &str) -> Self {
        let world = World::new(label);
        let pod = world.pod(1, 10);
        world.put("web", &Front::new("web", 1).manifests(&[&pod]));
        // An uplink that can go.
        let node = world.node(1);
        node.ip("link add dev late type veth peer name peer\nlink set dev late up\nlink set dev peer up")
            .unwrap();
        let uplinks = ["--interface", "eth0", "--interface", "late"];
        let agent = world.agent(
            1,
            &[&uplinks[..], &["--xdp-mode", "off", "--metrics-address", "none"]].concat(),
        );
        let seed = world.lab.folder().join("seed");
        fs::write(&seed, "a secret of this cluster").unwrap();
        Self { agent, seed, world }
    }

    fn node(&self) -> &Host {
        self.world.node(1)
    }

    /// What the doctor finds; flags replace those of the same name that fit this node.
    fn unwell(&self, broken: &Broken<'_>) -> Unwell {
        let Broken { story, with, flags, without, .. } = *broken;
        let folder = self.world.lab.folder();
        let manifests = self.world.options(&[]).manifests;
        let usual = [
            ("--bpffs", self.agent.bpffs()),
            ("--socket", self.agent.socket()),
            ("--cgroup-root", self.node().cgroup()),
            ("--seed-file", &self.seed),
            ("-f", &manifests),
        ];
        let mut command = self.node().command("unshare").unwrap();
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", STAGE, "sh"]).arg(folder.join("stage")).arg(story).args(with);
        command.arg(env!("CARGO_BIN_EXE_lb")).args(["doctor", "-o", "json", "--node-name", "n1"]);
        command.env("STORY", folder.join("stage"));
        let other = |flag: &&str| flags.contains(flag) || *flag == without;
        for (flag, value) in usual.iter().filter(|(flag, _)| !other(flag)) {
            command.arg(flag).arg(value);
        }
        command.args(flags);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {story}: {said}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let items = document["items"].as_array().unwrap().iter();
        let unwell: Unwell = items
            .filter(|item| item["level"] != "ok")
            .map(|item| (text(&item["check"]), text(&item["level"]), text(&item["fix"])))
            .collect();
        let failed = unwell.iter().any(|(_, level, _)| level == "fail");
        assert_eq!(output.status.code(), Some(if failed { 5 } else { 0 }), "{unwell:?} {said}");
        unwell
    }

    /// The check complains at that level, and its fix says this.
    fn finds(&self, broken: &Broken<'_>) {
        let Broken { story, check, level, fix, .. } = *broken;
        let unwell = self.unwell(broken);
        let found = unwell.iter().find(|(name, ..)| name == check);
        let Some((_, at, what)) = found else { panic!("{check}, {story}: {unwell:?}") };
        assert_eq!(at, level, "{check}: {what}");
        assert!(what.contains(fix), "{check}: {what}");
    }

    fn finds_all(&self, broken: &[Broken<'_>]) {
        broken.iter().for_each(|one| self.finds(one));
    }

    /// What is broken by a kernel parameter of the node, which is put back.
    fn finds_with(&self, name: &str, value: &str, back: &str, check: &str, level: &str) {
        self.node().sysctls(&[(name, value)]).unwrap();
        let fix = format!("{name}=");
        self.finds(&Broken { check, level, fix: &fix, ..Broken::NOTHING });
        self.node().sysctls(&[(name, back)]).unwrap();
    }
}

/// A way to be broken, and what is said about it.
#[derive(Clone, Copy)]
struct Broken<'a> {
    /// What happens in namespaces of its own, in the shell's words.
    story: &'a str,
    /// What the command is started with.
    with: &'a [&'a str],
    flags: &'a [&'a str],
    /// One of the usual flags that is left out.
    without: &'a str,
    check: &'a str,
    level: &'a str,
    fix: &'a str,
}

impl Broken<'_> {
    const NOTHING: Self =
        Self { story: "", with: &[], flags: &[], without: "", check: "", level: "", fix: "" };
}

#[test]
fn broken_file_systems_kernels_and_privileges_are_named_with_what_mends_them() {
    let scene = Scene::new("doc-mounts");
    assert_eq!(scene.unwell(&Broken::NOTHING), [], "a node that is well");
    let plain = scene.world.lab.folder();
    let plain = plain.to_str().unwrap();
    let nothing = Broken::NOTHING;
    let no_bpf = ["setpriv", "--bounding-set", "-bpf,-sys_admin"];
    scene.finds_all(&[
        Broken {
            story: "umount /sys/fs/bpf",
            check: "BPF file system",
            level: "fail",
            fix: "mount -t bpf bpf /sys/fs/bpf",
            ..nothing
        },
        Broken {
            story: "mount -o remount,bind,ro /sys/fs/bpf",
            check: "BPF file system",
            level: "fail",
            fix: "remount,rw",
            ..nothing
        },
        Broken {
            story: "umount --lazy --recursive /sys/fs/cgroup",
            without: "--cgroup-root",
            check: "Cgroup v2",
            level: "fail",
            fix: "mount -t cgroup2",
            ..nothing
        },
        Broken {
            flags: &["--cgroup-root", "/no/such/cgroup"],
            check: "Cgroup v2",
            level: "fail",
            fix: "v2 hierarchy",
            ..nothing
        },
        Broken {
            flags: &["--cgroup-root", plain],
            check: "Cgroup v2",
            level: "fail",
            fix: "v2 hierarchy",
            ..nothing
        },
        Broken {
            story: "mount -t tmpfs none /sys/kernel/btf",
            check: "BTF",
            level: "fail",
            fix: "CONFIG_DEBUG_INFO_BTF",
            ..nothing
        },
        Broken {
            story: "echo 5.10.0-8 > $STORY/release; mount --bind $STORY/release /proc/sys/kernel/osrelease",
            check: "Kernel",
            level: "fail",
            fix: "6.1",
            ..nothing
        },
        Broken { with: &no_bpf, check: "Capabilities", level: "fail", fix: "root", ..nothing },
        Broken {
            flags: &["--seed-file", "/no/such/seed"],
            check: "Seed",
            level: "fail",
            fix: "every node",
            ..nothing
        },
        Broken {
            flags: &["-f", "/no/such/manifests"],
            check: "Manifests",
            level: "fail",
            fix: "files",
            ..nothing
        },
    ]);
}

#[test]
fn broken_networks_are_named_with_what_mends_them() {
    let scene = Scene::new("doc-net");
    let nothing = Broken::NOTHING;
    scene.finds_with("net.ipv4.ip_forward", "0", "1", "Forwarding IPv4", "warn");
    scene.finds_with("net.ipv6.conf.all.forwarding", "0", "1", "Forwarding IPv6", "warn");
    scene.finds_with("net.ipv4.conf.all.rp_filter", "1", "0", "Reverse path filter", "warn");
    let range = "net.ipv4.ip_local_port_range";
    scene.finds_with(range, "1024 60999", "32768 60999", "Source ports", "fail");

    let node = scene.node();
    scene.finds(&Broken {
        flags: &["--interface", "eth7"],
        check: "Interfaces",
        level: "fail",
        fix: "interfaces",
        ..nothing
    });
    node.ip("link add dev spare type veth peer name other").unwrap();
    scene.finds(&Broken {
        flags: &["--interface", "spare"],
        check: "Interfaces",
        level: "warn",
        fix: "ip link set spare up",
        ..nothing
    });
    node.ip("link set dev other up\nlink set dev spare mtu 1200 up").unwrap();
    scene.finds(&Broken { check: "MTU", level: "warn", fix: "ip link set spare mtu", ..nothing });
    node.ip("link del dev spare").unwrap();

    link::takes_xdp((node, "eth0")).unwrap();
    let fix = "ip link set dev eth0 xdp off";
    let foreign = Broken { check: "Other XDP programs", fix, ..nothing };
    scene.finds(&Broken { level: "warn", ..foreign });
    let native = ["--xdp-mode", "native"];
    scene.finds(&Broken { level: "fail", flags: &native, ..foreign });
    node.ip("link set dev eth0 xdpdrv off").unwrap();
    assert_eq!(scene.unwell(&nothing), [], "all is mended");
}

#[test]
fn other_proxies_other_agents_and_an_agent_that_complains_are_named() {
    let scene = Scene::new("doc-beside");
    let (nothing, node) = (Broken::NOTHING, scene.node());
    let beside =
        Broken { check: "Other proxies", level: "warn", fix: "docs/operations.md", ..nothing };
    scene.finds(&Broken {
        story: "cp $(command -v sleep) $STORY/kube-proxy; $STORY/kube-proxy 60 & \
                until [ $(cat /proc/$!/comm) = kube-proxy ]; do :; done",
        ..beside
    });
    let metrics = SocketAddr::new(address("127.0.0.1"), 10249);
    let proxy = Server::http(node, metrics, "iptables").unwrap();
    scene.finds(&beside);
    drop(proxy);

    let second = second_agent(&scene);
    scene.finds(&Broken {
        check: "Other agents",
        level: "warn",
        fix: "lb uninstall --bpffs",
        ..nothing
    });
    drop(second);

    scene.world.put_text("wrong.yaml", "kind: Service\n");
    until_shown(&scene.agent, &["status"], "a complaint", |status| {
        let mut lines = status["lines"].as_array().unwrap().iter();
        lines.any(|line| line["key"] == "Source" && line["level"] == "warn")
    });
    scene.finds(&Broken { check: "Agent", level: "warn", fix: "lb status", ..nothing });
}

/// An agent of the same node with its own pins, there when its socket is.
fn second_agent(scene: &Scene) -> Process {
    let Scene { world, .. } = scene;
    let folder = world.lab.folder();
    let socket = folder.join("second.sock");
    let mut command = scene.node().command(env!("CARGO_BIN_EXE_lb")).unwrap();
    command.args(["agent", "--node-name", "n1", "--interface", "late", "--xdp-mode", "off"]);
    command.args(["--metrics-address", "none", "--health-address", "none"]);
    command.arg("-f").arg(world.options(&[]).manifests).arg("--socket").arg(&socket);
    command.arg("--bpffs").arg(world.lab.bpffs("second").unwrap());
    command.arg("--cgroup-root").arg(scene.node().cgroup());
    command.stderr(fs::File::create(folder.join("second.log")).unwrap());
    let mut process = Process::start(scene.node(), &mut command).unwrap();
    while !socket.exists() {
        assert_eq!(process.ended().unwrap(), None, "the second agent ended");
        std::thread::yield_now();
    }
    process
}

#[test]
fn what_an_agent_leaves_and_what_keeps_the_next_from_starting_is_named() {
    let mut scene = Scene::new("doc-after");
    let nothing = Broken::NOTHING;
    scene.agent.terminate().unwrap();
    let absent = Broken { check: "Agent", level: "warn", fix: "start `lb agent`", ..nothing };
    scene.finds(&absent);
    // Nobody says what stands in for what it lacks: its version does.
    scene.finds(&Broken {
        story: "echo 6.1.0-1 > $STORY/release; mount --bind $STORY/release /proc/sys/kernel/osrelease",
        check: "Kernel",
        level: "warn",
        fix: "6.6",
        ..nothing
    });

    // Its place is taken, and where it would learn from is not there.
    let health = SocketAddr::new(address("0.0.0.0"), 10256);
    let taken = Server::http(scene.node(), health, "somebody").unwrap();
    scene.finds(&Broken { check: "Addresses", level: "warn", fix: "healthAddress", ..nothing });
    drop(taken);
    let kubeconfig = scene.world.lab.folder().join("kubeconfig");
    let of = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
              clusters: [{name: c, cluster: {server: \"http://127.0.0.1:1\"}}]\n\
              contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n";
    fs::write(&kubeconfig, of).unwrap();
    for path in [kubeconfig.to_str().unwrap(), "/no/such/kubeconfig"] {
        let flags = ["--source", "kubernetes", "--kubeconfig", path];
        scene.finds(&Broken {
            flags: &flags,
            without: "-f",
            check: "API server",
            level: "fail",
            fix: "--kubeconfig",
            ..nothing
        });
    }

    // An uplink goes while nobody looks.
    scene.node().ip("link del dev late").unwrap();
    let pins = Broken { check: "Pins", ..nothing };
    scene.finds(&Broken { level: "warn", fix: "it removes it", ..pins });
    let remove = |folder: &str| {
        for entry in fs::read_dir(scene.agent.bpffs().join(folder)).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    };
    remove("links");
    scene.finds(&Broken { level: "fail", fix: "start `lb agent`", ..pins });
    remove("maps");
    scene.finds(&Broken { level: "warn", fix: "start `lb agent`", ..pins });
}
