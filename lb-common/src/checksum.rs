//! Internet checksums kept right by differences (RFC 1071, RFC 1624).
//!
//! A checksum is the complement of the one's complement sum of 16-bit words. Replacing a word `m`
//! by `m'` changes the sum by `~m + m'`, so a [`Delta`] collects such terms and applies them to a
//! stored checksum without a look at the rest of the packet: `HC' = ~(~HC + ~m + m')` (RFC 1624,
//! equation 3). One's complement sums do not depend on byte order, so words are read natively.
//! A wrong checksum stays wrong by the same amount: damage is never repaired on the way.

/// Terms to add to a checksum's sum: 32-bit words as they are, because 2^16 is one modulo 2^16 - 1.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Nothing changes.
    pub const ZERO: Self = Self(0);

    /// Two bytes at an even offset replaced.
    #[inline(always)]
    pub const fn replace2(self, old: [u8; 2], new: [u8; 2]) -> Self {
        Self(self.0 + (!u16::from_ne_bytes(old)) as u64 + u16::from_ne_bytes(new) as u64)
    }

    /// Four bytes at an even offset replaced.
    #[inline(always)]
    pub const fn replace4(self, old: [u8; 4], new: [u8; 4]) -> Self {
        Self(self.0 + (!u32::from_ne_bytes(old)) as u64 + u32::from_ne_bytes(new) as u64)
    }

    /// Sixteen bytes at an even offset replaced.
    #[inline(always)]
    pub const fn replace16(self, old: [u8; 16], new: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = old;
        let [q, r, s, t, u, v, w, x, y, z, a2, b2, c2, d2, e2, f2] = new;
        self.replace4([a, b, c, d], [q, r, s, t])
            .replace4([e, f, g, h], [u, v, w, x])
            .replace4([i, j, k, l], [y, z, a2, b2])
            .replace4([m, n, o, p], [c2, d2, e2, f2])
    }

    /// Both sets of terms.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The terms as one 32-bit sum, as `bpf_l4_csum_replace` takes it.
    #[inline(always)]
    pub const fn sum(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        (sum + (sum >> 32)) as u32
    }

    /// `checksum` after the change.
    #[inline(always)]
    pub const fn apply(self, checksum: [u8; 2]) -> [u8; 2] {
        let sum = self.0 + (!u16::from_ne_bytes(checksum)) as u64;
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        fold(sum as u32)
    }

    /// As [`Delta::apply`], for UDP: zero would say that there is none, so it is sent as all ones,
    /// and a checksum that was never made stays so (RFC 768).
    #[inline(always)]
    pub const fn apply_udp(self, checksum: [u8; 2]) -> [u8; 2] {
        match checksum {
            [0, 0] => [0, 0],
            _ => match self.apply(checksum) {
                [0, 0] => [0xff, 0xff],
                other => other,
            },
        }
    }
}

/// A whole checksum over what is known, for packets that are built here.
#[must_use]
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u32);

impl Sum {
    pub const ZERO: Self = Self(0);

    /// Two more bytes at an even offset.
    #[inline(always)]
    pub const fn add2(self, bytes: [u8; 2]) -> Self {
        Self(self.0 + u16::from_ne_bytes(bytes) as u32)
    }

    /// Any even number of bytes at an even offset; at most 64 kB in all.
    #[inline(always)]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        bytes.chunks_exact(2).fold(self, |sum, pair| sum.add2([pair[0], pair[1]]))
    }

    /// The checksum field.
    #[inline(always)]
    pub const fn finish(self) -> [u8; 2] {
        fold(self.0)
    }
}

#[inline(always)]
const fn fold(sum: u32) -> [u8; 2] {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_ne_bytes()
}
