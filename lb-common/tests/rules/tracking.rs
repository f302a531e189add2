use lb_common::{
    abi::{Settings, Timeouts},
    tracking::{Side, State, next, opens, timeout},
    wire::proto,
};

use crate::support::{ACK, FIN, RST, SYN};

/// The states that a story goes through.
fn tcp(story: &[(Side, u8)]) -> Vec<State> {
    let step = |state: &mut State, (side, flags): &(Side, u8)| {
        *state = next(*state, *side, proto::TCP, *flags);
        Some(*state)
    };
    story.iter().scan(HalfOpen, step).collect()
}

use Side::{Client, Server};
use State::{ClientFin, Closing, Established, HalfOpen, ServerFin};

#[test]
fn a_connection_opens_speaks_and_closes() {
    let story = [
        (Client, SYN),
        (Server, SYN | ACK),
        (Client, ACK),
        (Server, ACK),
        (Client, FIN | ACK),
        (Server, ACK),
        (Server, FIN | ACK),
        (Client, ACK),
    ];
    let states =
        [HalfOpen, HalfOpen, Established, Established, ClientFin, ClientFin, Closing, Closing];
    assert_eq!(tcp(&story), states);
}

#[test]
fn the_backend_may_close_first() {
    let story = [(Client, ACK), (Server, FIN | ACK), (Client, ACK), (Client, FIN | ACK)];
    assert_eq!(tcp(&story), [Established, ServerFin, ServerFin, Closing]);
}

#[test]
fn one_side_alone_cannot_close_both() {
    assert_eq!(
        tcp(&[(Client, ACK), (Client, FIN), (Client, FIN)]),
        [Established, ClientFin, ClientFin]
    );
    assert_eq!(
        tcp(&[(Client, ACK), (Server, FIN), (Server, FIN)]),
        [Established, ServerFin, ServerFin]
    );
}

#[test]
fn a_flood_of_syns_and_their_answers_stay_half_open() {
    let story = [(Client, SYN), (Server, SYN | ACK), (Client, SYN), (Server, SYN | ACK)];
    assert_eq!(tcp(&story), [HalfOpen; 4]);
}

#[test]
fn a_reset_of_either_side_closes_in_every_state() {
    for state in [HalfOpen, Established, ClientFin, ServerFin, Closing] {
        for side in [Client, Server] {
            assert_eq!(next(state, side, proto::TCP, RST), Closing);
            assert_eq!(next(state, side, proto::TCP, RST | ACK), Closing);
        }
    }
}

#[test]
fn a_udp_flow_is_established_when_the_backend_answers_and_not_before() {
    let step = |state, side| next(state, side, proto::UDP, 0);
    assert_eq!(step(HalfOpen, Client), HalfOpen);
    assert_eq!(step(HalfOpen, Server), Established);
    assert_eq!(step(Established, Client), Established);
}

#[test]
fn only_a_syn_alone_opens_a_connection() {
    let opening: Vec<u8> = (0..=u8::MAX).filter(|flags| flags & 0x17 == SYN).collect();
    let said: Vec<u8> = (0..=u8::MAX).filter(|flags| opens(*flags) && flags & FIN == 0).collect();
    assert_eq!(said, opening);
    assert!(!opens(SYN | ACK) && !opens(SYN | RST) && !opens(ACK) && !opens(0));
}

#[test]
fn a_flow_never_opens_again_and_never_leaves_closing() {
    let rank = |state| match state {
        State::Empty | State::Busy => 0,
        HalfOpen => 1,
        Established => 2,
        ClientFin | ServerFin => 3,
        Closing => 4,
    };
    bolero::check!().with_type::<Vec<(bool, u8)>>().for_each(|story| {
        let mut state = HalfOpen;
        for (client, flags) in story {
            let side = if *client { Client } else { Server };
            let new = next(state, side, proto::TCP, *flags);
            assert!(rank(new) >= rank(state), "{state:?} became {new:?}");
            state = new;
        }
    });
}

#[test]
fn states_survive_their_numbers() {
    for state in [State::Empty, State::Busy, HalfOpen, Established, ClientFin, ServerFin, Closing] {
        assert_eq!(State::from_number(state as u8), state);
    }
    assert_eq!(State::from_number(200), State::Busy);
}

#[test]
fn half_open_flows_go_soon_closing_ones_in_a_minute_and_others_by_protocol() {
    let timeouts = Timeouts { tcp: 1, tcp_closing: 2, half_open: 3, udp: 4, sctp: 5 };
    let table = [HalfOpen, Established, ClientFin, ServerFin, Closing].map(|state| {
        (timeout(state, proto::TCP, &timeouts), timeout(state, proto::UDP, &timeouts))
    });
    assert_eq!(table, [(3, 3), (1, 4), (1, 4), (1, 4), (2, 2)]);
    let defaults = Settings::default().timeouts;
    assert_eq!(
        [defaults.half_open, defaults.tcp_closing, defaults.udp, defaults.tcp],
        [3, 60, 120, 21_600].map(|seconds| seconds * Settings::SECOND)
    );
}
