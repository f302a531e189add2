//! ICMP that the rules understand: echo, and errors, which quote the start of the packet that they
//! are about (RFC 792, RFC 4443).

use crate::{
    addr::{Addr, V4, V6},
    checksum::Delta,
    flow::Tuple,
    packet::{Checksum, Packet},
    parse::L3,
    reject::TTL,
    rewrite::Rewrite,
    wire::{Eth, Header, Icmp, Ipv4, Ipv6, Ports, Tcp, Udp, copy, proto},
};

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// About a packet that it quotes.
    Error,
    EchoRequest,
    /// Neighbours on the link find each other: never ours.
    Link,
    Other,
}

/// Where the parts of an error lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Bytes of the quoted IP header, a multiple of four and at most 60.
    pub ip_header: u16,
    /// Bytes of the whole IP packet.
    pub length: u16,
}

/// A family whose ICMP can be read and rewritten.
pub trait Messages: Rewrite {
    /// Its protocol number.
    const ICMP: u8;
    /// The type of an echo request.
    const ECHO: u8;
    /// The type of its answer.
    const ECHO_REPLY: u8;
    /// Where a quoted packet starts.
    const QUOTE: usize = Self::L4 + Icmp::LEN;

    fn message(kind: u8) -> Message;

    /// Reads the packet that an error quotes into `answer`, the tuple of the answers to it, and
    /// returns the bytes of its IP header. Eight bytes of the transport header must be there.
    fn quote<P: Packet + ?Sized>(packet: &P, answer: &mut Tuple<Self>) -> Option<u16>;

    /// Puts the addresses of answers to `to` into the quoted IP header, and `delta` into its
    /// checksum, if it has one; what the error's own checksum sees of that.
    fn requote<P: Packet + ?Sized>(packet: &mut P, to: &Tuple<Self>, delta: Delta)
    -> Option<Delta>;

    /// Turns an IP header round: to where it came from, with a full count of hops.
    fn turn<P: Packet + ?Sized>(packet: &mut P) -> Option<()>;

    /// Turns an echo request into its answer, in its place.
    #[inline(never)]
    fn answer<P: Packet + ?Sized>(packet: &mut P) -> Option<()> {
        let eth = packet.get_mut::<Eth>(0)?;
        *eth = eth.reversed();
        let icmp = packet.get_mut::<Icmp>(Self::L4)?;
        let delta = Delta::ZERO.replace2([icmp.kind, icmp.code], [Self::ECHO_REPLY, icmp.code]);
        icmp.kind = Self::ECHO_REPLY;
        icmp.checksum = delta.apply(icmp.checksum);
        Self::turn(packet)
    }
}

impl Messages for V4 {
    const ICMP: u8 = proto::ICMP;
    const ECHO: u8 = 8;
    const ECHO_REPLY: u8 = 0;

    #[inline(always)]
    fn message(kind: u8) -> Message {
        match kind {
            Self::ECHO => Message::EchoRequest,
            // Unreachable, time exceeded, parameter problem; not redirects, which are for a link.
            3 | 11 | 12 => Message::Error,
            _ => Message::Other,
        }
    }

    #[inline(always)]
    fn quote<P: Packet + ?Sized>(packet: &P, answer: &mut Tuple<Self>) -> Option<u16> {
        let ip = packet.get::<Ipv4>(Self::QUOTE)?;
        let ip_header = usize::from(ip.version_ihl & 0xf) * 4;
        let later_fragment = u16::from_be_bytes(ip.flags_fragment) & 0x1fff != 0;
        if ip.version_ihl >> 4 != 4 || ip_header < Ipv4::LEN || later_fragment {
            return None;
        }
        answer.src = V4(ip.dst);
        answer.dst = V4(ip.src);
        answer.protocol = ip.protocol;
        ports(packet, ip_header, answer)
    }

    #[inline(always)]
    fn requote<P: Packet + ?Sized>(
        packet: &mut P,
        to: &Tuple<Self>,
        delta: Delta,
    ) -> Option<Delta> {
        let ip = packet.get_mut::<Ipv4>(Self::QUOTE)?;
        let checksum = delta.apply(ip.checksum);
        let seen = delta.replace2(ip.checksum, checksum);
        ip.checksum = checksum;
        ip.src = to.dst.0;
        ip.dst = to.src.0;
        Some(seen)
    }

    #[inline(always)]
    fn turn<P: Packet + ?Sized>(packet: &mut P) -> Option<()> {
        let ip = packet.get_mut::<Ipv4>(L3)?;
        let delta = Delta::ZERO.replace2([ip.ttl, ip.protocol], [TTL, ip.protocol]);
        ip.checksum = delta.apply(ip.checksum);
        ip.ttl = TTL;
        (ip.src, ip.dst) = (ip.dst, ip.src);
        Some(())
    }
}

impl Messages for V6 {
    const ICMP: u8 = proto::ICMPV6;
    const ECHO: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn message(kind: u8) -> Message {
        match kind {
            Self::ECHO => Message::EchoRequest,
            1..=4 => Message::Error,
            133..=137 => Message::Link,
            _ => Message::Other,
        }
    }

    #[inline(always)]
    fn quote<P: Packet + ?Sized>(packet: &P, answer: &mut Tuple<Self>) -> Option<u16> {
        let ip = packet.get::<Ipv6>(Self::QUOTE)?;
        if ip.version_class_label[0] >> 4 != 6 {
            return None;
        }
        answer.src.set(V6(ip.dst));
        answer.dst.set(V6(ip.src));
        answer.protocol = ip.next_header;
        ports(packet, Ipv6::LEN, answer)
    }

    #[inline(always)]
    fn requote<P: Packet + ?Sized>(
        packet: &mut P,
        to: &Tuple<Self>,
        delta: Delta,
    ) -> Option<Delta> {
        let ip = packet.get_mut::<Ipv6>(Self::QUOTE)?;
        copy(&mut ip.src, &to.dst.0);
        copy(&mut ip.dst, &to.src.0);
        Some(delta)
    }

    #[inline(always)]
    fn turn<P: Packet + ?Sized>(packet: &mut P) -> Option<()> {
        let ip = packet.get_mut::<Ipv6>(L3)?;
        ip.hop_limit = TTL;
        (ip.src, ip.dst) = (ip.dst, ip.src);
        Some(())
    }
}

#[inline(always)]
fn ports<A: Messages, P: Packet + ?Sized>(
    packet: &P,
    ip_header: usize,
    answer: &mut Tuple<A>,
) -> Option<u16> {
    if !matches!(answer.protocol, proto::TCP | proto::UDP | proto::SCTP) {
        return None;
    }
    // As long as all that must be quoted of each.
    let start = packet.get::<Udp>(A::QUOTE + ip_header)?;
    answer.sport = start.dst;
    answer.dport = start.src;
    Some(ip_header as u16)
}

/// What changes in a checksum over addresses when `old`'s become `new`'s. A function of its own, for
/// the sake of BPF's stack.
#[inline(never)]
pub fn readdressed<A: Addr>(old: &Tuple<A>, new: &Tuple<A>) -> Delta {
    old.src.replaced(new.src, old.dst.replaced(new.dst, Delta::ZERO))
}

/// Makes an error that quotes an answer to flow `key` one that quotes an answer to flow `to`. The IP
/// header round it stays; `outer` is what its addresses will change in the pseudo header.
///
/// `None`, perhaps with the packet spoilt, where the headers do not lie in reach.
#[inline(never)]
pub fn translate_quote<A: Messages, P: Packet + ?Sized>(
    packet: &mut P,
    key: &Tuple<A>,
    to: &Tuple<A>,
    span: &Span,
    outer: Delta,
) -> Option<()> {
    let at = A::QUOTE + usize::from(span.ip_header & 0x3c);
    let addresses = readdressed(key, to);
    let seen = A::requote(packet, to, addresses)?;
    let ports = packet.get_mut::<Ports>(at)?;
    (ports.src, ports.dst) = (to.dport, to.sport);
    let ports = Delta::ZERO.replace2(key.sport, to.sport).replace2(key.dport, to.dport);
    let mut delta = seen.and(ports);
    if !A::IS_V4 {
        delta = delta.and(outer);
    }
    // The quoted checksum changes too where it is quoted: always that of UDP. Nobody can check that of
    // SCTP, which is over all of a packet.
    let udp = key.protocol == proto::UDP;
    let checksum_at = at + if udp { Udp::CHECKSUM_AT } else { Tcp::CHECKSUM_AT };
    let whole = key.protocol != proto::SCTP;
    if whole && checksum_at + Checksum::LEN <= L3 + span.length as usize {
        let checksum = packet.get_mut::<Checksum>(checksum_at)?;
        let (old, change) = (checksum.bytes, addresses.and(ports));
        checksum.bytes = if udp { change.apply_udp(old) } else { change.apply(old) };
        delta = delta.replace2(old, checksum.bytes);
    }
    let icmp = packet.get_mut::<Icmp>(A::L4)?;
    icmp.checksum = delta.apply(icmp.checksum);
    Some(())
}
