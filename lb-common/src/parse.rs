//! A frame becomes a flow and offsets, or the reason why it does not.

use crate::{
    addr::{Addr, V4, V6},
    flow::Tuple,
    packet::Packet,
    sctp,
    verdict::Reason,
    wire::{Eth, Extension, Header, Ipv4, Ipv6, Sctp, Tcp, Udp, proto},
};

/// A TCP, UDP or SCTP packet that the rules can handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment<A> {
    pub tuple: Tuple<A>,
    /// Zero for UDP; for SCTP see [`sctp::flags`].
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IP header and payload, in bytes.
    pub length: u16,
    /// IP and transport header, in bytes; zero unless the rules can rewrite the packet.
    pub headers: u16,
    /// Where the transport header starts in the frame: behind options and extension headers. See
    /// [`Segment::transport`].
    pub l4: u16,
    pub part: Part,
    /// Which packet a fragment is of.
    pub id: u32,
}

impl<A> Segment<A> {
    /// Where the transport header starts: no further than headers are read. (The verifier forgets
    /// what it knew of a number that was in memory.)
    #[inline(always)]
    pub const fn transport(&self) -> usize {
        (self.l4 & 0xff) as usize
    }

    /// Whether anything stands between a plain IP header and the transport header.
    #[inline(always)]
    pub const fn has_extras(&self, plain: usize) -> bool {
        self.l4 as usize != plain
    }
}

/// How much of a packet is there.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    #[default]
    Whole = 0,
    /// The first fragment, which has the transport header.
    First = 1,
    /// A later fragment, which can be followed if the first was seen.
    Later = 2,
}

/// How many IPv6 extension headers are read, and up to where in the frame.
pub const EXTENSIONS: u32 = 4;
const FURTHEST: usize = L4_V6 + 64;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    V4,
    V6,
    /// Cannot be ours.
    Foreign,
}

/// Where the IP header starts.
pub const L3: usize = Eth::LEN;
/// Where the transport header starts behind IPv4.
pub const L4_V4: usize = L3 + Ipv4::LEN;
/// Where the transport header starts behind IPv6.
pub const L4_V6: usize = L3 + Ipv6::LEN;

/// The version of IP in an Ethernet frame.
#[inline(always)]
pub fn version<P: Packet + ?Sized>(packet: &P) -> Ip {
    match packet.get::<Eth>(0) {
        Some(eth) if eth.ethertype == Eth::IPV4 => Ip::V4,
        Some(eth) if eth.ethertype == Eth::IPV6 => Ip::V6,
        _ => Ip::Foreign,
    }
}

/// A family whose packets can be read.
pub trait Parse: Addr {
    /// Reads the packet into `segment`.
    ///
    /// # Errors
    /// `NotIp` if there is no IP header. Otherwise `segment.tuple.dst` is set, and the reason says
    /// why the rules cannot rewrite the packet.
    fn parse<P: Packet + ?Sized>(packet: &P, segment: &mut Segment<Self>) -> Result<(), Reason>;
}

impl Parse for V4 {
    #[inline(always)]
    fn parse<P: Packet + ?Sized>(packet: &P, segment: &mut Segment<Self>) -> Result<(), Reason> {
        let ip = packet.get::<Ipv4>(L3).ok_or(Reason::NotIp)?;
        segment.tuple.src = V4(ip.src);
        segment.tuple.dst = V4(ip.dst);
        segment.tuple.protocol = ip.protocol;
        segment.headers = 0;
        segment.ttl = ip.ttl;
        segment.length = u16::from_be_bytes(ip.total_length);
        segment.part = Part::Whole;
        segment.id = u32::from(u16::from_ne_bytes(ip.id));
        let header = usize::from(ip.version_ihl & 0xf) * 4;
        segment.l4 = (L3 + header) as u16;
        if ip.version_ihl >> 4 != 4 || header < Ipv4::LEN {
            return Err(Reason::BadLength);
        }
        let fragment = u16::from_be_bytes(ip.flags_fragment);
        let offset = fragment & 0x1fff;
        if offset != 0 {
            return Err(later(packet, segment, offset));
        }
        if fragment & 0x2000 != 0 {
            segment.part = Part::First;
        }
        transport(packet, segment)
    }
}

impl Parse for V6 {
    #[inline(always)]
    fn parse<P: Packet + ?Sized>(packet: &P, segment: &mut Segment<Self>) -> Result<(), Reason> {
        let ip = packet.get::<Ipv6>(L3).ok_or(Reason::NotIp)?;
        segment.tuple.src.set(V6(ip.src));
        segment.tuple.dst.set(V6(ip.dst));
        segment.tuple.protocol = ip.next_header;
        segment.headers = 0;
        segment.ttl = ip.hop_limit;
        segment.length = u16::from_be_bytes(ip.payload_length).saturating_add(Ipv6::LEN as u16);
        segment.part = Part::Whole;
        segment.l4 = L4_V6 as u16;
        if ip.version_class_label[0] >> 4 != 6 {
            return Err(Reason::BadLength);
        }
        if Extension::is_one(ip.next_header) && !extensions(packet, segment) {
            return Err(Reason::ExtensionHeaders);
        }
        if matches!(segment.part, Part::Later) {
            segment.part = Part::Whole;
            let offset = segment.headers;
            segment.headers = 0;
            return Err(later(packet, segment, offset));
        }
        transport(packet, segment)
    }
}

/// Walks the chain of extension headers: `segment` then says where it ends, what stands there, and
/// what it said of fragments (of a later one, the offset is left in `headers`). `false` if it has one
/// that no router may pass over, or is too long.
#[inline(never)]
fn extensions<P: Packet + ?Sized>(packet: &P, segment: &mut Segment<V6>) -> bool {
    let mut at = L4_V6;
    let mut next = segment.tuple.protocol;
    let mut count = 0;
    while count < EXTENSIONS && Extension::is_one(next) {
        let Some(header) = packet.get::<Extension>(at) else { return false };
        // A routing header that is not used up names where the packet goes in truth.
        if next == Extension::ROUTING && header.rest[1] != 0 {
            return false;
        }
        let mut length = (usize::from(header.length) + 1) * 8;
        if next == Extension::FRAGMENT {
            length = Extension::LEN;
            let fragment = u16::from_be_bytes([header.rest[0], header.rest[1]]);
            let [_, _, a, b, c, d] = header.rest;
            segment.id = u32::from_ne_bytes([a, b, c, d]);
            segment.headers = fragment >> 3;
            segment.part = match (fragment >> 3, fragment & 1) {
                (0, 0) => Part::Whole,
                (0, _) => Part::First,
                _ => Part::Later,
            };
        }
        next = header.next;
        at += length;
        if at > FURTHEST {
            return false;
        }
        if matches!(segment.part, Part::Later) {
            break;
        }
        count += 1;
    }
    segment.tuple.protocol = next;
    segment.l4 = at as u16;
    matches!(segment.part, Part::Later) || !Extension::is_one(next)
}

/// A fragment that is not the first. It can be followed unless its length lies, or it reaches into
/// the TCP header that the first one had (RFC 3128), or is one of SCTP: see [`transport`].
#[inline(always)]
fn later<A: Addr, P: Packet + ?Sized>(packet: &P, segment: &mut Segment<A>, offset: u16) -> Reason {
    let end = L3 + segment.length as usize;
    if end < segment.l4 as usize || end > packet.len() {
        return Reason::BadLength;
    }
    // It says nothing about its connection, and these flags do neither.
    segment.tcp_flags = Tcp::SYN | Tcp::ACK;
    let followed = match segment.tuple.protocol {
        proto::TCP => offset > 1,
        protocol => protocol != proto::SCTP,
    };
    if followed {
        segment.part = Part::Later;
    }
    Reason::Fragment
}

/// Ports and flags of the transport header. What changes in the checksum of SCTP depends on how long
/// all of the packet is, which its first fragment does not say.
#[inline(always)]
fn transport<A: Addr, P: Packet + ?Sized>(
    packet: &P,
    segment: &mut Segment<A>,
) -> Result<(), Reason> {
    let offset = segment.transport();
    let header = match segment.tuple.protocol {
        proto::TCP => {
            let tcp = packet.get::<Tcp>(offset).ok_or(Reason::BadLength)?;
            segment.tuple.sport = tcp.src;
            segment.tuple.dport = tcp.dst;
            segment.tcp_flags = tcp.flags;
            let header = usize::from(tcp.offset >> 4) * 4;
            if header < Tcp::LEN {
                return Err(Reason::BadLength);
            }
            header
        }
        proto::UDP => {
            let udp = packet.get::<Udp>(offset).ok_or(Reason::BadLength)?;
            segment.tuple.sport = udp.src;
            segment.tuple.dport = udp.dst;
            segment.tcp_flags = 0;
            Udp::LEN
        }
        proto::SCTP => {
            association(packet, segment).ok_or(Reason::BadLength)?;
            if matches!(segment.part, Part::First) {
                return Err(Reason::Fragment);
            }
            Sctp::LEN
        }
        _ => return Err(Reason::Protocol),
    };
    let end = L3 + segment.length as usize;
    if end < offset + header || end > packet.len() {
        return Err(Reason::BadLength);
    }
    segment.headers = (offset + header - L3) as u16;
    Ok(())
}

/// The part of [`transport`] for SCTP; `None` if the headers are not there. A function of its own,
/// for the sake of BPF's stack.
#[inline(never)]
fn association<A: Addr, P: Packet + ?Sized>(packet: &P, segment: &mut Segment<A>) -> Option<()> {
    let at = segment.transport();
    // Never so; but LLVM would have the frame's bounds loaded by the caller and handed over in half
    // registers, in which the verifier does not know them again.
    if at < L4_V4 {
        return None;
    }
    let Sctp { src, dst, chunk, .. } = *packet.get::<Sctp>(at)?;
    segment.tuple.sport = src;
    segment.tuple.dport = dst;
    segment.tcp_flags = sctp::flags(chunk);
    Some(())
}
