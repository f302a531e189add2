use core::sync::atomic::{Ordering::Acquire, compiler_fence};

use super::{Word, Words};
use crate::wire::Link;

/// A next hop, as the kernel's routing answered. Aligned to a word, because the compiler copies it
/// by words and the verifier wants those aligned on the stack. Link-layer addresses come first, as in
/// a frame, to be copied by words too.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    dst: [u8; 6],
    src: [u8; 6],
    pub interface: u32,
    /// Largest IP packet that the way takes; zero for not known.
    pub mtu: u16,
    zero: u16,
    zeros: u32,
}

// SAFETY: `repr(C)`, offsets 0, 6, 12, 16, 18, 20, 24 bytes in all: no padding, plain integers.
unsafe impl Words<3> for NextHop {}

impl NextHop {
    #[inline(always)]
    pub const fn new(interface: u32, mtu: u16, src: [u8; 6], dst: [u8; 6]) -> Self {
        Self { dst, src, interface, mtu, zero: 0, zeros: 0 }
    }

    /// The address that packets leave from.
    pub const fn src(&self) -> [u8; 6] {
        self.src
    }

    /// The neighbour's address.
    pub const fn dst(&self) -> [u8; 6] {
        self.dst
    }

    /// The first twelve bytes of a frame that goes this way.
    #[inline(always)]
    pub const fn link(&self) -> Link {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (self.dst, self.src);
        Link { first: [a, b, c, d, e, f, g, h], last: [i, j, k, l] }
    }
}

/// A place of the table of next hops, one cache line: a hop's words, a seal, and what flows over the
/// hop have learned. The seal is a check of the words, or [`HopSlot::BUSY`] while somebody writes.
#[repr(C)]
#[derive(Debug, Default)]
pub struct HopSlot([Word; 8]);

const _: () = assert!(size_of::<HopSlot>() == 64);

impl HopSlot {
    const DOUBTED: u64 = 1 << 32;

    /// No check is this.
    const BUSY: u64 = 1;

    /// The check; zero for an empty place.
    #[inline(always)]
    pub fn seal(&self) -> u64 {
        let [_, _, _, seal, ..] = &self.0;
        seal.get()
    }

    /// The words, if their check is `seal`.
    #[inline(always)]
    pub fn read(&self, seal: u64) -> Option<[u64; 3]> {
        let [a, b, c, ..] = &self.0;
        compiler_fence(Acquire);
        let words = [a.get(), b.get(), c.get()];
        compiler_fence(Acquire);
        (self.seal() == seal).then_some(words)
    }

    /// Gives the place to another hop; `false` if another CPU does so at the same time.
    #[inline(always)]
    pub fn write(&self, old: u64, words: &[u64; 3], new: u64) -> bool {
        let [a, b, c, seal, doubt, ..] = &self.0;
        if old == Self::BUSY || !seal.replace_if(old, Self::BUSY) {
            return false;
        }
        a.set(words[0]);
        b.set(words[1]);
        c.set(words[2]);
        doubt.set(0);
        seal.replace_if(Self::BUSY, new)
    }

    /// Notes that a flow that went this way goes another since `now`.
    #[inline(always)]
    pub fn doubt(&self, now: u32) {
        let [_, _, _, _, doubt, ..] = &self.0;
        doubt.set(Self::DOUBTED | u64::from(now));
    }

    /// Whether a flow found another way at `asked` or later.
    #[inline(always)]
    pub fn is_doubted_since(&self, asked: u32) -> bool {
        let [_, _, _, _, doubt, ..] = &self.0;
        let doubt = doubt.get();
        doubt != 0 && (doubt as u32).wrapping_sub(asked) as i32 >= 0
    }

    /// How many flows have asked for their way anew in this tick.
    #[inline(always)]
    pub fn asked_in(&self, now: u32) -> u32 {
        let [_, _, _, _, _, asked, ..] = &self.0;
        let asked = asked.get();
        if asked as u32 == now { (asked >> 32) as u32 } else { 0 }
    }

    /// Notes that one more does. CPUs that do so at once may count as one.
    #[inline(always)]
    pub fn ask(&self, now: u32) {
        let [_, _, _, _, _, asked, ..] = &self.0;
        asked.set(u64::from(now) | u64::from(self.asked_in(now) + 1) << 32);
    }
}
