//! New addresses and ports in a packet, with its checksums kept as right or wrong as they were.

use crate::{
    abi::NextHop,
    addr::{V4, V6},
    checksum::Delta,
    flow::Tuple,
    packet::Packet,
    parse::{L3, L4_V4, L4_V6, Parse},
    wire::{Ipv4, Ipv6, Link, Tcp, Udp, copy, proto},
};

/// A family whose packets can be rewritten.
pub trait Rewrite: Parse {
    const L4: usize;

    /// Puts `to`'s addresses into the IP header; with `hop`, takes one from TTL or hop limit.
    fn addresses<P: Packet + ?Sized>(packet: &mut P, to: &Tuple<Self>, hop: bool) -> Option<()>;
}

impl Rewrite for V4 {
    const L4: usize = L4_V4;

    #[inline(always)]
    fn addresses<P: Packet + ?Sized>(packet: &mut P, to: &Tuple<Self>, hop: bool) -> Option<()> {
        let ip = packet.get_mut::<Ipv4>(L3)?;
        let mut delta = Delta::ZERO.replace4(ip.src, to.src.0).replace4(ip.dst, to.dst.0);
        if hop {
            let ttl = ip.ttl.wrapping_sub(1);
            delta = delta.replace2([ip.ttl, ip.protocol], [ttl, ip.protocol]);
            ip.ttl = ttl;
        }
        ip.checksum = delta.apply(ip.checksum);
        ip.src = to.src.0;
        ip.dst = to.dst.0;
        Some(())
    }
}

impl Rewrite for V6 {
    const L4: usize = L4_V6;

    #[inline(always)]
    fn addresses<P: Packet + ?Sized>(packet: &mut P, to: &Tuple<Self>, hop: bool) -> Option<()> {
        let ip = packet.get_mut::<Ipv6>(L3)?;
        if hop {
            ip.hop_limit = ip.hop_limit.wrapping_sub(1);
        }
        copy(&mut ip.src, &to.src.0);
        copy(&mut ip.dst, &to.dst.0);
        Some(())
    }
}

/// Makes a packet of flow `from`, whose transport header is at `l4`, one of flow `to`. With `l4`
/// zero it has none, being a later fragment.
///
/// `None`, with nothing changed, where the headers do not lie in reach.
#[inline(never)]
pub fn translate<A: Rewrite, P: Packet + ?Sized>(
    packet: &mut P,
    from: &Tuple<A>,
    to: &Tuple<A>,
    l4: usize,
    hop: bool,
) -> Option<()> {
    let pseudo = from.src.replaced(to.src, from.dst.replaced(to.dst, Delta::ZERO));
    let header = Delta::ZERO.replace2(from.sport, to.sport).replace2(from.dport, to.dport);
    if l4 == 0 {
        // IPv6 addresses are in no checksum of this packet that would make up for them.
        if !A::IS_V4 {
            packet.readdressed(pseudo);
        }
    } else if from.protocol == proto::TCP {
        let tcp = packet.get_mut::<Tcp>(l4)?;
        tcp.src = to.sport;
        tcp.dst = to.dport;
        packet.transport_checksum(l4 + Tcp::CHECKSUM_AT, pseudo, header, false, A::IS_V4)?;
    } else {
        let udp = packet.get_mut::<Udp>(l4)?;
        udp.src = to.sport;
        udp.dst = to.dport;
        packet.transport_checksum(l4 + Udp::CHECKSUM_AT, pseudo, header, true, A::IS_V4)?;
    }
    A::addresses(packet, to, hop)
}

/// Link-layer addresses for the next hop.
#[inline(always)]
pub fn link<P: Packet + ?Sized>(packet: &mut P, hop: &NextHop) -> Option<()> {
    *packet.get_mut::<Link>(0)? = hop.link();
    Some(())
}
