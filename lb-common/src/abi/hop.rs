use super::{Word, Words};

/// A next hop, as the kernel's routing answered. Aligned to a word, because the compiler copies it
/// by words and the verifier wants those aligned on the stack.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    pub interface: u32,
    /// Largest IP packet that the way takes; zero for not known.
    pub mtu: u16,
    pub src: [u8; 6],
    pub dst: [u8; 6],
    zero: [u8; 6],
}

// SAFETY: `repr(C)`, offsets 0, 4, 6, 12, 18, 24 bytes in all: no padding, plain integers.
unsafe impl Words<3> for NextHop {}

impl NextHop {
    #[inline(always)]
    pub const fn new(interface: u32, mtu: u16, src: [u8; 6], dst: [u8; 6]) -> Self {
        Self { interface, mtu, src, dst, zero: [0; 6] }
    }
}

/// A place of the table of next hops, one cache line: a hop's words, the check that seals them (of a
/// hop that is being written it does not fit), and what flows over it have learned.
#[repr(C)]
#[derive(Debug, Default)]
pub struct HopSlot([Word; 8]);

const _: () = assert!(size_of::<HopSlot>() == 64);

impl HopSlot {
    const DOUBTED: u64 = 1 << 32;

    /// The words and the check, perhaps of different hops.
    #[inline(always)]
    pub fn read(&self) -> ([u64; 3], u64) {
        let [a, b, c, check, ..] = &self.0;
        ([a.get(), b.get(), c.get()], check.get())
    }

    #[inline(always)]
    pub fn write(&self, words: &[u64; 3], check: u64) {
        let [a, b, c, seal, doubt, ..] = &self.0;
        a.set(words[0]);
        b.set(words[1]);
        c.set(words[2]);
        doubt.set(0);
        seal.set(check);
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
