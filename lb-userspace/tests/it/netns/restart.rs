//! The agent comes and goes; packets do not notice.

use std::{fs, path::Path, process::Output, time::Duration};

use lb_common::{addr, table};
use lb_userspace::{
    datapath::maps::Maps,
    lab::{Agent, Held, Host},
};
use nix::sys::signal::Signal;

use super::{
    nodes::go_on,
    objects::Front,
    world::{FAMILIES, Over, Pod, V4, V6, World, until_shown},
};

const NATIVE: &[&str] = &["--xdp-mode", "native"];
const OFTEN: Duration = Duration::from_millis(10);

/// A Service with a backend here and one elsewhere; its agent runs.
struct Scene {
    agent: Agent,
    front: Front,
    pods: [Pod; 2],
    shell: Pod,
    world: World,
}

fn scene(label: &str) -> Scene {
    let world = World::new(label);
    let pods = [world.pod(1, 10), world.pod(2, 10)];
    let shell = world.pod(1, 20);
    let front = Front::new("web", 1);
    world.put("web", &front.manifests(&[&pods[0], &pods[1]]));
    let agent = world.agent(1, NATIVE);
    Scene { agent, front, pods, shell, world }
}

impl Scene {
    /// Connections of all kinds: from outside and from a pod, in both families.
    fn hold(&self) -> [Held; 4] {
        let open = |host: &Host, target| Held::open(host, target, 6, OFTEN).unwrap();
        let Self { front, shell, world, .. } = self;
        [
            open(&world.client, front.outside(V4)[0]),
            open(&world.client, front.outside(V6)[1]),
            open(&shell.host, front.inside(V4)),
            open(&shell.host, front.inside(V6)),
        ]
    }

    /// Everybody who asks anew gets an answer from one of these.
    fn new_ones_reach(&self, pods: &[&Pod]) {
        let Self { front, shell, world, .. } = self;
        for family in FAMILIES {
            let from_outside = front.outside(family).map(|to| (&world.client, to));
            for (host, to) in from_outside.into_iter().chain([(&shell.host, front.inside(family))])
            {
                for over in Over::BOTH {
                    let who = over.who(host, to);
                    assert!(pods.iter().any(|pod| pod.name == who), "{over:?} {to}: {who}");
                }
            }
        }
    }

    fn pins(&self) -> Vec<String> {
        let mut found = Vec::new();
        for folder in ["maps", "links"] {
            for entry in fs::read_dir(self.agent.bpffs().join(folder)).into_iter().flatten() {
                found.push(format!("{folder}/{}", entry.unwrap().file_name().display()));
            }
        }
        found.sort_unstable();
        found
    }
}

#[test]
fn a_killed_agent_and_the_next_one_disturb_no_connection() {
    let mut scene = scene("kill");
    let both = |scene: &Scene| scene.new_ones_reach(&[&scene.pods[0], &scene.pods[1]]);
    let held = scene.hold();
    let pins = scene.pins();
    for _ in 0..2 {
        scene.agent.kill().unwrap();
        both(&scene);
        go_on(&held);
        scene.agent.restart().unwrap();
        both(&scene);
        go_on(&held);
    }
    assert_eq!(scene.pins(), pins, "the next agent takes over what it finds");
}

#[test]
fn what_changed_while_no_agent_ran_is_carried_out_by_the_next_one() {
    let mut scene = scene("missed");
    scene.agent.kill().unwrap();
    let Scene { world, front, pods, .. } = &scene;
    world.put("web", &front.manifests(&[&pods[1]]));
    scene.agent.restart().unwrap();
    scene.new_ones_reach(&[&scene.pods[1]]);
}

/// It died in the middle of carrying flows, and the version that starts now shares the table, so that
/// it has nothing to carry.
#[test]
fn flow_tables_that_a_dead_agent_left_locked_are_open_after_the_next_start() {
    let mut scene = scene("locked");
    scene.agent.kill().unwrap();
    let maps = Maps::from_pins(&scene.agent.bpffs().join("maps")).unwrap();
    maps.flows_v4.flow_sets::<addr::V4>().iter().for_each(table::abandon);
    maps.flows_v6.flow_sets::<addr::V6>().iter().for_each(table::abandon);
    Over::Tcp.ask(&scene.world.client, scene.front.outside(V4)[0]).unwrap_err();
    scene.agent.restart().unwrap();
    scene.new_ones_reach(&[&scene.pods[0], &scene.pods[1]]);
}

#[test]
fn sigterm_leaves_everything_and_uninstall_nothing() {
    let mut scene = scene("term");
    let (held, pins) = (scene.hold(), scene.pins());
    scene.agent.terminate().unwrap();
    assert!(!scene.agent.socket().exists(), "its socket goes with it");
    assert_eq!(scene.pins(), pins);
    scene.new_ones_reach(&[&scene.pods[0], &scene.pods[1]]);
    go_on(&held);
    drop(held);

    let removed = scene.agent.lb(["uninstall"]).unwrap();
    assert!(removed.status.success(), "{}", said(&removed));
    assert!(!scene.agent.bpffs().exists(), "pins are left");
    let Scene { world, front, shell, .. } = &scene;
    assert!(!link(world.node(1)).contains("xdp"), "{}", link(world.node(1)));
    for over in Over::BOTH {
        over.ask(&world.client, front.outside(V4)[0]).unwrap_err();
        over.ask(&shell.host, front.inside(V4)).unwrap_err();
    }
    let again = scene.agent.lb(["uninstall"]).unwrap();
    assert!(again.status.success() && said(&again).contains("nothing"), "{}", said(&again));
}

fn link(node: &Host) -> String {
    let mut ip = node.command("ip").unwrap();
    let output = ip.args(["-details", "link", "show", "eth0"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn a_second_agent_and_an_uninstall_are_refused_while_one_runs() {
    let scene = scene("second");
    let (held, pins) = (scene.hold(), scene.pins());
    let first = format!("process {}", agent_pid(&scene.agent));
    let manifests = scene.world.options(&[]).manifests;
    let manifests = manifests.to_str().unwrap();
    let second = ["agent", "--node-name", "n1", "-f", manifests, "--xdp-mode", "off"];
    for words in [&second[..], &["uninstall"]] {
        let output = scene.agent.lb(words).unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("another agent has") && said.contains(&first), "{said}");
    }
    assert_eq!(scene.pins(), pins);
    scene.new_ones_reach(&[&scene.pods[0], &scene.pods[1]]);
    go_on(&held);
}

/// The one process of that node that is called `lb`.
pub fn agent_pid(agent: &Agent) -> String {
    let processes = fs::read_to_string(agent.node().cgroup().join("cgroup.threads")).unwrap();
    let name = |id: &str| fs::read_to_string(Path::new("/proc").join(id).join("status")).unwrap();
    let of_lb = processes.lines().map(name).find(|status| status.starts_with("Name:\tlb\n"));
    let status = of_lb.expect("an agent");
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:\t"));
    line.expect("an id").to_owned()
}

#[test]
fn an_agent_that_stands_still_holds_nobody_up() {
    let mut scene = scene("still");
    let held = scene.hold();
    scene.agent.signal(Signal::SIGSTOP).unwrap();
    scene.new_ones_reach(&[&scene.pods[0], &scene.pods[1]]);
    go_on(&held);
    let Scene { world, front, pods, .. } = &scene;
    world.put("web", &front.manifests(&[&pods[0]]));
    scene.agent.signal(Signal::SIGCONT).unwrap();
    until_shown(&scene.agent, &["get", "backends"], "one backend a port", |document| {
        let rows = document["items"].as_array().unwrap().iter();
        rows.filter(|row| row["state"] == "active").count() == 6
    });
    scene.new_ones_reach(&[&scene.pods[0]]);
    go_on(&held);
}
