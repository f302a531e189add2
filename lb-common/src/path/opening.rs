//! Envelopes from other nodes (DSR, at tc): which are for us to open, and what becomes of what is in
//! them.

use super::{
    Draft, Family, Job,
    dsr::{spreads, with_quoted},
    look_up::find_frontend,
};
use crate::{
    abi::{Frontend, FrontendKey, Kind},
    addr::Addr,
    envelope::{Inner, Step},
    icmp::Message,
    packet::Packet,
    parse::Part,
    verdict::{Reason, Verdict},
    wire::Icmp,
    world::{Network, Route, Store},
};

/// Looks into an envelope, at tc. From another node to this one, with a packet in it that is spread:
/// `draft.segment` then describes that packet, and what is returned is what [`crate::parse::Parse::parse`] says of it.
///
/// # Errors
/// Of the packet in it. `NotService` for what is not ours; of who it is not from, `Protocol`.
#[inline(never)]
pub fn open<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    packet: &mut P,
    job: &mut Job<'_, A, S, N>,
) -> Result<(), Reason> {
    let outer = &job.draft.segment;
    let ours = outer.part == Part::Whole
        && !outer.has_extras(A::L4)
        && is_of_kind(job.store, outer.tuple.src, Kind::PeerAddress)
        && is_of_kind(job.store, outer.tuple.dst, Kind::NodeAddress);
    if !ours {
        return Err(Reason::Protocol);
    }
    let step = Step::of_ttl(outer.ttl);
    packet.pull_inner();
    let inner = Inner::of::<A>(packet);
    let parsed = A::parse(&inner, &mut job.draft.segment);
    let is_spread = match parsed {
        Ok(()) => is_spread(job.store, job.draft),
        Err(Reason::Fragment) => {
            matches!(job.draft.segment.part, Part::Later)
                && job.store.recall_first(job.draft)
                && is_spread(job.store, job.draft)
        }
        Err(Reason::Protocol) => {
            job.draft.segment.tuple.protocol == A::ICMP && quotes_what_is_spread(&inner, job)
        }
        Err(_) => false,
    };
    if !is_spread {
        // Somebody else's tunnel.
        return Err(Reason::NotService);
    }
    job.draft.step = step;
    parsed
}

/// Takes a packet out of its envelope. An answer to it goes to
/// the client, not to the node that the envelope is from. A function of its own, for the sake of BPF's
/// stack.
#[inline(never)]
pub fn take_out<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    packet: &mut P,
    job: &mut Job<'_, A, S, N>,
) {
    let Draft { segment, to, .. } = &mut *job.draft;
    match job.outcome.verdict {
        Verdict::Pass | Verdict::Drop => return,
        Verdict::Reject => {
            to.src.set(segment.tuple.dst);
            to.dst.set(segment.tuple.src);
            (to.sport, to.dport) = (segment.tuple.dport, segment.tuple.sport);
            to.protocol = segment.tuple.protocol;
            if let Route::Hop(hop) = job.network.route(to, 0, 0) {
                job.outcome.hop = hop;
            }
        }
        Verdict::Deliver | Verdict::Forward | Verdict::Answer => {}
    }
    if packet.shrink(A::OUTER).is_none() {
        job.outcome.end(Reason::NotLinear);
    }
}

/// Whether an ICMP packet in an envelope is an error about a flow that is spread.
#[inline(always)]
fn quotes_what_is_spread<A: Family, P: Packet + ?Sized, S: Store<A>, N: Network<A>>(
    inner: &Inner<'_, P>,
    job: &mut Job<'_, A, S, N>,
) -> bool {
    let is_error =
        inner.get::<Icmp>(A::L4).is_some_and(|icmp| A::message(icmp.kind) == Message::Error);
    is_error
        && A::quote(inner, &mut job.draft.reply).is_some()
        && with_quoted(job, |job| is_spread(job.store, job.draft))
}

/// Whether an address is known as one of this kind.
#[inline(never)]
fn is_of_kind<A: Addr, S: Store<A>>(store: &S, address: A, kind: Kind) -> bool {
    store.frontend(&FrontendKey::of_address(address)).and_then(|it| it.kind()) == Some(kind)
}

/// Finds the frontend that a packet in an envelope is to, which may be a NodePort of the node that it
/// came to first: whether its Service is spread.
#[inline(never)]
fn is_spread<A: Addr, S: Store<A>>(store: &S, draft: &mut Draft<A>) -> bool {
    if !find_frontend(store, draft) {
        let tuple = &draft.segment.tuple;
        if !is_of_kind(store, tuple.dst, Kind::PeerAddress) {
            return false;
        }
        let anywhere = FrontendKey::new(A::default(), tuple.dport, tuple.protocol);
        let Some(frontend) = store.frontend(&anywhere) else { return false };
        draft.frontend = Frontend::new(frontend.service(), Kind::NodePort);
    }
    let service = store.service(draft.frontend.service());
    let kind = draft.frontend.kind();
    matches!((service, kind), (Some(service), Some(kind)) if spreads(service, kind))
}
