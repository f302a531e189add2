//! The second node: which envelopes it opens, and what its backends get and answer.

use lb_common::{
    abi::{Answer, BackendState, Scope},
    path::Hook,
    verdict::{Reason, Verdict},
    wire::proto,
};

use super::{
    super::{
        envelopes::{FRESH, SENT_ON, outside, wrapped},
        support::{ACK, SYN, Sample},
        town::{NODE_PORT, PORT, SERVICE},
    },
    delivered, from_peer, sent, towns, towns_of,
};

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
