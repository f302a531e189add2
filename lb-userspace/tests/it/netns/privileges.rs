//! What an agent that root has started may still do once it is ready.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use lb_userspace::lab::Agent;
use nix::unistd::{Uid, chown};

use super::{
    objects::Front,
    restart::agent_pid,
    world::{Over, V4, World, until_shown},
};

const DAC_READ_SEARCH: u64 = 1 << 2;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const BPF: u64 = 1 << 39;
const ALWAYS: u64 = BPF | NET_ADMIN | NET_BIND_SERVICE;

/// That every thread of the agent has these capabilities, and can pass on none.
fn has_only(agent: &Agent, capabilities: u64) {
    let threads = Path::new("/proc").join(agent_pid(agent)).join("task");
    for thread in fs::read_dir(threads).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        for (set, wanted) in
            [("CapPrm", capabilities), ("CapEff", capabilities), ("CapInh", 0), ("CapAmb", 0)]
        {
            let held = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
            let held = u64::from_str_radix(held.unwrap(), 16).unwrap();
            assert_eq!(held, wanted, "{set}: {held:x}, not {wanted:x}");
        }
    }
}

/// A backend that goes and another that comes are carried to the kernel, and commands are answered.
fn works(world: &World, agent: &Agent) {
    let pods = [world.pod(2, 30), world.pod(2, 31)];
    let front = Front::new("late", 7);
    for pod in &pods {
        world.put("late", &front.manifests(&[pod]));
        until_shown(agent, &["get", "backends"], "the backend alone", |document| {
            let mut rows = document["items"].as_array().unwrap().iter();
            let address = pod.addresses[V4].to_string();
            rows.any(|row| row["address"] == address.as_str() && row["state"] == "active")
        });
        assert_eq!(Over::Tcp.who(&world.client, front.outside(V4)[0]), pod.name);
    }
    agent.json(["status"]).unwrap();
}

#[test]
fn an_agent_of_root_s_keeps_two_capabilities_and_the_ports_below_1024() {
    let world = World::new("kept");
    let agent = world.agent(1, &["--xdp-mode", "native", "--health-address", "127.0.0.1:80"]);
    has_only(&agent, ALWAYS);
    works(&world, &agent);
}

#[test]
fn an_agent_of_root_s_goes_on_reading_the_manifests_of_somebody_else() {
    let world = World::new("theirs");
    let manifests = world.options(&[]).manifests;
    chown(&manifests, Some(Uid::from_raw(65534)), None).unwrap();
    fs::set_permissions(&manifests, fs::Permissions::from_mode(0o700)).unwrap();
    let agent = world.agent(1, &["--xdp-mode", "native"]);
    has_only(&agent, ALWAYS | DAC_READ_SEARCH);
    works(&world, &agent);
}
