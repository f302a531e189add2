//! Echo, and what else of ICMP is about no flow: answered, refused, or left alone.

use etherparse::{Icmpv4Type, Icmpv6Type, icmpv4, icmpv6};
use lb_common::verdict::{Reason, Verdict};

use super::{
    super::{both::tell_arriving, support::MACS},
    Kind, Message, echo, header, towns,
};

#[test]
fn echo_to_an_external_address_is_answered() {
    tell_arriving(
        || towns(1, 1),
        |both, program| {
            for length in [0, 1, 8, 56, 1400] {
                let asked = echo(both, both.town.names.vip, length);
                let run = both.run(program, &asked.bytes());
                assert_eq!((run.reason, run.verdict), (Reason::Echo, Verdict::Answer));
                let kind = match &asked.kind {
                    Kind::V4(Icmpv4Type::EchoRequest(echo)) => {
                        Kind::V4(Icmpv4Type::EchoReply(*echo))
                    }
                    Kind::V6(Icmpv6Type::EchoRequest(echo)) => {
                        Kind::V6(Icmpv6Type::EchoReply(*echo))
                    }
                    other => panic!("{other:?}"),
                };
                let (src, dst) = (asked.dst, asked.src);
                assert_eq!(Message::read(&run.bytes), Message { src, dst, ttl: 64, kind, ..asked });
                assert_eq!((&run.bytes[..6], &run.bytes[6..12]), (&MACS.1[..], &MACS.0[..]));
            }
            assert_eq!(both.counted(Reason::Echo).refused, 0);
        },
    );
}

#[test]
fn echo_to_a_cluster_ip_is_rejected_and_elsewhere_passes() {
    tell_arriving(
        || towns(1, 1),
        |both, program| {
            let names = both.town.names;
            let asked = echo(both, names.cluster_ip, 56);
            let run = both.run(program, &asked.bytes());
            assert_eq!((run.reason, run.verdict), (Reason::EchoRefused, Verdict::Reject));
            let answer = Message::read(&run.bytes);
            let kind = if names.v4 {
                Kind::V4(Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port))
            } else {
                Kind::V6(Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port))
            };
            let payload = asked.bytes()[14..14 + header(names.v4) + 8].to_vec();
            let (src, dst) = (asked.dst, asked.src);
            assert_eq!(answer, Message { src, dst, ttl: 64, kind, payload });
            for (dst, reason) in [
                (names.unallocated, Reason::UnallocatedAddress),
                (names.node, Reason::NotService),
                (names.client, Reason::NotService),
            ] {
                both.frame_ends(program, &echo(both, dst, 56).bytes(), reason);
            }
        },
    );
}

#[test]
fn neighbours_on_the_link_find_each_other_whatever_address_they_ask_for() {
    let v6 = || towns(1, 1).into_iter().filter(|town| !town.names.v4).collect();
    tell_arriving(v6, |both, program| {
        for kind in 133..=137 {
            let mut frame = echo(both, both.town.names.vip, 24).bytes();
            frame[54] = kind;
            both.frame_ends(program, &frame, Reason::NotService);
        }
    });
}

#[test]
fn other_icmp_ends_at_service_addresses_and_passes_elsewhere() {
    tell_arriving(
        || towns(1, 1),
        |both, program| {
            let names = both.town.names;
            let others: &[u8] = if names.v4 { &[0, 4, 5, 9, 13, 17] } else { &[0, 127, 129, 143] };
            let at = 14 + header(names.v4);
            for kind in others {
                for (dst, reason) in
                    [(names.vip, Reason::Protocol), (names.node, Reason::NotService)]
                {
                    let mut frame = echo(both, dst, 24).bytes();
                    frame[at] = *kind;
                    both.frame_ends(program, &frame, reason);
                }
            }
        },
    );
}

#[test]
fn icmp_whose_length_lies_ends_at_service_addresses() {
    tell_arriving(
        || towns(1, 1),
        |both, program| {
            let at = if both.town.names.v4 { 16 } else { 18 };
            let mut frame = echo(both, both.town.names.vip, 0).bytes();
            for more in [-1_i16, 1, 100] {
                let mut frame = frame.clone();
                let length = i16::from_be_bytes([frame[at], frame[at + 1]]);
                frame[at..at + 2].copy_from_slice(&(length + more).to_be_bytes());
                both.frame_ends(program, &frame, Reason::BadLength);
            }
            frame.truncate(frame.len() - 1);
            both.frame_ends(program, &frame, Reason::BadLength);
        },
    );
}
