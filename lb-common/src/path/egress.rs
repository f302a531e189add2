use super::{Outcome, ingress::track};
use crate::{
    abi::FrontendKey,
    packet::Packet,
    parse::Segment,
    rewrite::{Rewrite, translate},
    table::{self, Role},
    tracking::Side,
    verdict::Reason,
    world::Store,
};

/// A packet that leaves on an uplink: the reply of a backend on this node gets the address that the
/// client dialled.
#[inline(always)]
pub fn egress<A: Rewrite, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    segment: &Segment<A>,
    store: &S,
) -> Outcome {
    let tuple = &segment.tuple;
    if !store.is_local_backend(&FrontendKey::new(tuple.src, tuple.sport, tuple.protocol)) {
        return Outcome::new(Reason::NotService);
    }
    let Some(found) = table::find(store, tuple) else {
        return Outcome::new(Reason::NotService);
    };
    if found.entry.role != Role::ReplyLocal {
        return Outcome::new(Reason::NotService);
    }
    if translate(packet, tuple, &found.entry.to, false).is_none() {
        return Outcome::new(Reason::NotLinear);
    }
    track(store, segment, &found, Side::Server);
    Outcome::new(Reason::ReplyLocal).of_backend(found.entry.backend)
}
