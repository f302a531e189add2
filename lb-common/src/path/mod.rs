//! What happens to a packet from its arrival to its verdict: the same function in XDP, in tc and in
//! tests.

mod egress;
mod ingress;
mod new_flow;
mod source;

pub use source::{SourceClass, masquerade};

use crate::{
    abi::{Answer, Kind, NextHop},
    addr::{V4, V6},
    flow::Tuple,
    packet::Packet,
    parse::{Ip, Segment, version},
    reject::Reject,
    table::{Entry, Found},
    verdict::{Reason, Verdict},
    world::Store,
};

/// Which hook runs the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Finishes a packet or leaves it unmodified to tc.
    Xdp,
    Tc,
}

/// What came of a packet besides its [`Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub reason: Reason,
    /// Index of the service, or [`Outcome::NOBODY`].
    pub service: u32,
    /// Id of the backend, or [`Outcome::NOBODY`].
    pub backend: u32,
    /// For packets that are forwarded.
    pub hop: NextHop,
    /// Whether this packet made a flow.
    pub opened: bool,
}

impl Outcome {
    /// No service or backend has a part in it.
    pub const NOBODY: u32 = u32::MAX;
}

impl Default for Outcome {
    #[inline(always)]
    fn default() -> Self {
        Self {
            reason: Reason::NotIp,
            service: Self::NOBODY,
            backend: Self::NOBODY,
            hop: NextHop::default(),
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
        }
    }
}

/// The rules' notes on one packet. They are the caller's, because BPF's stack of 512 bytes is too
/// small for them; what an earlier packet left in them does not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notes {
    pub outcome: Outcome,
    pub trace: Trace,
    v4: Draft<V4>,
    v6: Draft<V6>,
}

/// The part of the notes that depends on the family.
#[derive(Clone, Copy, Debug, Default)]
struct Draft<A> {
    segment: Segment<A>,
    found: Found<A>,
    /// What the packet becomes.
    to: Tuple<A>,
    /// The key of the flow's other entry.
    reply: Tuple<A>,
    entry: Entry<A>,
    other: Found<A>,
}

/// A family that the rules can be run for.
pub trait Family: Reject {}
impl Family for V4 {}
impl Family for V6 {}

/// What all steps of a packet's way work on.
struct Job<'a, A, S> {
    store: &'a S,
    draft: &'a mut Draft<A>,
    outcome: &'a mut Outcome,
    trace: &'a mut Trace,
}

/// A frame that comes in on an uplink. It has been rewritten, or turned into the answer to itself,
/// as the verdict says; the notes have the rest.
#[inline(always)]
pub fn arrive<P, S>(packet: &mut P, store: &S, notes: &mut Notes) -> Verdict
where
    P: Packet + ?Sized,
    S: Store<V4> + Store<V6>,
{
    let Notes { outcome, trace, v4, v6 } = notes;
    *outcome = Outcome::default();
    match version(packet) {
        Ip::V4 => arrive_in(packet, store, v4, outcome, trace),
        Ip::V6 => arrive_in(packet, store, v6, outcome, trace),
        Ip::Foreign => Verdict::Pass,
    }
}

/// Returns the verdict and leaves the reason in memory: the verifier then walks what follows once
/// for each of the few verdicts, not for each of the many reasons.
#[inline(never)]
fn arrive_in<A: Family, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
) -> Verdict {
    let job = &mut Job { store, draft, outcome, trace };
    let reason = match A::parse(packet, &mut job.draft.segment) {
        Ok(()) => ingress::ingress(packet, job),
        Err(Reason::NotIp) => Reason::NotIp,
        Err(reason) => ingress::odd(job, reason),
    };
    job.outcome.reason = reason;
    let verdict = reason.verdict();
    if matches!(verdict, Verdict::Reject) && A::reject(packet, &job.draft.segment).is_none() {
        // A RST is not answered, nor what leaves no room to write in.
        return Verdict::Drop;
    }
    verdict
}

/// A frame that leaves on an uplink.
#[inline(always)]
pub fn leave<P, S>(packet: &mut P, store: &S, notes: &mut Notes) -> Verdict
where
    P: Packet + ?Sized,
    S: Store<V4> + Store<V6>,
{
    let Notes { outcome, trace, v4, v6 } = notes;
    *outcome = Outcome::default();
    match version(packet) {
        Ip::V4 => leave_in(packet, store, v4, outcome, trace),
        Ip::V6 => leave_in(packet, store, v6, outcome, trace),
        Ip::Foreign => Verdict::Pass,
    }
}

#[inline(never)]
fn leave_in<A: Family, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
) -> Verdict {
    let job = &mut Job { store, draft, outcome, trace };
    let reason = match A::parse(packet, &mut job.draft.segment) {
        Ok(()) => egress::egress(packet, job),
        Err(_) => Reason::NotService,
    };
    job.outcome.reason = reason;
    reason.verdict()
}
