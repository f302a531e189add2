//! A frame becomes a flow and offsets, or the reason why it does not.

use crate::{
    addr::{Addr, V4, V6},
    flow::Tuple,
    packet::Packet,
    verdict::Reason,
    wire::{Eth, Header, Ipv4, Ipv6, Tcp, Udp, proto},
};

/// A TCP or UDP packet that the rules can handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment<A> {
    pub tuple: Tuple<A>,
    /// Zero for UDP.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IP header and payload, in bytes.
    pub length: u16,
    /// IP and transport header, in bytes; zero unless the rules can rewrite the packet.
    pub headers: u16,
}

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
        if ip.version_ihl >> 4 != 4 || ip.version_ihl & 0xf < 5 {
            return Err(Reason::BadLength);
        }
        if ip.version_ihl != Ipv4::VERSION_IHL {
            return Err(Reason::IpOptions);
        }
        if ip.is_fragment() {
            return Err(Reason::Fragment);
        }
        transport(packet, L4_V4, Ipv4::LEN, segment)
    }
}

impl Parse for V6 {
    #[inline(always)]
    fn parse<P: Packet + ?Sized>(packet: &P, segment: &mut Segment<Self>) -> Result<(), Reason> {
        let ip = packet.get::<Ipv6>(L3).ok_or(Reason::NotIp)?;
        segment.tuple.src = V6(ip.src);
        segment.tuple.dst = V6(ip.dst);
        segment.tuple.protocol = ip.next_header;
        segment.headers = 0;
        segment.ttl = ip.hop_limit;
        segment.length = u16::from_be_bytes(ip.payload_length).saturating_add(Ipv6::LEN as u16);
        if ip.version_class_label[0] >> 4 != 6 {
            return Err(Reason::BadLength);
        }
        transport(packet, L4_V6, Ipv6::LEN, segment)
    }
}

/// Ports and TCP flags of the transport header at `offset`.
#[inline(always)]
fn transport<A: Addr, P: Packet + ?Sized>(
    packet: &P,
    offset: usize,
    ip_header: usize,
    segment: &mut Segment<A>,
) -> Result<(), Reason> {
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
        _ => return Err(Reason::Protocol),
    };
    let length = segment.length as usize;
    if length < ip_header + header || L3 + length > packet.len() {
        return Err(Reason::BadLength);
    }
    segment.headers = (ip_header + header) as u16;
    Ok(())
}
