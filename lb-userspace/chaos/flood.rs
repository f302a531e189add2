//! Packets from everywhere: sources that do not exist.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd as _,
};

use anyhow::{Context as _, Result};
use lb_userspace::lab::Host;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, setsockopt,
        socket, sockopt,
    },
};

const IP: usize = 20;
const TCP: usize = 20;
const UDP: usize = 8;

/// What a flood is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Syn,
    Datagram,
}

/// Sends so many packets from `host`, each from another source; how many were sent.
pub(crate) fn flood(host: &Host, kind: Kind, target: SocketAddrV4, count: usize) -> Result<usize> {
    flood_from(host, kind, target, (0..count).map(source))
}

/// Bytes of packets that are under way, of which the kernel gives twice as many, and counts 768 for a
/// packet: 64 of them, a quarter of the 256 that the queue of a veth device with XDP has room for.
const UNDER_WAY: usize = 64 * 768 / 2;

/// Sends a packet from each of these sources, as fast as the other end of the link takes them; how many
/// were sent. A link that is overfilled loses them before any program, and everybody else's with them.
pub(crate) fn flood_from(
    host: &Host,
    kind: Kind,
    target: SocketAddrV4,
    sources: impl Iterator<Item = SocketAddrV4> + Send,
) -> Result<usize> {
    host.run(|| {
        // "Raw" takes packets with their IP header, whoever they say they are from.
        let raw =
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
                .context("a raw socket")?;
        setsockopt(&raw, sockopt::SndBuf, &UNDER_WAY).context("a bound of what is under way")?;
        let [a, b, c, d] = target.ip().octets();
        let to = SockaddrIn::new(a, b, c, d, 0);
        let mut sent = 0;
        for source in sources {
            let packet = packet(kind, source, target);
            loop {
                match sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()) {
                    Ok(_) => break,
                    // No memory for a moment. (A queue that is full is no error here: the link counts
                    // what it had no room for.)
                    Err(Errno::ENOBUFS | Errno::EINTR) => std::thread::yield_now(),
                    Err(error) => return Err(error).context("send a packet of a flood"),
                }
            }
            sent += 1;
        }
        Ok(sent)
    })
}

/// Sources in 11.0.0.0/8, with a port each: a bijection of the number, so that none comes twice.
pub(crate) fn source(number: usize) -> SocketAddrV4 {
    let mixed = (number as u32).wrapping_mul(0x9e37_79b1);
    let [_, b, c, d] = mixed.to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(11, b, c, d), 1024 + (mixed >> 18) as u16 * 2)
}

fn packet(kind: Kind, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let (protocol, length) = match kind {
        Kind::Syn => (6, IP + TCP),
        Kind::Datagram => (17, IP + UDP),
    };
    let mut bytes = vec![0; length];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    bytes[8] = 64;
    bytes[9] = protocol;
    bytes[12..16].copy_from_slice(&from.ip().octets());
    bytes[16..20].copy_from_slice(&to.ip().octets());
    bytes[20..22].copy_from_slice(&from.port().to_be_bytes());
    bytes[22..24].copy_from_slice(&to.port().to_be_bytes());
    let checksum = match kind {
        Kind::Syn => {
            bytes[32] = 5 << 4;
            bytes[33] = 0x02;
            bytes[34] = 0xff;
            36
        }
        Kind::Datagram => {
            bytes[24..26].copy_from_slice(&(UDP as u16).to_be_bytes());
            26
        }
    };
    let pseudo = u32::from(protocol) + (length - IP) as u32;
    let sum = sum(&bytes[12..]) + pseudo;
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = !((folded & 0xffff) + (folded >> 16)) as u16;
    bytes[checksum..checksum + 2].copy_from_slice(&folded.to_be_bytes());
    bytes
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_comes_twice_and_checksums_are_right() {
        let sources: std::collections::BTreeSet<_> = (0..100_000).map(source).collect();
        assert_eq!(sources.len(), 100_000);
        let to = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 80);
        for kind in [Kind::Syn, Kind::Datagram] {
            let bytes = packet(kind, source(7), to);
            let parsed = etherparse::SlicedPacket::from_ip(&bytes).expect("a packet");
            let ip = match parsed.net {
                Some(etherparse::NetSlice::Ipv4(ip)) => ip.header().to_header(),
                other => panic!("{other:?}"),
            };
            match parsed.transport {
                Some(etherparse::TransportSlice::Tcp(tcp)) => {
                    let header = tcp.to_header();
                    assert_eq!(header.calc_checksum_ipv4(&ip, &[]).ok(), Some(header.checksum));
                }
                Some(etherparse::TransportSlice::Udp(udp)) => {
                    let header = udp.to_header();
                    assert_eq!(header.calc_checksum_ipv4(&ip, &[]).ok(), Some(header.checksum));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
