//! A frame becomes a flow and offsets, or the reason why it does not.

use crate::{
    addr::{V4, V6},
    flow::Tuple,
    packet::Packet,
    verdict::Reason,
    wire::{Eth, Header, Ipv4, Ipv6, Tcp, Udp, proto},
};

/// A TCP or UDP packet that the rules can handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<A> {
    pub tuple: Tuple<A>,
    /// Zero for UDP.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IP header and payload, in bytes.
    pub length: u16,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    V4(Segment<V4>),
    V6(Segment<V6>),
    /// To this address, but not in a form that can be rewritten: dropped where the address is only
    /// a service's, passed elsewhere.
    OddV4(V4, Reason),
    /// As [`Parsed::OddV4`].
    OddV6(V6, Reason),
    /// Cannot be ours.
    Foreign,
}

/// Where the IP header starts.
pub const L3: usize = Eth::LEN;
/// Where the transport header starts behind IPv4.
pub const L4_V4: usize = L3 + Ipv4::LEN;
/// Where the transport header starts behind IPv6.
pub const L4_V6: usize = L3 + Ipv6::LEN;

/// Reads an Ethernet frame.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Parsed {
    let Some(eth) = packet.get::<Eth>(0) else { return Parsed::Foreign };
    match eth.ethertype {
        Eth::IPV4 => parse_v4(packet),
        Eth::IPV6 => parse_v6(packet),
        _ => Parsed::Foreign,
    }
}

#[inline(always)]
fn parse_v4<P: Packet + ?Sized>(packet: &P) -> Parsed {
    let Some(ip) = packet.get::<Ipv4>(L3) else { return Parsed::Foreign };
    let dst = V4(ip.dst);
    if ip.version_ihl >> 4 != 4 || ip.version_ihl & 0xf < 5 {
        return Parsed::OddV4(dst, Reason::BadLength);
    }
    if ip.version_ihl != Ipv4::VERSION_IHL {
        return Parsed::OddV4(dst, Reason::IpOptions);
    }
    if ip.is_fragment() {
        return Parsed::OddV4(dst, Reason::Fragment);
    }
    let length = u16::from_be_bytes(ip.total_length);
    let (ttl, src, protocol) = (ip.ttl, V4(ip.src), ip.protocol);
    match transport(packet, L4_V4, protocol, length, Ipv4::LEN) {
        Ok((sport, dport, tcp_flags)) => Parsed::V4(Segment {
            tuple: Tuple { src, dst, sport, dport, protocol },
            tcp_flags,
            ttl,
            length,
        }),
        Err(reason) => Parsed::OddV4(dst, reason),
    }
}

#[inline(always)]
fn parse_v6<P: Packet + ?Sized>(packet: &P) -> Parsed {
    let Some(ip) = packet.get::<Ipv6>(L3) else { return Parsed::Foreign };
    let dst = V6(ip.dst);
    if ip.version_class_label[0] >> 4 != 6 {
        return Parsed::OddV6(dst, Reason::BadLength);
    }
    // A jumbogram says 0 here; it is longer than any length this project handles.
    let length = u16::from_be_bytes(ip.payload_length).saturating_add(Ipv6::LEN as u16);
    let (ttl, src, protocol) = (ip.hop_limit, V6(ip.src), ip.next_header);
    match transport(packet, L4_V6, protocol, length, Ipv6::LEN) {
        Ok((sport, dport, tcp_flags)) => Parsed::V6(Segment {
            tuple: Tuple { src, dst, sport, dport, protocol },
            tcp_flags,
            ttl,
            length,
        }),
        Err(reason) => Parsed::OddV6(dst, reason),
    }
}

/// Ports and TCP flags of the transport header at `offset`.
#[inline(always)]
fn transport<P: Packet + ?Sized>(
    packet: &P,
    offset: usize,
    protocol: u8,
    length: u16,
    ip_header: usize,
) -> Result<([u8; 2], [u8; 2], u8), Reason> {
    let (sport, dport, flags, header) = match protocol {
        proto::TCP => {
            let tcp = packet.get::<Tcp>(offset).ok_or(Reason::BadLength)?;
            (tcp.src, tcp.dst, tcp.flags, Tcp::LEN)
        }
        proto::UDP => {
            let udp = packet.get::<Udp>(offset).ok_or(Reason::BadLength)?;
            (udp.src, udp.dst, 0, Udp::LEN)
        }
        _ => return Err(Reason::Protocol),
    };
    let length = length as usize;
    if length < ip_header + header || L3 + length > packet.len() {
        return Err(Reason::BadLength);
    }
    Ok((sport, dport, flags))
}
