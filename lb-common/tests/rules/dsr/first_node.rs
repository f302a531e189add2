//! The first node: whom a packet from outside is sent to, and what is served there and then.

use lb_common::{
    abi::{Answer, Scope},
    path::Hook,
    verdict::{Reason, Verdict},
    wire::proto,
    world::Route,
};

use super::{
    super::{
        envelopes::{FRESH, SENT_ON, opened},
        support::{ACK, FIN, RST, SYN, ip},
        town::{HOP, NODE_PORT, PORT, SERVICE, Town},
    },
    REST, sent, towns, towns_of,
};

#[test]
fn the_first_node_sends_a_packet_as_it_is_to_the_node_of_its_slot_and_keeps_nothing() {
    for hook in [Hook::Xdp, Hook::Tc] {
        for town in towns(hook, 1, 1, (2, 2)) {
            for (port, flags) in [(40_000, SYN), (40_001, ACK), (40_002, ACK | FIN), (40_003, RST)]
            {
                let packet = town.to_vip(port, flags);
                let run = town.arrive(&packet);
                let (outside, inner) = sent(&town, &run);
                assert_eq!(
                    (outside.dst.to_string(), outside.ttl),
                    (town.names.peers[0].into(), FRESH)
                );
                assert_eq!(inner, packet.hopped(HOP.dst(), HOP.src()));
            }
            assert!(!town.flows().contains("Tuple"), "{}", town.flows());
        }
    }
}

#[test]
fn nodes_with_other_numbers_for_the_same_ring_lead_a_flow_alike() {
    let slots = [(2, 2), (1, 1), (3, 3)];
    for (one, other) in towns(Hook::Tc, 1, 1, (2, 2)).into_iter().zip(towns(Hook::Tc, 0, 1, (2, 2)))
    {
        // Here the other town's node 3 is this node, its 1 is 2 and its 2 is 3.
        let (one, other) =
            (one.spread(&slots), other.spread(&slots.map(|(n, _)| (n % 3 + 1, n % 3 + 1))));
        for port in 40_000..40_060 {
            let packet = one.to_vip(port, SYN);
            let number = |town: &Town| match town.arrive(&packet) {
                run if run.reason == Reason::ToNode => {
                    let to = opened(&run.bytes).0.dst.to_string();
                    2 + town.names.peers.iter().position(|peer| *peer == to).unwrap() as u32
                }
                _ => 1,
            };
            assert_eq!(number(&one) % 3 + 1, number(&other));
        }
    }
}

#[test]
fn with_affinity_all_flows_of_a_client_lead_to_one_node() {
    let nodes = |town: &Town| {
        let reasons = (40_000..40_040).map(|port| town.arrive(&town.to_vip(port, SYN)));
        let mut seen: Vec<_> = reasons
            .map(|run| (run.reason == Reason::ToNode).then(|| opened(&run.bytes).0.dst))
            .collect();
        seen.sort();
        seen.dedup();
        seen.len()
    };
    for town in towns(Hook::Tc, 1, 0, (2, 2)) {
        let mut town = town.spread(&[(1, 1), (2, 2), (3, 3)]);
        assert_eq!(nodes(&town), 3);
        let service = town.world.services[&SERVICE];
        let sticky = lb_common::abi::Service::new(1, 60).with_usable_here();
        let sticky = [(Scope::Cluster, false), (Scope::Local, true), (Scope::Nodes, true)]
            .into_iter()
            .fold(sticky, |row, (scope, ring)| {
                row.with_answer(scope, ring, service.answer(scope, ring))
            });
        town.world.services.insert(SERVICE, sticky);
        assert_eq!(nodes(&town), 1);
    }
}

#[test]
fn pods_cluster_ips_and_unknown_node_addresses_are_not_spread() {
    for mut town in towns(Hook::Tc, 0, 1, (2, 2)) {
        let names = town.names;
        for (src, dst, port) in
            [(names.pod, names.vip, PORT), (names.client, names.cluster_ip, PORT)]
        {
            let run = town.arrive(&town.packet(src, 40_000, dst, port, SYN));
            assert_eq!(run.reason, Reason::ToRemote, "{src} {dst}");
        }
        let node_port = town.packet(names.client, 40_001, names.node, NODE_PORT, SYN);
        assert_eq!(town.arrive(&node_port).reason, Reason::ToNode);
        // Others know this node by another address.
        let known = town.world.nodes[&2];
        town.world.nodes.insert(1, known);
        assert_eq!(town.arrive(&node_port).reason, Reason::ToRemote);
    }
}

#[test]
fn source_ranges_are_looked_at_before_a_packet_is_sent_to_a_node() {
    for mut town in towns(Hook::Tc, 0, 1, (2, 2)) {
        town.world.change_service(SERVICE, lb_common::abi::Service::with_source_ranges);
        town.ends(&town.to_vip(40_000, SYN), Reason::SourceRange);
        town.allow_source(town.names.client);
        assert_eq!(town.arrive(&town.to_vip(40_000, SYN)).reason, Reason::ToNode);
    }
}

#[test]
fn without_endpoints_the_first_node_refuses() {
    for mut town in towns(Hook::Tc, 0, 0, (2, 2)) {
        town.world
            .change_service(SERVICE, |row| row.with_answer(Scope::Nodes, true, Answer::REJECT));
        town.rejected(&town.to_vip(40_000, SYN), Reason::NoEndpoints);
    }
}

#[test]
fn what_does_not_fit_with_its_envelope_is_too_big_and_the_client_learns_what_does() {
    for mut town in towns(Hook::Tc, 0, 1, (2, 2)) {
        let outer = if town.names.v4 { 20 } else { 40 };
        let mut packet = town.to_vip(40_000, ACK);
        packet.payload = vec![7; 1300];
        let length = (packet.bytes().len() - 14) as u16;
        let peer = town.names.peers[0];
        if town.names.v4 {
            town.world.v4.mtus.insert(ip(peer), length + outer - 1);
        } else {
            town.world.v6.mtus.insert(ip(peer), length + outer - 1);
        }
        let frame = |df| {
            let mut frame = packet.bytes();
            if town.names.v4 {
                frame[20] = if df { 0x40 } else { 0 };
                frame[24..26].fill(0);
                let sum = etherparse::Ipv4Header::from_slice(&frame[14..]).unwrap().0;
                frame[24..26].copy_from_slice(&sum.calc_header_checksum().to_be_bytes());
            }
            frame
        };
        let run = town.world.arrive(&frame(true));
        assert_eq!((run.reason, run.verdict), (Reason::TooBig, Verdict::Reject));
        assert_eq!(run.outcome.mtu, length - 1);
        if town.names.v4 {
            let run = town.world.arrive(&frame(false));
            assert_eq!((run.reason, run.verdict), (Reason::TooBig, Verdict::Drop));
        }
        packet.payload.pop();
        assert_eq!(town.arrive(&packet).reason, Reason::ToNode, "one byte less fits");
    }
}

#[test]
fn without_a_neighbour_xdp_leaves_it_to_tc_and_the_last_hop_goes_no_further() {
    for mut town in towns(Hook::Xdp, 0, 1, (2, 2)) {
        let mut old = town.to_vip(40_000, ACK);
        old.ttl = 1;
        town.ends(&old, Reason::TtlExpired);
        town.route(Route::Stack);
        town.ends(&town.to_vip(40_001, ACK), Reason::NeedsStack);
    }
}

#[test]
fn the_share_of_nodes_without_an_agent_is_served_by_snat_at_the_first_node() {
    for mut town in towns(Hook::Tc, 0, 2, (REST, REST)) {
        let ring = town.world.services[&SERVICE].answer(Scope::Cluster, true);
        // One of two backends is where no agent runs.
        let line = town.world.add_segment(SERVICE, 77, &[21; 251]);
        assert_ne!(ring.line(), line);
        town.world.change_service(SERVICE, |row| {
            row.with_answer(Scope::Rest, true, Answer::ring(line, 77, 0))
        });
        for port in 40_000..40_010 {
            let seen = town.forwarded(&town.to_vip(port, SYN));
            assert_eq!(seen.dst, town.listens(21));
            let back = town.returned(&seen.answered(SYN | ACK));
            assert_eq!(back.dst, town.to_vip(port, SYN).src);
        }
    }
}

#[test]
fn flows_that_a_node_served_by_snat_go_on_when_their_slot_is_anothers() {
    for town in towns(Hook::Tc, 0, 1, (2, REST)) {
        let mut town = town;
        town.world.settings.own_node = 0;
        let seen = town.forwarded(&town.to_vip(40_000, SYN));
        town.world.settings.own_node = 1;
        assert_eq!(town.forwarded(&town.to_vip(40_000, ACK)).src, seen.src);
        assert_eq!(town.arrive(&town.to_vip(40_001, ACK)).reason, Reason::ToNode);
    }
}

#[test]
fn flows_of_a_node_that_lost_its_agent_are_looked_for_there() {
    for town in towns_of(proto::TCP, Hook::Tc, 0, (REST, 2)) {
        let run = town.arrive(&town.to_vip(40_000, ACK));
        let (outside, _) = sent(&town, &run);
        assert_eq!((outside.dst.to_string(), outside.ttl), (town.names.peers[0].into(), SENT_ON));
    }
}
