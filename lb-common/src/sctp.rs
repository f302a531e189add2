//! SCTP (RFC 9260): associations are tracked as TCP's connections are, and have their checksum kept
//! right over new ports. It covers no addresses.

use crate::{
    addr::Addr,
    checksum::Delta,
    flow::Tuple,
    packet::Packet,
    parse::{L3, Segment},
    rewrite::Rewrite,
    wire::{Sctp, Tcp, proto},
};

/// What the first chunk of a packet says of its association, as flags of TCP: INIT opens as SYN
/// does, INIT ACK answers, ABORT and SHUTDOWN COMPLETE end as RST does, SHUTDOWN and SHUTDOWN ACK
/// close one side each, and all others are mid-stream.
#[inline(always)]
pub const fn flags(chunk: u8) -> u8 {
    // Four bits a kind: FIN, SYN, RST, and ACK in the place of PSH. No branches but one: the verifier
    // would walk the rest of the way once for each.
    const MEANINGS: u64 = meaning(Sctp::INIT, Tcp::SYN)
        | meaning(Sctp::INIT_ACK, Tcp::SYN | MID)
        | meaning(Sctp::ABORT, Tcp::RST)
        | meaning(Sctp::SHUTDOWN, Tcp::FIN | MID)
        | meaning(Sctp::SHUTDOWN_ACK, Tcp::FIN | MID)
        | meaning(Sctp::SHUTDOWN_COMPLETE, Tcp::RST);
    if chunk > 15 {
        return Tcp::ACK;
    }
    let bits = (MEANINGS >> (chunk * 4)) as u8 & 15;
    let bits = bits | ((bits == 0) as u8 * MID);
    (bits & !MID) | ((bits & MID) << 1)
}

/// Whether a packet is an association's last, which is never answered.
#[inline(always)]
pub fn ends<A>(segment: &Segment<A>) -> bool {
    segment.tuple.protocol == proto::SCTP && segment.tcp_flags & Tcp::RST != 0
}

/// Half of [`Tcp::ACK`].
const MID: u8 = Tcp::ACK >> 1;

const fn meaning(chunk: u8, bits: u8) -> u64 {
    (bits as u64) << (chunk * 4)
}

/// Makes a packet one of flow `to`; with `hop`, takes one from TTL or hop limit.
///
/// A checksum of zero stays: it is one that hardware is still to make, or that a sender with other
/// means leaves out (RFC 9653).
///
/// `None`, with nothing changed, where the headers do not lie in reach.
#[inline(never)]
pub fn translate<A: Rewrite, P: Packet + ?Sized>(
    packet: &mut P,
    segment: &Segment<A>,
    to: &Tuple<A>,
    hop: bool,
) -> Option<()> {
    let (from, l4) = (&segment.tuple, segment.transport());
    let length = (L3 + segment.length as usize).wrapping_sub(l4) as u16;
    let change = packet.crc_change(ports(from) ^ ports(to), length);
    let sctp = packet.get_mut::<Sctp>(l4)?;
    let old = sctp.checksum;
    let new = (u32::from_le_bytes(old) ^ change).to_le_bytes();
    (sctp.src, sctp.dst) = (to.sport, to.dport);
    let mut delta = Delta::ZERO.replace2(from.sport, to.sport).replace2(from.dport, to.dport);
    if old != [0; 4] {
        sctp.checksum = new;
        delta = delta.replace4(old, new);
    }
    // IPv4 addresses have the header's checksum to make up for them.
    if !A::IS_V4 {
        delta = from.src.replaced(to.src, from.dst.replaced(to.dst, delta));
    }
    packet.readdressed(delta);
    A::addresses(packet, to, hop)
}

/// The ports as the word that they are at the start of the header.
#[inline(always)]
const fn ports<A: Addr>(tuple: &Tuple<A>) -> u32 {
    let ([a, b], [c, d]) = (tuple.sport, tuple.dport);
    u32::from_le_bytes([a, b, c, d])
}
