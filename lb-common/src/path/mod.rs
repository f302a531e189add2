//! What happens to a packet from its arrival to its verdict: the same function in XDP, in tc and in
//! tests.

pub mod dsr;
mod egress;
pub mod fragment;
mod icmp;
mod ingress;
pub mod look_up;
mod notes;
mod opening;
pub mod quick;
mod source;
pub mod steps;

pub use notes::{Course, Draft, Keep, Notes, Outcome, Trace};
pub use source::{SourceClass, is_barred, masquerade};

use crate::{
    addr::{Addr, V4, V6},
    allowance::Bucket,
    envelope::{self, Envelope, Inner, Step},
    icmp::Messages,
    packet::Packet,
    parse::{Ip, Part, version},
    reject::{Complaint, Reject},
    rewrite::{link, translate},
    sctp,
    tracking::has_connections,
    verdict::{Reason, Verdict},
    wire::{Tcp, proto},
    world::{Network, Store},
};

/// Which hook runs the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Finishes a packet or leaves it unmodified to tc.
    Xdp,
    Tc,
}

/// A family that the rules can be run for.
pub trait Family: Reject + Messages + Envelope + quick::Quick {}
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

impl<A: Addr, S: Store<A>, N: Network<A>> Job<'_, A, S, N> {
    /// Whether the packet came in an envelope that was opened.
    #[inline(always)]
    fn was_opened(&self) -> bool {
        self.store.has_dsr() && !matches!(self.draft.step, Step::First)
    }
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
    outcome.begin();
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
        && let Some(verdict) = quick::run(packet, job.store, job.draft, job.outcome, job.trace)
    {
        return verdict;
    }
    job.draft.from_pod = job.network.faces_pods();
    (job.draft.step, job.draft.from, job.draft.node) = (Step::First, None, 0);
    let mut parsed = A::parse(packet, &mut job.draft.segment);
    if matches!(parsed, Err(Reason::Protocol)) && is_envelope(&job) {
        parsed = opening::open(packet, &mut job);
    }
    match parsed {
        Ok(()) => {
            ingress::judge(&mut job);
            first(&mut job);
        }
        Err(reason @ (Reason::NotIp | Reason::NotService)) => job.outcome.end(reason),
        Err(Reason::Fragment) => {
            let reason = ingress::judge_later(&mut job);
            job.outcome.end(reason);
        }
        Err(Reason::Protocol) if job.draft.segment.tuple.protocol == A::ICMP => {
            let reason = if job.was_opened() {
                icmp::judge(&Inner::of::<A>(packet), &mut job)
            } else {
                icmp::judge(packet, &mut job)
            };
            let reason = match reason {
                Reason::ErrorRemote | Reason::ToNode => {
                    ingress::way_out(&mut job).err().unwrap_or(reason)
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
    if job.store.has_dsr() && matches!(job.outcome.reason, Reason::ToNode) {
        return send_on(packet, &mut job);
    }
    if S::LIVE && matches!(job.outcome.verdict, Verdict::Reject) && !may_answer(&mut job) {
        job.outcome.end(Reason::AnswerLimit);
    }
    if job.network.hook() == Hook::Tc && S::LIVE && job.was_opened() {
        opening::take_out(packet, &mut job);
    }
    write(packet, job)
}

/// Whether a packet that is refused may be answered: not if too many were.
#[inline(always)]
fn may_answer<A: Addr, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> bool {
    let Draft { segment, allowance, .. } = &mut *job.draft;
    let uncapped = job.store.settings().is_none_or(|settings| settings.uncapped != 0);
    // A RST or an ABORT gets no answer.
    let ends = has_connections(segment.tuple.protocol) && segment.tcp_flags & Tcp::RST != 0;
    if uncapped || ends {
        return true;
    }
    let (bucket, rate) = if job.outcome.mtu != 0 {
        (&mut allowance.too_big, Bucket::TOO_BIG)
    } else if segment.tuple.protocol == proto::TCP {
        (&mut allowance.resets, Bucket::RESET)
    } else {
        (&mut allowance.unreachable, Bucket::UNREACHABLE)
    };
    bucket.take(rate, job.store.now())
}

/// Whether the packet is an envelope that may be for us to open (DSR). Only tc can.
#[inline(always)]
fn is_envelope<A: Family, S: Store<A>, N: Network<A>>(job: &Job<'_, A, S, N>) -> bool {
    job.network.hook() == Hook::Tc
        && S::LIVE
        && !job.network.faces_pods()
        && job.draft.segment.tuple.protocol == A::IN_ITSELF
        && dsr::is_on(job.store)
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
    outcome.begin();
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
    job.draft.step = Step::First;
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
    let verdict = job.outcome.verdict;
    let Draft { segment, to, .. } = &*job.draft;
    let written = match verdict {
        Verdict::Pass | Verdict::Drop => return verdict,
        Verdict::Reject => {
            return match A::reject(packet, segment, Complaint { mtu: job.outcome.mtu }) {
                Some(()) => verdict,
                None => unanswered(job),
            };
        }
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

/// A packet that is refused, and to which no answer was made.
#[inline(always)]
fn unanswered<A: Family, S: Store<A>, N: Network<A>>(job: Job<'_, A, S, N>) -> Verdict {
    let Draft { segment, allowance, .. } = &mut *job.draft;
    // Its answer is longer than it is, and some drivers leave no room for that: tc makes it, and counts
    // it.
    let is_longer = segment.tuple.protocol != proto::TCP
        && !sctp::ends(segment)
        && job.outcome.mtu == 0
        && !segment.has_extras(A::L4);
    if is_longer && job.network.hook() == Hook::Xdp {
        allowance.unreachable.give_back();
        job.outcome.end(Reason::NeedsStack);
        return Verdict::Pass;
    }
    // A RST or an ABORT is not answered.
    Verdict::Drop
}

/// Sends the packet to another node. A function of its own, for the sake of BPF's stack.
#[inline(never)]
fn send_on<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    packet: &mut P,
    job: &mut Job<'_, A, S, N>,
) -> Verdict {
    let Draft { segment, to, step, next, .. } = &*job.draft;
    let is_in_one = !matches!(step, Step::First);
    match envelope::send(packet, to, segment.length, is_in_one, *next, &job.outcome.hop) {
        Some(()) => return job.outcome.verdict,
        // Some drivers leave no room in front.
        None if job.network.hook() == Hook::Xdp => job.outcome.end(Reason::NeedsStack),
        None => job.outcome.end(Reason::NotLinear),
    }
    job.outcome.verdict
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
