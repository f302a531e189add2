use std::net::SocketAddr;

use lb_common::{
    abi::NextHop,
    addr::{V4, V6},
    flow::Tuple,
    packet::Frame,
    rewrite::{Rewrite, link, translate},
    wire::proto,
};

use crate::support::{ACK, FromIp, L4, Sample, packet, tcp, tuple, udp};

/// The frame after it was made one between `src` and `dst`.
fn translated<A: Rewrite + FromIp>(sample: &Sample, to: &Sample, hop: bool) -> Vec<u8> {
    let flow = |of: &Sample| -> Tuple<A> {
        tuple(of.protocol(), &of.src.to_string(), &of.dst.to_string())
    };
    let mut bytes = sample.bytes();
    let length = bytes.len();
    let mut frame = Frame::new(&mut bytes, length);
    translate(&mut frame, &flow(sample), &flow(to), A::L4, hop).expect("a whole packet");
    bytes
}

#[test]
fn both_families_and_protocols_come_out_as_if_they_had_been_sent_so() {
    for protocol in [proto::TCP, proto::UDP] {
        let sent = packet(protocol, "192.0.2.9:40000", "10.96.0.10:80", ACK);
        let sent = Sample { ttl: 9, ..sent };
        let want = packet(protocol, "10.1.0.1:1024", "10.2.0.7:8080", ACK);
        assert_eq!(
            Sample::read(&translated::<V4>(&sent, &want, true)),
            Sample { ttl: 8, ..want.clone() }
        );
        assert_eq!(Sample::read(&translated::<V4>(&sent, &want, false)), Sample { ttl: 9, ..want });
        let sent = packet(protocol, "[2001:db8::9]:40000", "[fd00::10]:80", ACK);
        let want = packet(protocol, "[fd00:1::1]:1024", "[fd00:2::7]:8080", ACK);
        assert_eq!(
            Sample::read(&translated::<V6>(&sent, &want, true)),
            Sample { ttl: 63, ..want.clone() }
        );
        assert_eq!(Sample::read(&translated::<V6>(&sent, &want, false)), want);
    }
}

#[test]
fn any_translation_is_byte_for_byte_what_etherparse_would_have_sent() {
    type Side = ([u8; 4], u16);
    type Input = ((Side, Side), (Side, Side), bool, u8, Vec<u8>);
    bolero::check!().with_type::<Input>().for_each(|(from, to, is_tcp, ttl, payload)| {
        let l4 = L4::Tcp { flags: ACK, seq: 5, ack: 6, window: 7 };
        let between = |(src, dst): &(Side, Side)| Sample {
            src: SocketAddr::from(*src),
            dst: SocketAddr::from(*dst),
            ttl: *ttl,
            l4: if *is_tcp { l4.clone() } else { L4::Udp },
            payload: payload.clone(),
            ..udp("0.0.0.0:0", "0.0.0.0:0")
        };
        let (sent, want) = (between(from), between(to));
        same_but_for_negative_zero(&translated::<V4>(&sent, &want, false), &want);
    });
}

#[test]
fn any_ipv6_translation_is_byte_for_byte_what_etherparse_would_have_sent() {
    type Side = ([u8; 16], u16);
    type Input = ((Side, Side), (Side, Side), bool, Vec<u8>);
    bolero::check!().with_type::<Input>().for_each(|(from, to, is_tcp, payload)| {
        let l4 = L4::Tcp { flags: ACK, seq: 5, ack: 6, window: 7 };
        let between = |(src, dst): &(Side, Side)| Sample {
            src: SocketAddr::from(*src),
            dst: SocketAddr::from(*dst),
            l4: if *is_tcp { l4.clone() } else { L4::Udp },
            payload: payload.clone(),
            ..udp("[::]:0", "[::]:0")
        };
        let (sent, want) = (between(from), between(to));
        same_but_for_negative_zero(&translated::<V6>(&sent, &want, false), &want);
    });
}

/// An incremental checksum may write one's complement zero the other way; both are right.
fn same_but_for_negative_zero(bytes: &[u8], want: &Sample) {
    let want = want.bytes();
    let differs: Vec<_> = (0..want.len()).filter(|at| bytes[*at] != want[*at]).collect();
    let zeros = |at: usize| [bytes[at], bytes[at + 1], want[at], want[at + 1]];
    if let [first, ..] = differs[..] {
        assert!(matches!(zeros(first), [0, 0, 0xff, 0xff] | [0xff, 0xff, 0, 0]), "{differs:?}");
    }
    assert!(differs.len() <= 4);
}

#[test]
fn ports_alone_leave_the_ip_header_as_it_was() {
    let sent = tcp("192.0.2.9:40000", "10.96.0.10:80", ACK);
    let bytes = translated::<V4>(&sent, &tcp("192.0.2.9:1", "10.96.0.10:2", ACK), false);
    assert_eq!(bytes[..34], sent.bytes()[..34]);
}

#[test]
fn an_ipv4_udp_packet_without_a_checksum_still_has_none() {
    let sent = udp("192.0.2.9:40000", "10.96.0.10:80");
    let mut bytes = sent.bytes();
    bytes[40..42].fill(0);
    let from: Tuple<V4> = tuple(proto::UDP, "192.0.2.9:40000", "10.96.0.10:80");
    let to = tuple(proto::UDP, "10.1.0.1:1024", "10.2.0.7:8080");
    let length = bytes.len();
    translate(&mut Frame::new(&mut bytes, length), &from, &to, 34, true).expect("a whole packet");
    let mut want = Sample { ttl: 63, ..udp("10.1.0.1:1024", "10.2.0.7:8080") }.bytes();
    want[40..42].fill(0);
    assert_eq!(bytes, want);
}

#[test]
fn damage_on_the_way_is_never_repaired() {
    let sent = tcp("192.0.2.9:40000", "10.96.0.10:80", ACK);
    let want = Sample { ttl: 63, ..tcp("10.1.0.1:1024", "10.2.0.7:8080", ACK) }.bytes();
    for (at, name) in [(24, "IP checksum"), (50, "TCP checksum"), (56, "payload")] {
        let mut bytes = sent.bytes();
        bytes[at] ^= 0x10;
        let length = bytes.len();
        let from: Tuple<V4> = tuple(proto::TCP, "192.0.2.9:40000", "10.96.0.10:80");
        let to = tuple(proto::TCP, "10.1.0.1:1024", "10.2.0.7:8080");
        translate(&mut Frame::new(&mut bytes, length), &from, &to, 34, true)
            .expect("a whole packet");
        assert_ne!(bytes, want, "{name}");
        let read = std::panic::catch_unwind(|| Sample::read(&bytes));
        assert!(read.is_err(), "a packet with a broken {name} reads as right");
    }
}

#[test]
fn a_packet_out_of_reach_is_left_as_it_was() {
    let sent = tcp("192.0.2.9:40000", "10.96.0.10:80", ACK).bytes();
    let from: Tuple<V4> = tuple(proto::TCP, "192.0.2.9:40000", "10.96.0.10:80");
    let to = tuple(proto::TCP, "10.1.0.1:1024", "10.2.0.7:8080");
    for length in 0..54 {
        let mut bytes = sent.clone();
        assert_eq!(translate(&mut Frame::new(&mut bytes, length), &from, &to, 34, true), None);
        assert_eq!(bytes, sent, "{length} bytes");
    }
}

#[test]
fn a_next_hop_is_the_frames_new_pair_of_link_addresses() {
    let sent = tcp("192.0.2.9:40000", "10.96.0.10:80", ACK);
    let (mut bytes, length) = (sent.bytes(), sent.bytes().len());
    let hop = NextHop::new(3, 1500, [6; 6], [7; 6]);
    link(&mut Frame::new(&mut bytes, length), &hop).expect("an Ethernet frame");
    assert_eq!(Sample::read(&bytes), Sample { macs: ([7; 6], [6; 6]), ..sent });
    assert_eq!(link(&mut Frame::new(&mut [0; 11], 11), &hop), None);
}
