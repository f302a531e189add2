//! Envelopes: a packet inside an IP header of its own family (RFC 2003, RFC 2473), by which DSR sends
//! it, as it is, to the node that has a backend for it.

use crate::{
    abi::NextHop,
    addr::{Addr, V4, V6},
    checksum::{Delta, Sum},
    flow::Tuple,
    packet::Packet,
    parse::L3,
    reject::sum_v4,
    rewrite::{Rewrite, link},
    wire::{Header, Ipv4, Ipv6, copy},
};

/// How far a packet has come on its way by DSR.
///
/// An envelope says it by the hops that it begins with: unlike a traffic class they are nobody's to
/// change but by one at each hop, and they outlive segmentation.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    /// As it was sent.
    #[default]
    First = 0,
    /// In an envelope from the first node.
    Second = 1,
    /// In one that was sent on, to where its flow may be known.
    SentOn = 2,
    /// In one that came back from there, for its flow was not: no further.
    Back = 3,
}

impl Step {
    /// Hops of an envelope in which a packet takes this step.
    #[inline(always)]
    const fn ttl(self) -> u8 {
        match self {
            Self::First | Self::Second => 64,
            Self::Back => 128,
            Self::SentOn => 255,
        }
    }

    /// The step of a packet whose envelope has so many hops left.
    #[inline(always)]
    pub const fn of_ttl(ttl: u8) -> Self {
        if ttl > Self::Back.ttl() {
            Self::SentOn
        } else if ttl > Self::Second.ttl() {
            Self::Back
        } else {
            Self::Second
        }
    }
}

/// A family whose packets can be put into envelopes.
pub trait Envelope: Rewrite {
    /// Bytes of the outer header.
    const OUTER: usize;

    /// Writes the outer header of a packet that has room for it, and takes one hop from the packet
    /// inside, which is `length` bytes long (RFC 2003, section 3.1).
    fn address<P: Packet + ?Sized>(
        packet: &mut P,
        to: &Tuple<Self>,
        length: u16,
        step: Step,
    ) -> Option<()>;
}

/// Puts a packet of `length` bytes into an envelope from `to`'s source to its destination, or, if it
/// `is_in_one`, gives that one other addresses; and sends it to the next hop, for its next `step`.
///
/// `None`, with nothing changed, where the frame cannot grow.
#[inline(always)]
pub fn send<A: Envelope, P: Packet + ?Sized>(
    packet: &mut P,
    to: &Tuple<A>,
    length: u16,
    is_in_one: bool,
    step: Step,
    hop: &NextHop,
) -> Option<()> {
    if !is_in_one {
        packet.grow(A::OUTER, A::IS_V4)?;
    }
    A::address(packet, to, length, step)?;
    link(packet, hop)
}

/// The bits of a traffic class that routers look at; those by which they tell of congestion would have
/// to be brought back at the end (RFC 6040).
const CLASS: u8 = 0xfc;

impl Envelope for V4 {
    const OUTER: usize = Ipv4::LEN;

    #[inline(always)]
    fn address<P: Packet + ?Sized>(
        packet: &mut P,
        to: &Tuple<Self>,
        length: u16,
        step: Step,
    ) -> Option<()> {
        let inner = packet.get_mut::<Ipv4>(L3 + Self::OUTER)?;
        let hops = inner.ttl.wrapping_sub(1);
        let delta = Delta::ZERO.replace2([inner.ttl, inner.protocol], [hops, inner.protocol]);
        inner.checksum = delta.apply(inner.checksum);
        inner.ttl = hops;
        let outer = Ipv4 {
            version_ihl: Ipv4::VERSION_IHL,
            tos: inner.tos & CLASS,
            total_length: length.wrapping_add(Ipv4::LEN as u16).to_be_bytes(),
            id: [0; 2],
            flags_fragment: Ipv4::DF,
            ttl: step.ttl(),
            protocol: Self::IN_ITSELF,
            checksum: [0; 2],
            src: to.src.0,
            dst: to.dst.0,
        };
        let checksum = sum_v4(Sum::ZERO, &outer).finish();
        *packet.get_mut::<Ipv4>(L3)? = Ipv4 { checksum, ..outer };
        Some(())
    }
}

impl Envelope for V6 {
    const OUTER: usize = Ipv6::LEN;

    #[inline(always)]
    fn address<P: Packet + ?Sized>(
        packet: &mut P,
        to: &Tuple<Self>,
        length: u16,
        step: Step,
    ) -> Option<()> {
        let inner = packet.get_mut::<Ipv6>(L3 + Self::OUTER)?;
        inner.hop_limit = inner.hop_limit.wrapping_sub(1);
        // The label of the flow too, which tells routers what belongs together (RFC 6438).
        let [version, class, label_high, label_low] = inner.version_class_label;
        let version_class_label = [version, class & 0xcf, label_high, label_low];
        let outer = packet.get_mut::<Ipv6>(L3)?;
        outer.version_class_label = version_class_label;
        outer.payload_length = length.to_be_bytes();
        outer.next_header = Self::IN_ITSELF;
        outer.hop_limit = step.ttl();
        copy(&mut outer.src, &to.src.0);
        copy(&mut outer.dst, &to.dst.0);
        Some(())
    }
}

/// A packet in an envelope, to be read as if it had none.
pub struct Inner<'a, P: ?Sized> {
    packet: &'a P,
    outer: usize,
}

impl<'a, P: Packet + ?Sized> Inner<'a, P> {
    /// Inside an outer header of the family.
    #[inline(always)]
    pub const fn of<A: Envelope>(packet: &'a P) -> Self {
        Self { packet, outer: A::OUTER }
    }
}

/// It is only read: what changes a packet changes the one that it is in.
impl<P: Packet + ?Sized> Packet for Inner<'_, P> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.packet.len().saturating_sub(self.outer)
    }

    #[inline(always)]
    fn get<T: Header>(&self, offset: usize) -> Option<&T> {
        self.packet.get(self.outer + offset)
    }

    #[inline(always)]
    fn get_mut<T: Header>(&mut self, _offset: usize) -> Option<&mut T> {
        None
    }

    #[inline(always)]
    fn transport_checksum(
        &mut self,
        _offset: usize,
        _pseudo: Delta,
        _header: Delta,
        _udp: bool,
        _ipv4: bool,
    ) -> Option<()> {
        None
    }

    #[inline(always)]
    fn resize(&mut self, _len: usize) -> Option<()> {
        None
    }

    #[inline(always)]
    fn grow(&mut self, _by: usize, _ipv4: bool) -> Option<()> {
        None
    }

    #[inline(always)]
    fn shrink(&mut self, _by: usize) -> Option<()> {
        None
    }
}
