//! Errors about packets of flows are told to who sent them, with the quoted packet as it was sent; and
//! to nobody where they are about none.

use lb_common::{verdict::Reason, wire::proto};

use super::{
    super::{
        both::{ARRIVING, tell, tell_arriving},
        kernel::Program,
        support::{ACK, SYN, Sample},
        town::NODE_PORT,
    },
    Message, about, header, kinds, router, told, towns,
};

/// The shortest quote that must do, more, and whole packets.
const QUOTED: [usize; 4] = [8, 18, 20, 1000];

#[test]
fn an_error_about_a_packet_to_a_remote_backend_is_told_to_its_client() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let names = both.town.names;
            for (dst, port) in [(names.vip, 80), (names.node, NODE_PORT), (names.cluster_ip, 80)] {
                let sent = both.from_client(40_000, dst, port, SYN);
                let seen = both.forwarded(program, &sent);
                for kind in kinds(names.v4) {
                    for quoted in QUOTED {
                        let error = about(&seen, router(both), &kind, quoted);
                        let run = both.run(program, &error.bytes());
                        assert_eq!((run.reason, run.outcome.backend), (Reason::ErrorRemote, 20));
                        // One hop on, from the address that the client knows.
                        let was = Sample { ttl: seen.ttl, ..sent.clone() };
                        let expected = Message { ttl: 59, ..told(&error, &was, sent.dst.ip()) };
                        assert_eq!(Message::read(&run.bytes), expected);
                    }
                }
            }
        },
    );
}

#[test]
fn an_error_about_an_answer_of_a_remote_backend_is_told_to_the_backend() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let sent = both.town.to_vip(40_000, SYN);
            let seen = both.forwarded(program, &sent);
            let answer = seen.answered(SYN | ACK);
            let back = both.returned(program, &answer);
            for kind in kinds(both.town.names.v4) {
                for quoted in QUOTED {
                    let error = about(&back, router(both), &kind, quoted);
                    let run = both.run(program, &error.bytes());
                    assert_eq!((run.reason, run.outcome.backend), (Reason::ErrorRemote, 20));
                    let was = Sample { ttl: back.ttl, ..answer.clone() };
                    let expected = Message { ttl: 59, ..told(&error, &was, seen.src.ip()) };
                    assert_eq!(Message::read(&run.bytes), expected);
                }
            }
        },
    );
}

#[test]
fn an_error_about_an_answer_of_a_local_backend_is_handed_to_it() {
    tell(towns(1, 0), |both| {
        let sent = both.town.to_vip(40_000, SYN);
        let answer = both.delivered(&sent).answered(SYN | ACK);
        let back = both.left(&answer);
        for kind in kinds(both.town.names.v4) {
            for quoted in QUOTED {
                let error = about(&back, router(both), &kind, quoted);
                both.frame_ends(Program::Xdp, &error.bytes(), Reason::NeedsStack);
                let run = both.run(Program::Ingress, &error.bytes());
                assert_eq!((run.reason, run.outcome.backend), (Reason::ErrorLocal, 10));
                assert_eq!(Message::read(&run.bytes), told(&error, &answer, error.src));
            }
        }
    });
}

#[test]
fn an_error_of_a_local_backend_leaves_from_the_address_that_the_client_dialled() {
    tell(towns(1, 0), |both| {
        let sent = both.town.to_vip(40_000, SYN);
        let seen = both.delivered(&sent);
        // The backend itself, or this node, which is on the way to it.
        for finder in [both.town.names.here[0], both.town.names.node] {
            for kind in kinds(both.town.names.v4) {
                for quoted in QUOTED {
                    let error = about(&seen, finder, &kind, quoted);
                    let run = both.run(Program::Egress, &error.bytes());
                    assert_eq!((run.reason, run.outcome.backend), (Reason::ErrorLocal, 10));
                    assert_eq!(Message::read(&run.bytes), told(&error, &sent, sent.dst.ip()));
                }
            }
        }
    });
}

#[test]
fn an_error_about_no_flow_of_ours_passes_to_this_node_and_ends_at_service_addresses() {
    tell(towns(1, 1), |both| {
        let names = both.town.names;
        let flows = both.flows();
        for kind in kinds(names.v4) {
            for (of, reason) in [
                (names.vip, Reason::ErrorUnknown),
                (names.cluster_ip, Reason::ErrorUnknown),
                (names.unallocated, Reason::UnallocatedAddress),
                (names.node, Reason::NotService),
                (names.pod, Reason::NotService),
            ] {
                let never = both.town.packet(of, 2000, names.client, 40_000, ACK);
                let error = about(&never, router(both), &kind, 8).bytes();
                for program in ARRIVING {
                    both.frame_ends(program, &error, reason);
                }
                both.frame_ends(Program::Egress, &error, Reason::NotService);
            }
        }
        assert_eq!(both.flows(), flows);
    });
}

#[test]
fn an_error_that_was_not_sent_to_who_sent_the_quoted_packet_is_believed_by_nobody() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let names = both.town.names;
            let seen = both.forwarded(program, &both.town.to_vip(40_000, SYN));
            let kind = &kinds(names.v4)[0];
            let error = about(&seen, router(both), kind, 8);
            for (dst, reason) in
                [(names.vip, Reason::ErrorUnknown), (names.client, Reason::NotService)]
            {
                let dst = dst.parse().expect("an address");
                both.frame_ends(program, &Message { dst, ..error.clone() }.bytes(), reason);
            }
        },
    );
}

#[test]
fn a_quote_of_fewer_than_eight_bytes_names_no_flow() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let seen = both.forwarded(program, &both.town.to_vip(40_000, SYN));
            let back = both.returned(program, &seen.answered(ACK));
            let kind = &kinds(both.town.names.v4)[0];
            for quoted in 0..8 {
                let error = about(&back, router(both), kind, quoted).bytes();
                both.frame_ends(program, &error, Reason::ErrorUnknown);
            }
        },
    );
}

#[test]
fn a_quoted_checksum_of_zero_stays_zero_and_a_wrong_one_wrong() {
    let udp = || towns(0, 1).into_iter().filter(|town| town.protocol == proto::UDP).collect();
    tell_arriving(udp, |both, program| {
        let seen = both.forwarded(program, &both.town.to_vip(40_000, 0));
        let kind = &kinds(both.town.names.v4)[0];
        let at = header(both.town.names.v4) + 6;
        for checksum in [[0, 0], [1, 2], [0xff, 0xff]] {
            let mut error = about(&seen, router(both), kind, 13);
            error.payload[at..at + 2].copy_from_slice(&checksum);
            // The checksum of ICMP must be right whatever the quoted one is.
            let told = Message::read(&both.run(program, &error.bytes()).bytes);
            assert_eq!(told.payload[at..at + 2] == [0, 0], checksum == [0, 0]);
        }
    });
}

#[test]
fn a_wrong_icmp_checksum_is_not_repaired() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let seen = both.forwarded(program, &both.town.to_vip(40_000, SYN));
            let error = about(&seen, router(both), &kinds(both.town.names.v4)[0], 8).bytes();
            let right = both.run(program, &error).bytes;
            let at = 14 + header(both.town.names.v4) + 2;
            for wrong in [1_u16, 0x100, 0x7fff] {
                let mut error = error.clone();
                let checksum = u16::from_be_bytes([error[at], error[at + 1]]);
                let more = |checksum: u16| (u32::from(checksum) + u32::from(wrong)) % 0xffff;
                error[at..at + 2].copy_from_slice(&(more(checksum) as u16).to_be_bytes());
                let run = both.run(program, &error).bytes;
                let expected = more(u16::from_be_bytes([right[at], right[at + 1]]));
                let got = u16::from_be_bytes([run[at], run[at + 1]]);
                assert_eq!(u32::from(got) % 0xffff, expected);
            }
        },
    );
}
