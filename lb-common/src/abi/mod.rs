//! Keys and values of the BPF maps: what both sides of the kernel border must agree on.
//!
//! Everything is `repr(C)` without padding that is not named. Array maps are mapped into the agent
//! (`BPF_F_MMAPABLE`, kernel 5.5), so that one aligned 64-bit store publishes a change: types that
//! live there are whole 64-bit words, and their word that makes them count is named in their docs.

mod affinity;
mod backend;
pub mod bench;
mod event;
#[cfg(feature = "user")]
mod field;
mod flow;
mod fragment;
mod frontend;
mod hop;
mod node;
mod ports;
mod report;
mod service;
mod settings;
mod socket;

pub use affinity::{AffinityEntry, AffinityKey};
pub use backend::{Backend, BackendState};
pub use event::{Event, EventHook, Watch};
#[cfg(feature = "user")]
pub use field::Field;
pub use flow::{FlowSet, FlowWords, WORDS_V4, WORDS_V6, Word};
pub use fragment::{FragmentKey, FragmentPorts};
pub use frontend::{Frontend, FrontendKey, Kind, SourceKey};
pub use hop::{HopSlot, NextHop};
pub use node::{Node, NodeSlot};
pub use ports::{PoolKey, PortPool};
pub use report::{Question, Report};
pub use service::{Answer, Line, SLOTS_PER_LINE, Scope, Service, SizeClass};
pub use settings::{CidrSet, Settings, Timeouts};
pub use socket::{SocketBackend, SocketChoice, SocketKey, SocketPeer};

/// A value made of 64-bit words without padding.
///
/// # Safety
/// Implementors are `repr(C)`, have alignment 8 or less, no padding bytes, no invalid bit pattern
/// and `size_of::<Self>() == 8 * N`.
pub unsafe trait Words<const N: usize>: Copy {
    /// The value as its words, in memory order.
    fn to_words(&self) -> [u64; N] {
        const { assert!(size_of::<Self>() == 8 * N) };
        // SAFETY: the sizes are equal (asserted), and `Self` has no padding (trait contract).
        unsafe { core::mem::transmute_copy(self) }
    }

    /// The value out of its words.
    fn from_words(words: &[u64; N]) -> Self {
        const { assert!(size_of::<Self>() == 8 * N) };
        // SAFETY: the sizes are equal (asserted), and `Self` has no invalid bits (trait contract).
        unsafe { core::mem::transmute_copy(words) }
    }
}

/// What was counted for one Reason, service or backend, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: u64,
    /// Bytes of the frames, link-layer header included.
    pub bytes: u64,
    /// New flows and translated sockets.
    pub connections: u64,
    /// Packets that were rejected or dropped.
    pub refused: u64,
}

impl Count {
    /// The sum of two counts.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            connections: self.connections + other.connections,
            refused: self.refused + other.refused,
        }
    }
}

/// Implements `aya::Pod` for values that `Words` or `repr(C)` without padding makes plain.
#[cfg(feature = "user")]
mod pod {
    use super::{
        AffinityEntry, AffinityKey, Backend, Count, Event, Frontend, FrontendKey, Line, NextHop,
        Node, PoolKey, Service, Settings, SocketBackend, SocketChoice, SocketKey, SocketPeer,
        SourceKey, Watch,
    };
    use crate::addr::{V4, V6};

    macro_rules! pod {
        ($($ty:ty),* $(,)?) => {
            // SAFETY: `repr(C)` over integers and bytes, padding named, `Copy` and `'static`.
            $(unsafe impl aya::Pod for $ty {})*
        };
    }

    pod!(
        AffinityEntry,
        AffinityKey,
        Backend,
        Count,
        Event,
        Frontend,
        FrontendKey<V4>,
        FrontendKey<V6>,
        Line,
        NextHop,
        Node,
        PoolKey,
        Service,
        Settings,
        SocketBackend,
        SocketChoice,
        SocketKey,
        SocketPeer,
        SourceKey<V4>,
        SourceKey<V6>,
        Watch,
    );
}
