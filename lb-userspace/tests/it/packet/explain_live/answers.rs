//! What is told of packets that are nobody's yet: whom they reach, as whom, and how.

use lb_userspace::{
    api::{Packet, Verdict, Via},
    explain::Private,
    plan::Plan,
};
use serde_json::json;

use super::{CLIENT, CLUSTER_IP, EXTERNAL, POD, config, flags, of, places, tcp, town};
use crate::support::objects::{apply_service, apply_slice, index_of, service, slice_of, this_node};

#[test]
fn packets_in_mid_stream_belong_to_nobody_without_their_flow() {
    let (node, plan) = town();
    let private = Private::new(&config(), node, &plan).unwrap();
    let packets: Vec<_> = (1..=64)
        .map(|sport| flags("ACK", Packet { sport: Some(sport), ..tcp(CLIENT, EXTERNAL, 80) }))
        .collect();
    let answers = private.explain(&packets).unwrap();
    let (foreign, here): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.verdict == Verdict::Reject);
    assert!(foreign.len() > 10 && here.len() > 10);
    for answer in foreign {
        assert_eq!((answer.reason.as_str(), answer.backend), ("unknown-flow", None));
    }
    for answer in here {
        assert_eq!(answer.reason, "to-local", "only a backend here can have had it all along");
    }
}

#[test]
fn each_protocol_is_answered_for_sockets_and_from_outside() {
    let (node, plan) = town();
    let private = Private::new(&config(), node, &plan).unwrap();
    let questions = [
        of("udp", tcp(CLIENT, CLUSTER_IP, 53)),
        of("udp", tcp(POD, CLUSTER_IP, 53)),
        of("sctp", tcp(POD, CLUSTER_IP, 99)),
        of("sctp", tcp(CLIENT, CLUSTER_IP, 99)),
        of("udp", tcp(CLIENT, CLUSTER_IP, 80)),
        tcp(CLIENT, "10.96.0.99", 80),
        tcp(POD, "192.0.2.1", 80),
    ];
    let answers = private.explain(&questions).unwrap();
    let found: Vec<_> = answers
        .iter()
        .map(|it| (it.verdict, it.frontend.as_deref(), &it.candidates[..], it.via))
        .collect();
    let (dns, ss7) =
        (places(&["10.0.0.1:5353", "10.0.0.2:5353"]), places(&["10.0.0.1:9999", "10.0.0.2:9999"]));
    let (tc, socket) = (Some(Via::Tc), Some(Via::Socket));
    let wanted: [(_, _, &[_], _); 7] = [
        (Verdict::Forward, Some("ns/web:dns"), &dns, tc),
        (Verdict::Forward, Some("ns/web:dns"), &dns, socket),
        (Verdict::Forward, Some("ns/web:ss7"), &ss7, socket),
        (Verdict::Forward, Some("ns/web:ss7"), &ss7, tc),
        (Verdict::Reject, None, &[], tc),
        (Verdict::Drop, None, &[], tc),
        (Verdict::Pass, None, &[], socket),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_backend_sees_the_client_where_it_is_here_and_this_node_where_it_is_elsewhere() {
    let (node, plan) = town();
    let private = Private::new(&config(), node, &plan).unwrap();
    let packets: Vec<_> = (1..=64)
        .map(|sport| Packet { sport: Some(sport), ..tcp(CLIENT, EXTERNAL, 80) })
        .chain([tcp(POD, EXTERNAL, 80)])
        .collect();
    let mut seen = [0; 2];
    for (packet, answer) in packets.iter().zip(private.explain(&packets).unwrap()) {
        let here = answer.backend == Some("10.0.0.1:8080".parse().unwrap());
        let keeps = here || answer.via == Some(Via::Socket);
        let wanted = if keeps { packet.src } else { "192.168.0.2".parse().unwrap() };
        assert_eq!(answer.source, Some(wanted), "{answer:?}");
        seen[usize::from(here)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
}

#[test]
fn the_nodes_own_addresses_are_the_node_even_inside_the_pods_range_and_so_is_loopback() {
    let spec = json!({
        "type": "NodePort", "clusterIP": CLUSTER_IP, "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    });
    let endpoints = vec![json!({"addresses": ["10.0.0.2"], "nodeName": "n2"})];
    let mut index = index_of([
        apply_service(service("web", spec)),
        apply_slice(slice_of("web-1", "web", endpoints)),
    ]);
    let mut node = this_node();
    let more = ["10.0.1.1", "127.0.0.1"].map(|it| it.parse::<std::net::IpAddr>().unwrap());
    node.local_addresses.extend(more);
    let mut plan = Plan::default();
    plan.update(&mut index, &node);
    let private = Private::new(&config(), node, &plan).unwrap();
    let from = ["192.168.0.2", "10.0.1.1", "127.0.0.1", POD, CLIENT];
    let packets = from.map(|from| tcp(from, "192.168.0.2", 30080));
    let answers = private.explain(&packets).unwrap();
    let found: Vec<_> = answers.iter().map(|it| (it.verdict, it.masquerade)).collect();
    let (node, pod) = ((Verdict::Forward, true), (Verdict::Forward, false));
    assert_eq!(found, [node, node, node, pod, (Verdict::Drop, false)]);
}

#[test]
fn a_pod_that_may_meet_itself_is_masqueraded_and_one_that_cannot_is_not() {
    let (node, plan) = town();
    let private = Private::new(&config(), node, &plan).unwrap();
    // A backend here and one elsewhere, each of which may be chosen.
    let from = ["10.0.0.1", "10.0.0.2", POD];
    let packets: Vec<_> = (0..32)
        .flat_map(|port| {
            from.map(|from| Packet { sport: Some(1000 + port), ..tcp(from, CLUSTER_IP, 80) })
        })
        .collect();
    for (packet, answer) in packets.iter().zip(private.explain(&packets).unwrap()) {
        assert_eq!(answer.candidates.len(), 2);
        assert_eq!(answer.masquerade, packet.src.to_string() == "10.0.0.1", "{answer:?}");
    }
}

#[test]
fn ipv6_is_answered_alike() {
    let spec = json!({
        "clusterIP": "fd00:96::10", "ipFamilies": ["IPv6"],
        "ports": [{"name": "http", "port": 80}],
    });
    let endpoints = vec![
        json!({"addresses": ["fd00:1::1"], "nodeName": "n1"}),
        json!({"addresses": ["fd00:1::2"], "nodeName": "n2"}),
    ];
    let mut slice = slice_of("web-1", "web", endpoints);
    slice.address_type = "IPv6".into();
    let mut index = index_of([apply_service(service("web", spec)), apply_slice(slice)]);
    let mut node = this_node();
    node.addresses = vec!["2001:db8::1".parse().unwrap()];
    node.local_addresses = node.addresses.clone();
    node.pod_cidrs = vec!["fd00:1::/64".parse().unwrap()];
    let mut plan = Plan::default();
    plan.update(&mut index, &node);
    let private = Private::new(&config(), node, &plan).unwrap();
    let from = ["2001:db8:9::9", "fd00:1::7"];
    let to = [("fd00:96::10", 80), ("fd00:96::10", 81)];
    let packets: Vec<_> =
        from.into_iter().flat_map(|from| to.map(|(to, port)| tcp(from, to, port))).collect();
    let answers = private.explain(&packets).unwrap();
    let found: Vec<_> = answers
        .iter()
        .map(|it| (it.verdict, &it.candidates[..], it.masquerade, it.via.unwrap()))
        .collect();
    let both = places(&["[fd00:1::1]:8080", "[fd00:1::2]:8080"]);
    let wanted: [(_, &[_], _, _); 4] = [
        (Verdict::Forward, &both, true, Via::Tc),
        (Verdict::Reject, &[], false, Via::Tc),
        (Verdict::Forward, &both, false, Via::Socket),
        (Verdict::Reject, &[], false, Via::Socket),
    ];
    assert_eq!(found, wanted);
}
