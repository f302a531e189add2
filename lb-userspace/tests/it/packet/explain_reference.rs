//! Every packet of the reference's flow tests, decided by the kernel programs.

use std::net::SocketAddr;

use lb_userspace::{
    api::{Explanation, Packet, Verdict, Via},
    config::{Config, Options},
    explain::Private,
    plan::Plan,
};

use crate::support::cases::{Flow, FlowCase, Outcome};

/// Case, family and flow that the programs decide otherwise than the reference, and why. The test
/// fails as well when one of them has come right.
const OTHERWISE: &[(&str, &str, &str, &str)] = &[];

/// What `lb explain` is asked about a flow.
fn packet(flow: &Flow) -> Packet {
    let Flow { src, proto, dst, port, .. } = flow;
    Packet { src: *src, sport: None, proto: proto.clone(), dst: *dst, port: *port, flags: None }
}

/// Verdict, candidates and masquerade as the reference has them.
fn wanted(flow: &Flow) -> (Verdict, Vec<SocketAddr>, bool) {
    let (verdict, candidates) = match &flow.out {
        Outcome::Forward(to) => {
            let mut to: Vec<SocketAddr> = to.iter().map(|it| it.parse().unwrap()).collect();
            to.sort();
            (Verdict::Forward, to)
        }
        Outcome::Word(word) => match word.as_str() {
            "REJECT" => (Verdict::Reject, vec![]),
            "DROP" => (Verdict::Drop, vec![]),
            "NONE" => (Verdict::Pass, vec![]),
            other => panic!("{other}"),
        },
    };
    (verdict, candidates, flow.masq)
}

#[test]
fn every_packet_of_the_reference_meets_the_reference_s_fate_in_the_kernel() {
    let (mut packets, mut vias, mut otherwise) = (0, [0, 0], Vec::new());
    for case in FlowCase::all() {
        let node = case.node();
        let mut plan = Plan::default();
        plan.update(&mut case.index(), &node);
        let config = Config::from_options(Options::default(), &case.node_name).unwrap();
        let private = Private::new(&config, node, &plan).unwrap();
        assert_eq!(private.refused(), []);
        let questions: Vec<_> = case.flows.iter().map(packet).collect();
        let answers = private.explain(&questions).unwrap();
        assert_eq!(answers.len(), questions.len());
        for (flow, answer) in case.flows.iter().zip(answers) {
            let Explanation { verdict, backend, candidates, masquerade, via, .. } = &answer;
            packets += 1;
            vias[usize::from(*via == Some(Via::Socket))] += 1;
            let is_candidate = backend.is_none_or(|backend| candidates.contains(&backend));
            assert!(is_candidate, "{} [{}]: {}: {answer:?}", case.name, case.ip_family, flow.name);
            assert_eq!(backend.is_some(), *verdict == Verdict::Forward, "{answer:?}");
            if (*verdict, candidates.clone(), *masquerade) != wanted(flow) {
                println!("{} [{}]: {}: {answer:?}", case.name, case.ip_family, flow.name);
                otherwise.push((case.name.clone(), case.ip_family.clone(), flow.name.clone()));
            }
        }
    }
    assert_eq!(packets, 207, "as many packets as the cases have");
    assert!(vias.iter().all(|count| *count > 50), "{vias:?} by frames and by sockets");
    let known: Vec<_> = OTHERWISE
        .iter()
        .map(|(case, family, flow, _)| (case.to_string(), family.to_string(), flow.to_string()))
        .collect();
    assert_eq!(otherwise, known);
}
