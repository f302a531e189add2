//! What `lb explain` says of a connection that begins on a node is what becomes of it: a thousand of
//! them, each asked about and then made.

use std::{collections::BTreeMap, io::ErrorKind, net::SocketAddr};

use lb_userspace::{
    api::{Explanation, Packet, Request, Response, Verdict, Via, ask},
    lab::{Agent, Host},
};
use serde_json::json;

use super::{
    objects::{Front, PORT},
    world::{FAMILIES, Over, POD_PORT, Pod, World, address, node_address},
};
use crate::packet::random::Dice;

const CASES: usize = 1000;

fn explained(agent: &Agent, over: Over, from: std::net::IpAddr, to: SocketAddr) -> Explanation {
    let proto = match over {
        Over::Tcp => "tcp",
        Over::Udp => "udp",
    };
    let packet = Packet {
        src: from,
        sport: None,
        proto: proto.into(),
        dst: to.ip(),
        port: to.port(),
        flags: None,
    };
    match ask(agent.socket(), &Request::Explain { packets: vec![packet] }).unwrap() {
        Response::Explain(mut answers) => answers.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_said_of_a_thousand_random_sockets_is_what_becomes_of_them() {
    let world = World::new("explain-sock");
    let [near, far, third] = [world.pod(1, 10), world.pod(2, 10), world.pod(2, 11)];
    let shell = world.pod(1, 20);
    let fronts = [
        (Front::new("web", 1), vec![&near, &far, &third]),
        (Front::new("sticky", 2).with(json!({"sessionAffinity": "ClientIP"})), vec![&near, &far]),
        (Front::new("turns", 3), vec![&far, &third]),
        (
            Front::new("inside", 4).with(json!({"internalTrafficPolicy": "Local"})),
            vec![&near, &far],
        ),
        (
            Front::new("away", 5).with(json!({
                "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
            })),
            vec![&far],
        ),
        (Front::new("empty", 6), vec![]),
        (
            Front::new("guarded", 7).with(
                json!({"loadBalancerSourceRanges": ["10.244.1.20/32", "fd00:10:244:1::14/128"]}),
            ),
            vec![&near, &far],
        ),
    ];
    for (front, pods) in &fronts {
        let mut manifests = front.manifests(pods);
        if front.name == "turns" {
            manifests[0]["metadata"]["annotations"] = json!({"lb/algorithm": "round-robin"});
        }
        world.put(front.name, &manifests);
    }
    let agent = world.agent(1, &["--xdp-mode", "off"]);
    let node = FAMILIES.map(|family| node_address(1, family));
    let dialers: [(&Host, _); 3] =
        [(&shell.host, shell.addresses), (&near.host, near.addresses), (world.node(1), node)];
    let name_of: BTreeMap<SocketAddr, &str> = [&near, &far, &third]
        .into_iter()
        .flat_map(|pod: &Pod| {
            pod.addresses.map(|own| (SocketAddr::new(own, POD_PORT), pod.name.as_str()))
        })
        .collect();
    let mut dice = Dice(20_261_126);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for case in 0..CASES {
        let (front, _) = &fronts[dice.one_of(&[0, 0, 1, 1, 2, 3, 4, 5, 6, 6])];
        let (dialer, family) = (dice.one_of(&[0, 0, 1, 2]), dice.below(2));
        let nobody = address(["10.96.77.1", "fd00:10:96::7701"][family]);
        let [on_node, balancer, external] = front.outside(family);
        let target = dice.one_of(&[
            front.inside(family),
            front.inside(family),
            on_node,
            balancer,
            balancer,
            external,
            SocketAddr::new(front.cluster_ip(family), PORT + 7),
            SocketAddr::new(nobody, PORT),
            SocketAddr::new(third.addresses[family], POD_PORT),
        ]);
        // A pod's source is known with the first packet only: to TCP that is lost in silence.
        let silent = front.name == "guarded" && dialer == 1;
        let over = if silent { Over::Udp } else { dice.one_of(&Over::BOTH) };
        let (host, own) = (dialers[dialer].0, dialers[dialer].1[family]);
        let said = explained(&agent, over, own, target);
        let became = over.ask(host, target);
        let story = || format!("case {case}: {over:?} {own} > {target}: {became:?}\n{said:#?}");
        assert_eq!(said.via, Some(Via::Socket), "{}", story());
        match said.verdict {
            Verdict::Forward => {
                let candidates: Vec<&str> = said.candidates.iter().map(|at| name_of[at]).collect();
                let backend = said.backend.map(|at| name_of[&at]);
                let got = became.as_deref().unwrap_or_else(|_| panic!("{}", story()));
                assert!(candidates.contains(&got), "{}", story());
                assert!(backend.is_some_and(|it| candidates.contains(&it)), "{}", story());
            }
            Verdict::Pass => {
                assert_eq!(became.as_deref().ok(), Some(name_of[&target]), "{}", story());
            }
            Verdict::Reject => {
                let kind = became.as_ref().map_err(std::io::Error::kind);
                assert_eq!(kind, Err(ErrorKind::ConnectionRefused), "{}", story());
            }
            Verdict::Drop => {
                let kind = became.as_ref().map_err(std::io::Error::kind);
                let silence = [ErrorKind::HostUnreachable, ErrorKind::PermissionDenied];
                assert!(kind.is_err_and(|kind| silence.contains(&kind)), "{}", story());
            }
        }
        *seen.entry(said.reason.clone()).or_default() += 1;
    }
    println!("{seen:?}");
    // It was no thousand times the same.
    for reason in [
        "to-local",
        "to-remote",
        "no-endpoints",
        "no-local-endpoints",
        "unknown-port",
        "unallocated-address",
        "source-range",
        "not-service",
    ] {
        assert!(seen.get(reason).is_some_and(|count| *count > 5), "{reason}: {seen:?}");
    }
}
