//! The flow hash: the same bits in the kernel and in user space, keyed by the cluster's seed.
//!
//! Multiply, xor and shift over 64-bit words (the finaliser of MurmurHash3 between words): no loop
//! over bytes, no 128-bit product, which BPF lacks.

use crate::{addr::Addr, flow::Tuple};

const K1: u64 = 0x9e37_79b9_7f4a_7c15;
const K2: u64 = 0xff51_afd7_ed55_8ccd;
const K3: u64 = 0xc4ce_b9fe_1a85_ec53;

/// One more word into the hash.
#[inline(always)]
pub const fn mix(hash: u64, word: u64) -> u64 {
    let mut h = hash ^ word.wrapping_mul(K1);
    h ^= h >> 33;
    h = h.wrapping_mul(K2);
    h ^= h >> 33;
    h
}

/// Spreads what came in over all bits.
#[inline(always)]
pub const fn finish(hash: u64) -> u64 {
    let mut h = hash.wrapping_mul(K3);
    h ^= h >> 29;
    h
}

/// The hash of a flow: chooses its set in the flow table and its slot in a ring.
#[inline(always)]
pub fn tuple<A: Addr>(seed: u64, tuple: &Tuple<A>) -> u64 {
    let mut hash = seed;
    let mut index = 0;
    while index < A::PAIR_WORDS {
        hash = mix(hash, A::pair_word(tuple.src, tuple.dst, index));
        index += 1;
    }
    finish(mix(hash, ports_word(tuple)))
}

/// Ports and protocol of a tuple as one word.
#[inline(always)]
pub fn ports_word<A: Addr>(tuple: &Tuple<A>) -> u64 {
    u64::from(u16::from_ne_bytes(tuple.sport))
        | u64::from(u16::from_ne_bytes(tuple.dport)) << 16
        | u64::from(tuple.protocol) << 32
}

/// `hash` mapped evenly to `0..n` without a division.
#[inline(always)]
pub const fn scale(hash: u64, n: u32) -> u32 {
    (((hash >> 32) * n as u64) >> 32) as u32
}
