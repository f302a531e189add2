//! Envelopes as others write and read them: a packet behind another IP header of its family.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header};
use lb_common::wire::proto;

use super::support::Sample;

/// Hops of an envelope when it is sent, of one that is sent on, and of one that comes back.
pub const FRESH: u8 = 64;
pub const SENT_ON: u8 = 255;
pub const BACK: u8 = 128;

/// What stands on an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
}

/// Addresses out of text.
pub fn outside(src: &str, dst: &str, ttl: u8) -> Outside {
    Outside { src: src.parse().expect(src), dst: dst.parse().expect(dst), ttl }
}

/// The frame in an envelope.
pub fn wrapped(frame: &[u8], outside: Outside) -> Vec<u8> {
    let (eth, packet) = frame.split_at(14);
    let outer = match (outside.src, outside.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let length = packet.len() as u16;
            let protocol = IpNumber(proto::IPIP);
            let header = Ipv4Header::new(length, outside.ttl, protocol, src.octets(), dst.octets());
            let mut header = header.expect("a short packet");
            header.dont_fragment = true;
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6Header {
            traffic_class: 0,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: packet.len() as u16,
            next_header: IpNumber(proto::IP6IP6),
            hop_limit: outside.ttl,
            source: src.octets(),
            destination: dst.octets(),
        }
        .to_bytes()
        .to_vec(),
        _ => panic!("one family"),
    };
    [eth, &outer, packet].concat()
}

/// What stands on the envelope, and the frame that is in it.
///
/// # Panics
/// If it is not an envelope that anybody would open.
#[track_caller]
pub fn unwrapped(frame: &[u8]) -> (Outside, Vec<u8>) {
    let (eth, packet) = frame.split_at(14);
    let (outside, inner) = if eth[12..] == [0x08, 0] {
        let (header, inner) = Ipv4Header::from_slice(packet).expect("an IPv4 header");
        assert_eq!(header.header_checksum, header.calc_header_checksum(), "outer checksum");
        assert_eq!(usize::from(header.total_len), packet.len(), "outer length");
        assert_eq!(header.protocol, IpNumber(proto::IPIP));
        assert!(header.dont_fragment && !header.more_fragments);
        let (src, dst) = (header.source.into(), header.destination.into());
        (Outside { src, dst, ttl: header.time_to_live }, inner)
    } else {
        let (header, inner) = Ipv6Header::from_slice(packet).expect("an IPv6 header");
        assert_eq!(usize::from(header.payload_length), inner.len(), "outer length");
        assert_eq!(header.next_header, IpNumber(proto::IP6IP6));
        let (src, dst) = (header.source.into(), header.destination.into());
        (Outside { src, dst, ttl: header.hop_limit }, inner)
    };
    (outside, [eth, inner].concat())
}

/// The same for a packet that can be read.
#[track_caller]
pub fn opened(frame: &[u8]) -> (Outside, Sample) {
    let (outside, inner) = unwrapped(frame);
    (outside, Sample::read(&inner))
}
