//! What the rules note of a packet, and how they speak of its way.

use crate::{
    abi::{AffinityKey, Answer, Event, Frontend, Kind, NextHop, Scope},
    addr::{V4, V6},
    allowance::Allowance,
    envelope::Step,
    flow::Tuple,
    icmp::Span,
    parse::Segment,
    table::{Entry, Found},
    verdict::{Reason, Verdict},
};

use super::SourceClass;

/// What came of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub reason: Reason,
    /// The reason's. It is worked out where the reason is known: of one that comes from memory the
    /// verifier knows nothing, and would not let it choose from a table.
    pub verdict: Verdict,
    /// Index of the service, or [`Outcome::NOBODY`].
    pub service: u32,
    /// Id of the backend, or [`Outcome::NOBODY`].
    pub backend: u32,
    /// For packets that are forwarded.
    pub hop: NextHop,
    /// What would have fitted, for a packet that is too big.
    pub mtu: u16,
    /// Whether this packet made a flow.
    pub opened: bool,
}

impl Outcome {
    /// No service or backend has a part in it.
    pub const NOBODY: u32 = u32::MAX;

    /// Nothing is known yet. All but the hop, which counts where the reason says that there is one, and
    /// would be a call of `memset` for every packet.
    #[inline(always)]
    pub(super) const fn begin(&mut self) {
        self.end(Reason::NotIp);
        (self.service, self.backend) = (Self::NOBODY, Self::NOBODY);
        (self.hop.interface, self.mtu, self.opened) = (0, 0, false);
    }

    /// This is what becomes of the packet, as far as it can be done.
    #[inline(always)]
    pub const fn end(&mut self, reason: Reason) {
        self.reason = reason;
        self.verdict = reason.verdict();
    }
}

impl Default for Outcome {
    #[inline(always)]
    fn default() -> Self {
        Self {
            reason: Reason::NotIp,
            verdict: Verdict::Pass,
            service: Self::NOBODY,
            backend: Self::NOBODY,
            hop: NextHop::default(),
            mtu: 0,
            opened: false,
        }
    }
}

/// How a choice came about, for `lb explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub kind: Option<Kind>,
    pub class: SourceClass,
    pub masquerade: bool,
    pub answer: Answer,
    /// The source address that the backend sees (a slot).
    pub source: [u8; 16],
    /// With DSR, the node that the packet is sent to, or [`Outcome::NOBODY`].
    pub node: u32,
}

impl Default for Trace {
    #[inline(always)]
    fn default() -> Self {
        Self {
            kind: None,
            class: SourceClass::Outside,
            masquerade: false,
            answer: Answer::UNSET,
            source: [0; 16],
            node: Outcome::NOBODY,
        }
    }
}

/// The rules' notes on one packet. They are the caller's, because BPF's stack of 512 bytes is too
/// small for them; what an earlier packet left in them does not matter, but for the allowance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notes {
    pub outcome: Outcome,
    pub trace: Trace,
    /// Which of the two drafts is this packet's.
    pub(super) is_v6: bool,
    pub(super) v4: Draft<V4>,
    pub(super) v6: Draft<V6>,
}

impl Notes {
    /// Whether the packet came in an envelope that was opened.
    #[inline(always)]
    pub const fn was_opened(&self) -> bool {
        let step = if self.is_v6 { self.v6.step } else { self.v4.step };
        !matches!(step, Step::First)
    }

    /// Tells what came of the packet; the caller knows when and where that was.
    #[inline(always)]
    pub fn tell(&self, event: &mut Event) {
        let Outcome { reason, service, backend, opened, verdict: _, hop: _, mtu: _ } = self.outcome;
        event.reason = reason as u32;
        event.service = service;
        event.backend = backend;
        event.opened = u8::from(opened);
        if self.is_v6 {
            event.set_tuple(&self.v6.segment.tuple);
        } else {
            event.set_tuple(&self.v4.segment.tuple);
        }
    }
}

/// The part of the notes that depends on the family.
#[derive(Clone, Copy, Debug, Default)]
pub struct Draft<A> {
    pub(crate) segment: Segment<A>,
    /// Whether it came out of a pod of this node ([`crate::world::Network::faces_pods`]).
    pub(super) from_pod: bool,
    /// To session affinity.
    pub(super) client: AffinityKey,
    /// The frontend that the packet is to.
    pub(super) frontend: Frontend,
    pub(crate) found: Found<A>,
    /// Whether `found` is to make room for the flow's new entry.
    pub(super) reselects: bool,
    /// What the packet becomes.
    pub(crate) to: Tuple<A>,
    /// The key of the flow's other entry.
    pub(crate) reply: Tuple<A>,
    pub(crate) entry: Entry<A>,
    pub(crate) other: Found<A>,
    /// Of an ICMP error.
    pub(super) span: Span,
    pub(super) step: Step,
    /// With DSR, the set that a backend is chosen from; else traffic policies say.
    pub(super) from: Option<Scope>,
    /// The node that the packet is to be sent to in an envelope, whose addresses are `to`'s; zero: it is
    /// not.
    pub(super) node: u32,
    /// What that envelope says.
    pub(super) next: Step,
    /// Answers that may be made: the only memory of earlier packets.
    pub(super) allowance: Allowance,
}

/// Whether a flow keeps its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Yes,
    /// Choose again.
    No,
    /// The backend is gone for good: the client shall know.
    Gone,
}

/// What look-ups found of a packet.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// From a client to a backend on this node.
    ToLocal = 0,
    /// From a client to a backend elsewhere.
    ToRemote = 1,
    /// From a backend elsewhere to its client.
    FromRemote = 2,
    /// From a client to another node, by DSR.
    ToNode = 3,
    /// Not to be sent anywhere: the outcome says why.
    Ends = 4,
}

impl Course {
    /// The reverse of `as u32`.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::ToLocal,
            1 => Self::ToRemote,
            2 => Self::FromRemote,
            3 => Self::ToNode,
            _ => Self::Ends,
        }
    }
}
