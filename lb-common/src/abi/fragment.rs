use crate::addr::Addr;

/// The packet that a fragment is of. Aligned as [`super::FrontendKey`] is.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FragmentKey {
    src: [u8; 16],
    dst: [u8; 16],
    id: u32,
    protocol: u8,
    version: u8,
    zero: [u8; 2],
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

impl FragmentKey {
    #[inline(always)]
    pub fn new<A: Addr>(src: A, dst: A, id: u32, protocol: u8) -> Self {
        let version = if A::IS_V4 { 4 } else { 6 };
        Self { src: src.to_slot(), dst: dst.to_slot(), id, protocol, version, zero: [0; 2] }
    }
}

/// What the first fragment said: the ports, big-endian.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPorts {
    pub sport: [u8; 2],
    pub dport: [u8; 2],
    /// The tick from which this is forgotten.
    pub expiry: u32,
}
