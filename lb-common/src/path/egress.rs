use super::Job;
use crate::{
    abi::FrontendKey,
    addr::Addr,
    flow::Tuple,
    gate::{Plane, passes},
    table::Role,
    tracking::Side,
    verdict::Reason,
    world::{Network, Store},
};

/// A packet that leaves on an uplink: the reply of a backend on this node gets the address that the
/// client dialled. To a pod that may be the reply of any backend.
#[inline(always)]
pub fn judge<A: Addr, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> Reason {
    let tuple = &job.draft.segment.tuple;
    if !(job.network.faces_pods() || is_local(job.store, tuple))
        || !job.store.find_flow(tuple, &mut job.draft.found)
        || job.draft.found.entry.role != Role::ReplyLocal
    {
        return Reason::NotService;
    }
    job.outcome.backend = job.draft.found.entry.backend;
    job.draft.to = job.draft.found.entry.to;
    job.store.track(job.draft, Side::Server);
    Reason::ReplyLocal
}

/// Whether a backend on this node sends it.
#[inline(always)]
fn is_local<A: Addr, S: Store<A>>(store: &S, tuple: &Tuple<A>) -> bool {
    let key = FrontendKey::new(tuple.src, tuple.sport, tuple.protocol);
    passes(store, Plane::Local, tuple.src, tuple.sport, tuple.protocol)
        && store.is_local_backend(&key)
}
