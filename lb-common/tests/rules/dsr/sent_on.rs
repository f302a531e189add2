//! Slots that led elsewhere before: what a node does not know is sent on, and comes back.

use lb_common::{
    abi::NodeSlot,
    path::Hook,
    verdict::{Reason, Verdict},
    wire::proto,
};

use super::{
    super::{
        envelopes::{BACK, FRESH, SENT_ON},
        support::{ACK, RST, SYN, Sample},
        town::{HOP, SERVICE, Town, seconds},
    },
    REST, delivered, from_peer, sent, towns, towns_of,
};

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
