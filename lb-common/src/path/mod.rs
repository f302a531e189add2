//! What happens to a packet from its arrival to its verdict: the same function in XDP, in tc and in
//! tests.

mod egress;
pub mod fragment;
mod icmp;
mod ingress;
pub mod look_up;
pub mod quick;
mod source;
pub mod steps;

pub use source::{SourceClass, is_barred, masquerade};

use crate::{
    abi::{AffinityKey, Answer, Event, Frontend, Kind, NextHop},
    addr::{V4, V6},
    flow::Tuple,
    icmp::{Messages, Span},
    packet::Packet,
    parse::{Ip, Part, Segment, version},
    reject::{Complaint, Reject},
    rewrite::{link, translate},
    sctp,
    table::{Entry, Found},
    verdict::{Reason, Verdict},
    wire::proto,
    world::{Network, Store},
};

/// Which hook runs the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Finishes a packet or leaves it unmodified to tc.
    Xdp,
    Tc,
}

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
    /// Which of the two drafts is this packet's.
    is_v6: bool,
    v4: Draft<V4>,
    v6: Draft<V6>,
}

impl Notes {
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
    /// Whether it came out of a pod of this node ([`Network::faces_pods`]).
    from_pod: bool,
    /// To session affinity.
    client: AffinityKey,
    /// The frontend that the packet is to.
    frontend: Frontend,
    pub(crate) found: Found<A>,
    /// Whether `found` is to make room for the flow's new entry.
    reselects: bool,
    /// What the packet becomes.
    pub(crate) to: Tuple<A>,
    /// The key of the flow's other entry.
    pub(crate) reply: Tuple<A>,
    pub(crate) entry: Entry<A>,
    pub(crate) other: Found<A>,
    /// Of an ICMP error.
    span: Span,
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
    /// Not to be sent anywhere: the outcome says why.
    Ends = 3,
}

impl Course {
    /// The reverse of `as u32`.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::ToLocal,
            1 => Self::ToRemote,
            2 => Self::FromRemote,
            _ => Self::Ends,
        }
    }
}

/// A family that the rules can be run for.
pub trait Family: Reject + Messages + quick::Quick {}
impl Family for V4 {}
impl Family for V6 {}

/// What all steps of a packet's way work on.
struct Job<'a, A, S, N> {
    store: &'a S,
    network: &'a N,
    draft: &'a mut Draft<A>,
    outcome: &'a mut Outcome,
    trace: &'a mut Trace,
}

/// A frame that comes in on an uplink, or out of a pod. It has been rewritten, or turned into the answer to itself,
/// as the verdict says; the notes have the rest.
#[inline(always)]
pub fn arrive<P, S, N>(packet: &mut P, store: &S, network: &N, notes: &mut Notes) -> Verdict
where
    P: Packet + ?Sized,
    S: Store<V4> + Store<V6>,
    N: Network<V4> + Network<V6>,
{
    let Notes { outcome, trace, is_v6, v4, v6 } = notes;
    *outcome = Outcome::default();
    let version = version(packet);
    *is_v6 = matches!(version, Ip::V6);
    match version {
        Ip::V4 => arrive_in(packet, Job { store, network, draft: v4, outcome, trace }),
        Ip::V6 => arrive_in(packet, Job { store, network, draft: v6, outcome, trace }),
        Ip::Foreign => Verdict::Pass,
    }
}

/// Looks everything up, then changes the packet.
#[inline(always)]
fn arrive_in<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    packet: &mut P,
    mut job: Job<'_, A, S, N>,
) -> Verdict {
    if job.network.takes_shortcuts()
        && let Some(verdict) = quick::run(packet, job.store, job.draft, job.outcome)
    {
        return verdict;
    }
    job.draft.from_pod = job.network.faces_pods();
    match A::parse(packet, &mut job.draft.segment) {
        Ok(()) => {
            ingress::judge(&mut job);
            first(&mut job);
        }
        Err(Reason::NotIp) => job.outcome.end(Reason::NotIp),
        Err(Reason::Fragment) => {
            let reason = ingress::judge_later(&mut job);
            job.outcome.end(reason);
        }
        Err(Reason::Protocol) if job.draft.segment.tuple.protocol == A::ICMP => {
            let reason = match icmp::judge(packet, &mut job) {
                Reason::ErrorRemote => {
                    ingress::way_out(&mut job).err().unwrap_or(Reason::ErrorRemote)
                }
                reason => reason,
            };
            job.outcome.end(reason);
        }
        Err(reason) => {
            // Nothing, or an earlier packet's.
            (job.draft.segment.tuple.sport, job.draft.segment.tuple.dport) = ([0; 2], [0; 2]);
            let reason = ingress::odd(&job, reason);
            job.outcome.end(reason);
        }
    }
    write(packet, job)
}

/// A frame that leaves on an uplink, or to a pod.
#[inline(always)]
pub fn leave<P, S, N>(packet: &mut P, store: &S, network: &N, notes: &mut Notes) -> Verdict
where
    P: Packet + ?Sized,
    S: Store<V4> + Store<V6>,
    N: Network<V4> + Network<V6>,
{
    let Notes { outcome, trace, is_v6, v4, v6 } = notes;
    *outcome = Outcome::default();
    let version = version(packet);
    *is_v6 = matches!(version, Ip::V6);
    match version {
        Ip::V4 => leave_in(packet, Job { store, network, draft: v4, outcome, trace }),
        Ip::V6 => leave_in(packet, Job { store, network, draft: v6, outcome, trace }),
        Ip::Foreign => Verdict::Pass,
    }
}

#[inline(always)]
fn leave_in<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    packet: &mut P,
    mut job: Job<'_, A, S, N>,
) -> Verdict {
    let parsed = A::parse(packet, &mut job.draft.segment);
    let reason = match parsed {
        Ok(()) => egress::judge(&mut job),
        Err(Reason::Fragment) if recalls(&mut job) => egress::judge(&mut job),
        Err(Reason::Protocol) if job.draft.segment.tuple.protocol == A::ICMP => {
            icmp::judge_leaving(packet, &mut job)
        }
        Err(_) => Reason::NotService,
    };
    job.outcome.end(reason);
    if parsed.is_ok() {
        first(&mut job);
    }
    write(packet, job)
}

/// If the packet is a first fragment that goes on, those behind it shall follow.
#[inline(always)]
fn first<A: Family, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) {
    let goes_on = matches!(job.outcome.verdict, Verdict::Deliver | Verdict::Forward);
    let is_first = matches!(job.draft.segment.part, Part::First);
    if S::LIVE && is_first && goes_on && !job.store.note_first(job.draft) {
        job.outcome.end(Reason::Fragment);
    }
}

/// Whether the packet is a later fragment whose first was seen: its ports are known then.
#[inline(always)]
fn recalls<A: Family, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> bool {
    matches!(job.draft.segment.part, Part::Later) && job.store.recall_first(job.draft)
}

/// Makes of the packet what was decided.
#[inline(always)]
fn write<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    packet: &mut P,
    job: Job<'_, A, S, N>,
) -> Verdict {
    let Draft { segment, to, .. } = job.draft;
    let verdict = job.outcome.verdict;
    let written = match verdict {
        Verdict::Pass | Verdict::Drop => return verdict,
        Verdict::Reject => match A::reject(packet, segment, Complaint { mtu: job.outcome.mtu }) {
            Some(()) => return verdict,
            // Its answer is longer than it is, and some drivers leave no room for that: tc makes it.
            None if segment.tuple.protocol != proto::TCP
                && !sctp::ends(segment)
                && job.outcome.mtu == 0
                && !segment.has_extras(A::L4)
                && job.network.hook() == Hook::Xdp =>
            {
                job.outcome.end(Reason::NeedsStack);
                return Verdict::Pass;
            }
            // A RST or an ABORT is not answered.
            None => return Verdict::Drop,
        },
        Verdict::Answer => A::answer(packet),
        Verdict::Deliver | Verdict::Forward => {
            let hops = matches!(verdict, Verdict::Forward);
            let written = if matches!(segment.tuple.protocol, proto::TCP | proto::UDP) {
                let later = matches!(segment.part, Part::Later);
                let l4 = if later { 0 } else { segment.transport() };
                translate(packet, &segment.tuple, to, l4, hops)
            } else {
                translate_other(packet, job.draft, hops)
            };
            if hops { written.and_then(|()| link(packet, &job.outcome.hop)) } else { written }
        }
    };
    match written {
        Some(()) => verdict,
        None => {
            job.outcome.end(Reason::NotLinear);
            Verdict::Drop
        }
    }
}

/// As [`translate`], for SCTP and ICMP. A function of its own, for the sake of BPF's stack.
#[inline(never)]
fn translate_other<A: Family, P: Packet + ?Sized>(
    packet: &mut P,
    draft: &Draft<A>,
    hops: bool,
) -> Option<()> {
    if draft.segment.tuple.protocol == proto::SCTP {
        sctp::translate(packet, &draft.segment, &draft.to, hops)
    } else {
        icmp::write(packet, draft, hops)
    }
}
