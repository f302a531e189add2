use super::{Hook, Job, Keep};
use crate::{
    abi::{FrontendKey, Kind},
    addr::Addr,
    hops::{self, Way},
    parse::Part,
    ports::Lease,
    table::{self, Role},
    tracking::Side,
    verdict::Reason,
    wire::proto,
    world::{Network, Route, Store},
};

/// A packet that comes in on an uplink: what becomes of it, with everything looked up.
#[inline(always)]
pub fn judge<A: Addr, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> Reason {
    let reason = look_up(job);
    let side = match reason {
        Reason::ToLocal if matches!(job.network.hook(), Hook::Xdp) => return Reason::NeedsStack,
        Reason::ToLocal | Reason::ToRemote => Side::Client,
        Reason::ReplyRemote => Side::Server,
        other => return other,
    };
    if !matches!(reason, Reason::ToLocal)
        && let Err(reason) = way_out(job)
    {
        return reason;
    }
    if !S::LIVE {
        job.trace.source = job.draft.to.src.to_slot();
    }
    if job.outcome.opened {
        if !lease(job) || !job.store.record(job.draft, job.outcome) {
            job.outcome.opened = false;
            return job.outcome.reason;
        }
    } else {
        job.outcome.backend = job.draft.found.entry.backend;
        job.store.track(job.draft, side);
    }
    reason
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
pub fn judge_later<A: Addr, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> Reason {
    let follows = matches!(job.draft.segment.part, Part::Later)
        && job.store.recall_first(job.draft)
        && job.store.find_flow(&job.draft.segment.tuple, &mut job.draft.found);
    if !follows {
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

/// Finds or chooses what the packet becomes: `draft.to`, and whether that is a new flow.
#[inline(always)]
fn look_up<A: Addr, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> Reason {
    let store = job.store;
    let Some(settings) = store.settings() else { return Reason::NotService };
    let tuple = &job.draft.segment.tuple;
    if let Some(frontend) =
        store.frontend(&FrontendKey::new(tuple.dst, tuple.dport, tuple.protocol))
    {
        job.draft.frontend = frontend;
        job.outcome.service = frontend.service();
        return to_frontend(job);
    }
    match store.frontend(&FrontendKey::of_address(tuple.dst)).and_then(|address| address.kind()) {
        Some(Kind::NodeAddress) if settings.is_snat_port(tuple.dport) => from_backend(job),
        Some(Kind::ClusterAddress) => Reason::UnknownPort,
        None if settings.services::<A>().contains(tuple.dst) => Reason::UnallocatedAddress,
        _ => Reason::NotService,
    }
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

#[inline(always)]
fn to_frontend<A: Addr, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> Reason {
    let known = job.store.find_flow(&job.draft.segment.tuple, &mut job.draft.found);
    if known {
        match job.store.keeps(job.draft) {
            Keep::Yes => return hit(job),
            Keep::Gone => {
                job.outcome.backend = job.draft.found.entry.backend;
                return Reason::BackendGone;
            }
            Keep::No => {}
        }
    }
    job.draft.reselects = known;
    if job.store.decide(job.draft, job.outcome, job.trace) {
        job.outcome.opened = true;
        return if job.draft.entry.role == Role::ToLocal {
            Reason::ToLocal
        } else {
            Reason::ToRemote
        };
    }
    // A UDP flow whose service has nothing better stays where it is.
    let is_udp = job.draft.segment.tuple.protocol == proto::UDP;
    match job.outcome.reason {
        Reason::NoEndpoints | Reason::NoLocalEndpoints if known && is_udp => hit(job),
        reason => reason,
    }
}

/// A packet of a flow that is known, from the client.
#[inline(always)]
fn hit<A: Addr, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> Reason {
    job.draft.to = job.draft.found.entry.to;
    if job.draft.found.entry.role == Role::ToLocal { Reason::ToLocal } else { Reason::ToRemote }
}

/// A packet to one of this node's own source ports: perhaps a reply of a remote backend.
#[inline(always)]
fn from_backend<A: Addr, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> Reason {
    if !job.store.find_flow(&job.draft.segment.tuple, &mut job.draft.found)
        || job.draft.found.entry.role != Role::ReplyRemote
    {
        return Reason::NotService;
    }
    job.draft.to = job.draft.found.entry.to;
    Reason::ReplyRemote
}

/// Finds the way out of what the packet becomes: `outcome.hop`. XDP remembers it for a second; tc,
/// which hands packets to the neighbour's queue, asks each time.
#[inline(always)]
pub fn way_out<A: Addr, S: Store<A>, N: Network<A>>(
    job: &mut Job<'_, A, S, N>,
) -> Result<(), Reason> {
    let segment = &job.draft.segment;
    if segment.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let remembers = matches!(job.network.hook(), Hook::Xdp);
    let known = !job.outcome.opened;
    if remembers && known {
        match hops::recall(job.store, job.draft.found.entry.way) {
            Way::Hop(hop) if segment.length <= hop.mtu => {
                job.outcome.hop = hop;
                return Ok(());
            }
            Way::Stack => return Err(Reason::NeedsStack),
            Way::Hop(_) | Way::Unknown => {}
        }
    }
    let route = job.network.route(&job.draft.to, segment.length, segment.headers);
    let way = match (route, job.network.hook()) {
        (Route::Hop(hop), _) => {
            job.outcome.hop = hop;
            Ok(())
        }
        (Route::TooBig(mtu), _) => {
            job.outcome.mtu = mtu;
            Err(Reason::TooBig)
        }
        (Route::Stack, Hook::Xdp) if known => {
            table::set_way(job.store, &job.draft.found, hops::by_stack(job.store));
            Err(Reason::NeedsStack)
        }
        (Route::Stack | Route::None, Hook::Xdp) => Err(Reason::NeedsStack),
        (Route::Stack | Route::None, Hook::Tc) => Err(Reason::NoRoute),
    };
    if way.is_ok() && remembers {
        let word = job.store.remember(&job.outcome.hop);
        if known {
            table::set_way(job.store, &job.draft.found, word);
        } else {
            job.draft.entry.way = word;
        }
    }
    way
}
