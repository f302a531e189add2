//! The frame that a packet would come in: headers, and nothing in them that no rule reads.

use std::net::IpAddr;

use lb_common::{
    packet::{Frame, Packet as _},
    wire::{Eth, Header, Ipv4, Ipv6, Sctp, Tcp, Udp},
};

use super::question::Asked;
use crate::model::Protocol;

/// The longest: Ethernet, IPv6 and TCP.
const LONGEST: usize = Eth::LEN + Ipv6::LEN + Tcp::LEN;
/// Hops that the packet has left.
const TTL: u8 = 64;

impl Asked {
    /// The packet as it comes in. Its checksums are not made: rules keep them right by differences
    /// and never look at them.
    pub fn frame(&self) -> Vec<u8> {
        let transport = match self.protocol {
            Protocol::Tcp => Tcp::LEN,
            Protocol::Udp => Udp::LEN,
            Protocol::Sctp => Sctp::LEN,
        };
        let mut bytes = [0; LONGEST];
        let mut frame = Frame::new(&mut bytes, LONGEST);
        let at = self.network(&mut frame, transport as u16);
        let (src, dst) = (self.sport.to_be_bytes(), self.port.to_be_bytes());
        match self.protocol {
            Protocol::Tcp => put(&mut frame, at, self.tcp()),
            Protocol::Udp => {
                let length = (transport as u16).to_be_bytes();
                put(&mut frame, at, Udp { src, dst, length, checksum: [0; 2] });
            }
            Protocol::Sctp => put(&mut frame, at, self.sctp()),
        }
        bytes[..at + transport].to_vec()
    }

    /// Writes everything in front of the transport header; says where that starts.
    fn network(&self, frame: &mut Frame<'_>, transport: u16) -> usize {
        let at = Eth::LEN;
        let protocol = self.protocol.number();
        let ethertype = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = Ipv4 {
                    version_ihl: Ipv4::VERSION_IHL,
                    tos: 0,
                    total_length: (Ipv4::LEN as u16 + transport).to_be_bytes(),
                    id: [0; 2],
                    flags_fragment: Ipv4::DF,
                    ttl: TTL,
                    protocol,
                    checksum: [0; 2],
                    src: src.octets(),
                    dst: dst.octets(),
                };
                put(frame, at, header);
                Eth::IPV4
            }
            (src, dst) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                let header = Ipv6 {
                    version_class_label: [0x60, 0, 0, 0],
                    payload_length: transport.to_be_bytes(),
                    next_header: protocol,
                    hop_limit: TTL,
                    src: octets(src),
                    dst: octets(dst),
                };
                put(frame, at, header);
                Eth::IPV6
            }
        };
        // Locally administered addresses: of nobody.
        let (dst, src) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        put(frame, 0, Eth { dst, src, ethertype });
        at + if ethertype == Eth::IPV4 { Ipv4::LEN } else { Ipv6::LEN }
    }

    const fn tcp(&self) -> Tcp {
        Tcp {
            src: self.sport.to_be_bytes(),
            dst: self.port.to_be_bytes(),
            seq: [0, 0, 0, 1],
            ack: [0; 4],
            offset: 5 << 4,
            flags: self.flags,
            window: [0xff; 2],
            checksum: [0; 2],
            urgent: [0; 2],
        }
    }

    const fn sctp(&self) -> Sctp {
        Sctp {
            src: self.sport.to_be_bytes(),
            dst: self.port.to_be_bytes(),
            tag: [0, 0, 0, 1],
            checksum: [0; 4],
            chunk: chunk(self.flags),
            chunk_flags: 0,
            chunk_length: [0, 4],
        }
    }
}

/// The chunk that says of an association what these flags of TCP say of a connection.
const fn chunk(flags: u8) -> u8 {
    /// The chunk of an association in mid-stream.
    const DATA: u8 = 0;
    match flags {
        _ if flags & Tcp::RST != 0 => Sctp::ABORT,
        _ if flags & Tcp::FIN != 0 => Sctp::SHUTDOWN,
        _ if flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN => Sctp::INIT,
        _ if flags & Tcp::SYN != 0 => Sctp::INIT_ACK,
        _ => DATA,
    }
}

/// Writes a header; frames here are long enough for all of theirs.
fn put<T: Header>(frame: &mut Frame<'_>, at: usize, header: T) {
    if let Some(place) = frame.get_mut(at) {
        *place = header;
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    fn asked(src: &str, dst: &str, protocol: Protocol, flags: u8) -> Asked {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        Asked { src, sport: 40_000, dst, port: 80, protocol, flags }
    }

    #[test]
    fn a_frame_says_in_everyones_reading_what_was_asked() {
        for (src, dst) in [("203.0.113.9", "10.96.0.10"), ("2001:db8::9", "fd00::10")] {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                let asked = asked(src, dst, protocol, Tcp::SYN | Tcp::ACK);
                let frame = asked.frame();
                let read = SlicedPacket::from_ethernet(&frame).unwrap();
                let (from, to, payload): (IpAddr, IpAddr, _) = match read.net.unwrap() {
                    NetSlice::Ipv4(ip) => {
                        let header = ip.header();
                        let (src, dst) = (header.source_addr(), header.destination_addr());
                        (src.into(), dst.into(), ip.payload().clone())
                    }
                    NetSlice::Ipv6(ip) => {
                        let header = ip.header();
                        let (src, dst) = (header.source_addr(), header.destination_addr());
                        (src.into(), dst.into(), ip.payload().clone())
                    }
                    NetSlice::Arp(_) => panic!("no IP"),
                };
                assert_eq!((from, to), (asked.src, asked.dst));
                assert_eq!(payload.ip_number.0, protocol.number());
                match (protocol, read.transport) {
                    (Protocol::Tcp, Some(TransportSlice::Tcp(tcp))) => {
                        assert_eq!((tcp.source_port(), tcp.destination_port()), (40_000, 80));
                        assert!(tcp.syn() && tcp.ack() && !tcp.fin() && !tcp.rst());
                    }
                    (Protocol::Udp, Some(TransportSlice::Udp(udp))) => {
                        assert_eq!((udp.source_port(), udp.destination_port()), (40_000, 80));
                        assert_eq!(usize::from(udp.length()), Udp::LEN);
                    }
                    (Protocol::Sctp, None) => {
                        let bytes = payload.payload;
                        let ports = [40_000_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat();
                        assert_eq!((bytes.len(), &bytes[..4]), (Sctp::LEN, &ports[..]));
                        assert_eq!(bytes[12..], [Sctp::INIT_ACK, 0, 0, 4]);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
