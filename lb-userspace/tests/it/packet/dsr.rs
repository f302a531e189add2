//! DSR in the kernel and in this process: both families and every protocol, at XDP and at tc.

use lb_common::{
    abi::NodeSlot,
    model::Run,
    verdict::{Reason, Verdict},
    wire::proto,
};

use super::{
    both::{ARRIVING, Both, now, patient, tell, tell_arriving, towns},
    envelopes::{BACK, FRESH, Outside, SENT_ON, opened, outside, unwrapped, wrapped},
    extras::{fragments, joined},
    kernel::Program,
    network::{NARROW_MTU, Way},
    support::{ACK, FIN, SYN, Sample},
    town::{NODE_PORT, SERVICE, Town, seconds},
};

const REST: u32 = NodeSlot::REST;

/// Towns where every flow's slot is this one.
fn spread(here: usize, there: usize, slot: (u32, u32)) -> Vec<Town> {
    let towns = patient(towns(here, there)).into_iter();
    towns.map(|town| town.spread(&[slot])).collect()
}

/// What leaves for another node: the envelope and the packet in it.
#[track_caller]
fn sent(run: &Run) -> (Outside, Sample) {
    assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToNode));
    opened(&run.bytes)
}

/// What comes in at tc in an envelope from the first of the others.
#[track_caller]
fn from_peer(both: &mut Both, frame: &[u8], ttl: u8) -> Run {
    let names = both.town.names;
    let frame = wrapped(frame, outside(names.peers[0], names.node, ttl));
    both.run(Program::Ingress, &frame)
}

#[test]
fn packets_of_any_kind_leave_for_the_node_of_their_slot_and_nothing_is_kept() {
    tell_arriving(
        || spread(1, 1, (2, 2)),
        |both, program| {
            let names = both.town.names;
            let node_port = both.from_client(40_000, names.node, NODE_PORT, SYN);
            // The first asks for the way, the others know it; XDP takes the shortcut for some.
            for packet in [
                node_port,
                both.town.to_vip(40_001, SYN),
                both.town.to_vip(40_001, ACK),
                both.town.to_vip(40_002, ACK),
                both.town.to_vip(40_002, ACK | FIN),
            ] {
                let run = both.arrive(program, &packet);
                let (envelope, inner) = sent(&run);
                assert_eq!(
                    (envelope.dst.to_string(), envelope.ttl),
                    (names.peers[0].into(), FRESH)
                );
                assert_eq!((inner.src, inner.dst), (packet.src, packet.dst));
                assert_eq!((inner.ttl, &inner.payload), (packet.ttl - 1, &packet.payload));
            }
            assert!(both.flows_of_kernel().is_empty());
        },
    );
}

#[test]
fn a_ring_of_three_nodes_leads_every_flow_alike_in_both_worlds() {
    tell_arriving(
        || {
            let towns = patient(towns(1, 1)).into_iter();
            towns.map(|town| town.spread(&[(1, 1), (2, 3), (3, 3)])).collect()
        },
        |both, program| {
            for port in 40_000..40_030 {
                both.arrive(program, &both.town.to_vip(port, ACK));
            }
        },
    );
}

#[test]
fn longer_packets_than_fit_with_their_envelope_are_answered_with_what_does() {
    tell_arriving(
        || spread(0, 1, (2, 2)),
        |both, program| {
            let outer = if both.town.names.v4 { 20 } else { 40 };
            both.lead(both.town.names.peers[0], Way::Narrow);
            let mut packet = both.town.to_vip(40_000, ACK);
            packet.payload.clear();
            let headers = packet.bytes().len() - 14;
            packet.payload = vec![7; usize::from(NARROW_MTU) - outer - headers];
            let fits = both.arrive(program, &packet);
            let left = if program == Program::Xdp { Reason::NeedsStack } else { Reason::ToNode };
            assert_eq!(fits.reason, left);
            packet.payload.push(7);
            both.kernel.programs.forget_ways();
            both.town
                .world
                .ways_to_nodes
                .iter()
                .for_each(|ways| ways.iter().for_each(|w| w.set(0)));
            let run = both.arrive(program, &packet);
            assert_eq!((run.verdict, run.reason), (Verdict::Reject, Reason::TooBig));
            assert_eq!(usize::from(run.outcome.mtu), usize::from(NARROW_MTU) - outer);
        },
    );
}

#[test]
fn xdp_leaves_to_tc_what_has_no_neighbour_and_every_envelope() {
    tell(spread(1, 1, (2, 2)), |both| {
        both.lead(both.town.names.peers[0], Way::NoNeighbour);
        let packet = both.town.to_vip(40_000, ACK);
        both.ends(Program::Xdp, &packet, Reason::NeedsStack);
        assert_eq!(both.arrive(Program::Ingress, &packet).reason, Reason::ToNode);
        let names = both.town.names;
        let frame = wrapped(&packet.bytes(), outside(names.peers[0], names.node, FRESH));
        both.frame_ends(Program::Xdp, &frame, Reason::NotService);
    });
}

#[test]
fn the_second_node_delivers_what_was_in_an_envelope_and_answers_leave_as_dialled() {
    tell(spread(2, 0, (1, 1)), |both| {
        let names = both.town.names;
        let node_port = both.from_client(40_001, names.peers[0], NODE_PORT, SYN);
        for packet in [both.town.to_vip(40_000, SYN), node_port] {
            for ttl in [FRESH, SENT_ON] {
                let run = from_peer(both, &packet.bytes(), ttl);
                assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ToLocal));
                let seen = Sample::read(&run.bytes);
                assert_eq!(seen.src, packet.src);
                let answer = seen.answered(SYN | ACK);
                assert_eq!(both.left(&answer), answer.between(packet.dst, packet.src));
            }
        }
    });
}

#[test]
fn unknown_packets_are_sent_on_once_and_then_refused_or_served() {
    tell(spread(1, 1, (1, 3)), |both| {
        let names = both.town.names;
        let packet = both.town.to_vip(40_000, ACK);
        if packet.protocol() == proto::UDP {
            let run = from_peer(both, &packet.bytes(), FRESH);
            assert_eq!(run.reason, Reason::ToLocal, "its ring is an hour old");
            return;
        }
        let (envelope, inner) = sent(&from_peer(both, &packet.bytes(), FRESH));
        assert_eq!((envelope.dst.to_string(), envelope.ttl), (names.peers[1].into(), SENT_ON));
        assert_eq!(inner.ttl, packet.ttl - 1);
        let run = from_peer(both, &packet.bytes(), SENT_ON);
        assert_eq!((run.verdict, run.reason), (Verdict::Reject, Reason::UnknownFlow));
        // SCTP gets an ICMP error.
        if packet.protocol() == proto::TCP {
            assert_eq!(Sample::read(&run.bytes).dst, packet.src);
        }
        for program in ARRIVING {
            let (again, _) = sent(&both.arrive(program, &packet));
            assert_eq!(again, envelope, "{program:?}");
        }
    });
}

#[test]
fn what_may_begin_a_flow_goes_to_where_its_slot_led_before_and_back() {
    let moments = |(leads, led): (u32, u32)| {
        let towns = spread(1, 1, (leads, led)).into_iter();
        towns.map(move |mut town| {
            let slot = NodeSlot { now: leads, before: led, asks: true };
            town.world.set_nodes(SERVICE, &[slot], now().wrapping_sub(seconds(1)));
            town
        })
    };
    tell(moments((1, 3)).collect(), |both| {
        let packet = both.town.to_vip(40_000, SYN);
        for program in ARRIVING {
            let (envelope, _) = sent(&both.arrive(program, &packet));
            assert_eq!(envelope.ttl, SENT_ON);
        }
        let run = from_peer(both, &packet.bytes(), BACK);
        assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ToLocal));
    });
    tell(moments((2, 1)).collect(), |both| {
        let packet = both.town.to_vip(40_000, SYN);
        let (envelope, _) = sent(&from_peer(both, &packet.bytes(), SENT_ON));
        let back_to = both.town.names.peers[0];
        assert_eq!((envelope.dst.to_string(), envelope.ttl), (back_to.into(), BACK));
    });
}

#[test]
fn where_nobody_can_serve_any_more_a_connection_goes_on_once_and_then_by_snat() {
    tell(spread(0, 1, (1, 3)), |both| {
        let packet = both.town.to_vip(40_000, SYN);
        sent(&from_peer(both, &packet.bytes(), FRESH));
        let run = from_peer(both, &packet.bytes(), SENT_ON);
        assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToRemote));
        let seen = Sample::read(&run.bytes);
        let back = both.returned(Program::Ingress, &seen.answered(SYN | ACK));
        assert_eq!((back.src, back.dst), (packet.dst, packet.src));
    });
}

#[test]
fn foreign_tunnels_pass_with_every_byte() {
    tell(spread(1, 1, (1, 1)), |both| {
        let names = both.town.names;
        let ours = both.town.to_vip(40_000, SYN).bytes();
        let pods = both.from_client(4000, names.here[0], NODE_PORT, SYN).bytes();
        for (frame, src, dst) in [
            (&ours, names.client, names.node),
            (&ours, names.peers[0], names.peers[1]),
            (&pods, names.peers[0], names.node),
        ] {
            for program in ARRIVING {
                let frame = wrapped(frame, outside(src, dst, FRESH));
                both.frame_ends(program, &frame, Reason::NotService);
            }
        }
    });
}

#[test]
fn every_prefix_of_an_envelope_means_the_same_in_both_worlds() {
    tell(spread(1, 1, (1, 3)), |both| {
        let names = both.town.names;
        let packet = both.town.to_vip(40_000, SYN);
        let frame = wrapped(&packet.bytes(), outside(names.peers[0], names.node, FRESH));
        for length in 14..frame.len() {
            let run = both.run(Program::Ingress, &frame[..length]);
            assert_ne!(run.reason, Reason::ToLocal, "{length} bytes");
        }
    });
}

/// A datagram in three parts.
fn parts(both: &Both) -> Vec<Vec<u8>> {
    let packet = both.town.to_vip(40_000, 0);
    let payload = (0..1000).map(|at| (at % 251) as u8).collect();
    fragments(&Sample { payload, ..packet }, 7, 400)
}

fn udp_spread(here: usize, slot: (u32, u32)) -> Vec<Town> {
    let towns = spread(here, 1, slot).into_iter();
    towns.filter(|town| town.protocol == proto::UDP).collect()
}

#[test]
fn fragments_of_a_datagram_follow_the_first_to_its_node() {
    tell_arriving(
        || udp_spread(0, (2, 2)),
        |both, program| {
            for frame in parts(both) {
                let run = both.run(program, &frame);
                assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToNode));
                let (envelope, inner) = unwrapped(&run.bytes);
                assert_eq!(envelope.dst.to_string(), both.town.names.peers[0]);
                let hops = if both.town.names.v4 { 22 } else { 21 };
                let behind = if both.town.names.v4 { 26 } else { 22 };
                assert_eq!(inner[hops], frame[hops] - 1);
                assert_eq!(inner[behind..], frame[behind..]);
            }
        },
    );
}

#[test]
fn fragments_in_envelopes_arrive_whole_at_one_backend() {
    tell(udp_spread(2, (1, 1)), |both| {
        let sent = parts(both);
        let seen: Vec<_> = sent
            .iter()
            .map(|frame| {
                let run = from_peer(both, frame, FRESH);
                assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ToLocal));
                run.bytes
            })
            .collect();
        assert_eq!(joined(&seen).payload, joined(&sent).payload);
    });
}

#[test]
fn the_share_without_an_agent_and_flows_of_old_go_by_snat() {
    for slot in [(REST, REST), (2, REST)] {
        tell(spread(0, 1, slot), |both| {
            both.town.world.settings.own_node = 0;
            let packet = both.town.to_vip(40_000, SYN);
            let seen = both.forwarded(Program::Ingress, &packet);
            both.town.world.settings.own_node = 1;
            for program in ARRIVING {
                let more = both.town.to_vip(40_000, ACK);
                assert_eq!(both.forwarded(program, &more).src, seen.src, "{slot:?}");
            }
        });
    }
}
