use core::sync::atomic::AtomicU64;

use crate::{addr::Addr, limits::FLOW_WAYS};

/// Words of an IPv4 flow: one cache line.
pub const WORDS_V4: usize = 8;
/// Words of an IPv6 flow: two cache lines.
pub const WORDS_V6: usize = 16;

/// The words of one flow. They are atomics, so that CPUs share them without `unsafe`; a relaxed
/// load or store of one is a plain aligned access.
pub trait FlowWords: 'static {
    /// Word `index`; indices are constants below the number of words.
    fn word(&self, index: usize) -> &AtomicU64;
}

impl<const N: usize> FlowWords for [AtomicU64; N] {
    #[inline(always)]
    fn word(&self, index: usize) -> &AtomicU64 {
        &self[index]
    }
}

/// A set of the flow table: flows whose hash is alike. See [`crate::table`].
#[repr(C)]
pub struct FlowSet<A: Addr> {
    pub(crate) ways: [A::Words; FLOW_WAYS],
}

const _: () = assert!(size_of::<FlowSet<crate::addr::V4>>() == 256);
const _: () = assert!(size_of::<FlowSet<crate::addr::V6>>() == 512);
