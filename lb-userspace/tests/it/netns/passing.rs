//! What the kernel refuses for a moment: it is said and tried again, and what works goes on meanwhile.

use std::{
    fs,
    net::UdpSocket,
    process::Command,
    time::{Duration, Instant},
};

use lb_userspace::lab::{Agent, Held, PATIENCE};
use nix::unistd::Pid;
use serde_json::Value;

use super::{
    nodes::go_on,
    objects::Front,
    world::{FAMILIES, Over, Pod, V4, V6, World, until_shown},
};

const OFTEN: Duration = Duration::from_millis(10);

/// How many descriptors a process may have; the limit that it had comes back with the drop.
struct Limit {
    pid: Pid,
    before: String,
}

impl Limit {
    /// Leaves room for one more at a time: who lists interfaces and routes needs one, a hook two.
    fn of_one_more(pid: Pid) -> Self {
        let taken = |number: &u64| fs::symlink_metadata(format!("/proc/{pid}/fd/{number}")).is_ok();
        let free = (0..).find(|number| !taken(number)).unwrap();
        let before = prlimit(pid, &["--nofile", "--output=SOFT", "--noheadings"]);
        prlimit(pid, &[&format!("--nofile={}:", free + 1)]);
        Self { pid, before }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        prlimit(self.pid, &[&format!("--nofile={}:", self.before)]);
    }
}

fn prlimit(pid: Pid, words: &[&str]) -> String {
    let output = Command::new("prlimit").arg(format!("--pid={pid}")).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// What the agent says under this key, its level first.
fn line(status: &Value, key: &str) -> Option<(String, String)> {
    let line = status["lines"].as_array().unwrap().iter().find(|line| line["key"] == key)?;
    let text = |part: &str| line[part].as_str().unwrap().to_owned();
    Some((text("level"), text("detail")))
}

/// Waits until the agent's log has this.
fn until_logged(agent: &Agent, what: &str) {
    let deadline = Instant::now() + 10 * PATIENCE;
    loop {
        let log = fs::read_to_string(agent.log()).unwrap();
        if log.contains(what) {
            return;
        }
        assert!(Instant::now() < deadline, "never {what}: {log}");
    }
}

fn links(agent: &Agent) -> Vec<String> {
    let links = fs::read_dir(agent.bpffs().join("links")).unwrap();
    let mut names: Vec<_> =
        links.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn hooks_stay_where_they_are_while_there_are_no_descriptors_to_renew_them() {
    let world = World::new("descriptors");
    let pod = world.pod(2, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let mut agent = world.agent(1, &["--xdp-mode", "native"]);
    let held =
        [V4, V6].map(|family| Held::open(&world.client, web.outside(family)[0], 6, OFTEN).unwrap());
    let before = links(&agent);
    let limit = Limit::of_one_more(agent.pid().unwrap());
    world.node(1).address("eth0", "192.168.10.77/24").unwrap();
    until_logged(&agent, "Too many open files");
    let works = |when: &str| {
        for family in FAMILIES {
            for target in web.outside(family) {
                assert_eq!(Over::Tcp.who(&world.client, target), pod.name, "{when}: {target}");
            }
        }
    };
    works("no descriptors");
    // It had a look once more by then, as it does every second.
    let deadline = Instant::now() + 10 * PATIENCE;
    let said = loop {
        // Who asks takes the last one, and may come too late for it.
        let said = agent.json(["status"]).ok().and_then(|status| line(&status, "Uplinks"));
        match said {
            Some((level, said)) if level == "fail" => break said,
            said => assert!(Instant::now() < deadline, "not told: {said:?}"),
        }
    };
    assert!(said.contains("Too many open files"), "{said}");
    assert_eq!(links(&agent), before, "no descriptors");
    go_on(&held);

    drop(limit);
    until_shown(&agent, &["status"], "all hooks again", |status| {
        let (level, said) = line(status, "Uplinks").unwrap();
        level == "ok" && said.contains("eth0 (xdp native, tc)")
    });
    works("descriptors again");
    assert_eq!(links(&agent), before, "descriptors again");
    go_on(&held);
}

#[test]
fn sources_of_packets_stay_while_the_kernel_has_no_port_to_ask_for_them_with() {
    let world = World::new("no-ports");
    let pods = [world.pod(2, 10), world.pod(2, 11)];
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pods[0]]));
    let mut agent = world.agent(1, &["--xdp-mode", "native"]);
    agent.kill().unwrap();
    let node = world.node(1);
    node.sysctls(&[("net.ipv4.ip_local_port_range", "61000 61000")]).unwrap();
    let taken = node.run(|| UdpSocket::bind("[::]:61000")).unwrap();
    agent.restart().unwrap();
    let works = |pod: &Pod, when: &str| {
        for family in FAMILIES {
            for target in web.outside(family) {
                assert_eq!(Over::Tcp.who(&world.client, target), pod.name, "{when}: {target}");
            }
        }
    };
    works(&pods[0], "an agent that cannot ask");
    // Nor does one that comes have to wait.
    world.put("web", &web.manifests(&[&pods[1]]));
    until_shown(&agent, &["get", "backends"], "the backend that came", |rows| {
        let rows = rows["items"].as_array().unwrap();
        let at = |row: &&Value| row["address"] == pods[1].addresses[V4].to_string();
        rows.iter().find(at).is_some_and(|row| row["state"] == "active")
    });
    works(&pods[1], "a backend whose source cannot be asked for");
    let status = agent.json(["status"]).unwrap();
    let (level, said) = line(&status, "Addresses").expect("it is told");
    assert!(level == "warn" && said.contains("the source towards "), "{said}");

    drop(taken);
    let is_known = |status: &Value| line(status, "Addresses").is_none();
    until_shown(&agent, &["status"], "the sources known again", is_known);
    works(&pods[1], "asked again");
}

#[test]
fn xdp_runs_as_the_configuration_says_after_each_restart() {
    let world = World::new("xdp-modes");
    let pod = world.pod(2, 10);
    let web = Front::new("web", 1);
    world.put("web", &web.manifests(&[&pod]));
    let mut agent = world.agent(1, &["--xdp-mode", "native"]);
    let held =
        [V4, V6].map(|family| Held::open(&world.client, web.outside(family)[0], 6, OFTEN).unwrap());
    // As the kernel numbers them.
    for (mode, number) in [("native", 1), ("generic", 2), ("native", 1)] {
        agent.terminate().unwrap();
        agent.sets("--xdp-mode", mode);
        agent.restart().unwrap();
        let mut ip = world.node(1).command("ip").unwrap();
        let shown = ip.args(["-j", "link", "show", "dev", "eth0"]).output().unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(shown[0]["xdp"]["mode"], number, "{mode}: {shown:#}");
        let status = agent.json(["status"]).unwrap();
        let (_, said) = line(&status, "Uplinks").unwrap();
        assert!(said.contains(&format!("eth0 (xdp {mode}, tc)")), "{said}");
        assert_eq!(Over::Tcp.who(&world.client, web.outside(V4)[0]), pod.name, "{mode}");
    }
    go_on(&held);
}
