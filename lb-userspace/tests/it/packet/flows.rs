//! The life of flows. Every story compares the mapped flow tables word by word after every packet.

use lb_common::{abi::BackendState, table::Role, tracking::State, verdict::Reason};

use super::{
    both::{Both, now, tcp_towns, tell, tell_arriving, towns, udp_towns},
    kernel::Program,
    support::{ACK, FIN, RST, SYN, Sample},
    town::{NODE_PORT, SERVICE, seconds, states},
};

/// Both entries of a flow to a backend elsewhere, in this state.
fn remote(state: State) -> [(Role, State); 2] {
    [(Role::ToRemote, state), (Role::ReplyRemote, state)]
}

fn in_state(both: &Both, state: State) -> bool {
    states(&both.town.world) == remote(state)
}

/// A connection that is established.
fn establish(both: &mut Both, program: Program, port: u16) -> Sample {
    let seen = both.forwarded(program, &both.town.to_vip(port, SYN));
    both.returned(program, &seen.answered(SYN | ACK));
    both.forwarded(program, &both.town.to_vip(port, ACK));
    seen
}

#[test]
fn a_retransmitted_syn_goes_to_the_same_backend() {
    tell(towns(3, 3), |both| {
        for port in 40_000..40_010 {
            let syn = both.town.to_vip(port, SYN);
            let first = both.arrive(Program::Ingress, &syn);
            both.wait(seconds(1));
            let second = both.arrive(Program::Ingress, &syn);
            assert_eq!(second.bytes, first.bytes);
        }
    });
}

#[test]
fn a_retransmitted_syn_renews_its_flow() {
    tell_arriving(
        || towns(0, 2),
        |both, program| {
            both.town.only(&[20]);
            let syn = both.town.to_vip(40_000, SYN);
            let seen = both.forwarded(program, &syn);
            both.town.only(&[21]);
            for _ in 0..4 {
                both.wait(seconds(2));
                assert_eq!(both.forwarded(program, &syn), seen);
            }
            both.wait(seconds(3) + 1);
            assert_eq!(both.served_by(program, &syn), 21, "once it expired it is another flow");
        },
    );
}

#[test]
fn a_tcp_flow_is_established_when_its_client_has_answered() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            let seen = both.forwarded(program, &both.town.to_vip(40_000, SYN));
            assert!(in_state(both, State::HalfOpen));
            both.returned(program, &seen.answered(SYN | ACK));
            assert!(in_state(both, State::HalfOpen));
            both.forwarded(program, &both.town.to_vip(40_000, ACK));
            assert!(in_state(both, State::Established));
        },
    );
}

#[test]
fn a_tcp_flow_closes_when_both_sides_have() {
    for client_first in [true, false] {
        tell_arriving(
            || tcp_towns(0, 1),
            |both, program| {
                let seen = establish(both, program, 40_000);
                let client = both.town.to_vip(40_000, FIN | ACK);
                let server = seen.answered(FIN | ACK);
                if client_first {
                    both.forwarded(program, &client);
                    assert!(in_state(both, State::ClientFin));
                    both.returned(program, &server);
                } else {
                    both.returned(program, &server);
                    assert!(in_state(both, State::ServerFin));
                    both.forwarded(program, &client);
                }
                assert!(in_state(both, State::Closing));
                both.forwarded(program, &both.town.to_vip(40_000, ACK));
                assert!(in_state(both, State::Closing));
            },
        );
    }
}

#[test]
fn a_reset_of_either_side_closes_at_once() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            let seen = establish(both, program, 40_000);
            both.returned(program, &seen.answered(RST));
            assert!(in_state(both, State::Closing));
        },
    );
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            establish(both, program, 40_000);
            both.forwarded(program, &both.town.to_vip(40_000, RST));
            assert!(in_state(both, State::Closing));
        },
    );
}

#[test]
fn a_udp_flow_is_established_when_its_backend_has_answered() {
    tell(udp_towns(1, 0), |both| {
        let local = |state| [(Role::ToLocal, state), (Role::ReplyLocal, state)];
        let sent = both.town.to_vip(40_000, 0);
        let seen = both.delivered(&sent);
        both.delivered(&sent);
        assert_eq!(states(&both.town.world), local(State::HalfOpen));
        both.left(&seen.answered(0));
        assert_eq!(states(&both.town.world), local(State::Established));
    });
}

#[test]
fn a_packet_soon_after_the_last_writes_nothing() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            let seen = establish(both, program, 40_000);
            let (before, sent) = (both.flows(), both.town.to_vip(40_000, ACK));
            let began = now();
            both.forwarded(program, &sent);
            both.returned(program, &seen.answered(ACK));
            assert!(now() - began < seconds(1), "too slow a machine to tell");
            assert_eq!(both.flows(), before);
            both.wait(both.town.world.settings.timeouts.tcp / 16);
            let before = both.flows();
            both.forwarded(program, &sent);
            assert_ne!(both.flows(), before, "when a sixteenth of its time is over it is renewed");
        },
    );
}

#[test]
fn a_half_open_flow_is_forgotten_in_seconds_and_an_established_one_is_not() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            both.forwarded(program, &both.town.to_vip(40_000, SYN));
            establish(both, program, 40_001);
            both.wait(seconds(4));
            both.rejected(program, &both.town.to_vip(40_000, ACK), Reason::UnknownFlow);
            both.forwarded(program, &both.town.to_vip(40_001, ACK));
            both.wait(seconds(21_601));
            both.rejected(program, &both.town.to_vip(40_001, ACK), Reason::UnknownFlow);
        },
    );
}

#[test]
fn a_closed_flow_is_forgotten_in_a_minute() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            establish(both, program, 40_000);
            both.forwarded(program, &both.town.to_vip(40_000, RST));
            both.wait(seconds(59));
            both.forwarded(program, &both.town.to_vip(40_000, ACK));
            both.wait(seconds(61));
            both.rejected(program, &both.town.to_vip(40_000, ACK), Reason::UnknownFlow);
        },
    );
}

#[test]
fn either_side_keeps_a_flow_alive() {
    for client in [true, false] {
        tell_arriving(
            || towns(0, 2),
            |both, program| {
                both.town.only(&[20]);
                let seen = establish(both, program, 40_000);
                both.town.only(&[21]);
                for _ in 0..4 {
                    both.wait(seconds(119));
                    if client {
                        both.forwarded(program, &both.town.to_vip(40_000, ACK));
                    } else {
                        both.returned(program, &seen.answered(ACK));
                    }
                }
                let sent = both.town.to_vip(40_000, ACK);
                assert_eq!(both.served_by(program, &sent), 20);
                both.returned(program, &seen.answered(ACK));
            },
        );
    }
}

#[test]
fn a_syn_on_a_port_whose_connection_closed_may_get_another_backend() {
    tell_arriving(
        || tcp_towns(0, 2),
        |both, program| {
            both.town.only(&[20]);
            establish(both, program, 40_000);
            both.town.only(&[21]);
            let syn = both.town.to_vip(40_000, SYN);
            assert_eq!(both.served_by(program, &syn), 20, "it is still open");
            both.forwarded(program, &both.town.to_vip(40_000, RST));
            assert_eq!(both.served_by(program, &syn), 21);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_000, ACK)), 21);
        },
    );
}

#[test]
fn a_flow_keeps_its_backend_while_others_come_and_go() {
    tell(towns(2, 2), |both| {
        let ports = 40_000..40_012;
        let first: Vec<u32> = ports
            .clone()
            .map(|port| both.served_by(Program::Ingress, &both.town.to_vip(port, SYN)))
            .collect();
        assert!(first.iter().any(|id| *id != first[0]), "one backend got all of {first:?}");
        both.town.set_backend(12, 1);
        both.town.set_backend(22, 1);
        both.town.only(&[12, 22]);
        let later: Vec<u32> = ports
            .map(|port| both.served_by(Program::Ingress, &both.town.to_vip(port, ACK)))
            .collect();
        assert_eq!(later, first);
    });
}

#[test]
fn a_retired_backend_keeps_its_connections_and_gets_no_new_one() {
    tell_arriving(
        || tcp_towns(0, 2),
        |both, program| {
            both.town.only(&[20]);
            establish(both, program, 40_000);
            both.town.retire(20, BackendState::Retired, false);
            both.town.only(&[21]);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_000, ACK)), 20);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_001, SYN)), 21);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_000, SYN)), 21);
        },
    );
}

#[test]
fn an_id_that_has_a_new_owner_is_as_gone_as_an_empty_one() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            establish(both, program, 40_000);
            both.town.set_backend(20, 2);
            both.rejected(program, &both.town.to_vip(40_000, ACK), Reason::BackendGone);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_000, SYN)), 20);
            assert_eq!(both.served_by(program, &both.town.to_vip(40_000, ACK)), 20);
            both.town.world.backends.clear();
            both.rejected(program, &both.town.to_vip(40_000, ACK), Reason::BackendGone);
        },
    );
}

#[test]
fn a_udp_flow_leaves_a_backend_that_stopped_serving_with_its_next_packet() {
    tell_arriving(
        || udp_towns(0, 2),
        |both, program| {
            both.town.only(&[20]);
            let sent = both.town.to_vip(40_000, 0);
            assert_eq!(both.served_by(program, &sent), 20);
            both.town.only(&[21]);
            assert_eq!(both.served_by(program, &sent), 20, "it is active, if not in the list");
            both.town.retire(20, BackendState::Retired, true);
            assert_eq!(both.served_by(program, &sent), 20, "it is terminating and serves");
            both.town.retire(20, BackendState::Retired, false);
            let seen = both.forwarded(program, &sent);
            assert_eq!(seen.dst, both.town.listens(21));
            both.returned(program, &seen.answered(0));
            assert_eq!(both.served_by(program, &sent), 21);
        },
    );
}

#[test]
fn a_udp_flow_stays_where_it_is_when_nothing_serves_any_more() {
    tell_arriving(
        || udp_towns(0, 1),
        |both, program| {
            let sent = both.town.to_vip(40_000, 0);
            assert_eq!(both.served_by(program, &sent), 20);
            both.town.retire(20, BackendState::Retired, false);
            both.town.only(&[]);
            assert_eq!(both.served_by(program, &sent), 20);
            both.rejected(program, &both.town.to_vip(40_001, 0), Reason::NoEndpoints);
        },
    );
}

#[test]
fn mid_stream_is_left_to_the_stack_while_an_earlier_proxy_is_taken_over() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            both.town.world.settings.takeover_until = now() + seconds(600);
            for flags in [ACK, ACK | FIN, RST, SYN | ACK, 0] {
                both.ends(program, &both.town.to_vip(40_000, flags), Reason::Takeover);
            }
            establish(both, program, 40_001);
            both.wait(seconds(600));
            both.rejected(program, &both.town.to_vip(40_000, ACK), Reason::UnknownFlow);
            both.forwarded(program, &both.town.to_vip(40_001, ACK));
        },
    );
}

#[test]
fn mid_stream_is_taken_up_by_the_local_backend_that_the_ring_names() {
    tell(tcp_towns(1, 0), |both| {
        let run = both.arrive(Program::Ingress, &both.town.to_vip(40_000, ACK));
        assert_eq!((run.reason, run.outcome.opened), (Reason::ToLocal, true));
        let state = State::Established;
        let want = [(Role::ToLocal, state), (Role::ReplyLocal, state)];
        assert_eq!(states(&both.town.world), want);
    });
    tell(tcp_towns(1, 0), |both| {
        both.town.world.change_service(SERVICE, |service| service.with_choice(false, false));
        both.rejected(Program::Ingress, &both.town.to_vip(40_000, ACK), Reason::UnknownFlow);
    });
}

#[test]
fn flows_whose_answers_would_look_alike_are_told_apart_by_their_ports() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            // A range that leaves them no choice but to collide.
            let settings = &mut both.town.world.settings;
            (settings.snat_first, settings.snat_last) = (2000, 2003);
            let one = both.town.to_vip(40_000, SYN);
            let two = both.from_client(40_000, both.town.names.node, NODE_PORT, SYN);
            let seen = [both.forwarded(program, &one), both.forwarded(program, &two)];
            assert_ne!(seen[0].src, seen[1].src);
            for (sent, seen) in [&one, &two].into_iter().zip(&seen) {
                let back = both.returned(program, &seen.answered(SYN | ACK));
                assert_eq!((back.src, back.dst), (sent.dst, sent.src));
            }
        },
    );
}

#[test]
fn a_list_gives_every_backend_its_share_and_no_other() {
    tell(towns(0, 3), |both| {
        both.town.world.change_service(SERVICE, |service| service.with_choice(false, false));
        both.town.only(&[20, 22]);
        // Flows that are over at once leave room for all.
        both.town.world.settings.timeouts.half_open = 0;
        both.kernel.write(&mut both.town.world, &both.uplinks);
        let mut served = [0; 2];
        // Which it is, is the kernel's own draw: the rules here would draw differently.
        for port in 40_000..40_060 {
            let sent = both.town.to_vip(port, SYN);
            let run = both.kernel.programs.run(Program::Ingress, &sent.bytes());
            let dst = Sample::read(&run.expect("a test run").1).dst;
            let which = [20, 22].iter().position(|id| both.town.listens(*id) == dst);
            served[which.unwrap_or_else(|| panic!("{dst} is not in the list"))] += 1;
        }
        assert!(served.iter().all(|count| *count > 5), "{served:?}");
    });
}

#[test]
fn time_that_is_read_from_jiffies_is_the_kernels_monotonic_time() {
    let jiffy = lb_userspace::host::jiffy();
    assert!(jiffy > 0, "the kernel tells how long a jiffy is");
    tell(tcp_towns(0, 1), |both| {
        both.town.world.settings.jiffy = jiffy;
        both.kernel.write(&mut both.town.world, &both.uplinks);
        let sent = both.town.to_vip(40_000, SYN).bytes();
        let before = now();
        both.kernel.programs.run(Program::Xdp, &sent).expect("a test run");
        let lives = both.town.world.settings.timeouts.half_open;
        let expiries: Vec<u32> = both.flows_of_kernel().iter().map(|meta| *meta as u32).collect();
        assert_eq!(expiries.len(), 2, "an entry for each direction");
        for expiry in expiries {
            let apart = expiry.wrapping_sub(lives).wrapping_sub(before) as i32;
            assert!(apart.unsigned_abs() < seconds(60), "{apart} ticks");
        }
    });
}
