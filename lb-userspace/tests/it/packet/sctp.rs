//! SCTP through the kernel programs: its checksum is over all of a packet, its chunks are what
//! flags are to TCP. (The other stories of this level are told of SCTP too.)

use lb_common::{
    abi::BackendState,
    path::Hook,
    verdict::{Reason, Verdict},
    wire::{Sctp, proto},
};

use super::{
    both::{Both, patient, tell, tell_arriving},
    support::{ACK, L4, SYN, Sample},
    town::Town,
};

fn towns(here: usize, there: usize) -> Vec<Town> {
    let towns = Town::all_of(proto::SCTP, Hook::Tc).into_iter();
    patient(towns.map(|town| town.with_backends(here, there)).collect())
}

fn chunk(both: &Both, kind: u8, payload: usize) -> Sample {
    Sample {
        l4: L4::Sctp { chunk: kind, tag: 7 },
        payload: (0..payload).map(|at| (at * 7) as u8).collect(),
        ..both.town.to_vip(40_000, 0)
    }
}

#[test]
fn checksums_are_right_on_both_ways_whatever_the_length_of_a_packet() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let seen = both.forwarded(program, &chunk(both, Sctp::INIT, 20));
            both.forwarded(program, &chunk(both, Sctp::COOKIE_ECHO, 40));
            for payload in (0..64).chain([100, 255, 256, 511, 1000, 1432, 3000]) {
                // Reading holds the checksum against one made anew over all of the packet.
                let sent = both.forwarded(program, &chunk(both, 0, payload));
                assert_eq!((sent.src, sent.dst), (seen.src, seen.dst));
                let answer = Sample { payload: sent.payload, ..seen.answered(ACK) };
                assert_eq!(both.returned(program, &answer).src, both.town.to_vip(1, 0).dst);
            }
        },
    );
}

#[test]
fn a_backend_on_this_node_answers_from_the_dialled_address() {
    tell(towns(1, 0), |both| {
        let sent = chunk(both, Sctp::INIT, 1001);
        let seen = both.delivered(&sent);
        let answer = Sample { payload: vec![9; 333], ..seen.answered(SYN | ACK) };
        assert_eq!(both.left(&answer), answer.between(sent.dst, sent.src));
    });
}

#[test]
fn a_checksum_that_hardware_is_still_to_make_stays_empty() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let at = if both.town.names.v4 { 42 } else { 62 };
            let mut frame = chunk(both, Sctp::INIT, 100).bytes();
            frame[at..at + 4].fill(0);
            let run = both.run(program, &frame);
            assert_eq!((run.reason, &run.bytes[at..at + 4]), (Reason::ToRemote, &[0; 4][..]));
        },
    );
}

#[test]
fn nobody_who_serves_is_told_by_icmp_and_an_abort_by_nothing() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            both.town.only(&[]);
            let answer = both.rejected(program, &chunk(both, Sctp::INIT, 100), Reason::NoEndpoints);
            let (protocol, kind) = if both.town.names.v4 {
                (answer[23], [answer[34], answer[35]])
            } else {
                (answer[20], [answer[54], answer[55]])
            };
            let port_unreachable =
                if both.town.names.v4 { (proto::ICMP, [3, 3]) } else { (proto::ICMPV6, [1, 4]) };
            assert_eq!((protocol, kind), port_unreachable);
            let abort = chunk(both, Sctp::ABORT, 0);
            let run = both.arrive(program, &abort);
            assert_eq!((run.verdict, run.bytes), (Verdict::Drop, abort.bytes()));
        },
    );
}

#[test]
fn an_association_goes_on_with_a_backend_that_left_and_ends_with_one_that_is_gone() {
    tell_arriving(
        || towns(0, 2),
        |both, program| {
            both.town.only(&[20]);
            for kind in [Sctp::INIT, Sctp::COOKIE_ECHO, 0] {
                assert_eq!(both.served_by(program, &chunk(both, kind, 60)), 20);
            }
            both.town.only(&[21]);
            both.town.retire(20, BackendState::Retired, false);
            assert_eq!(both.served_by(program, &chunk(both, 0, 60)), 20);
            both.town.retire(20, BackendState::Gone, false);
            both.rejected(program, &chunk(both, 0, 60), Reason::BackendGone);
            assert_eq!(both.served_by(program, &chunk(both, Sctp::INIT, 60)), 21);
        },
    );
}

#[test]
fn an_association_shuts_down_and_its_port_may_go_to_another_backend() {
    tell_arriving(
        || towns(0, 2),
        |both, program| {
            both.town.only(&[20]);
            let seen = both.forwarded(program, &chunk(both, Sctp::INIT, 60));
            both.served_by(program, &chunk(both, Sctp::COOKIE_ECHO, 60));
            both.served_by(program, &chunk(both, Sctp::SHUTDOWN, 4));
            let l4 = L4::Sctp { chunk: Sctp::SHUTDOWN_ACK, tag: 5 };
            both.returned(program, &Sample { l4, ..seen.answered(ACK) });
            both.town.only(&[21]);
            assert_eq!(both.served_by(program, &chunk(both, Sctp::SHUTDOWN_COMPLETE, 0)), 20);
            assert_eq!(both.served_by(program, &chunk(both, Sctp::INIT, 60)), 21);
        },
    );
}
