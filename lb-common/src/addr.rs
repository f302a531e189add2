//! The two address families behind one trait, so that each packet rule is written once.

use crate::{
    abi::{FlowWords, WORDS_V4, WORDS_V6, Word},
    checksum::Delta,
    wire::{copy, proto},
};

/// An IPv4 address, big-endian.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V4(pub [u8; 4]);

/// An IPv6 address, big-endian.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V6(pub [u8; 16]);

/// An address of one family.
pub trait Addr: Copy + Eq + Default + core::fmt::Debug + 'static {
    /// How a flow of this family lies in memory.
    type Words: FlowWords;

    /// 64-bit words that a pair of addresses takes in a flow entry.
    const PAIR_WORDS: usize;
    /// The IP version.
    const IS_V4: bool;
    /// The protocol number of a packet of this family inside another.
    const IN_ITSELF: u8;

    /// The address in a slot that fits either family; an IPv4 address is in its first bytes.
    fn to_slot(self) -> [u8; 16];
    /// The address in a slot written by [`Addr::to_slot`].
    fn from_slot(slot: &[u8; 16]) -> Self;
    /// Word `index` of the pair (source, destination); `index < PAIR_WORDS`.
    fn pair_word(src: Self, dst: Self, index: usize) -> u64;
    /// The pair out of its words.
    fn pair_from(word: impl Fn(usize) -> u64) -> (Self, Self);
    /// Makes it this one: by words, where a plain copy of bytes that need not be aligned would go byte
    /// by byte in BPF.
    fn set(&mut self, to: Self);
    /// `delta` with this address replaced by `new`.
    fn replaced(self, new: Self, delta: Delta) -> Delta;
    /// Whether the address lies in `network`/`mask` (slots, see [`Addr::to_slot`]).
    fn within(self, network: &[u8; 16], mask: &[u8; 16]) -> bool;
}

impl Addr for V4 {
    type Words = [Word; WORDS_V4];
    const PAIR_WORDS: usize = 1;
    const IS_V4: bool = true;
    const IN_ITSELF: u8 = proto::IPIP;

    #[inline(always)]
    fn to_slot(self) -> [u8; 16] {
        // As a number: of an array of zeros LLVM makes a call of `memset`, which goes byte by byte.
        u128::from(u32::from_le_bytes(self.0)).to_le_bytes()
    }

    #[inline(always)]
    fn from_slot(slot: &[u8; 16]) -> Self {
        Self([slot[0], slot[1], slot[2], slot[3]])
    }

    #[inline(always)]
    fn pair_word(src: Self, dst: Self, _index: usize) -> u64 {
        u64::from(u32::from_ne_bytes(src.0)) | u64::from(u32::from_ne_bytes(dst.0)) << 32
    }

    #[inline(always)]
    fn pair_from(word: impl Fn(usize) -> u64) -> (Self, Self) {
        let pair = word(0);
        (Self((pair as u32).to_ne_bytes()), Self(((pair >> 32) as u32).to_ne_bytes()))
    }

    #[inline(always)]
    fn set(&mut self, to: Self) {
        *self = to;
    }

    #[inline(always)]
    fn replaced(self, new: Self, delta: Delta) -> Delta {
        delta.replace4(self.0, new.0)
    }

    #[inline(always)]
    fn within(self, network: &[u8; 16], mask: &[u8; 16]) -> bool {
        let word = |slot: &[u8; 16]| u32::from_ne_bytes([slot[0], slot[1], slot[2], slot[3]]);
        u32::from_ne_bytes(self.0) & word(mask) == word(network)
    }
}

impl V6 {
    #[inline(always)]
    const fn halves(self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.0;
        [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
    }

    #[inline(always)]
    const fn from_halves(low: u64, high: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = low.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = high.to_ne_bytes();
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// The IPv4 address in `::ffff:a.b.c.d`, as sockets of both families use it (RFC 4291).
    #[inline(always)]
    pub const fn mapped(self) -> Option<V4> {
        match self.0 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some(V4([a, b, c, d])),
            _ => None,
        }
    }

    /// The reverse of [`V6::mapped`].
    #[inline(always)]
    pub const fn from_mapped(V4([a, b, c, d]): V4) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }
}

impl Addr for V6 {
    type Words = [Word; WORDS_V6];
    const PAIR_WORDS: usize = 4;
    const IS_V4: bool = false;
    const IN_ITSELF: u8 = proto::IP6IP6;

    #[inline(always)]
    fn to_slot(self) -> [u8; 16] {
        self.0
    }

    #[inline(always)]
    fn from_slot(slot: &[u8; 16]) -> Self {
        Self(*slot)
    }

    #[inline(always)]
    fn pair_word(src: Self, dst: Self, index: usize) -> u64 {
        match index {
            0 => src.halves()[0],
            1 => src.halves()[1],
            2 => dst.halves()[0],
            _ => dst.halves()[1],
        }
    }

    #[inline(always)]
    fn pair_from(word: impl Fn(usize) -> u64) -> (Self, Self) {
        (Self::from_halves(word(0), word(1)), Self::from_halves(word(2), word(3)))
    }

    #[inline(always)]
    fn set(&mut self, to: Self) {
        copy(&mut self.0, &to.0);
    }

    #[inline(always)]
    fn replaced(self, new: Self, delta: Delta) -> Delta {
        delta.replace16(self.0, new.0)
    }

    #[inline(always)]
    fn within(self, network: &[u8; 16], mask: &[u8; 16]) -> bool {
        let (address, network, mask) = (self.halves(), V6(*network).halves(), V6(*mask).halves());
        address[0] & mask[0] == network[0] && address[1] & mask[1] == network[1]
    }
}
