use super::Job;
use crate::{
    abi::FrontendKey,
    addr::Addr,
    gate::{Plane, passes},
    table::Role,
    tracking::Side,
    verdict::Reason,
    world::{Network, Store},
};

/// A packet that leaves on an uplink: the reply of a backend on this node gets the address that the
/// client dialled.
#[inline(always)]
pub fn judge<A: Addr, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> Reason {
    let tuple = &job.draft.segment.tuple;
    let key = FrontendKey::new(tuple.src, tuple.sport, tuple.protocol);
    if !passes(job.store, Plane::Local, tuple.src, tuple.sport, tuple.protocol)
        || !job.store.is_local_backend(&key)
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
