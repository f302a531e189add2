//! What an operator does and sees on a living node.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Output, Stdio},
    time::Duration,
};

use lb_userspace::lab::{Agent, Held, PATIENCE};
use serde_json::{Value, json};

use super::{
    nodes::go_on,
    objects::Front,
    world::{FAMILIES, Over, POD_PORT, Pod, V4, V6, World, until_shown},
};

const OFTEN: Duration = Duration::from_millis(10);

/// What a command answers: its exit code, and all it said.
fn lb(agent: &Agent, words: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = agent.lb(words).unwrap();
    let said = [stdout, stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (status.code().unwrap(), said)
}

/// Whoever asks anew, from outside or from a pod, reaches one of these.
fn new_ones_reach(world: &World, shell: &Pod, front: &Front, pods: &[&Pod]) {
    for family in FAMILIES {
        for over in Over::BOTH {
            for _ in 0..8 {
                for (host, to) in
                    [(&world.client, front.outside(family)[1]), (&shell.host, front.inside(family))]
                {
                    let who = over.who(host, to);
                    assert!(pods.iter().any(|pod| pod.name == who), "{over:?} {to}: {who}");
                }
            }
        }
    }
}

/// States of the backends with this address, as they are listed.
fn states(document: &Value, pod: &Pod) -> Vec<String> {
    let addresses = pod.addresses.map(|address| address.to_string());
    let rows = document["items"].as_array().unwrap().iter();
    rows.filter(|row| addresses.iter().any(|address| row["address"] == **address))
        .map(|row| row["state"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_drained_backend_keeps_what_it_has_and_gets_nothing_new_until_it_is_given_back() {
    let world = World::new("drain");
    let [near, far, shell] = [world.pod(1, 10), world.pod(2, 10), world.pod(1, 20)];
    let front = Front::new("web", 1);
    world.put("web", &front.manifests(&[&near, &far]));
    let mut agent = world.agent(1, &["--enable-drain", "--xdp-mode", "native"]);
    let held = [
        Held::open(&world.client, front.outside(V4)[0], 12, OFTEN).unwrap(),
        Held::open(&shell.host, front.inside(V4), 12, OFTEN).unwrap(),
    ];
    let on_far = |held: &[Held; 2]| {
        let connections = held.iter().flat_map(Held::connections);
        connections.filter(|connection| connection.server == far.name).count()
    };
    assert!(on_far(&held) > 0, "a backend that has something to keep");

    // A whole pod, both families and every port.
    let (code, said) = lb(&agent, &["drain", "it/pod-2-10"]);
    assert!(code == 0 && said.contains("drained") && said.contains("it/web:http"), "{said}");
    new_ones_reach(&world, &shell, &front, &[&near]);
    go_on(&held);
    let rows = agent.json(["get", "backends"]).unwrap();
    assert!(states(&rows, &far).iter().all(|state| state == "drained"), "{rows:#}");
    assert!(states(&rows, &near).iter().all(|state| state == "active"), "{rows:#}");
    let described = lb(&agent, &["describe", "service", "it/web", "-o", "wide"]).1;
    assert!(described.contains("drained here by an operator: `lb ready "), "{described}");
    assert!(lb(&agent, &["status"]).1.contains("Drained:"), "it is seen at a glance");

    // Others come and go, and so does the agent: it holds. Without an agent it is still seen.
    agent.kill().unwrap();
    let pinned = lb(&agent, &["get", "backends", "-o", "json"]).1;
    assert!(pinned.contains("\"drained\""), "{pinned}");
    agent.restart().unwrap();
    let third = world.pod(2, 11);
    world.put("web", &front.manifests(&[&near, &far, &third]));
    until_shown(&agent, &["get", "backends"], "the third", |rows| {
        let states = states(rows, &third);
        states.len() == 6 && states.iter().all(|state| state == "active")
    });
    new_ones_reach(&world, &shell, &front, &[&near, &third]);
    go_on(&held);

    // Given back, it gets new ones again: eight in a row miss one of three once in 25 times, 200 never.
    let (code, said) = lb(&agent, &["ready", "it/pod-2-10"]);
    assert!(code == 0 && said.contains("ready"), "{said}");
    let mut asked = (0..200).map(|_| Over::Tcp.who(&world.client, front.outside(V4)[1]));
    assert!(asked.any(|who| who == far.name), "nothing new reaches it");
    go_on(&held);
    assert!(!lb(&agent, &["status"]).1.contains("Drained:"));
}

#[test]
fn the_last_backend_is_drained_by_force_only_and_new_connections_are_refused_then() {
    let world = World::new("drain-last");
    let [pod, shell] = [world.pod(2, 10), world.pod(1, 20)];
    let front = Front::new("web", 1);
    world.put("web", &front.manifests(&[&pod]));
    let agent = world.agent(1, &["--enable-drain"]);
    let place = SocketAddr::new(pod.addresses[V4], POD_PORT).to_string();
    let (code, said) = lb(&agent, &["drain", &place]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("nobody answers for it/web:http, it/web:talk"), "{said}");
    new_ones_reach(&world, &shell, &front, &[&pod]);
    let (code, said) = lb(&agent, &["drain", &place, "--force"]);
    assert_eq!(code, 0, "{said}");
    for (host, to) in [(&world.client, front.outside(V4)[1]), (&shell.host, front.inside(V4))] {
        let error = Over::Tcp.ask(host, to).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
    }
    let status = lb(&agent, &["status"]).1;
    assert!(status.contains("nobody else answers for it/web:http"), "{status}");
    // The other family has its own address, which nobody drained.
    assert_eq!(Over::Tcp.who(&shell.host, front.inside(V6)), pod.name);
    assert_eq!(lb(&agent, &["ready", &place]).0, 0);
    new_ones_reach(&world, &shell, &front, &[&pod]);
}

#[test]
fn who_gets_a_drained_backends_address_is_another_and_is_not_drained() {
    let world = World::new("drain-next");
    let [near, far, shell] = [world.pod(1, 10), world.pod(2, 10), world.pod(1, 20)];
    let front = Front::new("web", 1);
    world.put("web", &front.manifests(&[&near, &far]));
    let agent = world.agent(1, &["--enable-drain"]);
    assert_eq!(lb(&agent, &["drain", "it/pod-2-10"]).0, 0);
    new_ones_reach(&world, &shell, &front, &[&near]);
    // The next pod has the address, the name even, and a uid of its own.
    let next = serde_json::json!(front.manifests(&[&near, &far])).to_string();
    let next: Vec<Value> =
        serde_json::from_str(&next.replace("uid-of-pod-2-10", "uid-of-the-next")).unwrap();
    world.put("web", &next);
    until_shown(&agent, &["get", "backends"], "the next pod, active", |rows| {
        states(rows, &far).iter().filter(|state| *state == "active").count() == 6
    });
    let mut asked = (0..200).map(|_| Over::Tcp.who(&world.client, front.outside(V4)[1]));
    assert!(asked.any(|who| who == far.name), "nothing new reaches it");
}

#[test]
fn bad_names_are_not_found_and_an_agent_that_was_not_told_so_changes_nothing() {
    let world = World::new("drain-names");
    let pod = world.pod(1, 10);
    let front = Front::new("web", 1);
    world.put("web", &front.manifests(&[&pod]));
    let mut agent = world.agent(1, &["--enable-drain"]);
    for name in ["10.9.9.9:80", "it/nobody", "elsewhere/pod-1-10"] {
        for verb in ["drain", "ready"] {
            let (code, said) = lb(&agent, &[verb, name]);
            assert!(code == 4 && said.contains(name), "{verb}: {code} {said}");
        }
    }
    assert_eq!(lb(&agent, &["ready", "it/pod-1-10"]).0, 0, "what is ready may be said to be");
    agent.terminate().unwrap();
    let agent = world.agent(1, &[]);
    let (code, said) = lb(&agent, &["drain", "it/pod-1-10", "--force"]);
    assert!(code == 1 && said.contains("--enable-drain"), "{code} {said}");
    assert_eq!(Over::Tcp.who(&world.client, front.outside(V4)[0]), pod.name);
}

#[test]
fn where_no_agent_answers_the_pins_do_and_say_the_same() {
    let world = World::new("pins");
    let [near, far] = [world.pod(1, 10), world.pod(2, 10)];
    let (web, local) = (Front::new("web", 1), Front::new("local", 2));
    let local = local.with(json!({
        "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
        "loadBalancerSourceRanges": ["203.0.113.0/24"],
    }));
    world.put("web", &web.manifests(&[&near, &far]));
    world.put("local", &local.manifests(&[&near]));
    let mut agent = world.agent(1, &["--enable-drain", "--xdp-mode", "native"]);
    assert_eq!(lb(&agent, &["drain", "it/pod-2-10"]).0, 0);
    for family in FAMILIES {
        assert_eq!(Over::Tcp.who(&world.client, web.outside(family)[1]), near.name);
    }
    let asked = |agent: &Agent| {
        let pairs = [
            ("203.0.113.9", web.outside(V4)[1]),
            ("2001:db8::9", web.outside(V6)[0]),
            ("2001:db8::9", local.outside(V6)[2]),
            ("198.51.100.99", local.outside(V4)[1]),
            ("10.244.1.77", local.inside(V4)),
            ("192.168.10.1", web.inside(V4)),
            ("203.0.113.9", SocketAddr::new(web.cluster_ip(V4), 99)),
        ];
        pairs.map(|(from, to)| agent.json(["explain", "tcp", from, &to.to_string()]).unwrap())
    };
    let dialled = |agent: &Agent, name: &str| {
        let mut ports = agent.json(["describe", "service", name]).unwrap();
        let mut frontends: Vec<String> = ports["ports"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .flat_map(|port| port["frontends"].take().as_array().unwrap().clone())
            .map(|frontend| frontend.to_string())
            .collect();
        frontends.sort();
        frontends
    };
    let (before, of_web) = (asked(&agent), dialled(&agent, "it/web"));
    let verdicts = before.each_ref().map(|answer| answer["verdict"].as_str().unwrap());
    assert_eq!(verdicts[..3], ["forward"; 3]);
    assert_eq!(verdicts[3..], ["drop", "forward", "forward", "reject"], "{before:#?}");
    agent.kill().unwrap();

    // Fates, and what is dialled, are the same word for word.
    assert_eq!(asked(&agent), before);
    assert_eq!(dialled(&agent, "it/web"), of_web);
    let (code, said) = lb(&agent, &["describe", "service", "it/web"]);
    assert_eq!(code, 0, "{said}");
    for part in [
        "the agent is not reachable at",
        " conns  active\n",
        "drained here by an operator: it keeps what it has",
        "not known: an agent remembers them",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let (_, said) = lb(&agent, &["describe", "service", "it/local"]);
    let policy = "External traffic policy:  Local";
    assert!(said.contains(policy) && said.contains("203.0.113.0/24"), "{said}");
    assert_eq!(lb(&agent, &["describe", "service", "it/nobody"]).0, 4);

    // How it is: the datapath is well, and the agent is missing.
    let (code, said) = lb(&agent, &["status"]);
    assert_eq!(code, 3, "{said}");
    for part in [
        "Agent:      Fail",
        "eth0 (egress, ingress, xdp)",
        "2, with ",
        "Drained:    Ok",
        "error: the agent is not reachable at",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let Output { status, stdout, .. } = agent.lb(["status", "-o", "json"]).unwrap();
    let document: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!((status.code(), &document["level"]), (Some(3), &"fail".into()));
    let (code, said) = lb(&agent, &["get", "services", "it/web"]);
    assert!(code == 0 && said.contains("this is what its pins tell"), "{code} {said}");
    // What only an agent can do is still refused for want of one.
    for words in [&["plan"][..], &["ready", "it/pod-2-10"]] {
        let (code, said) = lb(&agent, words);
        assert!(code == 3 && said.contains("not reachable"), "{code} {said}");
    }

    // Nobody who asked left a trace: the next agent finds what it left.
    agent.restart().unwrap();
    assert_eq!(asked(&agent), before);
}

#[test]
fn a_living_agent_is_watched_dumped_and_looked_at() {
    let world = World::new("look");
    let [near, far] = [world.pod(1, 10), world.pod(2, 10)];
    let [front, empty] = [Front::new("web", 1), Front::new("empty", 2)];
    world.put("web", &front.manifests(&[&near, &far]));
    world.put("empty", &empty.manifests(&[]));
    let agent = world.agent(1, &["--page-address", "127.0.0.1:10250"]);
    let held = [Held::open(&world.client, front.outside(V4)[1], 8, OFTEN).unwrap()];
    go_on(&held);

    // lb monitor: somebody dials what nobody answers, until it was told.
    let mut monitor = agent
        .lb_command(["monitor", "--drops", "--count", "1", "-o", "json"])
        .unwrap()
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(monitor.stdout.take().unwrap());
    std::thread::scope(|scope| {
        let told = scope.spawn(|| out.read_line(&mut line).unwrap());
        while !told.is_finished() {
            Over::Tcp.ask(&world.client, empty.outside(V4)[1]).unwrap_err();
        }
    });
    assert!(monitor.wait().unwrap().success());
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&told["reason"], &told["verdict"]), (&"no-endpoints".into(), &"reject".into()));
    assert_eq!(told["service"], "it/empty:http");

    // lb top: one screen, and one frame.
    let screen = lb(&agent, &["top", "--once", "--service", "it/web:http"]).1;
    let place = SocketAddr::new(near.addresses[V4], POD_PORT).to_string();
    assert!(screen.contains(&place) && screen.starts_with("n1 "), "{screen}");
    let frame: Value =
        serde_json::from_str(&lb(&agent, &["top", "--once", "-o", "json"]).1).unwrap();
    let clients = frame["clients"].as_array().unwrap();
    let flows: u64 = clients.iter().map(|row| row["flows"].as_u64().unwrap()).sum();
    assert!(clients.iter().all(|row| row["client"] == "203.0.113.9"), "{clients:?}");
    assert!((8..=16).contains(&flows), "eight are held, and those before them may linger: {flows}");
    let reasons: Vec<_> =
        frame["drops"].as_array().unwrap().iter().map(|row| &row["reason"]).collect();
    assert!(reasons.contains(&&"no-endpoints".into()), "{reasons:?}");

    // The live page, on the node's own loopback.
    let seen = agent.node().run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:10250").unwrap();
        stream.set_read_timeout(Some(10 * PATIENCE)).unwrap();
        write!(stream, "GET /frames HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
        let (mut seen, mut bytes) = (Vec::new(), [0; 65_536]);
        while !String::from_utf8_lossy(&seen).contains("\"lastSyncSeconds\"") {
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "it hung up");
            seen.extend(&bytes[..count]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    });
    assert!(seen.contains("it/web") || seen.contains("\"name\":\"web\""), "{seen}");

    // lb sysdump, with and without the agent.
    for (file, with_agent) in [("with.tar.gz", true), ("without.tar.gz", false)] {
        let mut agent_gone = agent.lb_command(["sysdump"]).unwrap();
        let file = world.lab.folder().join(file);
        agent_gone.arg(&file).args(["-o", "json"]);
        if !with_agent {
            agent_gone.env("LB_SOCKET", "/nonexistent");
        }
        let output = agent_gone.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let files: Vec<_> = report["files"].as_array().unwrap().iter().collect();
        let has = |name: &str| files.iter().any(|file| *file == name);
        // Lists come from the pins where no agent answers.
        assert!(has("services.json") && has("maps.json") && has("pins.txt"), "{report:#}");
        for name in ["status.json", "metrics.txt", "services/it/web.json", "agent.log"] {
            assert!(!with_agent || has(name), "{name}: {report:#}");
        }
    }
    go_on(&held);
}
