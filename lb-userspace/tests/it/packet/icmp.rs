//! ICMP: errors about flows find their way in both directions, with the quoted packet translated;
//! what is too big is told so; echo is answered where nobody else would.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber,
    Ipv4Header, Ipv6FlowLabel, Ipv6Header, NetSlice, SlicedPacket, TransportSlice, icmpv4, icmpv6,
};
use lb_common::{
    verdict::{Reason, Verdict},
    wire::proto,
};

use super::{
    both::{self, ARRIVING, Both, patient, tell, tell_arriving},
    kernel::Program,
    network::{NARROW_MTU, Way},
    support::{ACK, MACS, SYN, Sample},
    town::{NODE_PORT, Town},
};

fn towns(here: usize, there: usize) -> Vec<Town> {
    patient(both::towns(here, there))
}

/// Who found the error: a router somewhere.
const ROUTERS: (&str, &str) = ("198.18.0.1", "2001:db8:77::1");

/// An ICMP message as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    pub kind: Kind,
    /// What stands behind the ICMP header.
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V4(Icmpv4Type),
    V6(Icmpv6Type),
}

impl Kind {
    /// What a host says of a port that nobody has.
    pub const fn unreachable_port(v4: bool) -> Self {
        if v4 {
            Self::V4(Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port))
        } else {
            Self::V6(Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port))
        }
    }
}

impl Message {
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        let ether_type = if self.src.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let link = Ethernet2Header { destination: MACS.0, source: MACS.1, ether_type };
        link.write(&mut frame).expect("a vector");
        let length = (8 + self.payload.len()) as u16;
        match (self.src, self.dst, &self.kind) {
            (IpAddr::V4(src), IpAddr::V4(dst), Kind::V4(kind)) => {
                let (src, dst) = (src.octets(), dst.octets());
                Ipv4Header::new(length, self.ttl, IpNumber::ICMP, src, dst)
                    .expect("a short packet")
                    .write(&mut frame)
                    .expect("a vector");
                let icmp = Icmpv4Header::with_checksum(kind.clone(), &self.payload);
                icmp.write(&mut frame).expect("a vector");
            }
            (IpAddr::V6(src), IpAddr::V6(dst), Kind::V6(kind)) => {
                let (source, destination) = (src.octets(), dst.octets());
                Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: length,
                    next_header: IpNumber::IPV6_ICMP,
                    hop_limit: self.ttl,
                    source,
                    destination,
                }
                .write(&mut frame)
                .expect("a vector");
                let payload = &self.payload;
                let icmp = Icmpv6Header::with_checksum(*kind, source, destination, payload);
                icmp.expect("a short packet").write(&mut frame).expect("a vector");
            }
            _ => panic!("one family"),
        }
        frame.extend(&self.payload);
        frame
    }

    /// Reads a frame whose checksums and lengths must be right.
    #[track_caller]
    pub fn read(frame: &[u8]) -> Self {
        let sliced = SlicedPacket::from_ethernet(frame).expect("a frame");
        match (sliced.net.expect("IP"), sliced.transport.expect("ICMP")) {
            (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                assert_eq!(usize::from(header.total_len) + 14, frame.len());
                let kind = icmp.icmp_type();
                assert_eq!(icmp.checksum(), kind.calc_checksum(icmp.payload()), "ICMP checksum");
                let (src, dst) = (header.source.into(), header.destination.into());
                let payload = icmp.payload().to_vec();
                Self { src, dst, ttl: header.time_to_live, kind: Kind::V4(kind), payload }
            }
            (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                let header = ip.header().to_header();
                assert_eq!(usize::from(header.payload_length) + 54, frame.len());
                let right = icmp.is_checksum_valid(header.source, header.destination);
                assert!(right, "ICMPv6 checksum");
                let (src, dst) = (header.source.into(), header.destination.into());
                let (kind, payload) = (Kind::V6(icmp.icmp_type()), icmp.payload().to_vec());
                Self { src, dst, ttl: header.hop_limit, kind, payload }
            }
            other => panic!("ICMP, not {other:?}"),
        }
    }
}

/// The errors that a sender must hear of, a fresh MTU among them.
pub(super) fn kinds(v4: bool) -> Vec<Kind> {
    if v4 {
        use icmpv4::{DestUnreachableHeader as Why, TimeExceededCode};
        let unreachable = [Why::Network, Why::Host, Why::Port, Why::FilterProhibited];
        let mut kinds = unreachable.map(Icmpv4Type::DestinationUnreachable).to_vec();
        let mtu = Why::FragmentationNeeded { next_hop_mtu: 1280 };
        kinds.push(Icmpv4Type::DestinationUnreachable(mtu));
        kinds.push(Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit));
        kinds.into_iter().map(Kind::V4).collect()
    } else {
        use icmpv6::{DestUnreachableCode as Why, TimeExceededCode};
        let unreachable = [Why::NoRoute, Why::Prohibited, Why::Address, Why::Port];
        let mut kinds = unreachable.map(Icmpv6Type::DestinationUnreachable).to_vec();
        kinds.push(Icmpv6Type::PacketTooBig { mtu: 1280 });
        kinds.push(Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded));
        kinds.into_iter().map(Kind::V6).collect()
    }
}

const fn header(v4: bool) -> usize {
    if v4 { 20 } else { 40 }
}

/// An error about a packet, of which `quoted` bytes behind its IP header are quoted.
pub(super) fn about(sent: &Sample, router: &str, kind: &Kind, quoted: usize) -> Message {
    let frame = sent.bytes();
    let end = (14 + header(sent.src.is_ipv4()) + quoted).min(frame.len());
    let src = router.parse().expect("an address");
    Message {
        src,
        dst: sent.src.ip(),
        ttl: 60,
        kind: kind.clone(),
        payload: frame[14..end].to_vec(),
    }
}

/// `error` as it must arrive at who sent `sent`.
pub(super) fn told(error: &Message, sent: &Sample, from: IpAddr) -> Message {
    let frame = sent.bytes();
    let mut payload = frame[14..14 + error.payload.len()].to_vec();
    let checksum = header(sent.src.is_ipv4()) + 8;
    if sent.protocol() == proto::SCTP && payload.len() > checksum {
        // Over all of a packet, so that nobody can check it in a quote.
        payload[checksum..checksum + 4].copy_from_slice(&error.payload[checksum..checksum + 4]);
    }
    Message { src: from, dst: sent.src.ip(), payload, ..error.clone() }
}

pub(super) fn router(both: &Both) -> &'static str {
    if both.town.names.v4 { ROUTERS.0 } else { ROUTERS.1 }
}

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

#[test]
fn a_packet_too_big_for_its_way_is_told_what_fits_and_a_small_one_goes_there() {
    tell(towns(0, 1), |both| {
        both.lead(both.town.names.there[0], Way::Narrow);
        for program in ARRIVING {
            let payload = vec![1; usize::from(NARROW_MTU)];
            let long = Sample { payload, ..both.town.to_vip(40_000, SYN) };
            let answer = Message::read(&both.rejected(program, &long, Reason::TooBig));
            assert_eq!(answer, too_big(&long));
        }
        both.forwarded(Program::Ingress, &both.town.to_vip(40_000, SYN));
        // Also when its flow is known.
        let payload = vec![1; usize::from(NARROW_MTU)];
        let long = Sample { payload, ..both.town.to_vip(40_000, ACK) };
        both.rejected(Program::Ingress, &long, Reason::TooBig);
    });
}

#[test]
fn the_longest_packet_that_fits_is_not_too_big() {
    tell(towns(0, 1), |both| {
        both.lead(both.town.names.there[0], Way::Narrow);
        let short = both.town.to_vip(40_000, SYN);
        let headers = short.bytes().len() - 14 - short.payload.len();
        let fits = vec![1; usize::from(NARROW_MTU) - headers];
        both.forwarded(Program::Ingress, &Sample { payload: fits.clone(), ..short.clone() });
        let payload = [&fits[..], &[1]].concat();
        both.rejected(Program::Ingress, &Sample { payload, ..short }, Reason::TooBig);
    });
}

#[test]
fn an_answer_too_big_for_the_way_to_the_client_is_told_to_the_backend() {
    tell(towns(0, 1), |both| {
        let seen = both.forwarded(Program::Ingress, &both.town.to_vip(40_000, SYN));
        both.lead(both.town.names.client, Way::Narrow);
        let payload = vec![1; usize::from(NARROW_MTU)];
        let long = Sample { payload, ..seen.answered(ACK) };
        for program in ARRIVING {
            let answer = Message::read(&both.rejected(program, &long, Reason::TooBig));
            assert_eq!(answer, too_big(&long));
        }
    });
}

/// Generic XDP gets what the kernel has joined as one packet, and nobody says so.
#[test]
fn what_is_longer_than_its_own_link_takes_is_left_to_tc_which_knows_its_parts() {
    tell(towns(0, 1), |both| {
        both.kernel.programs.network.ip("link set dev up0 mtu 1400\n");
        both.town.world.mtu = 1400;
        both.lead(both.town.names.there[0], Way::Narrow);
        both.forwarded(Program::Ingress, &both.town.to_vip(40_000, SYN));
        let headers = both.town.to_vip(40_000, SYN);
        let headers = headers.bytes().len() - 14 - headers.payload.len();
        let [fits, joined] = [1400, 1401].map(|length| Sample {
            payload: vec![1; length - headers],
            ..both.town.to_vip(40_000, ACK)
        });
        both.rejected(Program::Xdp, &fits, Reason::TooBig);
        both.ends(Program::Xdp, &joined, Reason::NeedsStack);
        both.rejected(Program::Ingress, &joined, Reason::TooBig);
        both.kernel.programs.network.ip("link set dev up0 mtu 9000\n");
    });
}

/// What the sender of a packet too big for [`Way::Narrow`] is told.
fn too_big(long: &Sample) -> Message {
    let v4 = long.src.is_ipv4();
    let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: NARROW_MTU };
    let kind = if v4 {
        Kind::V4(Icmpv4Type::DestinationUnreachable(needed))
    } else {
        Kind::V6(Icmpv6Type::PacketTooBig { mtu: NARROW_MTU.into() })
    };
    let payload = long.bytes()[14..14 + header(v4) + 8].to_vec();
    Message { src: long.dst.ip(), dst: long.src.ip(), ttl: 64, kind, payload }
}

#[test]
fn a_packet_that_routers_may_fragment_is_dropped_in_silence_where_it_is_too_big() {
    tell(towns(0, 1).into_iter().filter(|town| town.names.v4).collect(), |both| {
        both.lead(both.town.names.there[0], Way::Narrow);
        let payload = vec![1; usize::from(NARROW_MTU)];
        let mut frame = Sample { payload, ..both.town.to_vip(40_000, SYN) }.bytes();
        // Without "don't fragment"; the checksum goes with it.
        frame[20] = 0;
        frame[24] = frame[24].wrapping_add(0x40);
        for program in ARRIVING {
            let run = both.run(program, &frame);
            assert_eq!((run.reason, run.verdict), (Reason::TooBig, Verdict::Drop));
            assert_eq!(run.bytes, frame);
        }
    });
}

pub(super) fn echo(both: &Both, dst: &str, length: usize) -> Message {
    let names = both.town.names;
    let header = etherparse::IcmpEchoHeader { id: 7, seq: 9 };
    let kind = if names.v4 {
        Kind::V4(Icmpv4Type::EchoRequest(header))
    } else {
        Kind::V6(Icmpv6Type::EchoRequest(header))
    };
    let (src, dst) = (names.client.parse().expect("one"), dst.parse().expect("one"));
    Message { src, dst, ttl: 60, kind, payload: (0..length).map(|at| at as u8).collect() }
}

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
