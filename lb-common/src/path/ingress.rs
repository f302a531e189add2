use super::{Course, Hook, Job, dsr};
use crate::{
    abi::{FrontendKey, Kind},
    addr::Addr,
    envelope::Envelope,
    hops::{self, Way},
    parse::Part,
    ports::Lease,
    table::{self, Role},
    tracking::Side,
    verdict::Reason,
    world::{Network, Route, Store},
};

/// A packet that comes in on an uplink: what becomes of it, with everything looked up.
#[inline(always)]
pub fn judge<A: Envelope, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) {
    let (reason, side) = match job.store.look_up(job.draft, job.outcome, job.trace) {
        Course::ToLocal if matches!(job.network.hook(), Hook::Xdp) => {
            return job.outcome.end(Reason::NeedsStack);
        }
        Course::ToLocal => (Reason::ToLocal, Side::Client),
        Course::ToRemote => (Reason::ToRemote, Side::Client),
        Course::FromRemote => (Reason::ReplyRemote, Side::Server),
        Course::ToNode => (Reason::ToNode, Side::Client),
        Course::Ends => return,
    };
    if !matches!(reason, Reason::ToLocal)
        && let Err(reason) = way_out(job)
    {
        return job.outcome.end(reason);
    }
    if !S::LIVE {
        (job.trace.source, job.trace.node) = (job.draft.to.src.to_slot(), job.draft.node);
    }
    if matches!(reason, Reason::ToNode) {
        return job.outcome.end(reason);
    }
    if job.outcome.opened {
        if !lease(job) || !job.store.record(job.draft, job.outcome) {
            job.outcome.opened = false;
            return;
        }
    } else {
        job.outcome.backend = job.draft.found.entry.backend;
        job.store.track(job.draft, side);
    }
    job.outcome.end(reason);
}

/// Gets a new flow its source port.
#[inline(always)]
fn lease<A: Addr, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> bool {
    let mut tries = 0;
    while S::LIVE && tries < Lease::TRIES {
        match job.store.lease(job.draft, job.outcome, tries) {
            Lease::Refused => return false,
            Lease::Done => return true,
            Lease::Look => job.store.reclaim(job.draft),
        }
        tries += 1;
    }
    !S::LIVE
}

/// A fragment that is not the first: it follows the first if that was seen and its flow is known.
#[inline(always)]
pub fn judge_later<A: Envelope, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> Reason {
    let recalled =
        matches!(job.draft.segment.part, Part::Later) && job.store.recall_first(job.draft);
    if recalled && dsr::follows(job) {
        return way_out(job).err().unwrap_or(Reason::ToNode);
    }
    if !recalled || !job.store.find_flow(&job.draft.segment.tuple, &mut job.draft.found) {
        return odd(job, Reason::Fragment);
    }
    let entry = &job.draft.found.entry;
    job.outcome.backend = entry.backend;
    job.draft.to = entry.to;
    let reason = match (entry.role, job.network.hook()) {
        (Role::ToLocal, Hook::Xdp) => return Reason::NeedsStack,
        (Role::ToLocal, Hook::Tc) => return Reason::ToLocal,
        (Role::ToRemote, _) => Reason::ToRemote,
        (Role::ReplyRemote, _) => Reason::ReplyRemote,
        (Role::ReplyLocal, _) => return Reason::NotService,
    };
    way_out(job).err().unwrap_or(reason)
}

/// A packet that the rules cannot rewrite: dropped, by the name given, where its address is only a
/// service's, and where it could be but is not.
#[inline(always)]
pub fn odd<A: Addr, S: Store<A>, N: Network<A>>(job: &Job<'_, A, S, N>, reason: Reason) -> Reason {
    let key = FrontendKey::of_address(job.draft.segment.tuple.dst);
    match job.store.frontend(&key).and_then(|address| address.kind()) {
        Some(Kind::ClusterAddress | Kind::VirtualAddress) => reason,
        None if job
            .store
            .settings()
            .is_some_and(|all| all.services::<A>().contains(key.address())) =>
        {
            Reason::UnallocatedAddress
        }
        _ => Reason::NotService,
    }
}

/// Finds the way out of what the packet becomes, or of its envelope: `outcome.hop`. XDP remembers it for
/// a second, by its flow or by the envelope's node; tc, which hands packets to the neighbour's queue,
/// asks each time. A function of its own, for the sake of BPF's stack.
#[inline(never)]
pub fn way_out<A: Envelope, S: Store<A>, N: Network<A>>(
    job: &mut Job<'_, A, S, N>,
) -> Result<(), Reason> {
    let segment = &job.draft.segment;
    if segment.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let node = if job.store.has_dsr() { job.draft.node } else { 0 };
    let outer = if node == 0 { 0 } else { A::OUTER as u16 };
    let length = segment.length.saturating_add(outer);
    let remembers = matches!(job.network.hook(), Hook::Xdp);
    let known = !job.outcome.opened;
    let before = if node == 0 { job.draft.found.entry.way } else { dsr::way_to(job.store, node) };
    if remembers && known {
        match hops::recall(job.store, before, job.store.now()) {
            Way::Hop(hop) if length <= hop.mtu => {
                job.outcome.hop = hop;
                return Ok(());
            }
            Way::Stack => return Err(Reason::NeedsStack),
            Way::Hop(_) => {}
            Way::Unknown => hops::asks(job.store, before),
        }
    }
    let route = job.network.route(&job.draft.to, length, segment.headers.saturating_add(outer));
    let (way, word) = match (route, job.network.hook()) {
        (Route::Hop(hop), Hook::Xdp) => {
            job.outcome.hop = hop;
            (Ok(()), job.store.remember(&hop))
        }
        (Route::Hop(hop), Hook::Tc) => {
            job.outcome.hop = hop;
            return Ok(());
        }
        (Route::TooBig(mtu), _) => {
            // Zero would say that nobody takes it, whatever its length.
            job.outcome.mtu = mtu.saturating_sub(outer).max(1);
            return Err(Reason::TooBig);
        }
        (Route::Stack, Hook::Xdp) => (Err(Reason::NeedsStack), hops::by_stack(job.store)),
        (Route::None, Hook::Xdp) => (Err(Reason::NeedsStack), 0),
        (Route::Stack | Route::None, Hook::Tc) => return Err(Reason::NoRoute),
    };
    remember(job, before, word);
    way
}

/// Takes note of a way that was asked for.
#[inline(never)]
fn remember<A: Addr, S: Store<A>, N: Network<A>>(
    job: &mut Job<'_, A, S, N>,
    before: u64,
    word: u64,
) {
    if job.store.has_dsr() && job.draft.node != 0 {
        dsr::set_way(job.store, job.draft.node, before, word);
    } else if job.outcome.opened {
        job.draft.entry.way = word;
    } else {
        hops::changed(job.store, before, word);
        table::set_way(job.store, &job.draft.found, word);
    }
}
