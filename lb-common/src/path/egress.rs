use super::{Family, Job, ingress::track};
use crate::{
    abi::FrontendKey,
    packet::Packet,
    rewrite::translate,
    table::{self, Role},
    tracking::Side,
    verdict::Reason,
    world::Store,
};

/// A packet that leaves on an uplink: the reply of a backend on this node gets the address that the
/// client dialled.
#[inline(always)]
pub fn egress<A: Family, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    job: &mut Job<'_, A, S>,
) -> Reason {
    let tuple = &job.draft.segment.tuple;
    let key = FrontendKey::new(tuple.src, tuple.sport, tuple.protocol);
    if !job.store.is_local_backend(&key)
        || !table::find(job.store, tuple, &mut job.draft.found)
        || job.draft.found.entry.role != Role::ReplyLocal
    {
        return Reason::NotService;
    }
    job.outcome.backend = job.draft.found.entry.backend;
    if translate(packet, tuple, &job.draft.found.entry.to, false).is_none() {
        return Reason::NotLinear;
    }
    track(job, Side::Server);
    Reason::ReplyLocal
}
