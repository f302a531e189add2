//! An ICMP message as a value, which etherparse writes and reads.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber,
    Ipv4Header, Ipv6FlowLabel, Ipv6Header, NetSlice, SlicedPacket, TransportSlice, icmpv4, icmpv6,
};

use super::super::support::MACS;

/// An ICMP message as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    pub kind: Kind,
    /// What stands behind the ICMP header.
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
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
