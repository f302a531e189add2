use lb_common::{
    addr::{V4, V6},
    flow::Tuple,
    packet::{Frame, Packet as _},
    parse::{Ip, Parse, Part, Segment, version},
    verdict::Reason,
    wire::{Eth, Header as _, Icmp, Ipv4, Ipv6, Sctp, Tcp, Udp, proto},
};

use crate::support::{ACK, FIN, FromIp, L4, SYN, Sample, sctp, tcp, tuple, udp};

/// The version and, for IP, what it parses as.
fn parse<A: Parse>(frame: &[u8]) -> (Ip, Result<Segment<A>, (A, Reason)>) {
    let mut buffer = frame.to_vec();
    let packet = Frame::new(&mut buffer, frame.len());
    let mut segment = Segment::default();
    let result = A::parse(&packet, &mut segment);
    (version(&packet), result.map(|()| segment).map_err(|reason| (segment.tuple.dst, reason)))
}

fn samples() -> [Sample; 6] {
    [
        tcp("192.0.2.9:40000", "10.96.0.10:80", SYN),
        udp("192.0.2.9:40001", "10.96.0.10:53"),
        tcp("[2001:db8::9]:40002", "[fd00::10]:80", ACK | FIN),
        udp("[2001:db8::9]:40003", "[fd00::10]:53"),
        sctp("192.0.2.9:40004", "10.96.0.10:99", SYN),
        sctp("[2001:db8::9]:40005", "[fd00::10]:99", FIN),
    ]
}

fn segment<A: FromIp>(sample: &Sample) -> Segment<A> {
    Segment {
        tuple: tuple(sample.protocol(), &sample.src.to_string(), &sample.dst.to_string()),
        tcp_flags: match sample.l4 {
            L4::Tcp { flags, .. } => flags,
            L4::Udp => 0,
            L4::Sctp { chunk, .. } => lb_common::sctp::flags(chunk),
        },
        ttl: sample.ttl,
        length: (sample.bytes().len() - Eth::LEN) as u16,
        l4: if sample.src.is_ipv4() { 34 } else { 54 },
        part: Part::Whole,
        id: 0,
        headers: (sample.bytes().len() - Eth::LEN - sample.payload.len()) as u16,
    }
}

#[test]
fn headers_are_as_long_as_their_rfcs_say() {
    let lengths = [Eth::LEN, Ipv4::LEN, Ipv6::LEN, Tcp::LEN, Udp::LEN, Icmp::LEN, Sctp::LEN];
    assert_eq!(lengths, [14, 20, 40, 20, 8, 8, 16]);
    assert_eq!(std::mem::offset_of!(Tcp, checksum), Tcp::CHECKSUM_AT);
    assert_eq!(std::mem::offset_of!(Udp, checksum), Udp::CHECKSUM_AT);
}

#[test]
fn a_frame_reads_as_what_was_written() {
    let [tcp4, udp4, tcp6, udp6, sctp4, sctp6] = samples();
    assert_eq!(parse(&tcp4.bytes()), (Ip::V4, Ok(segment::<V4>(&tcp4))));
    assert_eq!(parse(&udp4.bytes()), (Ip::V4, Ok(segment::<V4>(&udp4))));
    assert_eq!(parse(&tcp6.bytes()), (Ip::V6, Ok(segment::<V6>(&tcp6))));
    assert_eq!(parse(&udp6.bytes()), (Ip::V6, Ok(segment::<V6>(&udp6))));
    assert_eq!(parse(&sctp4.bytes()), (Ip::V4, Ok(segment::<V4>(&sctp4))));
    assert_eq!(parse(&sctp6.bytes()), (Ip::V6, Ok(segment::<V6>(&sctp6))));
}

#[test]
fn any_flow_reads_as_what_etherparse_wrote() {
    type Input = ([u8; 4], [u8; 4], u16, u16, bool, u8, u8, Vec<u8>);
    bolero::check!().with_type::<Input>().for_each(
        |(src, dst, sport, dport, is_tcp, flags, ttl, payload)| {
            let l4 = L4::Tcp { flags: flags & (SYN | ACK | FIN), seq: 1, ack: 2, window: 3 };
            let sample = Sample {
                src: (*src, *sport).into(),
                dst: (*dst, *dport).into(),
                ttl: *ttl,
                l4: if *is_tcp { l4 } else { L4::Udp },
                payload: payload.clone(),
                ..udp("0.0.0.0:0", "0.0.0.0:0")
            };
            assert_eq!(parse(&sample.bytes()), (Ip::V4, Ok(segment::<V4>(&sample))));
        },
    );
}

#[test]
fn a_frame_cut_anywhere_is_foreign_or_not_ip_or_of_bad_length() {
    for sample in samples() {
        let frame = sample.bytes();
        let (is_v4, ip) = (sample.src.is_ipv4(), if sample.src.is_ipv4() { 34 } else { 54 });
        for length in 0..frame.len() {
            let (kind, reason) = if is_v4 {
                let (kind, result) = parse::<V4>(&frame[..length]);
                (kind, result.expect_err("a cut frame").1)
            } else {
                let (kind, result) = parse::<V6>(&frame[..length]);
                (kind, result.expect_err("a cut frame").1)
            };
            let whole = if is_v4 { Ip::V4 } else { Ip::V6 };
            assert_eq!(kind, if length < 14 { Ip::Foreign } else { whole }, "{length} bytes");
            let expected = if length < ip { Reason::NotIp } else { Reason::BadLength };
            assert_eq!(reason, expected, "{length} bytes of {sample:?}");
        }
    }
}

#[test]
fn padding_behind_the_packet_does_not_count() {
    let sample = Sample { payload: vec![], ..udp("192.0.2.9:1", "10.0.0.1:2") };
    let mut frame = sample.bytes();
    frame.resize(60, 0);
    assert_eq!(parse(&frame), (Ip::V4, Ok(segment::<V4>(&sample))));
}

/// Writes `bytes` at `offset` of an IPv4 TCP packet; the reason that comes of it.
fn spoilt_v4(offset: usize, bytes: &[u8]) -> Result<(), Reason> {
    let mut frame = samples()[0].bytes();
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    parse::<V4>(&frame).1.map(|_| ()).map_err(|(dst, reason)| {
        assert_eq!(dst, V4([10, 96, 0, 10]), "the address decides what becomes of it");
        reason
    })
}

#[test]
fn ipv4_headers_that_lie_or_cannot_be_rewritten_have_a_name() {
    let length = samples()[0].bytes().len() - 14;
    let total = |length: usize| spoilt_v4(16, &(length as u16).to_be_bytes());
    assert_eq!(spoilt_v4(14, &[0x65]), Err(Reason::BadLength), "version 6 in an IPv4 frame");
    assert_eq!(spoilt_v4(14, &[0x44]), Err(Reason::BadLength), "a header of four words");
    assert_eq!(spoilt_v4(14, &[0x4f]), Err(Reason::BadLength), "options up to the end");
    assert_eq!(total(length), Ok(()));
    assert_eq!(total(length + 1), Err(Reason::BadLength), "longer than the frame");
    assert_eq!(total(40), Ok(()), "a shorter packet with padding");
    assert_eq!(total(39), Err(Reason::BadLength), "shorter than its headers");
    assert_eq!(total(0), Err(Reason::BadLength));
}

#[test]
fn every_kind_of_ipv4_fragment_is_one_and_flags_alone_are_not() {
    assert_eq!(spoilt_v4(20, &[0x20, 0x00]), Ok(()), "the first, which has the ports");
    assert_eq!(spoilt_v4(20, &[0x20, 0x10]), Err(Reason::Fragment), "one in the middle");
    assert_eq!(spoilt_v4(20, &[0x00, 0x10]), Err(Reason::Fragment), "the last");
    assert_eq!(spoilt_v4(20, &[0x00, 0x01]), Err(Reason::Fragment), "a tiny one");
    assert_eq!(spoilt_v4(20, &[0x40, 0x00]), Ok(()), "don't fragment");
    assert_eq!(spoilt_v4(20, &[0x80, 0x00]), Ok(()), "the reserved bit");
}

#[test]
fn a_tcp_header_that_says_it_is_shorter_or_longer_than_it_can_be_lies() {
    assert_eq!(spoilt_v4(46, &[0x40]), Err(Reason::BadLength), "four words");
    assert_eq!(spoilt_v4(46, &[0xf0]), Err(Reason::BadLength), "fifteen words in a packet of six");
    assert_eq!(spoilt_v4(46, &[0x60]), Ok(()), "one word of options, within the packet");
}

#[test]
fn other_protocols_and_ipv6_extension_headers_are_named() {
    for protocol in [0, 1, 2, 4, 41, 50, 58, 133, 255] {
        assert_eq!(spoilt_v4(23, &[protocol]), Err(Reason::Protocol));
    }
    for next_header in [50, 51, 59, 58, 135] {
        let mut frame = samples()[2].bytes();
        frame[20] = next_header;
        let (_, result) = parse::<V6>(&frame);
        assert_eq!(result.expect_err("an extension").1, Reason::Protocol);
    }
}

#[test]
fn ipv6_headers_that_lie_have_a_name() {
    let spoilt = |offset: usize, bytes: &[u8]| {
        let mut frame = samples()[2].bytes();
        frame[offset..offset + bytes.len()].copy_from_slice(bytes);
        parse::<V6>(&frame).1.map(|_| ()).map_err(|(_, reason)| reason)
    };
    let length = samples()[2].bytes().len() - 54;
    let payload = |length: usize| spoilt(18, &(length as u16).to_be_bytes());
    assert_eq!(spoilt(14, &[0x40]), Err(Reason::BadLength), "version 4 in an IPv6 frame");
    assert_eq!(payload(length), Ok(()));
    assert_eq!(payload(length + 1), Err(Reason::BadLength), "longer than the frame");
    assert_eq!(payload(19), Err(Reason::BadLength), "shorter than TCP");
    assert_eq!(payload(0), Err(Reason::BadLength), "a jumbogram");
    assert_eq!(payload(65_535), Err(Reason::BadLength));
}

#[test]
fn only_the_two_ethertypes_of_ip_are_ours() {
    for ethertype in 0..=u16::MAX {
        let mut frame = samples()[0].bytes();
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        let expected = match ethertype {
            0x0800 => Ip::V4,
            0x86dd => Ip::V6,
            _ => Ip::Foreign,
        };
        assert_eq!(version(&Frame::new(&mut frame, 54)), expected);
    }
}

#[test]
fn reading_never_panics_and_never_changes_its_mind() {
    bolero::check!().for_each(|frame: &[u8]| {
        assert_eq!(parse::<V4>(frame), parse::<V4>(frame));
        assert_eq!(parse::<V6>(frame), parse::<V6>(frame));
    });
}

#[test]
fn a_reply_is_the_flow_turned_round_and_twice_is_the_flow() {
    let flow: Tuple<V4> = tuple(proto::TCP, "192.0.2.9:40000", "10.96.0.10:80");
    assert_eq!(flow.reply(), tuple(proto::TCP, "10.96.0.10:80", "192.0.2.9:40000"));
    assert_eq!(flow.reply().reply(), flow);
}

#[test]
fn a_frame_gives_no_header_beyond_its_end_and_grows_only_into_its_room() {
    let mut buffer = [0; 20];
    let mut frame = Frame::new(&mut buffer, 14);
    assert!(frame.get::<Eth>(0).is_some() && frame.get::<Eth>(1).is_none());
    assert!(frame.get_mut::<Eth>(usize::MAX).is_none(), "no overflow");
    assert_eq!((frame.resize(21), frame.len()), (None, 14));
    assert_eq!((frame.resize(20), frame.len()), (Some(()), 20));
    assert!(frame.get::<Ipv4>(0).is_some());
    assert_eq!((frame.resize(0), frame.is_empty()), (Some(()), true));
}
