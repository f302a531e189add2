//! DSR in two steps, held against envelopes that etherparse writes and reads.

use lb_common::{
    abi::{Answer, BackendState, NodeSlot, Scope},
    model::Run,
    path::Hook,
    verdict::{Reason, Verdict},
    wire::proto,
    world::Route,
};

use super::{
    envelopes::{BACK, FRESH, Outside, SENT_ON, opened, outside, unwrapped, wrapped},
    support::{ACK, FIN, RST, SYN, Sample},
    town::{HOP, NODE_PORT, PORT, SERVICE, Town, seconds},
};

const REST: u32 = NodeSlot::REST;

/// Towns where every flow's slot is this one.
fn towns(hook: Hook, here: usize, there: usize, slot: (u32, u32)) -> Vec<Town> {
    let towns = Town::all(hook).into_iter();
    towns.map(|town| town.with_backends(here, there).spread(&[slot])).collect()
}

/// The same for one protocol.
fn towns_of(protocol: u8, hook: Hook, here: usize, slot: (u32, u32)) -> Vec<Town> {
    let all = towns(hook, here, 2, slot);
    all.into_iter().filter(|town| town.protocol == protocol).collect()
}

/// What leaves for another node: the envelope and the packet in it, one hop older.
#[track_caller]
fn sent(town: &Town, run: &Run) -> (Outside, Sample) {
    assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToNode));
    assert_eq!((run.outcome.service, run.outcome.hop), (SERVICE, HOP));
    let (outside, inner) = opened(&run.bytes);
    assert_eq!(outside.src.to_string(), town.names.node);
    (outside, inner)
}

/// A packet of the client's that comes in an envelope from the first of the others.
fn from_peer(town: &Town, sample: &Sample, ttl: u8) -> Vec<u8> {
    wrapped(&sample.bytes(), outside(town.names.peers[0], town.names.node, ttl))
}

/// What a backend on this node gets of a packet that comes in an envelope.
#[track_caller]
fn delivered(town: &Town, sample: &Sample, ttl: u8) -> Sample {
    let run = town.world.arrive(&from_peer(town, sample, ttl));
    assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ToLocal), "{sample:?}");
    Sample::read(&run.bytes)
}

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
            town.world.v4.mtus.insert(super::support::ip(peer), length + outer - 1);
        } else {
            town.world.v6.mtus.insert(super::support::ip(peer), length + outer - 1);
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
fn the_second_node_opens_the_envelope_and_its_backends_answer_with_the_dialled_address() {
    for town in towns(Hook::Tc, 2, 1, (1, 1)) {
        let names = town.names;
        let node_port = town.packet(names.client, 40_001, names.peers[0], NODE_PORT, SYN);
        for packet in [town.to_vip(40_000, SYN), node_port] {
            let seen = delivered(&town, &packet, FRESH);
            assert_eq!(seen.src, packet.src, "the backend sees the client");
            let id = [10, 11].into_iter().find(|id| town.listens(*id) == seen.dst);
            assert!(id.is_some(), "{seen:?}");
            assert_eq!(seen, packet.between(packet.src, seen.dst));
            let answer = seen.answered(SYN | ACK);
            assert_eq!(town.left(&answer), answer.between(packet.dst, packet.src));
            let more = packet.between(packet.src, packet.dst);
            assert_eq!(delivered(&town, &more, SENT_ON).dst, seen.dst, "its flow is known");
        }
    }
}

#[test]
fn xdp_leaves_envelopes_as_they_are_to_tc() {
    for town in towns(Hook::Xdp, 1, 1, (1, 1)) {
        let frame = from_peer(&town, &town.to_vip(40_000, SYN), FRESH);
        let run = town.world.arrive(&frame);
        assert_eq!((run.verdict, run.bytes), (Verdict::Pass, frame));
    }
}

#[test]
fn envelopes_of_strangers_or_with_something_else_in_them_are_not_touched() {
    for town in towns(Hook::Tc, 1, 1, (1, 1)) {
        let names = town.names;
        let ours = town.to_vip(40_000, SYN);
        let to_pod = town.packet(names.peers[0], 4000, names.here[0], NODE_PORT, SYN);
        let to_node = town.packet(names.client, 4000, names.peers[0], 22, SYN);
        let inside = town.packet(names.client, 4000, names.cluster_ip, PORT, SYN);
        let frames = [
            wrapped(&ours.bytes(), outside(names.client, names.node, FRESH)),
            wrapped(&ours.bytes(), outside(names.peers[0], names.peers[1], FRESH)),
            from_peer(&town, &to_pod, FRESH),
            from_peer(&town, &to_node, FRESH),
            from_peer(&town, &inside, FRESH),
            {
                let mut cut = from_peer(&town, &ours, FRESH);
                cut.truncate(cut.len() - 1);
                cut
            },
        ];
        for frame in frames {
            let run = town.world.arrive(&frame);
            assert_eq!((run.verdict, run.reason), (Verdict::Pass, Reason::NotService));
            assert_eq!(run.bytes, frame);
        }
        assert!(!town.flows().contains("Tuple"));
    }
}

#[test]
fn a_node_that_does_not_spread_opens_nothing() {
    for mut town in towns(Hook::Tc, 1, 1, (1, 1)) {
        town.world.settings.own_node = 0;
        let frame = from_peer(&town, &town.to_vip(40_000, SYN), FRESH);
        let run = town.world.arrive(&frame);
        assert_eq!((run.reason, run.bytes), (Reason::NotService, frame));
    }
}

#[test]
fn what_the_second_node_does_not_know_is_sent_on_once_to_where_its_slot_led_before() {
    for protocol in [proto::TCP, proto::SCTP] {
        for town in towns_of(protocol, Hook::Tc, 1, (1, 3)) {
            let packet = town.to_vip(40_000, ACK);
            let run = town.world.arrive(&from_peer(&town, &packet, FRESH));
            let (outside, inner) = sent(&town, &run);
            assert_eq!(
                (outside.dst.to_string(), outside.ttl),
                (town.names.peers[1].into(), SENT_ON)
            );
            assert_eq!(inner, packet.hopped(HOP.dst(), HOP.src()));
            // The same without an envelope: this node is the first and the second.
            let run = town.arrive(&packet);
            assert_eq!(sent(&town, &run).0, outside);
            // A connection that begins is served here.
            assert_eq!(delivered(&town, &town.to_vip(40_001, SYN), FRESH).dst, town.listens(10));
        }
    }
}

#[test]
fn a_node_that_a_ring_no_longer_names_sends_on_to_the_one_that_it_names_now() {
    for town in towns_of(proto::TCP, Hook::Tc, 1, (3, 1)) {
        let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_000, ACK), FRESH));
        let (outside, _) = sent(&town, &run);
        assert_eq!((outside.dst.to_string(), outside.ttl), (town.names.peers[1].into(), SENT_ON));
    }
}

#[test]
fn what_was_sent_on_and_is_still_unknown_is_reset_towards_the_client() {
    for town in towns_of(proto::TCP, Hook::Tc, 1, (1, 3)) {
        let packet = town.to_vip(40_000, ACK);
        let run = town.world.arrive(&from_peer(&town, &packet, SENT_ON));
        assert_eq!((run.verdict, run.reason), (Verdict::Reject, Reason::UnknownFlow));
        let reset = Sample::read(&run.bytes);
        assert_eq!((reset.src, reset.dst), (packet.dst, packet.src));
        assert_eq!(run.outcome.hop, HOP, "not to the node that the envelope came from");
    }
    for town in towns_of(proto::TCP, Hook::Tc, 1, (1, 1)) {
        let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_000, ACK), FRESH));
        assert_eq!(run.reason, Reason::UnknownFlow, "there was no other node");
    }
}

#[test]
fn where_no_backend_is_usable_a_connection_that_begins_is_sent_on_once_and_else_served_by_snat() {
    for town in towns(Hook::Tc, 0, 1, (1, 3)) {
        let packet = town.to_vip(40_000, SYN);
        let run = town.world.arrive(&from_peer(&town, &packet, FRESH));
        let (outside, _) = sent(&town, &run);
        assert_eq!((outside.dst.to_string(), outside.ttl), (town.names.peers[1].into(), SENT_ON));
        let run = town.world.arrive(&from_peer(&town, &packet, SENT_ON));
        assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToRemote));
        let seen = Sample::read(&run.bytes);
        assert_eq!(seen.dst, town.listens(20));
        assert_eq!(seen.src.ip().to_string(), town.names.node);
        let back = town.returned(&seen.answered(SYN | ACK));
        assert_eq!((back.src, back.dst), (packet.dst, packet.src));
    }
    for mut town in towns(Hook::Tc, 0, 0, (1, 3)) {
        town.world.set_nothing(SERVICE, Scope::Local, Answer::REJECT);
        let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_000, SYN), SENT_ON));
        assert_eq!((run.verdict, run.reason), (Verdict::Reject, Reason::NoEndpoints));
    }
}

#[test]
fn terminating_backends_here_get_nothing_new_while_others_are_ready() {
    for mut town in towns(Hook::Tc, 1, 1, (1, 3)) {
        // The local set falls back to them; the ring over nodes does not.
        let row = town.world.services[&SERVICE];
        let bare = lb_common::abi::Service::new(1, 0);
        let bare = [(Scope::Cluster, false), (Scope::Local, true), (Scope::Nodes, true)]
            .into_iter()
            .fold(bare, |bare, (scope, ring)| {
                bare.with_answer(scope, ring, row.answer(scope, ring))
            });
        town.world.services.insert(SERVICE, bare);
        let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_000, SYN), FRESH));
        assert_eq!(run.reason, Reason::ToNode);
    }
}

/// The same with a ring that last changed so many seconds ago.
fn changed(mut towns: Vec<Town>, (now, before): (u32, u32), ago: u32) -> Vec<Town> {
    for town in &mut towns {
        let tick = town.world.now.get().wrapping_sub(seconds(ago));
        town.world.set_nodes(SERVICE, &[NodeSlot { now, before, asks: true }], tick);
    }
    towns
}

#[test]
fn what_may_begin_a_flow_is_asked_about_where_its_slot_led_before_and_begins_when_it_comes_back() {
    for town in changed(towns(Hook::Tc, 1, 1, (1, 3)), (1, 3), 1) {
        for (port, frame) in [
            (40_000, from_peer(&town, &town.to_vip(40_000, SYN), FRESH)),
            (40_001, town.to_vip(40_001, SYN).bytes()),
        ] {
            let (outside, _) = sent(&town, &town.world.arrive(&frame));
            assert_eq!(
                (outside.dst.to_string(), outside.ttl),
                (town.names.peers[1].into(), SENT_ON)
            );
            let seen = delivered(&town, &town.to_vip(port, SYN), BACK);
            assert_eq!(seen.dst, town.listens(10));
            assert_eq!(delivered(&town, &town.to_vip(port, SYN), FRESH), seen, "now it is known");
        }
    }
}

#[test]
fn where_a_slot_led_before_known_flows_go_on_and_what_begins_one_goes_back() {
    for town in changed(towns(Hook::Tc, 1, 1, (1, 1)), (1, 1), 1) {
        let seen = delivered(&town, &town.to_vip(40_000, SYN), FRESH);
        let moved = changed(vec![town], (2, 1), 1).remove(0);
        assert_eq!(delivered(&moved, &moved.to_vip(40_000, SYN), SENT_ON), seen);
        let run = moved.world.arrive(&from_peer(&moved, &moved.to_vip(40_001, SYN), SENT_ON));
        let (outside, inner) = sent(&moved, &run);
        assert_eq!((outside.dst.to_string(), outside.ttl), (moved.names.peers[0].into(), BACK));
        assert_eq!(inner.dst, moved.to_vip(40_001, SYN).dst);
        if moved.protocol == proto::TCP {
            // One that is over begins anew there too.
            delivered(&moved, &moved.to_vip(40_000, RST), SENT_ON);
            let run = moved.world.arrive(&from_peer(&moved, &moved.to_vip(40_000, SYN), SENT_ON));
            assert_eq!(sent(&moved, &run).0.ttl, BACK);
        }
    }
}

#[test]
fn nobody_is_asked_about_connections_when_no_syn_comes_again_any_more() {
    for town in changed(towns(Hook::Tc, 1, 1, (1, 3)), (1, 3), 65) {
        if town.protocol != proto::UDP {
            delivered(&town, &town.to_vip(40_000, SYN), FRESH);
        }
    }
}

#[test]
fn what_is_unknown_where_its_slot_led_before_comes_back_to_be_refused() {
    for town in changed(towns_of(proto::TCP, Hook::Tc, 1, (2, 1)), (2, 1), 3600) {
        let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_000, ACK), SENT_ON));
        let (outside, _) = sent(&town, &run);
        assert_eq!((outside.dst.to_string(), outside.ttl), (town.names.peers[0].into(), BACK));
    }
}

/// A client that resets a connection may use its port again at once; the new connection began where the
/// slot led then.
#[test]
fn the_ports_of_a_connection_that_is_over_here_may_be_anothers_elsewhere() {
    for town in changed(towns_of(proto::TCP, Hook::Tc, 1, (1, 3)), (1, 3), 1) {
        let old = delivered(&town, &town.to_vip(40_000, SYN), BACK);
        delivered(&town, &town.to_vip(40_000, RST), FRESH);
        let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_000, ACK), FRESH));
        let (outside, _) = sent(&town, &run);
        assert_eq!((outside.dst.to_string(), outside.ttl), (town.names.peers[1].into(), SENT_ON));
        assert_eq!(
            delivered(&town, &town.to_vip(40_000, ACK), BACK).dst,
            old.dst,
            "nobody's there"
        );
        let settled = changed(vec![town], (1, 3), 61).remove(0);
        assert_eq!(delivered(&settled, &settled.to_vip(40_000, ACK), FRESH).dst, old.dst);
    }
}

/// Nobody there would answer.
#[test]
fn a_node_without_endpoints_that_serve_is_not_asked_about_what_may_begin_a_flow() {
    for mut town in towns(Hook::Tc, 1, 1, (1, 3)) {
        let slot = NodeSlot { now: 1, before: 3, asks: false };
        town.world.set_nodes(SERVICE, &[slot], town.world.now.get());
        let seen = delivered(&town, &town.to_vip(40_000, SYN), FRESH);
        assert_eq!(seen.dst, town.listens(10));
        if town.protocol == proto::TCP {
            // What is in mid-stream may still be heard there.
            let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_001, ACK), FRESH));
            sent(&town, &run);
        }
    }
}

#[test]
fn what_begins_where_no_agent_is_now_does_not_begin_where_its_slot_led_before() {
    for town in changed(towns(Hook::Tc, 1, 1, (REST, 3)), (REST, 3), 1) {
        let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_000, SYN), FRESH));
        assert_eq!(run.reason, Reason::ToLocal);
    }
}

#[test]
fn what_came_back_goes_no_further() {
    for town in changed(towns(Hook::Tc, 1, 1, (1, 3)), (1, 3), 1) {
        let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_000, ACK), BACK));
        let ends = if town.protocol == proto::UDP { Reason::ToLocal } else { Reason::UnknownFlow };
        assert_eq!(run.reason, ends);
    }
    // Not even where no backend is usable.
    for town in changed(towns(Hook::Tc, 0, 1, (1, 3)), (1, 3), 1) {
        let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_000, SYN), BACK));
        assert_eq!(run.reason, Reason::ToRemote);
    }
}

#[test]
fn unknown_datagrams_are_sent_on_only_while_their_slot_is_new() {
    for mut town in towns_of(proto::UDP, Hook::Tc, 1, (1, 3)) {
        let old = delivered(&town, &town.to_vip(40_000, 0), FRESH);
        assert_eq!(old.dst, town.listens(10), "the ring is an hour old");
        let slot = NodeSlot { now: 1, before: 3, asks: true };
        let now = town.world.now.get();
        let minute = now.wrapping_sub(seconds(60));
        town.world.set_nodes(SERVICE, &[slot], minute);
        let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_001, 0), FRESH));
        let (outside, _) = sent(&town, &run);
        assert_eq!(outside.ttl, SENT_ON);
        assert_eq!(delivered(&town, &town.to_vip(40_000, 0), FRESH), old, "a known flow stays");
        assert_eq!(delivered(&town, &town.to_vip(40_002, 0), SENT_ON).dst, town.listens(10));
    }
}

#[test]
fn a_backend_that_is_gone_for_good_resets_its_connections_and_one_that_left_keeps_them() {
    for mut town in towns_of(proto::TCP, Hook::Tc, 1, (1, 3)) {
        for flags in [SYN, ACK] {
            delivered(&town, &town.to_vip(40_000, flags), FRESH);
        }
        town.retire(10, BackendState::Retired, false);
        delivered(&town, &town.to_vip(40_000, ACK), FRESH);
        town.retire(10, BackendState::Gone, false);
        let run = town.world.arrive(&from_peer(&town, &town.to_vip(40_000, ACK), FRESH));
        assert_eq!((run.verdict, run.reason), (Verdict::Reject, Reason::BackendGone));
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

/// An ICMP error from a router about an answer that went to the client.
fn error(town: &Town, answer: &Sample) -> Vec<u8> {
    let quoted = &answer.bytes()[14..];
    let router = if town.names.v4 { "198.51.100.200" } else { "2001:db8:9::fe" };
    let dst = answer.src.ip();
    let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]);
    let mut frame = Vec::new();
    match (router.parse().unwrap(), dst) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
            let kind = etherparse::Icmpv4Type::DestinationUnreachable(
                etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu: 1280,
                },
            );
            let builder = builder.ipv4(src.octets(), dst.octets(), 60).icmpv4(kind);
            builder.write(&mut frame, quoted).unwrap();
        }
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
            let kind = etherparse::Icmpv6Type::PacketTooBig { mtu: 1280 };
            let builder = builder.ipv6(src.octets(), dst.octets(), 60).icmpv6(kind);
            builder.write(&mut frame, quoted).unwrap();
        }
        _ => panic!("one family"),
    }
    frame
}

#[test]
fn an_error_about_an_answer_goes_the_way_of_its_flow_to_the_backend() {
    for town in towns(Hook::Tc, 1, 1, (1, 3)) {
        let dialled = town.to_vip(40_000, SYN);
        let seen = delivered(&town, &dialled, FRESH);
        let frame = error(&town, &dialled.answered(SYN | ACK));
        let inside = wrapped(&frame, outside(town.names.peers[0], town.names.node, FRESH));
        for frame in [frame, inside] {
            let run = town.world.arrive(&frame);
            assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ErrorLocal));
            let to = &run.bytes[if town.names.v4 { 30..34 } else { 38..54 }];
            let backend = match seen.dst.ip() {
                std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
                std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            assert_eq!(to, backend);
        }
    }
    for (slot, to) in [((2, 2), 0), ((1, 3), 1)] {
        for town in towns(Hook::Tc, 1, 1, slot) {
            let frame = error(&town, &town.to_vip(40_000, SYN).answered(SYN | ACK));
            let run = town.world.arrive(&frame);
            assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToNode));
            let (outside, inner) = unwrapped(&run.bytes);
            assert_eq!(outside.dst.to_string(), town.names.peers[to]);
            assert_eq!(outside.ttl, if to == 0 { FRESH } else { SENT_ON });
            let hop = if town.names.v4 { 22 } else { 21 };
            assert_eq!(inner[hop], frame[hop] - 1);
            let rest = if town.names.v4 { 26 } else { 22 };
            assert_eq!(inner[rest..], frame[rest..]);
        }
    }
}

#[test]
fn an_answer_for_nobody_in_an_envelope_is_not_passed_off_as_one() {
    for town in towns(Hook::Tc, 1, 1, (1, 1)) {
        let elsewhere = town.packet(town.names.client, 9, town.names.unallocated, 9, ACK);
        let mut frame = error(&town, &elsewhere);
        frame = wrapped(&frame, outside(town.names.peers[0], town.names.node, FRESH));
        let run = town.world.arrive(&frame);
        assert_eq!((run.verdict, run.bytes), (Verdict::Pass, frame));
    }
}
