//! What `lb bench` and its harness programs tell each other. The programs under test know none of it.

use crate::{abi::Words, addr::Addr};

/// A packet as the harness writes it: whose it is, and the checksums that fit.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp<A> {
    pub src: A,
    pub dst: A,
    pub sport: [u8; 2],
    pub dport: [u8; 2],
    /// Of the IPv4 header; unused with IPv6.
    pub ip_checksum: [u8; 2],
    /// Of the TCP segment with the flag ACK alone.
    pub tcp_checksum: [u8; 2],
}

/// Words of a [`Stamp`] of IPv4.
pub const STAMP_V4: usize = 2;
/// Words of a [`Stamp`] of IPv6.
pub const STAMP_V6: usize = 5;

const _: () = assert!(size_of::<Stamp<crate::addr::V4>>() == 8 * STAMP_V4);
const _: () = assert!(size_of::<Stamp<crate::addr::V6>>() == 8 * STAMP_V6);
// SAFETY: `repr(C)` over bytes, 16 bytes in all, no padding (the assertion above).
unsafe impl Words<STAMP_V4> for Stamp<crate::addr::V4> {}
// SAFETY: `repr(C)` over bytes, 40 bytes in all, no padding (the assertion above).
unsafe impl Words<STAMP_V6> for Stamp<crate::addr::V6> {}

impl<A: Addr> Stamp<A> {
    /// Whether two stamps are of the same flow.
    pub fn is_same_flow(&self, other: &Self) -> bool {
        (self.src, self.dst, self.sport, self.dport)
            == (other.src, other.dst, other.sport, other.dport)
    }
}

/// Which packets the harness writes, and who gets them: one element of an array map.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Index of the first stamp.
    pub first: u32,
    /// How many stamps are visited in turn.
    pub count: u32,
    /// Of these, the next.
    pub cursor: u32,
    /// TCP flags of every packet.
    pub flags: u32,
    /// Slot of the program that is called.
    pub slot: u32,
    /// For packets whose sources were never seen before: how many there were.
    pub fresh: u32,
}

const _: () = assert!(size_of::<Run>() == 24);

impl Run {
    /// Length of every frame of IPv4: the shortest that Ethernet has, but for its check sequence.
    pub const FRAME_V4: usize = 60;
    /// Length of every frame of IPv6: its headers and TCP's.
    pub const FRAME_V6: usize = 74;
    /// Slots for programs.
    pub const SLOTS: u32 = 16;
}

/// What the floor keeps for a flow: the least that a NAT needs.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloorKey {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub sport: [u8; 2],
    pub dport: [u8; 2],
    pub protocol: u32,
}

/// What the floor makes of a packet.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloorValue {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub sport: [u8; 2],
    pub dport: [u8; 2],
    pub eth_dst: [u8; 6],
    pub eth_src: [u8; 6],
}

const _: () = assert!(size_of::<FloorKey>() == 16);
const _: () = assert!(size_of::<FloorValue>() == 24);

#[cfg(feature = "user")]
mod pod {
    use super::{FloorKey, FloorValue, Run};

    // SAFETY: `repr(C)` over integers, `Copy` and `'static`; 24 bytes, no padding.
    unsafe impl aya::Pod for Run {}
    // SAFETY: `repr(C)` over integers and bytes; 16 bytes, no padding.
    unsafe impl aya::Pod for FloorKey {}
    // SAFETY: `repr(C)` over bytes, `Copy` and `'static`; 24 bytes, no padding.
    unsafe impl aya::Pod for FloorValue {}
}
