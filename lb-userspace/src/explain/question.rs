//! A packet that somebody asks about, checked.

use std::net::IpAddr;

use lb_common::{
    abi::Question,
    addr::{Addr as _, V4, V6},
    path,
    wire::Tcp,
};

use crate::{
    api::Packet,
    model::{Family, Protocol},
    plan::SourceClass,
};

/// The source port where none is given: any will do, and the same one makes answers repeatable.
const ANY_PORT: u16 = 40_000;

/// TCP's flags by their names; of SCTP they stand for the chunks that say the same.
const FLAGS: [(&str, u8); 8] = [
    ("FIN", Tcp::FIN),
    ("SYN", Tcp::SYN),
    ("RST", Tcp::RST),
    ("PSH", 0x08),
    ("ACK", Tcp::ACK),
    ("URG", 0x20),
    ("ECE", 0x40),
    ("CWR", 0x80),
];

/// A packet that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("`{0}` is none of tcp, udp and sctp")]
    Protocol(String),
    #[error("{src} and {dst} are of different families")]
    Families { src: IpAddr, dst: IpAddr },
    #[error("`{0}` is no TCP flag: FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, with commas between")]
    Flag(String),
}

/// A packet that can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    pub src: IpAddr,
    pub sport: u16,
    pub dst: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
    /// Of TCP, or what the first chunk of SCTP says.
    pub flags: u8,
}

impl Asked {
    /// Checks a packet and fills in what it leaves open.
    pub fn new(packet: &Packet) -> Result<Self, Wrong> {
        // As sockets of IPv6 do with `::ffff:a.b.c.d`.
        let (src, dst) = (packet.src.to_canonical(), packet.dst.to_canonical());
        if Family::of(src) != Family::of(dst) {
            return Err(Wrong::Families { src, dst });
        }
        let protocol = match packet.proto.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(Wrong::Protocol(packet.proto.clone())),
        };
        let flags = packet.flags.as_deref().map_or(Ok(Tcp::SYN), flags)?;
        let sport = packet.sport.unwrap_or(ANY_PORT);
        Ok(Self { src, sport, dst, port: packet.port, protocol, flags })
    }

    /// The first packet of another connection to the same place.
    pub const fn another(self, step: u16) -> Self {
        let sport = self.sport.wrapping_add(step);
        Self { sport: if sport == 0 { step } else { sport }, flags: Tcp::SYN, ..self }
    }

    /// The question that a socket's rule answers.
    pub fn question(&self, class: SourceClass) -> Question {
        let class = match class {
            SourceClass::Node => path::SourceClass::Node,
            SourceClass::Pod => path::SourceClass::Pod,
            SourceClass::Outside => path::SourceClass::Outside,
        };
        Question {
            version: if self.dst.is_ipv4() { 4 } else { 6 },
            protocol: self.protocol.number(),
            port: self.port.to_be_bytes(),
            src: slot(self.src),
            dst: slot(self.dst),
            class: class as u8,
            zero: [0; 3],
        }
    }
}

/// Flags by their names, with commas between.
fn flags(names: &str) -> Result<u8, Wrong> {
    let flag = |name: &str| {
        let name = name.trim();
        let known = FLAGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, bit)| *bit).ok_or_else(|| Wrong::Flag(name.to_owned()))
    };
    names.split(',').try_fold(0, |bits, name| Ok(bits | flag(name)?))
}

fn slot(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => V4(v4.octets()).to_slot(),
        IpAddr::V6(v6) => V6(v6.octets()).to_slot(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Packet {
        Packet {
            src: [203, 0, 113, 9].into(),
            sport: None,
            proto: "tcp".into(),
            dst: [10, 96, 0, 10].into(),
            port: 80,
            flags: None,
        }
    }

    #[test]
    fn what_a_packet_leaves_open_is_a_syn_from_a_port_that_is_always_the_same() {
        let asked = Asked::new(&packet()).unwrap();
        assert_eq!((asked.sport, asked.flags), (ANY_PORT, Tcp::SYN));
        assert_eq!(Asked::new(&packet()), Ok(asked));
    }

    #[test]
    fn flags_are_named_in_any_case_with_commas_between() {
        let asked = |flags: &str| Asked::new(&Packet { flags: Some(flags.into()), ..packet() });
        assert_eq!(asked("SYN,ack").unwrap().flags, Tcp::SYN | Tcp::ACK);
        assert_eq!(asked("FIN, PSH").unwrap().flags, Tcp::FIN | 0x08);
        assert_eq!(asked("SYN,"), Err(Wrong::Flag(String::new())));
        assert_eq!(asked("SYNACK"), Err(Wrong::Flag("SYNACK".into())));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_an_ipv4_address() {
        let dst = "::ffff:10.96.0.10".parse().unwrap();
        assert_eq!(Asked::new(&Packet { dst, ..packet() }), Asked::new(&packet()));
    }

    #[test]
    fn packets_that_cannot_be_are_refused_by_what_is_wrong_with_them() {
        let wrong = |packet| Asked::new(&packet).unwrap_err().to_string();
        let dst = "fd00::1".parse().unwrap();
        let families = "203.0.113.9 and fd00::1 are of different families";
        assert_eq!(wrong(Packet { dst, ..packet() }), families);
        let proto = "icmp".to_owned();
        assert_eq!(wrong(Packet { proto, ..packet() }), "`icmp` is none of tcp, udp and sctp");
    }

    #[test]
    fn another_connection_has_another_port_that_is_never_zero() {
        let asked = Asked { sport: 65_534, flags: Tcp::ACK, ..Asked::new(&packet()).unwrap() };
        let ports = [1, 2, 3].map(|step| asked.another(step).sport);
        assert_eq!(ports, [65_535, 2, 1]);
        assert_eq!(asked.another(1).flags, Tcp::SYN);
    }
}
