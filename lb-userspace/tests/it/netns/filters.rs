//! Kernels before 6.6, which hold tc programs by filters and not by links.

use std::time::Duration;

use lb_userspace::lab::{Agent, Held, Host, link};
use serde_json::Value;

use super::{
    nodes::go_on,
    objects::Front,
    outside::every_way,
    world::{FAMILIES, Over, V4, World},
};

const OFTEN: Duration = Duration::from_millis(10);

#[test]
fn filters_serve_everybody_are_replaced_in_place_and_go_without_a_trace() {
    let world = World::new("filters");
    let (here, there) = (world.pod(1, 10), world.pod(2, 10));
    let fronts = [(Front::new("here", 1), &here), (Front::new("there", 2), &there)];
    for (front, pod) in &fronts {
        world.put(front.name, &front.manifests(&[pod]));
    }
    let mut options = world.options(&["--xdp-mode", "off"]);
    options.variables.push(("LB_TC_FILTERS", "1".to_owned()));
    let mut agent = Agent::start(&world.lab, world.node(1), options).unwrap();
    told(&agent, "status", "lines", "key");
    // The doctor goes by what the agent says.
    told(&agent, "doctor", "items", "check");
    let everybody = || {
        for (front, pod) in &fronts {
            for (_, over, target) in every_way(front) {
                assert_eq!(over.who(&world.client, target), pod.name, "{over:?} {target}");
            }
        }
    };
    everybody();
    let targets = fronts.each_ref().map(|(front, _)| front.outside(V4)[0]);
    let held = targets.map(|target| Held::open(&world.client, target, 6, OFTEN).unwrap());

    agent.kill().unwrap();
    // Now the pins tell.
    told(&agent, "status", "lines", "key");
    everybody();
    agent.restart().unwrap();
    everybody();
    go_on(&held);

    agent.terminate().unwrap();
    let removed = agent.lb(["uninstall"]).unwrap();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    let left = world.node(1).command("tc").unwrap().args(["qdisc", "show"]).output().unwrap();
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(!left.contains("clsact"), "{left}");
}

/// That filters stand in for links is said by that command.
fn told(agent: &Agent, command: &str, list: &str, of: &str) {
    let output = agent.lb([command, "-o", "json"]).unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut lines = document[list].as_array().unwrap().iter();
    let kernel = lines.find(|line| line[of] == "Kernel").unwrap();
    let by_filters = "tc by filters, for links need kernel 6.6";
    assert!(kernel["detail"].as_str().unwrap().contains(by_filters), "{command}: {kernel}");
}

#[test]
fn filters_of_somebody_else_stay_beside_ours_and_keep_their_place() {
    let world = World::new("beside-filters");
    let pod = world.pod(2, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let node = world.node(1);
    node.ip(
        "link add dev late type veth peer name peer\nlink set dev late up\nlink set dev peer up",
    )
    .unwrap();
    // One was there before us; the other comes into a place that we have made.
    link::filtered((node, "eth0"), "ingress").unwrap();
    let mut options =
        world.options(&["--xdp-mode", "off", "--interface", "eth0", "--interface", "late"]);
    options.variables.push(("LB_TC_FILTERS", "1".to_owned()));
    let mut agent = Agent::start(&world.lab, node, options).unwrap();
    link::filtered((node, "late"), "egress").unwrap();
    let theirs = || of_others(node);
    let before = theirs();
    assert_eq!(before.len(), 2, "{before:?}");
    let works = || {
        for family in FAMILIES {
            assert_eq!(Over::Tcp.who(&world.client, web.outside(family)[0]), pod.name);
        }
    };
    works();
    agent.kill().unwrap();
    agent.restart().unwrap();
    works();
    assert_eq!(theirs(), before, "after other programs");

    agent.terminate().unwrap();
    let removed = agent.lb(["uninstall"]).unwrap();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    assert_eq!(theirs(), before, "after uninstall");
    let ours = filters(node).into_iter().filter(|line| line.contains("0x6c62")).count();
    assert_eq!(ours, 0);
}

/// The filters on both interfaces, with the numbers of their programs.
fn filters(node: &Host) -> Vec<String> {
    let shown = |name: &str, way: &str| {
        let mut tc = node.command("tc").unwrap();
        let output = tc.args(["filter", "show", "dev", name, way]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let places = ["eth0", "late"].map(|name| ["ingress", "egress"].map(|way| (name, way)));
    let places = places.as_flattened().iter();
    let lines = places.flat_map(|(name, way)| {
        let lines = shown(name, way);
        lines.lines().map(|line| format!("{name} {way} {}", line.trim())).collect::<Vec<_>>()
    });
    lines.filter(|line| line.contains(" handle ")).collect()
}

fn of_others(node: &Host) -> Vec<String> {
    filters(node).into_iter().filter(|line| line.contains(" pref 7 ")).collect()
}
