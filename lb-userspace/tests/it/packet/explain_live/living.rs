//! On an agent's tables while flows live: what is told of them, which leaves them as they are.

use std::{net::SocketAddr, time::Instant};

use aya::sys::{Stats, enable_stats};
use lb_userspace::{
    agent::ticks as setup_ticks,
    api::{Explanation, FlowFilter, Packet, Verdict, Via},
    cli::{Exit, Failure},
    explain::{Explainer, on_agent},
};

use super::{Agent, CLIENT, CLUSTER_IP, EXTERNAL, POD, flags, of, places, tcp};

#[test]
fn a_question_leaves_flows_counters_and_sockets_as_they_were() {
    let agent = Agent::new();
    let flow = agent.living_flow();
    let before = agent.traces();
    assert!(before.flows[0].iter().any(|word| *word != 0));
    let questions = [
        flow.clone(),
        flags("ACK", flow.clone()),
        flags("RST", flow.clone()),
        Packet { sport: Some(1), ..flow },
        tcp(CLIENT, CLUSTER_IP, 80),
        of("udp", tcp(CLIENT, CLUSTER_IP, 53)),
        of("udp", tcp(POD, CLUSTER_IP, 53)),
        tcp(POD, CLUSTER_IP, 80),
        tcp("192.168.0.2", EXTERNAL, 80),
        tcp(CLIENT, "10.96.0.11", 80),
        tcp(POD, "10.96.0.11", 80),
    ];
    for answer in agent.explain(&questions) {
        assert!(matches!(answer.verdict, Verdict::Forward | Verdict::Reject), "{answer:?}");
    }
    assert_eq!(agent.traces(), before);
    assert!(agent.arrives(&questions[0]));
    assert_ne!(agent.traces(), before, "but a packet leaves traces");
}

#[test]
fn a_packet_of_a_living_flow_goes_its_flows_way_and_still_says_what_it_could_have_got() {
    let agent = Agent::new();
    let flow = agent.living_flow();
    for packet in [flow.clone(), flags("ACK", flow.clone())] {
        let [answer] = &agent.explain(&[packet])[..] else { panic!("one answer") };
        let wanted = Explanation {
            verdict: Verdict::Forward,
            reason: "to-local".into(),
            frontend: Some("ns/web:http".into()),
            backend: Some("10.0.0.1:8080".parse().unwrap()),
            source: Some(flow.src),
            candidates: places(&["10.0.0.1:8080", "10.0.0.2:8080"]),
            masquerade: true,
            via: Some(Via::Tc),
            node: None,
            steps: answer.steps.clone(),
        };
        assert_eq!(*answer, wanted);
        let told = |name: &str| answer.steps.iter().find(|step| step.name == name);
        let choice = "none: its flow is known, and goes to 10.0.0.1:8080";
        assert_eq!(told("choice").unwrap().detail, choice);
        assert_eq!(told("read on").unwrap().detail, "docs/datapath.md#to-local");
    }
}

#[test]
fn a_packet_that_cannot_be_is_named_by_its_place() {
    let agent = Agent::new();
    let packets = [tcp(CLIENT, CLUSTER_IP, 80), of("icmp", tcp(CLIENT, CLUSTER_IP, 80))];
    let error = on_agent(&agent.object, &agent.maps, &agent.node, &packets).unwrap_err();
    assert_eq!(error.to_string(), "packet 2: `icmp` is none of tcp, udp and sctp");
    assert_eq!(Failure::from(error).exit, Exit::Usage);
}

#[test]
fn a_thousand_packets_are_answered_in_order() {
    let agent = Agent::new();
    let packets: Vec<_> = (0..1000_u16)
        .map(|number| {
            let from = if number % 2 == 0 { CLIENT } else { POD };
            Packet { sport: Some(1000 + number), ..tcp(from, CLUSTER_IP, 80 + number % 3) }
        })
        .collect();
    let explainer = Explainer::new(&agent.object, &agent.maps, &agent.node).unwrap();
    let _counting = enable_stats(Stats::RunTime).unwrap();
    let runs = || {
        ["explain_packet", "explain_socket"]
            .map(|name| agent.object.program(name).unwrap().info().unwrap().run_count())
    };
    let before = runs();
    let began = Instant::now();
    let answers = explainer.explain(&packets).unwrap();
    println!("{} packets in {:?}", packets.len(), began.elapsed());
    let after = runs();
    // A run of a program is what a packet costs; all else is read once for all of them.
    assert_eq!([after[0] - before[0], after[1] - before[1]], [500, 500]);
    assert_eq!(answers.len(), packets.len());
    for (packet, answer) in packets.iter().zip(answers) {
        let wanted = if packet.port == 80 { Verdict::Forward } else { Verdict::Reject };
        assert_eq!(answer.verdict, wanted);
        let via = if packet.src.to_string() == POD { Via::Socket } else { Via::Tc };
        assert_eq!(answer.via, Some(via));
    }
}

#[test]
fn what_is_refused_is_the_last_example_of_its_reason() {
    let agent = Agent::new();
    let never = agent.drops().into_iter().find(|row| row.reason == "unallocated-address").unwrap();
    assert_eq!((never.count, never.last_example), (0, None));
    for sport in [7, 8] {
        agent.arrives(&Packet { sport: Some(sport), ..tcp(CLIENT, "10.96.0.99", 80) });
    }
    let [row, ..] = &agent.drops()[..] else { panic!("no rows") };
    let last = row.last_example.clone().unwrap();
    assert_eq!((row.reason.as_str(), row.count), ("unallocated-address", 2));
    assert_eq!(last.line(), format!("tcp {CLIENT}:8 > 10.96.0.99:80, {} s ago", last.seconds_ago));
    assert_eq!((last.hook.as_str(), last.service), ("ingress", None));
    assert!(row.doc.ends_with("#unallocated-address") && !row.hint.is_empty());
}

#[test]
fn a_living_flow_is_listed_with_both_its_directions() {
    let agent = Agent::new();
    let flow = agent.living_flow();
    let filter = |service: &str| FlowFilter {
        service: Some(service.into()),
        limit: 10,
        ..FlowFilter::default()
    };
    let rows = |filter| agent.maps.flow_rows(&filter, setup_ticks()).unwrap();
    let found = rows(filter("ns/web"));
    let client = SocketAddr::new(flow.src, flow.sport.unwrap());
    let there = found.iter().find(|row| row.role == "to-local").unwrap();
    let back = found.iter().find(|row| row.role == "reply-local").unwrap();
    let backend: SocketAddr = "10.0.0.1:8080".parse().unwrap();
    assert_eq!((there.source, there.new_destination), (client, backend));
    assert_eq!(
        (back.source, back.new_source, back.destination),
        (backend, there.destination, client)
    );
    assert_eq!(
        (there.state.as_str(), there.service.as_deref()),
        ("half-open", Some("ns/web:http"))
    );
    assert_eq!(rows(filter("ns/empty")), []);
    assert_eq!(rows(FlowFilter { limit: 1, ..filter("ns/web") }).len(), 1);
    let any = FlowFilter { limit: 10, ..FlowFilter::default() };
    for picks_there in [
        FlowFilter { src: Some(flow.src), ..any.clone() },
        FlowFilter { dst: Some(flow.dst), ..any.clone() },
    ] {
        let found = rows(picks_there);
        assert!(!found.is_empty() && found.iter().all(|row| row.role == "to-local"), "{found:?}");
    }
    let of_state = |state: &str| rows(FlowFilter { state: Some(state.into()), ..any.clone() });
    assert_eq!((of_state("half-open").len(), of_state("closing").len()), (rows(any).len(), 0));
}

#[test]
fn a_sample_of_ten_thousand_services_is_what_single_look_ups_say() {
    let agent = Agent::new();
    agent.living_flow();
    let sample = agent.maps.sample(10_000, 10_000).unwrap();
    let sums = agent.maps.service_counts(0..10_000).unwrap();
    assert_eq!(sample.services, sums.into_values().collect::<Vec<_>>());
    let reasons: Vec<_> = agent.maps.reason_counts().unwrap().into_iter().map(|it| it.1).collect();
    assert_eq!(sample.reasons, reasons);
    assert!(sample.services.iter().any(|count| count.connections > 0));
    let began = Instant::now();
    agent.maps.sample(10_000, 20_000).unwrap();
    println!("10,000 services and 20,000 backends are read in {:?}", began.elapsed());
}
