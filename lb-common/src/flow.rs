//! The 5-tuple and what belongs to it.

use crate::addr::Addr;

/// Source, destination and protocol of a packet; ports are big-endian.
///
/// Ports come first, unlike in a packet: addresses are then copied by the same words that they are
/// read by afterwards. A word that is read across two that were just written costs several
/// nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple<A> {
    pub sport: [u8; 2],
    pub dport: [u8; 2],
    pub src: A,
    pub dst: A,
    pub protocol: u8,
}

impl<A: Addr> Tuple<A> {
    /// The tuple of the answers to this one.
    #[inline(always)]
    pub fn reply(self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, ..self }
    }
}
