use super::Words;
use crate::addr::{Addr, V4, V6};

/// A node of the cluster that runs an agent, as the steps of DSR know it. All zeros: nobody.
///
/// Whoever gets another address gets another row: what a program reads is the old or the new one.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    present: u64,
    v4: [u8; 16],
    v6: [u8; 16],
    spare: [u64; 3],
}

const _: () = assert!(size_of::<Node>() == 64);
// SAFETY: `repr(C)`, offsets 0, 8, 24, 40: no padding, plain integers.
unsafe impl Words<8> for Node {}

impl Node {
    /// A node with these addresses; unspecified ones stand for none.
    pub fn new(v4: V4, v6: V6) -> Self {
        Self { present: 1, v4: v4.to_slot(), v6: v6.to_slot(), spare: [0; 3] }
    }

    /// Where envelopes of the family are sent to, and come from.
    #[inline(always)]
    pub fn address<A: Addr>(&self) -> Option<A> {
        let address = A::from_slot(if A::IS_V4 { &self.v4 } else { &self.v6 });
        (self.present != 0 && address != A::default()).then_some(address)
    }
}

/// A slot of a ring over nodes: the [`Node`] that it leads to, and the one that it led to before,
/// which may be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSlot {
    pub now: u32,
    pub before: u32,
    /// Whether the node before has endpoints that serve: then it is asked about what may begin a flow. A
    /// node that has none may be dead, and nobody would hear an answer.
    pub asks: bool,
}

impl NodeSlot {
    /// In the place of a node: backends that live where no agent runs. Whoever comes first serves
    /// them, by SNAT.
    pub const REST: u32 = 0x7fff;

    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self { now: word & 0x7fff, before: word >> 16 & 0x7fff, asks: word >> 31 != 0 }
    }

    /// As it lies in a ring. Ids are below [`crate::limits::NODES`].
    pub const fn to_word(self) -> u32 {
        self.now | self.before << 16 | (self.asks as u32) << 31
    }

    /// The node that it leads to, if that is not `own`.
    #[inline(always)]
    pub const fn now_elsewhere(self, own: u32) -> Option<u32> {
        if self.now != own && self.now != Self::REST { Some(self.now) } else { None }
    }

    /// Whom `own` asks about what may begin a flow.
    #[inline(always)]
    pub const fn to_ask(self, own: u32) -> Option<u32> {
        if self.now == Self::REST || (self.now == own && !self.asks) {
            return None;
        }
        self.other_than(own)
    }

    /// The first of both that is a node, and not `own`: where flows may be that are unknown here.
    #[inline(always)]
    pub const fn other_than(self, own: u32) -> Option<u32> {
        if let Some(now) = self.now_elsewhere(own) {
            return Some(now);
        }
        if self.before != own && self.before != Self::REST {
            return Some(self.before);
        }
        None
    }
}
