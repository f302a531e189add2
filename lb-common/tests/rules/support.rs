//! Frames as plain values: written and read by etherparse, which checks every checksum.

use std::net::{IpAddr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};
use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, NetSlice,
    SlicedPacket, TcpHeader, TransportSlice, UdpHeader,
};
use lb_common::{
    addr::{Addr, V4, V6},
    flow::Tuple,
    wire::{Sctp, Tcp, proto},
};

pub const FIN: u8 = Tcp::FIN;
pub const SYN: u8 = Tcp::SYN;
pub const RST: u8 = Tcp::RST;
pub const ACK: u8 = Tcp::ACK;

/// The MAC addresses of every frame that is made here: destination, source.
pub const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

/// CRC32c, as others make it.
pub const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// A TCP, UDP or SCTP packet in an Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub macs: ([u8; 6], [u8; 6]),
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub ttl: u8,
    pub l4: L4,
    pub payload: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L4 {
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
    },
    Udp,
    /// With the kind of its first chunk; the payload is that of the chunk.
    Sctp {
        chunk: u8,
        tag: u32,
    },
}

/// A TCP packet; addresses as text.
pub fn tcp(src: &str, dst: &str, flags: u8) -> Sample {
    let l4 = L4::Tcp { flags, seq: 1_000_000, ack: 2_000_000, window: 512 };
    Sample { l4, ..udp(src, dst) }
}

/// A UDP packet; addresses as text.
pub fn udp(src: &str, dst: &str) -> Sample {
    let (src, dst) = (src.parse().expect(src), dst.parse().expect(dst));
    Sample { macs: MACS, src, dst, ttl: 64, l4: L4::Udp, payload: b"hello".to_vec() }
}

/// An SCTP packet; addresses as text. Flags stand for the chunk that says the same.
pub fn sctp(src: &str, dst: &str, flags: u8) -> Sample {
    let l4 = L4::Sctp { chunk: chunk(flags), tag: 3_000_000 };
    Sample { l4, payload: b"a chunk's".to_vec(), ..udp(src, dst) }
}

/// The chunk that says of an association what these flags say of a connection.
fn chunk(flags: u8) -> u8 {
    match flags {
        _ if flags & RST != 0 => Sctp::ABORT,
        _ if flags & FIN != 0 => Sctp::SHUTDOWN,
        _ if flags & (SYN | ACK) == SYN => Sctp::INIT,
        _ if flags & SYN != 0 => Sctp::INIT_ACK,
        _ => Sctp::COOKIE_ECHO,
    }
}

/// A packet of any protocol.
pub fn packet(protocol: u8, src: &str, dst: &str, flags: u8) -> Sample {
    match protocol {
        proto::TCP => tcp(src, dst, flags),
        proto::SCTP => sctp(src, dst, flags),
        _ => udp(src, dst),
    }
}

impl Sample {
    pub fn protocol(&self) -> u8 {
        match self.l4 {
            L4::Tcp { .. } => proto::TCP,
            L4::Udp => proto::UDP,
            L4::Sctp { .. } => proto::SCTP,
        }
    }

    /// The same with other addresses.
    pub fn between(&self, src: SocketAddr, dst: SocketAddr) -> Self {
        Self { src, dst, ..self.clone() }
    }

    /// What a backend that got this packet sends back, one hop later.
    pub fn answered(&self, flags: u8) -> Self {
        let l4 = match self.l4 {
            L4::Tcp { .. } => L4::Tcp { flags, seq: 77, ack: 88, window: 99 },
            L4::Udp => L4::Udp,
            L4::Sctp { .. } => L4::Sctp { chunk: chunk(flags), tag: 4_000_000 },
        };
        Self {
            macs: MACS,
            l4,
            ttl: 63,
            payload: b"answer".to_vec(),
            ..self.between(self.dst, self.src)
        }
    }

    /// One hop on, with these addresses on the link.
    pub fn hopped(&self, dst_mac: [u8; 6], src_mac: [u8; 6]) -> Self {
        Self { macs: (dst_mac, src_mac), ttl: self.ttl - 1, ..self.clone() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        let (l4, protocol) = (self.l4_bytes(), IpNumber(self.protocol()));
        let is_v4 = self.src.is_ipv4();
        Ethernet2Header {
            destination: self.macs.0,
            source: self.macs.1,
            ether_type: if is_v4 { EtherType::IPV4 } else { EtherType::IPV6 },
        }
        .write(&mut frame)
        .expect("a vector");
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                Ipv4Header::new(l4.len() as u16, self.ttl, protocol, src.octets(), dst.octets())
                    .expect("a short packet")
                    .write(&mut frame)
                    .expect("a vector");
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: l4.len() as u16,
                    next_header: protocol,
                    hop_limit: self.ttl,
                    source: src.octets(),
                    destination: dst.octets(),
                }
                .write(&mut frame)
                .expect("a vector");
            }
            _ => panic!("one family"),
        }
        frame.extend(l4);
        frame
    }

    fn l4_bytes(&self) -> Vec<u8> {
        let (sport, dport, payload) = (self.src.port(), self.dst.port(), &self.payload);
        let ips = (self.src.ip(), self.dst.ip());
        let mut bytes = match self.l4 {
            L4::Tcp { flags, seq, ack, window } => {
                let mut header = TcpHeader::new(sport, dport, seq, window);
                header.acknowledgment_number = ack;
                header.fin = flags & FIN != 0;
                header.syn = flags & SYN != 0;
                header.rst = flags & RST != 0;
                header.ack = flags & ACK != 0;
                header.checksum = match ips {
                    (IpAddr::V4(src), IpAddr::V4(dst)) => {
                        header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), payload)
                    }
                    (IpAddr::V6(src), IpAddr::V6(dst)) => {
                        header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), payload)
                    }
                    _ => panic!("one family"),
                }
                .expect("a short packet");
                header.to_bytes().to_vec()
            }
            L4::Udp => {
                let length = (UdpHeader::LEN + payload.len()) as u16;
                let mut header =
                    UdpHeader { source_port: sport, destination_port: dport, length, checksum: 0 };
                header.checksum = match ips {
                    (IpAddr::V4(src), IpAddr::V4(dst)) => {
                        header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), payload)
                    }
                    (IpAddr::V6(src), IpAddr::V6(dst)) => {
                        header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), payload)
                    }
                    _ => panic!("one family"),
                }
                .expect("a short packet");
                header.to_bytes().to_vec()
            }
            L4::Sctp { chunk, tag } => return sctp_bytes(sport, dport, tag, chunk, payload),
        };
        bytes.extend(payload);
        bytes
    }

    /// Reads a frame.
    ///
    /// # Panics
    /// If a checksum or a length is wrong, or the frame is anything else.
    #[track_caller]
    pub fn read(frame: &[u8]) -> Self {
        let sliced = SlicedPacket::from_ethernet(frame).expect("a frame");
        let Some(etherparse::LinkSlice::Ethernet2(link)) = &sliced.link else { panic!("Ethernet") };
        let (src, dst, ttl) = match sliced.net.as_ref().expect("IP") {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                let length = frame.len() - Ethernet2Header::LEN;
                assert_eq!(header.header_checksum, header.calc_header_checksum(), "IP checksum");
                assert_eq!(usize::from(header.total_len), length, "total length");
                (IpAddr::from(header.source), IpAddr::from(header.destination), header.time_to_live)
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header().to_header();
                let length = frame.len() - Ethernet2Header::LEN - Ipv6Header::LEN;
                assert_eq!(usize::from(header.payload_length), length, "payload length");
                (IpAddr::from(header.source), IpAddr::from(header.destination), header.hop_limit)
            }
            other @ NetSlice::Arp(_) => panic!("IP, not {other:?}"),
        };
        let (sport, dport, l4, payload) = match sliced.transport.as_ref() {
            None => read_sctp(sliced.ip_payload().expect("an IP packet")),
            Some(TransportSlice::Tcp(tcp)) => {
                let right = match (src, dst) {
                    (IpAddr::V4(src), IpAddr::V4(dst)) => {
                        tcp.calc_checksum_ipv4(src.octets(), dst.octets())
                    }
                    (IpAddr::V6(src), IpAddr::V6(dst)) => {
                        tcp.calc_checksum_ipv6(src.octets(), dst.octets())
                    }
                    _ => unreachable!("one header"),
                };
                assert_eq!(Ok(tcp.checksum()), right, "TCP checksum");
                let flag = |set, bit| if set { bit } else { 0 };
                let flags = flag(tcp.fin(), FIN)
                    | flag(tcp.syn(), SYN)
                    | flag(tcp.rst(), RST)
                    | flag(tcp.ack(), ACK);
                let (seq, ack) = (tcp.sequence_number(), tcp.acknowledgment_number());
                let l4 = L4::Tcp { flags, seq, ack, window: tcp.window_size() };
                (tcp.source_port(), tcp.destination_port(), l4, tcp.payload())
            }
            Some(TransportSlice::Udp(udp)) => {
                let (header, payload) = (udp.to_header(), udp.payload());
                let right = match (src, dst) {
                    (IpAddr::V4(src), IpAddr::V4(dst)) => {
                        header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), payload)
                    }
                    (IpAddr::V6(src), IpAddr::V6(dst)) => {
                        header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), payload)
                    }
                    _ => unreachable!("one header"),
                };
                assert_eq!(Ok(header.checksum), right, "UDP checksum");
                (header.source_port, header.destination_port, L4::Udp, payload)
            }
            Some(other) => panic!("TCP, UDP or SCTP, not {other:?}"),
        };
        Self {
            macs: (link.destination(), link.source()),
            src: SocketAddr::new(src, sport),
            dst: SocketAddr::new(dst, dport),
            ttl,
            l4,
            payload: payload.to_vec(),
        }
    }
}

fn sctp_bytes(sport: u16, dport: u16, tag: u32, chunk: u8, payload: &[u8]) -> Vec<u8> {
    let length = (4 + payload.len()) as u16;
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([chunk, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(payload);
    let checksum = CRC32C.checksum(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[track_caller]
fn read_sctp<'a>(ip: &etherparse::IpPayloadSlice<'a>) -> (u16, u16, L4, &'a [u8]) {
    assert_eq!(ip.ip_number.0, proto::SCTP, "TCP, UDP or SCTP");
    let bytes = ip.payload;
    let two = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let tag = u32::from(two(4)) << 16 | u32::from(two(6));
    let mut zeroed = bytes.to_vec();
    zeroed[8..12].fill(0);
    let right = CRC32C.checksum(&zeroed).to_le_bytes();
    assert_eq!(bytes[8..12], right, "SCTP checksum");
    assert_eq!(usize::from(two(14)), bytes.len() - 12, "chunk length");
    (two(0), two(2), L4::Sctp { chunk: bytes[12], tag }, &bytes[16..])
}

/// A family whose addresses can be made of the standard library's.
pub trait FromIp: Addr {
    fn from_ip(ip: IpAddr) -> Self;
}

impl FromIp for V4 {
    fn from_ip(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self(ip.octets()),
            IpAddr::V6(ip) => panic!("{ip} is not IPv4"),
        }
    }
}

impl FromIp for V6 {
    fn from_ip(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => panic!("{ip} is not IPv6"),
            IpAddr::V6(ip) => Self(ip.octets()),
        }
    }
}

/// An address out of text.
pub fn ip<A: FromIp>(text: &str) -> A {
    A::from_ip(text.parse().expect(text))
}

/// A flow out of text.
pub fn tuple<A: FromIp>(protocol: u8, src: &str, dst: &str) -> Tuple<A> {
    let (src, dst): (SocketAddr, SocketAddr) = (src.parse().expect(src), dst.parse().expect(dst));
    Tuple {
        src: A::from_ip(src.ip()),
        dst: A::from_ip(dst.ip()),
        sport: src.port().to_be_bytes(),
        dport: dst.port().to_be_bytes(),
        protocol,
    }
}
