//! A packet as etherparse reads it: changed field by field and written anew, every checksum made over
//! all it covers. Nothing here knows how the rules do it.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Ethernet2Header, IpDscp, IpEcn, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header,
    Ipv6Extensions, Ipv6FlowLabel, Ipv6Header, Ipv6RawExtHeader, TcpHeader, UdpHeader,
};
use lb_common::wire::{Sctp, proto};

use super::super::{
    random::Dice,
    support::{CRC32C, MACS},
};

/// Protocol, source and destination: a flow seen from one side.
pub type Ends = (u8, SocketAddr, SocketAddr);

/// A whole TCP, UDP or SCTP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    link: Ethernet2Header,
    ip: IpHeaders,
    l4: L4,
    payload: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum L4 {
    Tcp(TcpHeader),
    Udp(UdpHeader),
    /// Ports, verification tag and the first chunk's kind; the rest is payload.
    Sctp {
        ports: (u16, u16),
        tag: [u8; 4],
        checksum: bool,
    },
}

/// What a packet says of its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Says {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
}

impl Says {
    pub const SYN: Self = Self { syn: true, ack: false, fin: false, rst: false };

    const fn chunk(self) -> u8 {
        match self {
            Self { rst: true, .. } => Sctp::ABORT,
            Self { fin: true, .. } => Sctp::SHUTDOWN,
            Self { syn: true, ack: true, .. } => Sctp::INIT_ACK,
            Self { syn: true, .. } => Sctp::INIT,
            _ => Sctp::COOKIE_ECHO,
        }
    }
}

impl Plain {
    /// A packet with everything that is free in it drawn.
    pub fn draw((protocol, src, dst): Ends, says: Says, dice: &mut Dice) -> Self {
        let ip = draw_ip((protocol, src, dst), dice);
        let more = dice.one_of(&[12, 12, 13, 100, 1300]);
        let (l4, head) = match protocol {
            proto::TCP => (L4::Tcp(draw_tcp(src.port(), dst.port(), says, dice)), Vec::new()),
            proto::UDP => {
                // Over IPv4 a sender may leave the checksum out.
                let checksum = u16::from(src.is_ipv6() || !dice.one_in(4));
                let (source_port, destination_port) = (src.port(), dst.port());
                let header = UdpHeader { source_port, destination_port, length: 0, checksum };
                (L4::Udp(header), Vec::new())
            }
            _ => {
                let (ports, tag) = ((src.port(), dst.port()), (dice.roll() as u32).to_be_bytes());
                let checksum = !dice.one_in(4);
                (L4::Sctp { ports, tag, checksum }, chunk(says.chunk(), more).to_vec())
            }
        };
        let payload = head.into_iter().chain((0..more).map(|_| dice.roll() as u8)).collect();
        let link = Ethernet2Header {
            destination: MACS.0,
            source: MACS.1,
            ether_type: if src.is_ipv4() { 0x0800 } else { 0x86dd }.into(),
        };
        Self { link, ip, l4, payload }
    }

    /// Reads a frame that is whole and right: reading does not check that, writing it again does.
    #[track_caller]
    pub fn read(frame: &[u8]) -> Self {
        let (link, rest) = Ethernet2Header::from_slice(frame).expect("Ethernet");
        let (ip, rest) = IpHeaders::from_slice(rest).expect("IP");
        let (l4, payload) = match rest.ip_number {
            IpNumber::TCP => {
                let (tcp, payload) = TcpHeader::from_slice(rest.payload).expect("TCP");
                (L4::Tcp(tcp), payload)
            }
            IpNumber::UDP => {
                let (udp, payload) = UdpHeader::from_slice(rest.payload).expect("UDP");
                (L4::Udp(udp), payload)
            }
            IpNumber::SCTP => {
                let (head, payload) = rest.payload.split_at(12);
                let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
                let tag = [head[4], head[5], head[6], head[7]];
                let checksum = head[8..] != [0; 4];
                (L4::Sctp { ports: (port(0), port(2)), tag, checksum }, payload)
            }
            other => panic!("TCP, UDP or SCTP, not {other:?}"),
        };
        Self { link, ip, l4, payload: payload.to_vec() }
    }

    pub fn write(&self) -> Vec<u8> {
        let l4 = self.write_l4();
        let mut ip = self.ip.clone();
        ip.set_payload_len(l4.len()).expect("a short packet");
        if let IpHeaders::Ipv4(header, _) = &mut ip {
            header.header_checksum = header.calc_header_checksum();
        }
        let mut frame = self.link.to_bytes().to_vec();
        ip.write(&mut frame).expect("a vector");
        frame.extend(l4);
        frame
    }

    fn write_l4(&self) -> Vec<u8> {
        let payload = &self.payload;
        let mut bytes = match &self.l4 {
            L4::Tcp(tcp) => {
                let mut tcp = tcp.clone();
                tcp.checksum = match &self.ip {
                    IpHeaders::Ipv4(ip, _) => tcp.calc_checksum_ipv4(ip, payload),
                    IpHeaders::Ipv6(ip, _) => {
                        tcp.calc_checksum_ipv6_raw(ip.source, ip.destination, payload)
                    }
                }
                .expect("a short packet");
                tcp.to_bytes().to_vec()
            }
            L4::Udp(udp) => {
                let mut udp = udp.clone();
                udp.length = (UdpHeader::LEN + payload.len()) as u16;
                if udp.checksum != 0 {
                    udp.checksum = match &self.ip {
                        IpHeaders::Ipv4(ip, _) => {
                            udp.calc_checksum_ipv4_raw(ip.source, ip.destination, payload)
                        }
                        IpHeaders::Ipv6(ip, _) => {
                            udp.calc_checksum_ipv6_raw(ip.source, ip.destination, payload)
                        }
                    }
                    .expect("a short packet");
                }
                udp.to_bytes().to_vec()
            }
            L4::Sctp { ports, tag, checksum } => {
                let ports = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
                let mut bytes = [&ports[..], tag, &[0; 4], payload].concat();
                if *checksum {
                    let sum = CRC32C.checksum(&bytes);
                    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
                }
                return bytes;
            }
        };
        bytes.extend(payload);
        bytes
    }

    pub fn ends(&self) -> Ends {
        let (src, dst) = match &self.ip {
            IpHeaders::Ipv4(ip, _) => (IpAddr::from(ip.source), IpAddr::from(ip.destination)),
            IpHeaders::Ipv6(ip, _) => (IpAddr::from(ip.source), IpAddr::from(ip.destination)),
        };
        let (protocol, (sport, dport)) = match &self.l4 {
            L4::Tcp(tcp) => (proto::TCP, (tcp.source_port, tcp.destination_port)),
            L4::Udp(udp) => (proto::UDP, (udp.source_port, udp.destination_port)),
            L4::Sctp { ports, .. } => (proto::SCTP, *ports),
        };
        (protocol, SocketAddr::new(src, sport), SocketAddr::new(dst, dport))
    }

    /// The same packet between others.
    pub fn between(&self, src: SocketAddr, dst: SocketAddr) -> Self {
        let mut new = self.clone();
        match (&mut new.ip, src.ip(), dst.ip()) {
            (IpHeaders::Ipv4(ip, _), IpAddr::V4(src), IpAddr::V4(dst)) => {
                (ip.source, ip.destination) = (src.octets(), dst.octets());
            }
            (IpHeaders::Ipv6(ip, _), IpAddr::V6(src), IpAddr::V6(dst)) => {
                (ip.source, ip.destination) = (src.octets(), dst.octets());
            }
            _ => panic!("one family"),
        }
        let ports = (src.port(), dst.port());
        match &mut new.l4 {
            L4::Tcp(tcp) => (tcp.source_port, tcp.destination_port) = ports,
            L4::Udp(udp) => (udp.source_port, udp.destination_port) = ports,
            L4::Sctp { ports: old, .. } => *old = ports,
        }
        new
    }

    /// The same packet one hop on, between these on the link.
    pub fn hopped(&self, (destination, source): ([u8; 6], [u8; 6])) -> Self {
        let link = Ethernet2Header { destination, source, ..self.link.clone() };
        Self { link, ..self.clone() }.with_ttl(self.ttl() - 1)
    }

    pub const fn ttl(&self) -> u8 {
        match &self.ip {
            IpHeaders::Ipv4(ip, _) => ip.time_to_live,
            IpHeaders::Ipv6(ip, _) => ip.hop_limit,
        }
    }

    pub fn with_ttl(mut self, ttl: u8) -> Self {
        match &mut self.ip {
            IpHeaders::Ipv4(ip, _) => ip.time_to_live = ttl,
            IpHeaders::Ipv6(ip, _) => ip.hop_limit = ttl,
        }
        self
    }

    /// As a packet of an SCTP association whose receiver knows it by `new`; others stay.
    pub fn with_tag(mut self, new: u32) -> Self {
        if let L4::Sctp { tag, checksum, .. } = &mut self.l4 {
            (*tag, *checksum) = (new.to_be_bytes(), true);
        }
        self
    }

    /// Whether its IP header is a plain one.
    pub fn is_plain(&self) -> bool {
        match &self.ip {
            IpHeaders::Ipv4(ip, _) => ip.options.is_empty(),
            IpHeaders::Ipv6(_, extensions) => extensions.is_empty(),
        }
    }

    /// The RST that answers it (RFC 9293, 3.10.7.1): a connection that is nobody's.
    pub fn reset(&self) -> Option<Self> {
        let L4::Tcp(old) = &self.l4 else { return None };
        if old.rst {
            return None;
        }
        let (_, src, dst) = self.ends();
        let length = self.payload.len() as u32 + u32::from(old.syn) + u32::from(old.fin);
        let mut tcp = TcpHeader::new(dst.port(), src.port(), 0, 0);
        tcp.rst = true;
        if old.ack {
            tcp.sequence_number = old.acknowledgment_number;
        } else {
            tcp.ack = true;
            tcp.acknowledgment_number = old.sequence_number.wrapping_add(length);
        }
        let link = Ethernet2Header {
            destination: self.link.source,
            source: self.link.destination,
            ..self.link.clone()
        };
        let ip = plain_ip((proto::TCP, dst, src), 64);
        Some(Self { link, ip, l4: L4::Tcp(tcp), payload: Vec::new() })
    }
}

/// The head of a chunk with so many bytes behind it.
fn chunk(kind: u8, length: u16) -> [u8; 4] {
    let [high, low] = (4 + length).to_be_bytes();
    [kind, 0, high, low]
}

fn plain_ip((protocol, src, dst): Ends, ttl: u8) -> IpHeaders {
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let (src, dst) = (src.octets(), dst.octets());
            let ip = Ipv4Header::new(0, ttl, IpNumber(protocol), src, dst).expect("no payload");
            IpHeaders::Ipv4(ip, Ipv4Extensions::default())
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let ip = Ipv6Header {
                next_header: IpNumber(protocol),
                hop_limit: ttl,
                source: src.octets(),
                destination: dst.octets(),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(ip, Ipv6Extensions::default())
        }
        _ => panic!("one family"),
    }
}

fn draw_ip(ends: Ends, dice: &mut Dice) -> IpHeaders {
    let ttl = dice.one_of(&[64, 128, 255, 2]);
    let mut drawn = plain_ip(ends, ttl);
    match &mut drawn {
        IpHeaders::Ipv4(ip, _) => {
            ip.dscp = IpDscp::try_new(dice.below(64) as u8).expect("six bits");
            ip.ecn = IpEcn::try_new(dice.below(4) as u8).expect("two bits");
            ip.identification = dice.roll() as u16;
            ip.dont_fragment = dice.one_in(2);
            if dice.one_in(8) {
                // "No operation".
                let options = vec![1; 4 * (1 + dice.below(10))];
                ip.options = options[..].try_into().expect("at most forty");
            }
        }
        IpHeaders::Ipv6(ip, extensions) => {
            ip.traffic_class = dice.roll() as u8;
            ip.flow_label = Ipv6FlowLabel::try_new(dice.below(1 << 20) as u32).expect("20 bits");
            // Options that are padding.
            let options = |next| Ipv6RawExtHeader::new_raw(next, &[1, 4, 0, 0, 0, 0]).ok();
            if dice.one_in(8) {
                extensions.hop_by_hop_options = options(IpNumber(ends.0));
            }
            if dice.one_in(8) {
                extensions.destination_options = options(IpNumber(ends.0));
            }
        }
    }
    drawn.set_next_headers(IpNumber(ends.0));
    drawn
}

fn draw_tcp(sport: u16, dport: u16, says: Says, dice: &mut Dice) -> TcpHeader {
    let mut tcp = TcpHeader::new(sport, dport, dice.roll() as u32, dice.roll() as u16);
    tcp.acknowledgment_number = dice.roll() as u32;
    (tcp.syn, tcp.ack, tcp.fin, tcp.rst) = (says.syn, says.ack, says.fin, says.rst);
    (tcp.psh, tcp.ece, tcp.cwr) = (dice.one_in(2), dice.one_in(8), dice.one_in(8));
    if dice.one_in(3) {
        let options = vec![1; 4 * (1 + dice.below(10))];
        tcp.set_options_raw(&options).expect("at most forty");
    }
    tcp
}
