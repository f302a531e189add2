//! How real connections are shared out where a Service says how.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use lb_userspace::lab::{Fate, Held, Host, ask};
use serde_json::{Value, json};

use super::{
    objects::Front,
    world::{Over, Pod, V4, World, until_shown},
};

const TC: &[&str] = &["--xdp-mode", "off"];
const SELDOM: Duration = Duration::from_secs(1);

fn manifests(front: &Front, algorithm: &str, pods: &[&Pod]) -> Vec<Value> {
    let mut objects = front.manifests(pods);
    objects[0]["metadata"]["annotations"] = json!({"lb/algorithm": algorithm});
    objects
}

/// How many of so many new connections each pod gets. Each has a port of its own: one that came again
/// would be of a flow that is known.
fn shares(
    over: Over,
    from: &Host,
    target: std::net::SocketAddr,
    times: usize,
) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    let mut count = |who: String| *shares.entry(who).or_default() += 1;
    match over {
        // The kernel sees to that itself.
        Over::Tcp => (0..times).for_each(|_| count(over.who(from, target))),
        Over::Udp => {
            let open = |_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            let ask = |socket: &UdpSocket| ask(socket, target, "who?").unwrap();
            let answers: Vec<_> = from.run(|| {
                let all: Vec<_> = (0..times).map(open).collect();
                all.iter().map(ask).collect()
            });
            answers.iter().for_each(|who| count(who.trim_end_matches(" who?").to_owned()));
        }
    }
    shares
}

/// How many connections each pod holds; all of them must live.
fn holders(all: &[Held]) -> BTreeMap<String, usize> {
    let mut holders = BTreeMap::new();
    for connection in all.iter().flat_map(Held::connections) {
        assert_eq!(connection.fate, Fate::Alive);
        *holders.entry(connection.server).or_default() += 1;
    }
    holders
}

#[test]
fn backends_take_turns_exactly_for_sockets_and_for_packets_from_outside() {
    let world = World::new("alg-turns");
    let pods = [world.pod(1, 10), world.pod(2, 10), world.pod(2, 11)];
    let shell = world.pod(1, 20);
    let web = Front::new("web", 1);
    let all: Vec<&Pod> = pods.iter().collect();
    world.put("web", &manifests(&web, "round-robin", &all));
    let _agent = world.agent(1, TC);
    let even: BTreeMap<_, _> = pods.iter().map(|pod| (pod.name.clone(), 20)).collect();
    for over in Over::BOTH {
        assert_eq!(shares(over, &shell.host, web.inside(V4), 60), even, "{over:?} of a pod");
        assert_eq!(shares(over, &world.client, web.on_node(1, V4), 60), even, "{over:?} outside");
    }
}

#[test]
fn new_connections_go_where_fewest_are_open_until_it_is_even() {
    let world = World::new("alg-least");
    let (first, second) = (world.pod(1, 10), world.pod(2, 10));
    let shell = world.pod(1, 20);
    let web = Front::new("web", 1);
    let put = |pods: &[&Pod]| world.put("web", &manifests(&web, "least-connections", pods));
    put(&[&first]);
    let agent = world.agent(1, TC);
    for (from, target) in [(&shell.host, web.inside(V4)), (&world.client, web.on_node(1, V4))] {
        put(&[&first]);
        until_backends(&agent, 6);
        let mut held = vec![Held::open(from, target, 40, SELDOM).unwrap()];
        put(&[&first, &second]);
        until_backends(&agent, 12);
        held.push(Held::open(from, target, 30, SELDOM).unwrap());
        let want = BTreeMap::from([(first.name.clone(), 40), (second.name.clone(), 30)]);
        assert_eq!(holders(&held), want, "{}: all new ones to the second", from.name());
        held.push(Held::open(from, target, 30, SELDOM).unwrap());
        let shares = holders(&held);
        let apart = shares[&first.name].abs_diff(shares[&second.name]);
        assert!(apart <= 4, "{}: {shares:?}", from.name());
    }
}

/// Two families, three ports: six for each pod.
fn until_backends(agent: &lb_userspace::lab::Agent, count: usize) {
    until_shown(agent, &["get", "backends"], "so many backends", |document| {
        let rows = document["items"].as_array().unwrap().iter();
        rows.filter(|row| row["state"] == "active").count() == count
    });
}
