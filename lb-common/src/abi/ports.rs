use super::Word;
use crate::{addr::Addr, flow::Tuple, limits::SNAT_PORTS};

/// Whose ports a [`PortPool`] holds: a backend's, whatever id it has. Aligned as
/// [`super::FrontendKey`] is.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    address: [u8; 16],
    port: [u8; 2],
    protocol: u8,
    version: u8,
}

const _: () = assert!(size_of::<PoolKey>() == 20);

impl PoolKey {
    /// `address` is a slot of its family, `port` is big-endian.
    #[inline(always)]
    pub const fn new(address: [u8; 16], port: [u8; 2], protocol: u8, v6: bool) -> Self {
        Self { address, port, protocol, version: if v6 { 6 } else { 4 } }
    }

    /// The key of the backend that packets of this tuple go to.
    #[inline(always)]
    pub fn of<A: Addr>(to: &Tuple<A>) -> Self {
        Self::new(to.dst.to_slot(), to.dport, to.protocol, !A::IS_V4)
    }
}

/// Which source ports towards one backend are taken, by their place in the range: hints, of which the
/// flow table is the judge. See [`crate::ports`].
#[repr(C)]
#[derive(Debug)]
pub struct PortPool {
    /// Ports whose bit is set.
    pub(crate) used: Word,
    /// The strip to be looked through next.
    pub(crate) hand: Word,
    /// Strips in a row in which every taken port was a live flow's (low half); until which tick none
    /// is looked through (high half).
    pub(crate) barren: Word,
    /// Flows that opened and have not been answered: see [`crate::gauge::Gauge`].
    pub(crate) opening: Word,
    /// A bit for each of `taken`'s words: it has no port left.
    pub(crate) full: [Word; PortPool::GROUPS],
    /// A bit for each port.
    pub(crate) taken: [Word; PortPool::WORDS],
    /// Nothing: the verifier, which does not know that offsets are whole words, would see a port's
    /// word reach over the end.
    spare: Word,
}

impl PortPool {
    pub(crate) const WORDS: usize = SNAT_PORTS as usize / 64;
    pub(crate) const GROUPS: usize = Self::WORDS.div_ceil(64);
}

// With its key and what the kernel keeps of an entry, below a page.
const _: () = assert!(size_of::<PortPool>() == 3944);

impl Default for PortPool {
    /// No port is taken.
    fn default() -> Self {
        let zeros = || Word::default();
        Self {
            used: zeros(),
            hand: zeros(),
            barren: zeros(),
            opening: zeros(),
            full: core::array::from_fn(|_| zeros()),
            taken: core::array::from_fn(|_| zeros()),
            spare: zeros(),
        }
    }
}
