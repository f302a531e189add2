//! ICMP errors about answers that went to the client past the first node.

use lb_common::{
    path::Hook,
    verdict::{Reason, Verdict},
};

use super::{
    super::{
        envelopes::{FRESH, SENT_ON, outside, unwrapped, wrapped},
        support::{ACK, SYN, Sample},
        town::Town,
    },
    delivered, towns,
};

/// An ICMP error from a router about an answer that went to the client.
fn error(town: &Town, answer: &Sample) -> Vec<u8> {
    let quoted = &answer.bytes()[14..];
    let router = if town.names.v4 { "198.51.100.200" } else { "2001:db8:9::fe" };
    let dst = answer.src.ip();
    let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]);
    let mut frame = Vec::new();
    match (router.parse().unwrap(), dst) {
        (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) => {
            let kind = etherparse::Icmpv4Type::DestinationUnreachable(
                etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu: 1280,
                },
            );
            let builder = builder.ipv4(src.octets(), dst.octets(), 60).icmpv4(kind);
            builder.write(&mut frame, quoted).unwrap();
        }
        (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) => {
            let kind = etherparse::Icmpv6Type::PacketTooBig { mtu: 1280 };
            let builder = builder.ipv6(src.octets(), dst.octets(), 60).icmpv6(kind);
            builder.write(&mut frame, quoted).unwrap();
        }
        _ => panic!("one family"),
    }
    frame
}

#[test]
fn an_error_about_an_answer_goes_the_way_of_its_flow_to_the_backend() {
    for town in towns(Hook::Tc, 1, 1, (1, 3)) {
        let dialled = town.to_vip(40_000, SYN);
        let seen = delivered(&town, &dialled, FRESH);
        let frame = error(&town, &dialled.answered(SYN | ACK));
        let inside = wrapped(&frame, outside(town.names.peers[0], town.names.node, FRESH));
        for frame in [frame, inside] {
            let run = town.world.arrive(&frame);
            assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ErrorLocal));
            let to = &run.bytes[if town.names.v4 { 30..34 } else { 38..54 }];
            let backend = match seen.dst.ip() {
                std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
                std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            assert_eq!(to, backend);
        }
    }
    for (slot, to) in [((2, 2), 0), ((1, 3), 1)] {
        for town in towns(Hook::Tc, 1, 1, slot) {
            let frame = error(&town, &town.to_vip(40_000, SYN).answered(SYN | ACK));
            let run = town.world.arrive(&frame);
            assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToNode));
            let (outside, inner) = unwrapped(&run.bytes);
            assert_eq!(outside.dst.to_string(), town.names.peers[to]);
            assert_eq!(outside.ttl, if to == 0 { FRESH } else { SENT_ON });
            let hop = if town.names.v4 { 22 } else { 21 };
            assert_eq!(inner[hop], frame[hop] - 1);
            let rest = if town.names.v4 { 26 } else { 22 };
            assert_eq!(inner[rest..], frame[rest..]);
        }
    }
}

#[test]
fn an_answer_for_nobody_in_an_envelope_is_not_passed_off_as_one() {
    for town in towns(Hook::Tc, 1, 1, (1, 1)) {
        let elsewhere = town.packet(town.names.client, 9, town.names.unallocated, 9, ACK);
        let mut frame = error(&town, &elsewhere);
        frame = wrapped(&frame, outside(town.names.peers[0], town.names.node, FRESH));
        let run = town.world.arrive(&frame);
        assert_eq!((run.verdict, run.bytes), (Verdict::Pass, frame));
    }
}
