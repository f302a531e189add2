//! How the laboratory runs agents: what it gives them, and when it believes that they are ready.
//! A script stands for `lb`; that the real one understands its flags is the demo's to show.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use lb_userspace::lab::{Agent, AgentOptions, Host, Lab};

/// Writes down how it was called; says that it is not ready for the first two times, nor before there is
/// an agent.
const SCRIPT: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$@ socket=$LB_SOCKET" >> "$here/calls"
case $1 in
    agent) exec sleep 1000 ;;
    status)
        grep -q ^agent "$here/calls" && [ "$(grep -c ^status "$here/calls")" -gt 2 ] || exit 3
        echo '{"lines": [{"key": "Last sync", "level": "ok"}]}' ;;
    get) echo '{"items": [1]}' ;;
    *) echo "no such verb" >&2; exit 2 ;;
esac
"#;

struct World {
    agent: Agent,
    node: Host,
    calls: PathBuf,
    lab: Lab,
}

fn world(label: &str) -> World {
    let lab = Lab::new(label).unwrap();
    let node = lab.node("n1").unwrap();
    let binary = lab.folder().join("lb");
    fs::write(&binary, SCRIPT).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let flags = vec!["--masquerade-all".to_owned()];
    let options =
        AgentOptions { binary, manifests: "manifests".into(), flags, variables: Vec::new() };
    let agent = Agent::start(&lab, &node, options).unwrap();
    let calls = lab.folder().join("calls");
    World { agent, node, calls, lab }
}

impl World {
    fn calls(&self, verb: &str) -> Vec<String> {
        let calls = fs::read_to_string(&self.calls).unwrap();
        calls.lines().filter(|call| call.starts_with(verb)).map(str::to_owned).collect()
    }

    /// The processes in the node's cgroup.
    fn threads(&self) -> String {
        fs::read_to_string(self.node.cgroup().join("cgroup.threads")).unwrap()
    }
}

#[test]
fn an_agent_gets_pins_a_socket_and_a_cgroup_that_are_its_nodes_alone() {
    let world = world("own");
    let expected = format!(
        "agent --node-name n1 -f manifests --bpffs /sys/fs/bpf/{0}/n1 --socket {1} \
         --cgroup-root {2} --masquerade-all socket=",
        world.lab.name(),
        world.lab.folder().join("n1/lb.sock").display(),
        world.node.cgroup().display(),
    );
    assert_eq!(world.calls("agent"), [expected]);
}

#[test]
fn an_agent_is_waited_for_until_its_status_is_well() {
    assert!(world("ready").calls("status").len() >= 3);
}

#[test]
fn a_killed_agent_is_gone_and_can_be_started_again() {
    let mut world = world("again");
    assert_ne!(world.threads(), "");
    world.agent.kill().unwrap();
    assert_eq!(world.threads(), "");
    assert!(world.agent.kill().is_err(), "there is none to kill");

    fs::remove_file(&world.calls).unwrap();
    world.agent.restart().unwrap();
    assert_eq!(world.calls("agent").len(), 1);
    assert_ne!(world.threads(), "");
    world.agent.terminate().unwrap();
    assert_eq!(world.threads(), "");
}

#[test]
fn verbs_find_the_agent_of_their_node_and_their_errors_are_passed_on() {
    let world = world("verbs");
    let document = world.agent.json(["get", "backends"]).unwrap();
    assert_eq!(document["items"][0], 1);
    let socket = world.agent.socket().display();
    assert_eq!(world.calls("get"), [format!("get backends -o json socket={socket}")]);

    let error = world.agent.json(["dance"]).unwrap_err().to_string();
    assert_eq!(error, "lb dance on n1: no such verb");
}
