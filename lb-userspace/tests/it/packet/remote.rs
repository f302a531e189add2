//! Backends on other nodes, and the ways there.

use lb_common::{
    abi::Settings,
    path::Outcome,
    verdict::{Reason, Verdict},
};

use super::{
    both::{tell, tell_arriving, towns},
    kernel::Program,
    network::{SECOND, SECOND_HOP, UPLINK, Way},
    support::{ACK, FIN, SYN, Sample},
    town::{HOP, NODE_PORT, SERVICE},
};

#[test]
fn a_backend_elsewhere_sees_this_node() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let sent = both.town.to_vip(40_000, SYN);
            let run = both.arrive(program, &sent);
            assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToRemote));
            let reason = Reason::ToRemote;
            let outcome = Outcome {
                reason,
                verdict: reason.verdict(),
                service: SERVICE,
                backend: 20,
                hop: HOP,
                mtu: 0,
                opened: true,
            };
            assert_eq!(run.outcome, outcome);
            let seen = Sample::read(&run.bytes);
            assert_eq!(seen.src.ip().to_string(), both.town.names.node);
            let want = sent.between(seen.src, both.town.listens(20)).hopped(HOP.dst(), HOP.src());
            assert_eq!(seen, want);
        },
    );
}

#[test]
fn an_answer_from_elsewhere_comes_back_from_the_dialled_address() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let sent = both.town.to_vip(40_000, SYN);
            let answer = both.forwarded(program, &sent).answered(SYN | ACK);
            let want = answer.between(sent.dst, sent.src).hopped(HOP.dst(), HOP.src());
            assert_eq!(both.returned(program, &answer), want);
        },
    );
}

#[test]
fn every_kind_of_address_leads_to_a_backend_elsewhere() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let names = both.town.names;
            for (dst, port) in [(names.cluster_ip, 80), (names.vip, 80), (names.node, NODE_PORT)] {
                let sent = both.from_client(40_000, dst, port, SYN);
                let answer = both.forwarded(program, &sent).answered(SYN | ACK);
                let back = both.returned(program, &answer);
                assert_eq!((back.src, back.dst), (sent.dst, sent.src));
            }
        },
    );
}

#[test]
fn a_flow_that_xdp_began_goes_on_at_tc_and_the_other_way_round() {
    let (xdp, tc) = (Program::Xdp, Program::Ingress);
    for (first, second) in [(xdp, tc), (tc, xdp)] {
        tell(towns(0, 3), |both| {
            let sent = both.town.to_vip(40_000, SYN);
            let seen = both.forwarded(first, &sent);
            assert_eq!(both.forwarded(second, &sent), seen);
            both.returned(second, &seen.answered(SYN | ACK));
            both.returned(first, &seen.answered(ACK));
        });
    }
}

#[test]
fn only_the_first_packet_of_a_flow_is_counted_as_a_connection() {
    tell_arriving(
        || towns(0, 2),
        |both, program| {
            let opened =
                |both: &super::both::Both| both.counts().services[SERVICE as usize].connections;
            let before = opened(both);
            for port in 40_000..40_005 {
                for flags in [SYN, SYN, ACK, ACK, ACK | FIN] {
                    both.forwarded(program, &both.town.to_vip(port, flags));
                }
            }
            assert_eq!(opened(both) - before, 5);
        },
    );
}

#[test]
fn counted_bytes_are_those_of_the_whole_frame_as_it_came() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let payload = vec![7; 1000];
            let sent = Sample { payload, ..both.town.to_vip(40_000, SYN) };
            let (before, frame) = (both.counted(Reason::ToRemote), sent.bytes());
            both.run(program, &frame);
            let mut padded = frame.clone();
            padded.extend([0; 10]);
            both.run(program, &padded);
            let after = both.counted(Reason::ToRemote);
            assert_eq!(after.bytes - before.bytes, 2 * frame.len() as u64 + 10);
            assert_eq!((after.packets - before.packets, after.refused), (2, 0));
        },
    );
}

#[test]
fn the_way_to_another_uplink_is_taken_by_both_programs() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            both.lead(both.town.names.there[0], Way::Second);
            let sent = both.town.to_vip(40_000, SYN);
            let run = both.arrive(program, &sent);
            assert_eq!((run.reason, run.outcome.hop), (Reason::ToRemote, SECOND_HOP));
            let answer = Sample::read(&run.bytes).answered(SYN | ACK);
            assert_eq!(both.returned(program, &answer).macs, (HOP.dst(), HOP.src()));
        },
    );
}

#[test]
fn xdp_leaves_a_packet_for_an_interface_without_xdp_to_tc() {
    for second in [None, Some(0)] {
        tell(towns(0, 1), |both| {
            both.uplinks.remove(&SECOND);
            both.uplinks.extend(second.map(|flags| (SECOND, flags)));
            both.lead(both.town.names.there[0], Way::Second);
            let sent = both.town.to_vip(40_000, SYN);
            let before = both.flows();
            both.ends(Program::Xdp, &sent, Reason::NeedsStack);
            assert_eq!(both.flows(), before, "a flow was made");
            let run = both.arrive(Program::Ingress, &sent);
            assert_eq!(run.outcome.hop, SECOND_HOP);
        });
    }
}

#[test]
fn a_neighbour_that_is_still_to_be_found_is_left_to_tc_and_its_queue() {
    tell(towns(0, 1), |both| {
        both.lead(both.town.names.there[0], Way::NoNeighbour);
        let sent = both.town.to_vip(40_000, SYN);
        let before = both.flows();
        both.ends(Program::Xdp, &sent, Reason::NeedsStack);
        assert_eq!(both.flows(), before, "a flow was made");
        let run = both.arrive(Program::Ingress, &sent);
        assert_eq!((run.reason, run.outcome.hop.interface), (Reason::ToRemote, UPLINK));
        let before = both.flows();
        both.ends(Program::Xdp, &sent, Reason::NeedsStack);
        assert_eq!(both.flows(), before, "a flow was changed");
    });
}

#[test]
fn a_next_hop_that_moves_is_followed_within_a_second() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            both.lead(both.town.names.there[0], Way::Found);
            for place in ["192.0.2.253", "2001:db8::fd"] {
                let known = "lladdr 02:00:00:00:00:be nud permanent dev up0";
                both.kernel.programs.network.ip(&format!("neigh replace {place} {known}\n"));
            }
            let sent = both.town.to_vip(40_000, SYN);
            let first = both.forwarded(program, &sent);
            assert_eq!(first.macs, ([2, 0, 0, 0, 0, 0xbe], HOP.src()));
            both.lead(both.town.names.there[0], Way::Uplink);
            both.wait(Settings::SECOND + 1);
            let second = both.forwarded(program, &sent);
            assert_eq!(second.macs, (HOP.dst(), HOP.src()));
            assert_eq!((second.src, second.dst), (first.src, first.dst), "the same flow");
            both.kernel
                .programs
                .network
                .ip("neigh del 192.0.2.253 dev up0\nneigh del 2001:db8::fd dev up0\n");
        },
    );
}

#[test]
fn without_a_way_tc_drops_by_name_and_remembers_nothing() {
    tell(towns(0, 1), |both| {
        both.lead(both.town.names.there[0], Way::Nowhere);
        let sent = both.town.to_vip(40_000, SYN);
        let before = both.flows();
        both.ends(Program::Xdp, &sent, Reason::NeedsStack);
        both.ends(Program::Ingress, &sent, Reason::NoRoute);
        assert_eq!(both.flows(), before);
    });
}

#[test]
fn a_packet_that_would_die_on_the_way_is_dropped_before_anything_is_remembered() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let sent = both.town.to_vip(40_000, SYN);
            let before = both.flows();
            for ttl in [0, 1] {
                both.ends(program, &Sample { ttl, ..sent.clone() }, Reason::TtlExpired);
            }
            assert_eq!(both.flows(), before);
            let seen = both.forwarded(program, &Sample { ttl: 2, ..sent });
            assert_eq!(seen.ttl, 1);
            let late = Sample { ttl: 1, ..seen.answered(ACK) };
            both.ends(program, &late, Reason::TtlExpired);
        },
    );
}

#[test]
fn every_ttl_is_one_less_behind_this_node() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            for ttl in 2..=255 {
                let sent = Sample { ttl, ..both.town.to_vip(40_000, SYN) };
                let run = both.run_quickly(program, &sent.bytes());
                assert_eq!(Sample::read(&run.bytes).ttl, ttl - 1);
            }
        },
    );
}

#[test]
fn an_answer_from_anywhere_but_the_flows_backend_is_not_translated() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let sent = both.town.to_vip(40_000, SYN);
            let answer = both.forwarded(program, &sent).answered(ACK);
            let other_address = answer.between(both.town.listens(21), answer.dst);
            both.ends(program, &other_address, Reason::NotService);
            let other_port = answer.between((answer.src.ip(), 9999).into(), answer.dst);
            both.ends(program, &other_port, Reason::NotService);
            let to_other_port = answer.between(answer.src, (answer.dst.ip(), 1025).into());
            both.ends(program, &to_other_port, Reason::NotService);
        },
    );
}

#[test]
fn an_answer_outside_the_range_of_source_ports_is_the_nodes_own() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let settings = &mut both.town.world.settings;
            (settings.snat_first, settings.snat_last) = (5000, 5003);
            let sent = both.town.to_vip(40_000, SYN);
            let seen = both.forwarded(program, &sent);
            assert!((5000..=5003).contains(&seen.src.port()), "{}", seen.src);
            let answer = seen.answered(SYN | ACK);
            both.returned(program, &answer);
            both.town.world.settings.snat_first = 6000;
            both.town.world.settings.snat_last = 6003;
            both.ends(program, &answer, Reason::NotService);
        },
    );
}

#[test]
fn when_all_ports_towards_a_backend_are_taken_new_flows_are_refused() {
    tell_arriving(
        || towns(0, 2),
        |both, program| {
            let settings = &mut both.town.world.settings;
            (settings.snat_first, settings.snat_last) = (5000, 5003);
            both.town.only(&[20]);
            let mut sources = Vec::new();
            for port in 40_000..40_064 {
                let sent = both.town.to_vip(port, SYN);
                let run = both.arrive(program, &sent);
                match run.reason {
                    Reason::ToRemote => {
                        let seen = Sample::read(&run.bytes);
                        sources.push(seen.src.port());
                        // Half-open flows may not hold them all.
                        both.returned(program, &seen.answered(SYN | ACK));
                        both.served_by(program, &both.town.to_vip(port, ACK));
                    }
                    reason => {
                        assert_eq!((reason, run.bytes), (Reason::SnatPortsFull, sent.bytes()));
                    }
                }
            }
            sources.sort_unstable();
            assert_eq!(sources, [5000, 5001, 5002, 5003], "each once");
            both.town.only(&[21]);
            let sent = both.town.to_vip(50_000, SYN);
            assert_eq!(both.served_by(program, &sent), 21, "another backend has its own");
        },
    );
}
