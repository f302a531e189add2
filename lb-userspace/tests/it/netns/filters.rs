//! Kernels before 6.6, which hold tc programs by filters and not by links.

use std::time::Duration;

use lb_userspace::lab::{Agent, Held};

use super::{
    nodes::go_on,
    objects::Front,
    outside::every_way,
    world::{V4, World},
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
    let status = agent.json(["status"]).unwrap();
    let mut lines = status["lines"].as_array().unwrap().iter();
    let by_filters = "tc by filters, for links need kernel 6.6";
    assert!(lines.any(|line| line["detail"].as_str().unwrap().contains(by_filters)), "{status}");
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
