//! Packets in parts: each goes where the first one does.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header,
};
use lb_common::{limits, verdict::Reason, wire::proto};

use super::{
    super::{
        both::{Both, tell, tell_arriving},
        kernel::Program,
        support::{ACK, MACS, SYN, Sample},
        town::NODE_PORT,
    },
    tcp_towns, towns, udp_towns,
};
use crate::support::counted;

/// The packet in parts of `size` bytes of IP payload.
pub fn fragments(sent: &Sample, id: u32, size: usize) -> Vec<Vec<u8>> {
    let frame = sent.bytes();
    let header = if sent.src.is_ipv4() { 34 } else { 54 };
    let whole = &frame[header..];
    let count = whole.len().div_ceil(size);
    let parts = whole.chunks(size).enumerate();
    parts
        .map(|(number, part)| {
            fragment(sent, id, (number * size / 8) as u16, number + 1 < count, part)
        })
        .collect()
}

/// A part of a packet.
fn fragment(sent: &Sample, id: u32, offset: u16, more: bool, part: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let protocol = IpNumber(sent.protocol());
    let v4 = sent.src.is_ipv4();
    let ether_type = if v4 { EtherType::IPV4 } else { EtherType::IPV6 };
    let link = Ethernet2Header { destination: MACS.0, source: MACS.1, ether_type };
    link.write(&mut frame).expect("a vector");
    match (sent.src.ip(), sent.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let (length, src, dst) = (part.len() as u16, src.octets(), dst.octets());
            let mut header = Ipv4Header::new(length, sent.ttl, protocol, src, dst).unwrap();
            header.identification = id as u16;
            header.dont_fragment = false;
            header.more_fragments = more;
            header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut frame).expect("a vector");
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: part.len() as u16 + 8,
                next_header: IpNumber(44),
                hop_limit: sent.ttl,
                source: src.octets(),
                destination: dst.octets(),
            }
            .write(&mut frame)
            .expect("a vector");
            frame.extend([sent.protocol(), 0]);
            frame.extend((offset << 3 | u16::from(more)).to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        _ => panic!("one family"),
    }
    frame.extend(part);
    frame
}

/// The packet that these fragments make, put together by their offsets. All of its checksums must be
/// right.
pub fn joined(parts: &[Vec<u8>]) -> Sample {
    let v4 = parts[0][12] == 8;
    let mut whole = Vec::new();
    for part in parts {
        let (offset, header) = if v4 {
            let (ip, _) = Ipv4Header::from_slice(&part[14..]).unwrap();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            (usize::from(u16::from_be_bytes([part[20], part[21]]) & 0x1fff) * 8, 34)
        } else {
            (usize::from(u16::from_be_bytes([part[56], part[57]]) & 0xfff8), 62)
        };
        let payload = &part[header..];
        whole.resize(whole.len().max(offset + payload.len()), 0);
        whole[offset..offset + payload.len()].copy_from_slice(payload);
    }
    let mut frame = parts[0][..if v4 { 34 } else { 54 }].to_vec();
    if v4 {
        let (mut ip, _) = Ipv4Header::from_slice(&frame[14..]).unwrap();
        (ip.more_fragments, ip.total_len) = (false, 20 + whole.len() as u16);
        ip.header_checksum = ip.calc_header_checksum();
        frame[14..].copy_from_slice(&ip.to_bytes());
    } else {
        frame[18..20].copy_from_slice(&(whole.len() as u16).to_be_bytes());
        frame[20] = parts[0][54];
    }
    frame.extend(whole);
    Sample::read(&frame)
}

/// Runs the parts, which all end for `reason`; what becomes of them.
#[track_caller]
fn run_all(both: &mut Both, program: Program, parts: &[Vec<u8>], reason: Reason) -> Vec<Vec<u8>> {
    let run = |part: &Vec<u8>| {
        let run = both.run(program, part);
        assert_eq!(run.reason, reason);
        run.bytes
    };
    parts.iter().map(run).collect()
}

fn long(sent: Sample) -> Sample {
    Sample { payload: (0..8192).map(|at| (at % 251) as u8).collect(), ..sent }
}

#[test]
fn eight_kilobytes_of_udp_in_order_arrive_whole_at_one_remote_backend_and_so_do_answers() {
    tell_arriving(
        || udp_towns(0, 3),
        |both, program| {
            for (id, port) in (7_u32..).zip(40_000..40_008) {
                let sent = long(both.town.to_vip(port, 0));
                let parts = fragments(&sent, id, 1400);
                let seen = joined(&run_all(both, program, &parts, Reason::ToRemote));
                assert_eq!(seen.payload, sent.payload);
                let answer = long(seen.answered(0));
                let parts = fragments(&answer, 1000 + id, 1400);
                let back = joined(&run_all(both, program, &parts, Reason::ReplyRemote));
                assert_eq!((back.src, back.dst), (sent.dst, sent.src));
                assert_eq!(back.payload, answer.payload);
            }
        },
    );
}

#[test]
fn fragments_to_and_from_a_local_backend_arrive_whole() {
    tell(udp_towns(2, 0), |both| {
        let sent = long(both.town.to_vip(40_000, 0));
        let parts = fragments(&sent, 7, 1400);
        run_all(both, Program::Xdp, &parts[..1], Reason::NeedsStack);
        let seen = joined(&run_all(both, Program::Ingress, &parts, Reason::ToLocal));
        assert_eq!(seen, sent.between(sent.src, seen.dst));
        run_all(both, Program::Xdp, &parts[1..], Reason::NeedsStack);
        let answer = long(seen.answered(0));
        let parts = fragments(&answer, 8, 1400);
        let back = joined(&run_all(both, Program::Egress, &parts, Reason::ReplyLocal));
        assert_eq!(back, answer.between(sent.dst, sent.src));
    });
}

#[test]
fn fragments_of_tcp_follow_their_first_too() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            both.forwarded(program, &both.town.to_vip(40_000, SYN));
            let sent = long(both.town.to_vip(40_000, ACK));
            let seen =
                joined(&run_all(both, program, &fragments(&sent, 7, 1400), Reason::ToRemote));
            assert_eq!((seen.dst, seen.payload), (both.town.listens(20), sent.payload));
        },
    );
}

#[test]
fn what_comes_before_its_first_is_dropped_where_only_a_service_lives_and_else_passes() {
    tell_arriving(
        || udp_towns(1, 1),
        |both, program| {
            let names = both.town.names;
            for (id, (dst, port, reason)) in (7..).zip([
                (names.vip, 80, Reason::Fragment),
                (names.cluster_ip, 80, Reason::Fragment),
                (names.unallocated, 80, Reason::UnallocatedAddress),
                (names.node, NODE_PORT, Reason::NotService),
                (names.client, 80, Reason::NotService),
            ]) {
                let parts = fragments(&long(both.from_client(40_000, dst, port, 0)), id, 1400);
                for part in &parts[1..] {
                    both.frame_ends(program, part, reason);
                    both.frame_ends(Program::Egress, part, Reason::NotService);
                }
            }
        },
    );
}

#[test]
fn a_fragment_twice_goes_twice_and_two_different_firsts_do_not_make_a_packet() {
    tell_arriving(
        || udp_towns(0, 1),
        |both, program| {
            let sent = long(both.town.to_vip(40_000, 0));
            let parts = fragments(&sent, 7, 1400);
            let once = run_all(both, program, &parts, Reason::ToRemote);
            assert_eq!(run_all(both, program, &parts, Reason::ToRemote), once);
            let other = fragments(&long(both.town.to_vip(40_001, 0)), 7, 1400);
            both.frame_ends(program, &other[0], Reason::Fragment);
            // A packet of another number is another packet.
            let other = fragments(&long(both.town.to_vip(40_001, 0)), 8, 1400);
            run_all(both, program, &other, Reason::ToRemote);
        },
    );
}

#[test]
fn more_first_fragments_than_are_remembered_leave_room_for_those_that_come_next() {
    tell(udp_towns(0, 1), |both| {
        let room = limits::FRAGMENTS as usize;
        // Of one flow: it is packets that are many here, and their notes are all that fills.
        let sent = long(both.town.to_vip(40_000, 0));
        let firsts = room + room / 4;
        for id in 0..firsts as u32 {
            let first = &fragments(&sent, id, 1400)[0];
            assert_eq!(both.run_quickly(Program::Xdp, first).reason, Reason::ToRemote);
        }
        let known = both.kernel.programs.fragments();
        assert!((room / 2..=room).contains(&known), "{known} of {firsts} with room for {room}");
        let parts = fragments(&sent, firsts as u32, 1400);
        let seen = joined(&run_all(both, Program::Xdp, &parts, Reason::ToRemote));
        assert_eq!(seen.payload, sent.payload);
        counted(firsts - known, "first fragments forgotten for those behind them");
    });
}

#[test]
fn fragments_too_small_for_their_header_or_inside_it_are_dropped() {
    tell_arriving(
        || tcp_towns(0, 1),
        |both, program| {
            let sent = both.town.to_vip(40_000, SYN);
            let whole = sent.bytes()[if both.town.names.v4 { 34 } else { 54 }..].to_vec();
            let tiny = fragment(&sent, 7, 0, true, &whole[..16]);
            both.frame_ends(program, &tiny, Reason::BadLength);
            run_all(both, program, &fragments(&sent, 8, 24), Reason::ToRemote);
            let inside = fragment(&sent, 8, 1, true, &whole[8..16]);
            both.frame_ends(program, &inside, Reason::Fragment);
        },
    );
}

#[test]
fn fragments_of_icmp_and_of_other_protocols_end_at_service_addresses() {
    tell_arriving(
        || towns(0, 1),
        |both, program| {
            let sent = long(both.town.to_vip(40_000, 0));
            let icmp = if both.town.names.v4 { proto::ICMP } else { proto::ICMPV6 };
            for protocol in [icmp, proto::SCTP, 47] {
                let at = if both.town.names.v4 { 23 } else { 54 };
                let mut parts = fragments(&sent, 7, 1400);
                parts.iter_mut().for_each(|part| part[at] = protocol);
                let first = if protocol == 47 { Reason::Protocol } else { Reason::Fragment };
                both.frame_ends(program, &parts[0], first);
                both.frame_ends(program, &parts[1], Reason::Fragment);
            }
        },
    );
}
