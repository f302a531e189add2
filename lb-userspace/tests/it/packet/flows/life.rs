//! What packets tell of their flow, and how long it is remembered.

use lb_common::{table::Role, tracking::State, verdict::Reason};

use super::{
    super::{
        both::{Both, now, tcp_towns, tell, tell_arriving, towns, udp_towns},
        kernel::Program,
        support::{ACK, FIN, RST, SYN},
        town::{seconds, states},
    },
    establish,
};

/// Both entries of a flow to a backend elsewhere, in this state.
fn remote(state: State) -> [(Role, State); 2] {
    [(Role::ToRemote, state), (Role::ReplyRemote, state)]
}

fn in_state(both: &Both, state: State) -> bool {
    states(&both.town.world) == remote(state)
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
