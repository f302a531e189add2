//! The answer to a packet that nobody will take, or that is too big: TCP RST (RFC 9293, 3.10.7.1) or
//! an ICMP error (RFC 792, RFC 1191, RFC 4443), made from the packet in its own place.

use crate::{
    addr::{V4, V6},
    checksum::Sum,
    packet::Packet,
    parse::{L3, L4_V4, L4_V6, Segment},
    rewrite::Rewrite,
    sctp,
    wire::{Eth, Header, Icmp, Ipv4, Ipv6, Tcp, Udp, proto},
};

/// Hop count of the answers.
pub(crate) const TTL: u8 = 64;

/// What an answer complains about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What would have fitted, in bytes; zero: nobody takes the packet, whatever its length.
    pub mtu: u16,
}

impl Complaint {
    /// Destination unreachable: port, or fragmentation needed and the next hop's MTU.
    #[inline(always)]
    const fn v4(self) -> Icmp {
        let [high, low] = self.mtu.to_be_bytes();
        let code = if self.mtu == 0 { 3 } else { 4 };
        Icmp { kind: 3, code, checksum: [0; 2], rest: [0, 0, high, low] }
    }

    /// Destination unreachable (port), or packet too big and the next hop's MTU.
    #[inline(always)]
    const fn v6(self) -> Icmp {
        let [high, low] = self.mtu.to_be_bytes();
        let (kind, code) = if self.mtu == 0 { (1, 4) } else { (2, 0) };
        Icmp { kind, code, checksum: [0; 2], rest: [0, 0, high, low] }
    }
}

/// A family that answers can be made in.
pub trait Reject: Rewrite {
    /// Turns the packet into the answer to itself; it then goes out where it came in.
    ///
    /// `None`, with the packet as it was, where there shall be no answer (to a RST or ABORT, or to an
    /// IPv4 packet that is too big but asks for no report) or the frame cannot be resized.
    fn reject<P: Packet + ?Sized>(
        packet: &mut P,
        segment: &Segment<Self>,
        complaint: Complaint,
    ) -> Option<()>;
}

impl Reject for V4 {
    #[inline(always)]
    fn reject<P: Packet + ?Sized>(
        packet: &mut P,
        segment: &Segment<Self>,
        complaint: Complaint,
    ) -> Option<()> {
        if segment.tuple.protocol == proto::TCP && complaint.mtu == 0 {
            reset_v4(packet, segment)
        } else if segment.has_extras(Self::L4) || (complaint.mtu == 0 && sctp::ends(segment)) {
            // What must be quoted is longer than what these answers quote; or nobody waits for one.
            None
        } else {
            complain_v4(packet, complaint)
        }
    }
}

impl Reject for V6 {
    #[inline(always)]
    fn reject<P: Packet + ?Sized>(
        packet: &mut P,
        segment: &Segment<Self>,
        complaint: Complaint,
    ) -> Option<()> {
        if segment.tuple.protocol == proto::TCP && complaint.mtu == 0 {
            reset_v6(packet, segment)
        } else if segment.has_extras(Self::L4) || (complaint.mtu == 0 && sctp::ends(segment)) {
            // What must be quoted is longer than what these answers quote; or nobody waits for one.
            None
        } else {
            complain_v6(packet, complaint)
        }
    }
}

// Functions of their own, for the sake of BPF's stack.

#[inline(never)]
fn reset_v4<P: Packet + ?Sized>(packet: &mut P, segment: &Segment<V4>) -> Option<()> {
    let eth = packet.get::<Eth>(0)?.reversed();
    let ip = answer_v4(packet.get::<Ipv4>(L3)?, proto::TCP, Tcp::LEN);
    let l4 = segment.transport();
    let tcp = reset(packet.get::<Tcp>(l4)?, (L3 + segment.length as usize).wrapping_sub(l4))?;
    let sum = pseudo(proto::TCP, Tcp::LEN).bytes(&ip.src).bytes(&ip.dst);
    let tcp = checked_tcp(tcp, sum);
    packet.resize(L4_V4 + Tcp::LEN)?;
    *packet.get_mut(0)? = eth;
    *packet.get_mut(L3)? = ip;
    *packet.get_mut(L4_V4)? = tcp;
    Some(())
}

#[inline(never)]
fn complain_v4<P: Packet + ?Sized>(packet: &mut P, complaint: Complaint) -> Option<()> {
    let eth = packet.get::<Eth>(0)?.reversed();
    let old = *packet.get::<Ipv4>(L3)?;
    // Of TCP and SCTP too the first eight bytes are quoted.
    let udp = *packet.get::<Udp>(L4_V4)?;
    if complaint.mtu != 0 && old.flags_fragment[0] & Ipv4::DF[0] == 0 {
        return None;
    }
    let quoted = Ipv4::LEN + Udp::LEN;
    let icmp = complaint.v4();
    let sum = Sum::ZERO.add2([icmp.kind, icmp.code]).bytes(&icmp.rest);
    let sum = sum_udp(sum_v4(sum, &old), &udp);
    packet.resize(L4_V4 + Icmp::LEN + quoted)?;
    *packet.get_mut(0)? = eth;
    *packet.get_mut(L3)? = answer_v4(&old, proto::ICMP, Icmp::LEN + quoted);
    *packet.get_mut(L4_V4)? = Icmp { checksum: sum.finish(), ..icmp };
    *packet.get_mut(L4_V4 + Icmp::LEN)? = old;
    *packet.get_mut(L4_V4 + Icmp::LEN + Ipv4::LEN)? = udp;
    Some(())
}

#[inline(never)]
fn reset_v6<P: Packet + ?Sized>(packet: &mut P, segment: &Segment<V6>) -> Option<()> {
    let eth = packet.get::<Eth>(0)?.reversed();
    let ip = answer_v6(packet.get::<Ipv6>(L3)?, proto::TCP, Tcp::LEN);
    let l4 = segment.transport();
    let tcp = reset(packet.get::<Tcp>(l4)?, (L3 + segment.length as usize).wrapping_sub(l4))?;
    let tcp = checked_tcp(tcp, pseudo_v6(&ip, proto::TCP, Tcp::LEN));
    packet.resize(L4_V6 + Tcp::LEN)?;
    *packet.get_mut(0)? = eth;
    *packet.get_mut(L3)? = ip;
    *packet.get_mut(L4_V6)? = tcp;
    Some(())
}

#[inline(never)]
fn complain_v6<P: Packet + ?Sized>(packet: &mut P, complaint: Complaint) -> Option<()> {
    const QUOTED: usize = L4_V6 + Icmp::LEN;
    const LENGTH: usize = Icmp::LEN + Ipv6::LEN + Udp::LEN;
    let eth = packet.get::<Eth>(0)?.reversed();
    let udp = *packet.get::<Udp>(L4_V6)?;
    packet.resize(L4_V6 + LENGTH)?;
    // From the end backwards: the quoted packet moves into what follows it.
    *packet.get_mut(QUOTED + Ipv6::LEN)? = udp;
    let old = *packet.get::<Ipv6>(L3)?;
    *packet.get_mut(QUOTED)? = old;
    *packet.get_mut(0)? = eth;
    *packet.get_mut(L3)? = answer_v6(packet.get::<Ipv6>(QUOTED)?, proto::ICMPV6, LENGTH);
    let icmp = complaint.v6();
    let sum = pseudo_v6(packet.get::<Ipv6>(L3)?, proto::ICMPV6, LENGTH);
    let sum = sum.add2([icmp.kind, icmp.code]).bytes(&icmp.rest);
    let sum = sum_v6(sum, packet.get::<Ipv6>(QUOTED)?);
    let sum = sum_udp(sum, packet.get::<Udp>(QUOTED + Ipv6::LEN)?);
    *packet.get_mut(L4_V6)? = Icmp { checksum: sum.finish(), ..icmp };
    Some(())
}

/// The RST that answers a segment of `length` bytes, header included. Never one to a RST.
#[inline(always)]
fn reset(old: &Tcp, length: usize) -> Option<Tcp> {
    if old.flags & Tcp::RST != 0 {
        return None;
    }
    let answers_ack = old.flags & Tcp::ACK != 0;
    let payload = (length as u32).wrapping_sub(u32::from(old.offset >> 4) * 4);
    let opening = u32::from(old.flags & Tcp::SYN != 0) + u32::from(old.flags & Tcp::FIN != 0);
    let next = u32::from_be_bytes(old.seq).wrapping_add(payload).wrapping_add(opening);
    Some(Tcp {
        src: old.dst,
        dst: old.src,
        seq: if answers_ack { old.ack } else { [0; 4] },
        ack: if answers_ack { [0; 4] } else { next.to_be_bytes() },
        offset: 5 << 4,
        flags: if answers_ack { Tcp::RST } else { Tcp::RST | Tcp::ACK },
        window: [0; 2],
        checksum: [0; 2],
        urgent: [0; 2],
    })
}

#[inline(always)]
fn answer_v4(old: &Ipv4, protocol: u8, payload: usize) -> Ipv4 {
    let ip = Ipv4 {
        version_ihl: Ipv4::VERSION_IHL,
        tos: 0,
        total_length: ((Ipv4::LEN + payload) as u16).to_be_bytes(),
        id: [0; 2],
        flags_fragment: Ipv4::DF,
        ttl: TTL,
        protocol,
        checksum: [0; 2],
        src: old.dst,
        dst: old.src,
    };
    Ipv4 { checksum: sum_v4(Sum::ZERO, &ip).finish(), ..ip }
}

#[inline(always)]
fn answer_v6(old: &Ipv6, next_header: u8, payload: usize) -> Ipv6 {
    Ipv6 {
        version_class_label: [0x60, 0, 0, 0],
        payload_length: (payload as u16).to_be_bytes(),
        next_header,
        hop_limit: TTL,
        src: old.dst,
        dst: old.src,
    }
}

/// The pseudo header's part of a transport checksum but for the addresses; `length` is below 64 kB.
#[inline(always)]
fn pseudo(protocol: u8, length: usize) -> Sum {
    Sum::ZERO.add2([0, protocol]).add2((length as u16).to_be_bytes())
}

#[inline(never)]
fn pseudo_v6(ip: &Ipv6, protocol: u8, length: usize) -> Sum {
    pseudo(protocol, length).bytes(&ip.src).bytes(&ip.dst)
}

#[inline(always)]
fn checked_tcp(tcp: Tcp, sum: Sum) -> Tcp {
    let sum = sum
        .add2(tcp.src)
        .add2(tcp.dst)
        .bytes(&tcp.seq)
        .bytes(&tcp.ack)
        .add2([tcp.offset, tcp.flags])
        .add2(tcp.window);
    Tcp { checksum: sum.finish(), ..tcp }
}

#[inline(always)]
pub(crate) fn sum_v4(sum: Sum, ip: &Ipv4) -> Sum {
    sum.add2([ip.version_ihl, ip.tos])
        .add2(ip.total_length)
        .add2(ip.id)
        .add2(ip.flags_fragment)
        .add2([ip.ttl, ip.protocol])
        .add2(ip.checksum)
        .bytes(&ip.src)
        .bytes(&ip.dst)
}

#[inline(never)]
fn sum_v6(sum: Sum, ip: &Ipv6) -> Sum {
    sum.bytes(&ip.version_class_label)
        .add2(ip.payload_length)
        .add2([ip.next_header, ip.hop_limit])
        .bytes(&ip.src)
        .bytes(&ip.dst)
}

#[inline(always)]
fn sum_udp(sum: Sum, udp: &Udp) -> Sum {
    sum.add2(udp.src).add2(udp.dst).add2(udp.length).add2(udp.checksum)
}
