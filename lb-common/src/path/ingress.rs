use super::{Family, Hook, Job, new_flow};
use crate::{
    abi::{BackendState, Frontend, FrontendKey, Kind, Settings},
    addr::Addr,
    packet::Packet,
    rewrite::{link, translate},
    table::{self, Role},
    tracking::{Side, State, next, opens, timeout},
    verdict::Reason,
    wire::proto,
    world::{Route, Store},
};

/// A packet that comes in on an uplink.
#[inline(always)]
pub fn ingress<A: Family, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    job: &mut Job<'_, A, S>,
) -> Reason {
    let store = job.store;
    let Some(settings) = store.settings() else { return Reason::NotService };
    let tuple = &job.draft.segment.tuple;
    if let Some(frontend) =
        store.frontend(&FrontendKey::new(tuple.dst, tuple.dport, tuple.protocol))
    {
        job.outcome.service = frontend.service();
        return to_frontend(packet, job, settings, frontend);
    }
    match store.frontend(&FrontendKey::of_address(tuple.dst)).and_then(|address| address.kind()) {
        Some(Kind::NodeAddress) if settings.is_snat_port(tuple.dport) => from_backend(packet, job),
        Some(Kind::ClusterAddress) => Reason::UnknownPort,
        None if settings.services::<A>().contains(tuple.dst) => Reason::UnallocatedAddress,
        _ => Reason::NotService,
    }
}

/// A packet that the rules cannot rewrite: dropped, by the name given, where its address is only a
/// service's, and where it could be but is not.
#[inline(always)]
pub fn odd<A: Addr, S: Store<A>>(job: &Job<'_, A, S>, reason: Reason) -> Reason {
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

#[inline(always)]
fn to_frontend<A: Family, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    job: &mut Job<'_, A, S>,
    settings: &Settings,
    frontend: Frontend,
) -> Reason {
    let known = table::find(job.store, &job.draft.segment.tuple, &mut job.draft.found);
    if known {
        match keeps(job, settings) {
            Keep::Yes => return hit(packet, job),
            Keep::Gone => {
                job.outcome.backend = job.draft.found.entry.backend;
                return Reason::BackendGone;
            }
            Keep::No => {}
        }
    }
    let reason = new_flow::open(packet, job, frontend, known);
    // A UDP flow whose service has nothing better stays where it is.
    let is_udp = job.draft.segment.tuple.protocol == proto::UDP;
    match reason {
        Reason::NoEndpoints | Reason::NoLocalEndpoints if known && is_udp => hit(packet, job),
        reason => reason,
    }
}

/// Whether a flow keeps its backend.
#[repr(u32)]
enum Keep {
    Yes,
    /// Choose again.
    No,
    /// The backend is gone for good: the client shall know.
    Gone,
}

#[inline(never)]
fn keeps<A: Addr, S: Store<A>>(job: &Job<'_, A, S>, settings: &Settings) -> Keep {
    let (segment, entry) = (&job.draft.segment, &job.draft.found.entry);
    let (state, serving) = match job.store.backend(entry.backend) {
        Some(backend) if backend.generation() == entry.generation => {
            (backend.state(), backend.is_serving())
        }
        _ => (BackendState::Gone, false),
    };
    if segment.tuple.protocol == proto::UDP {
        return match state {
            BackendState::Active => Keep::Yes,
            BackendState::Retired if serving => Keep::Yes,
            _ => Keep::No,
        };
    }
    match (state, opens(segment.tcp_flags)) {
        (BackendState::Active, true) if !matches!(entry.state, State::Closing) => Keep::Yes,
        (_, true) => Keep::No,
        (BackendState::Gone | BackendState::Free, false) if settings.reset_gone != 0 => Keep::Gone,
        (_, false) => Keep::Yes,
    }
}

/// A packet of a flow that is known, from the client.
#[inline(always)]
fn hit<A: Family, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    job: &mut Job<'_, A, S>,
) -> Reason {
    job.draft.to = job.draft.found.entry.to;
    if !S::LIVE {
        job.trace.source = job.draft.to.src.to_slot();
    }
    let reason = match job.draft.found.entry.role {
        Role::ToLocal => deliver(packet, job),
        _ => forward(packet, job, Reason::ToRemote),
    };
    if !matches!(reason, Reason::NeedsStack) {
        job.outcome.backend = job.draft.found.entry.backend;
        track(job, Side::Client);
    }
    reason
}

/// A packet to one of this node's own source ports: perhaps a reply of a remote backend.
#[inline(always)]
fn from_backend<A: Family, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    job: &mut Job<'_, A, S>,
) -> Reason {
    if !table::find(job.store, &job.draft.segment.tuple, &mut job.draft.found)
        || job.draft.found.entry.role != Role::ReplyRemote
    {
        return Reason::NotService;
    }
    job.draft.to = job.draft.found.entry.to;
    let reason = forward(packet, job, Reason::ReplyRemote);
    if !matches!(reason, Reason::NeedsStack) {
        job.outcome.backend = job.draft.found.entry.backend;
        track(job, Side::Server);
    }
    reason
}

/// Rewrites a packet for a backend on this node and hands it up.
#[inline(always)]
pub(super) fn deliver<A: Family, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    job: &Job<'_, A, S>,
) -> Reason {
    if matches!(job.store.hook(), Hook::Xdp) {
        return Reason::NeedsStack;
    }
    match translate(packet, &job.draft.segment.tuple, &job.draft.to, false) {
        Some(()) => Reason::ToLocal,
        None => Reason::NotLinear,
    }
}

/// Rewrites a packet and finds its way out; routing comes first.
#[inline(always)]
pub(super) fn forward<A: Family, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    job: &mut Job<'_, A, S>,
    reason: Reason,
) -> Reason {
    match way_out(job) {
        Ok(()) => send(packet, job, reason),
        Err(reason) => reason,
    }
}

/// Finds the way out of what the packet becomes: `outcome.hop`.
#[inline(always)]
pub(super) fn way_out<A: Addr, S: Store<A>>(job: &mut Job<'_, A, S>) -> Result<(), Reason> {
    let segment = &job.draft.segment;
    if segment.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    match (job.store.route(&job.draft.to, segment.length), job.store.hook()) {
        (Route::Hop(hop), _) => {
            job.outcome.hop = hop;
            Ok(())
        }
        (Route::Stack | Route::TooBig | Route::None, Hook::Xdp) => Err(Reason::NeedsStack),
        (Route::TooBig, Hook::Tc) => Err(Reason::TooBig),
        (Route::Stack | Route::None, Hook::Tc) => Err(Reason::NoRoute),
    }
}

/// Rewrites a packet whose way out is known.
#[inline(always)]
pub(super) fn send<A: Family, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    job: &Job<'_, A, S>,
    reason: Reason,
) -> Reason {
    let written = translate(packet, &job.draft.segment.tuple, &job.draft.to, true)
        .and_then(|()| link(packet, &job.outcome.hop));
    if written.is_none() { Reason::NotLinear } else { reason }
}

/// Tells both entries of a flow what its packet means: at once when the state changes, else at most
/// once a second.
#[inline(never)]
pub(super) fn track<A: Addr, S: Store<A>>(job: &mut Job<'_, A, S>, side: Side) {
    if !S::LIVE {
        return;
    }
    let (store, draft) = (job.store, &mut *job.draft);
    let old = draft.found.entry.state;
    let state = next(old, side, draft.segment.tuple.protocol, draft.segment.tcp_flags);
    let Some(settings) = store.settings() else { return };
    let expiry =
        store.now().wrapping_add(timeout(state, draft.segment.tuple.protocol, &settings.timeouts));
    if state == old && expiry.wrapping_sub(draft.found.expiry()) < Settings::SECOND {
        return;
    }
    table::refresh(store, &draft.found, state);
    draft.reply = draft.found.entry.to.reply();
    if table::find(store, &draft.reply, &mut draft.other) {
        table::refresh(store, &draft.other, state);
    }
}
