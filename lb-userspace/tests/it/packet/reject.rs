//! Answers to packets that nobody takes.

use std::net::IpAddr;

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4, icmpv6};
use lb_common::{
    abi::BackendState,
    verdict::{Reason, Verdict},
    wire::proto,
};

use super::{
    both::{Both, tcp_towns, tell, tell_arriving, towns, udp_towns},
    kernel::{Program, Programs},
    support::{ACK, FIN, L4, RST, SYN, Sample, packet},
    town::{NODE_PORT, at},
};

/// The RST of RFC 9293, 3.10.7.1 to a segment of no connection.
fn prescribed(sent: &Sample) -> Sample {
    let L4::Tcp { flags, seq, ack, .. } = sent.l4 else { panic!("TCP") };
    let one = |bit| u32::from(flags & bit != 0);
    let length = sent.payload.len() as u32 + one(SYN) + one(FIN);
    let l4 = if flags & ACK != 0 {
        L4::Tcp { flags: RST, seq: ack, ack: 0, window: 0 }
    } else {
        L4::Tcp { flags: RST | ACK, seq: 0, ack: seq.wrapping_add(length), window: 0 }
    };
    let macs = (sent.macs.1, sent.macs.0);
    Sample { macs, src: sent.dst, dst: sent.src, ttl: 64, l4, payload: vec![] }
}

#[track_caller]
fn is_reset(both: &mut Both, program: Program, sent: &Sample, reason: Reason) {
    let answer = both.rejected(program, sent, reason);
    assert_eq!(Sample::read(&answer), prescribed(sent));
}

/// The answer says that the port is unreachable, quotes the packet, and its checksum is right.
#[track_caller]
fn is_unreachable(both: &mut Both, program: Program, sent: &Sample, reason: Reason) {
    let (frame, answer) = (sent.bytes(), both.rejected(program, sent, reason));
    assert_eq!((&answer[..6], &answer[6..12]), (&frame[6..12], &frame[..6]), "back on the link");
    let sliced = SlicedPacket::from_ethernet(&answer).expect("a frame");
    let (src, dst, header) = match sliced.net.as_ref().expect("IP") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            (IpAddr::from(header.source), IpAddr::from(header.destination), 20)
        }
        NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), 40)
        }
        other @ NetSlice::Arp(_) => panic!("IP, not {other:?}"),
    };
    assert_eq!((src, dst), (sent.dst.ip(), sent.src.ip()));
    let quoted = match sliced.transport.as_ref().expect("ICMP") {
        TransportSlice::Icmpv4(icmp) => {
            let port = icmpv4::DestUnreachableHeader::Port;
            assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(port));
            let right = icmp.icmp_type().calc_checksum(icmp.payload());
            assert_eq!(icmp.header().checksum, right);
            icmp.payload()
        }
        TransportSlice::Icmpv6(icmp) => {
            let port = icmpv6::DestUnreachableCode::Port;
            assert_eq!(icmp.icmp_type(), Icmpv6Type::DestinationUnreachable(port));
            let (IpAddr::V6(src), IpAddr::V6(dst)) = (src, dst) else { panic!("one family") };
            let right = icmp.icmp_type().calc_checksum(src.octets(), dst.octets(), icmp.payload());
            assert_eq!(Ok(icmp.header().checksum), right);
            icmp.payload()
        }
        other => panic!("ICMP, not {other:?}"),
    };
    assert_eq!(quoted, &frame[14..14 + header + 8]);
}

/// Segments of every kind of TCP packet.
fn segments(both: &Both) -> Vec<Sample> {
    let flags = [SYN, SYN | ACK, ACK, ACK | FIN, FIN, 0, SYN | FIN];
    let payloads = [&b""[..], b"odd", b"even"];
    let all = flags.into_iter().flat_map(|flags| payloads.map(|payload| (flags, payload)));
    let of = |(flags, payload): (u8, &[u8])| {
        let l4 = L4::Tcp { flags, seq: u32::MAX - 1, ack: 4_000_000_000, window: 512 };
        Sample { l4, payload: payload.to_vec(), ..both.town.to_vip(40_000, 0) }
    };
    all.map(of).collect()
}

#[test]
fn a_syn_to_a_service_without_endpoints_gets_a_reset_from_the_dialled_address() {
    tell_arriving(
        || tcp_towns(0, 0),
        |both, program| {
            let names = both.town.names;
            for (dst, port) in [(names.cluster_ip, 80), (names.vip, 80), (names.node, NODE_PORT)] {
                let sent = both.from_client(40_000, dst, port, SYN);
                is_reset(both, program, &sent, Reason::NoEndpoints);
            }
        },
    );
}

#[test]
fn every_segment_gets_the_reset_that_rfc_9293_prescribes() {
    tell_arriving(
        || tcp_towns(0, 0),
        |both, program| {
            for sent in segments(both) {
                is_reset(both, program, &sent, Reason::NoEndpoints);
            }
        },
    );
}

#[test]
fn a_reset_is_never_answered() {
    tell_arriving(
        || tcp_towns(0, 0),
        |both, program| {
            for flags in [RST, RST | ACK, RST | SYN, RST | FIN] {
                let sent = both.town.to_vip(40_000, flags);
                let run = both.arrive(program, &sent);
                assert_eq!((run.verdict, run.reason), (Verdict::Drop, Reason::NoEndpoints));
                assert_eq!(run.bytes, sent.bytes());
            }
        },
    );
}

#[test]
fn tcp_options_and_padding_are_not_taken_for_payload() {
    tell_arriving(
        || tcp_towns(0, 0),
        |both, program| {
            let payload = b"\x02\x04\x05\xb4".to_vec();
            let sent = Sample { payload, ..both.town.to_vip(40_000, SYN) };
            let mut frame = sent.bytes();
            // Four bytes of payload that the header claims as options.
            let offset = frame.len() - 4 - 8;
            frame[offset] = 6 << 4;
            frame.extend([0; 9]);
            let run = both.run(program, &frame);
            assert_eq!(Sample::read(&run.bytes), prescribed(&Sample { payload: vec![], ..sent }));
        },
    );
}

#[test]
fn a_datagram_to_a_service_without_endpoints_is_told_that_the_port_is_unreachable() {
    tell_arriving(
        || udp_towns(0, 0),
        |both, program| {
            let names = both.town.names;
            for (dst, port) in [(names.cluster_ip, 80), (names.vip, 80), (names.node, NODE_PORT)] {
                let sent = both.from_client(40_000, dst, port, 0);
                is_unreachable(both, program, &sent, Reason::NoEndpoints);
            }
        },
    );
}

#[test]
fn datagrams_of_every_length_are_quoted_by_their_headers() {
    tell_arriving(
        || udp_towns(0, 0),
        |both, program| {
            for length in (0..70).chain([500, 1400]) {
                let payload = vec![7; length];
                let sent = Sample { payload, ..both.town.to_vip(40_000, 0) };
                is_unreachable(both, program, &sent, Reason::NoEndpoints);
            }
        },
    );
}

#[test]
fn a_port_that_a_cluster_ip_does_not_serve_is_rejected_for_every_protocol() {
    tell_arriving(
        || towns(1, 1),
        |both, program| {
            let (src, dst) =
                (at(both.town.names.client, 40_000), at(both.town.names.cluster_ip, 81));
            is_reset(both, program, &packet(proto::TCP, &src, &dst, SYN), Reason::UnknownPort);
            for protocol in [proto::UDP, proto::SCTP] {
                let sent = packet(protocol, &src, &dst, SYN);
                is_unreachable(both, program, &sent, Reason::UnknownPort);
            }
        },
    );
}

#[test]
fn the_other_protocol_at_a_service_port_is_an_unknown_port() {
    tell_arriving(
        || towns(1, 1),
        |both, program| {
            let tcp = both.town.protocol == proto::TCP;
            let other = if tcp { proto::UDP } else { proto::TCP };
            let (src, dst) =
                (at(both.town.names.client, 40_000), at(both.town.names.cluster_ip, 80));
            let sent = packet(other, &src, &dst, SYN);
            both.rejected(program, &sent, Reason::UnknownPort);
        },
    );
}

#[test]
fn mid_stream_without_a_flow_is_reset_where_the_backend_is_elsewhere() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            let before = both.flows();
            for flags in [ACK, ACK | FIN, SYN | ACK, FIN, 0] {
                let sent = both.town.to_vip(40_000, flags);
                is_reset(both, program, &sent, Reason::UnknownFlow);
            }
            assert_eq!(both.flows(), before);
        },
    );
}

#[test]
fn a_reset_that_belongs_to_nothing_is_dropped_and_opens_nothing() {
    for (here, there) in [(1, 0), (0, 1)] {
        tell(tcp_towns(here, there), |both| {
            let (sent, before) = (both.town.to_vip(40_000, RST), both.flows());
            let run = both.arrive(Program::Ingress, &sent);
            assert_eq!((run.verdict, run.reason), (Verdict::Drop, Reason::UnknownFlow));
            assert_eq!((run.bytes, both.flows()), (sent.bytes(), before));
        });
    }
}

#[test]
fn a_connection_to_a_backend_that_is_gone_is_reset_with_the_clients_next_packet() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            both.forwarded(program, &both.town.to_vip(40_000, SYN));
            both.forwarded(program, &both.town.to_vip(40_000, ACK));
            both.town.retire(20, BackendState::Gone, false);
            let sent = both.town.to_vip(40_000, ACK);
            is_reset(both, program, &sent, Reason::BackendGone);
            both.town.world.settings.reset_gone = 0;
            both.forwarded(program, &sent);
        },
    );
}

#[test]
fn more_answers_than_a_cpu_may_make_are_dropped_by_name_and_no_other_kind_suffers() {
    Programs::stay_on_one_cpu();
    tell_arriving(
        || towns(0, 0),
        |both, program| {
            let sent = both.town.to_vip(40_000, SYN);
            both.spend_answers(program, &sent);
            both.ends(program, &sent, Reason::AnswerLimit);
            let (src, dst) =
                (at(both.town.names.client, 40_000), at(both.town.names.cluster_ip, 81));
            let tcp = both.town.protocol == proto::TCP;
            let other = packet(if tcp { proto::UDP } else { proto::TCP }, &src, &dst, SYN);
            both.rejected(program, &other, Reason::UnknownPort);
            both.ends(program, &sent, Reason::AnswerLimit);
            both.leap();
            both.rejected(program, &sent, Reason::NoEndpoints);
        },
    );
}

#[test]
fn refused_packets_are_counted_as_refused_with_the_bytes_that_came() {
    tell_arriving(
        || towns(0, 0),
        |both, program| {
            let before = both.counted(Reason::NoEndpoints);
            let sent = Sample { payload: vec![1; 300], ..both.town.to_vip(40_000, SYN) };
            both.rejected(program, &sent, Reason::NoEndpoints);
            let after = both.counted(Reason::NoEndpoints);
            assert_eq!(after.bytes - before.bytes, sent.bytes().len() as u64);
            assert_eq!((after.refused - before.refused, after.connections), (1, 0));
        },
    );
}
