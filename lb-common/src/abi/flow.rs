use core::sync::atomic::AtomicU64;
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::{addr::Addr, limits::FLOW_WAYS};

/// Words of an IPv4 flow: one cache line.
pub const WORDS_V4: usize = 8;
/// Words of an IPv6 flow: two cache lines.
pub const WORDS_V6: usize = 16;

/// A 64-bit word that CPUs share: each access is one aligned load or store.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Word(AtomicU64);

#[cfg(not(target_arch = "bpf"))]
impl Word {
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[inline(always)]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Stores `new` if the word still holds `old`, ordered with everything around it.
    #[inline(always)]
    pub fn replace_if(&self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }

    /// Adds, and returns what there was.
    #[inline(always)]
    pub fn add(&self, more: u64) -> u64 {
        self.0.fetch_add(more, Relaxed)
    }
}

/// LLVM cannot translate the library's atomic loads for this target, and the library leaves
/// compare-and-exchange out; volatile accesses and the compiler's own operation stand in.
#[cfg(target_arch = "bpf")]
impl Word {
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: the pointer is that of a live, aligned word; the machine loads it at once.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    #[inline(always)]
    pub fn set(&self, value: u64) {
        // SAFETY: as in `get`; the word is an atomic, so shared writes are allowed.
        unsafe { self.0.as_ptr().write_volatile(value) }
    }

    /// Stores `new` if the word still holds `old`: BPF_CMPXCHG (kernel 5.12).
    #[inline(always)]
    pub fn replace_if(&self, old: u64, new: u64) -> bool {
        use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg};
        // SAFETY: as in `set`.
        unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(self.0.as_ptr(), old, new) }.1
    }

    /// Adds, and returns what there was (kernel 5.12).
    #[inline(always)]
    pub fn add(&self, more: u64) -> u64 {
        use core::intrinsics::{AtomicOrdering::SeqCst, atomic_xadd};
        // SAFETY: as in `set`.
        unsafe { atomic_xadd::<u64, u64, { SeqCst }>(self.0.as_ptr(), more) }
    }
}

/// The words of one flow.
pub trait FlowWords: 'static {
    /// All zeros.
    fn empty() -> Self;
    /// Word `index`; indices are constants below the number of words.
    fn word(&self, index: usize) -> &Word;
}

impl<const N: usize> FlowWords for [Word; N] {
    fn empty() -> Self {
        core::array::from_fn(|_| Word::default())
    }

    #[inline(always)]
    fn word(&self, index: usize) -> &Word {
        &self[index]
    }
}

/// A set of the flow table: flows whose hash is alike. See [`crate::table`].
#[repr(C)]
pub struct FlowSet<A: Addr> {
    pub(crate) ways: [A::Words; FLOW_WAYS],
}

impl<A: Addr> Default for FlowSet<A> {
    /// No flows.
    fn default() -> Self {
        Self { ways: core::array::from_fn(|_| A::Words::empty()) }
    }
}

const _: () = assert!(size_of::<FlowSet<crate::addr::V4>>() == 1024);
const _: () = assert!(size_of::<FlowSet<crate::addr::V6>>() == 2048);
