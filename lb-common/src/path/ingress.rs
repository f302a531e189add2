use super::{Hook, Outcome, new_flow};
use crate::{
    abi::{Backend, BackendState, Frontend, FrontendKey, Kind, Settings},
    addr::Addr,
    flow::Tuple,
    packet::Packet,
    parse::Segment,
    rewrite::{Rewrite, link, translate},
    table::{self, Found, Role},
    tracking::{Side, State, next, opens},
    verdict::Reason,
    wire::proto,
    world::{Route, Store},
};

/// A packet that comes in on an uplink.
#[inline(always)]
pub fn ingress<A: Rewrite, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    segment: &Segment<A>,
    store: &S,
    hook: Hook,
) -> Outcome {
    let Some(settings) = store.settings() else { return Outcome::new(Reason::NotService) };
    let tuple = &segment.tuple;
    let key = FrontendKey::new(tuple.dst, tuple.dport, tuple.protocol);
    match store.frontend(&key) {
        Some(frontend) => to_frontend(packet, segment, store, hook, settings, frontend),
        None => match store.frontend(&FrontendKey::of_address(tuple.dst)).and_then(|a| a.kind()) {
            Some(Kind::NodeAddress) if settings.is_snat_port(tuple.dport) => {
                from_backend(packet, segment, store, hook)
            }
            Some(Kind::ClusterAddress) => Outcome::new(Reason::UnknownPort),
            None if settings.services::<A>().contains(tuple.dst) => {
                Outcome::new(Reason::UnallocatedAddress)
            }
            _ => Outcome::new(Reason::NotService),
        },
    }
}

/// A packet that the rules cannot rewrite: dropped, by the name given, where its address is only a
/// service's.
#[inline(always)]
pub fn odd<A: Addr, S: Store<A>>(store: &S, dst: A, reason: Reason) -> Outcome {
    let kind = store.frontend(&FrontendKey::of_address(dst)).and_then(|address| address.kind());
    match kind {
        Some(Kind::ClusterAddress | Kind::VirtualAddress) => Outcome::new(reason),
        _ => Outcome::new(Reason::NotService),
    }
}

#[inline(always)]
fn to_frontend<A: Rewrite, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    segment: &Segment<A>,
    store: &S,
    hook: Hook,
    settings: &Settings,
    frontend: Frontend,
) -> Outcome {
    let tuple = &segment.tuple;
    let service = frontend.service();
    let found = table::find(store, tuple);
    if let Some(found) = &found {
        match keeps(store, settings, segment, found) {
            Keep::Yes => return hit(packet, segment, store, hook, found).of_service(service),
            Keep::Gone => {
                return Outcome::new(Reason::BackendGone)
                    .of_service(service)
                    .of_backend(found.entry.backend);
            }
            Keep::No => {}
        }
    }
    let outcome = new_flow::open(packet, segment, store, hook, settings, frontend, found.as_ref());
    match (&found, outcome.reason) {
        // A UDP flow whose service has nothing better stays where it is.
        (Some(found), Reason::NoEndpoints | Reason::NoLocalEndpoints)
            if tuple.protocol == proto::UDP =>
        {
            hit(packet, segment, store, hook, found).of_service(service)
        }
        _ => outcome.of_service(service),
    }
}

/// Whether a flow keeps its backend.
enum Keep {
    Yes,
    /// Choose again.
    No,
    /// The backend is gone for good: the client shall know.
    Gone,
}

#[inline(always)]
fn keeps<A: Addr, S: Store<A>>(
    store: &S,
    settings: &Settings,
    segment: &Segment<A>,
    found: &Found<A>,
) -> Keep {
    let state = match store.backend(found.entry.backend) {
        Some(backend) if backend.generation() == found.entry.generation => life(backend),
        _ => (BackendState::Gone, false),
    };
    if segment.tuple.protocol == proto::UDP {
        return match state {
            (BackendState::Active, _) | (BackendState::Retired, true) => Keep::Yes,
            _ => Keep::No,
        };
    }
    match (state.0, opens(segment.tcp_flags)) {
        (BackendState::Active, true) if !matches!(found.entry.state, State::Closing) => Keep::Yes,
        (_, true) => Keep::No,
        (BackendState::Gone | BackendState::Free, false) if settings.reset_gone != 0 => Keep::Gone,
        (_, false) => Keep::Yes,
    }
}

#[inline(always)]
fn life(backend: &Backend) -> (BackendState, bool) {
    (backend.state(), backend.is_serving())
}

/// A packet of a flow that is known, from the client.
#[inline(always)]
fn hit<A: Rewrite, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    segment: &Segment<A>,
    store: &S,
    hook: Hook,
    found: &Found<A>,
) -> Outcome {
    let to = &found.entry.to;
    let outcome = match found.entry.role {
        Role::ToLocal => deliver(packet, segment, hook, to),
        _ => forward(packet, segment, store, hook, to, Reason::ToRemote),
    };
    if !matches!(outcome.reason, Reason::NeedsStack) {
        track(store, segment, found, Side::Client);
    }
    outcome.of_backend(found.entry.backend)
}

/// A packet to one of this node's own source ports: perhaps a reply of a remote backend.
#[inline(always)]
fn from_backend<A: Rewrite, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    segment: &Segment<A>,
    store: &S,
    hook: Hook,
) -> Outcome {
    let Some(found) = table::find(store, &segment.tuple) else {
        return Outcome::new(Reason::NotService);
    };
    if found.entry.role != Role::ReplyRemote {
        return Outcome::new(Reason::NotService);
    }
    let outcome = forward(packet, segment, store, hook, &found.entry.to, Reason::ReplyRemote);
    if !matches!(outcome.reason, Reason::NeedsStack) {
        track(store, segment, &found, Side::Server);
    }
    outcome.of_backend(found.entry.backend)
}

/// Rewrites a packet for a backend on this node and hands it up.
#[inline(always)]
pub(super) fn deliver<A: Rewrite, P: Packet + ?Sized>(
    packet: &mut P,
    segment: &Segment<A>,
    hook: Hook,
    to: &Tuple<A>,
) -> Outcome {
    if matches!(hook, Hook::Xdp) {
        return Outcome::new(Reason::NeedsStack);
    }
    match translate(packet, &segment.tuple, to, false) {
        Some(()) => Outcome::new(Reason::ToLocal),
        None => Outcome::new(Reason::NotLinear),
    }
}

/// Rewrites a packet and finds its way out; routing comes first.
#[inline(always)]
pub(super) fn forward<A: Rewrite, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    segment: &Segment<A>,
    store: &S,
    hook: Hook,
    to: &Tuple<A>,
    reason: Reason,
) -> Outcome {
    match way_out(segment, store, hook, to) {
        Ok(route) => send(packet, segment, to, route, reason),
        Err(reason) => Outcome::new(reason),
    }
}

/// The way out of a packet that will be of flow `to`.
#[inline(always)]
pub(super) fn way_out<A: Addr, S: Store<A>>(
    segment: &Segment<A>,
    store: &S,
    hook: Hook,
    to: &Tuple<A>,
) -> Result<Route, Reason> {
    if segment.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    match (store.route(to, segment.length), hook) {
        (Route::None, Hook::Xdp) | (Route::Stack, Hook::Xdp) => Err(Reason::NeedsStack),
        (Route::None, Hook::Tc) => Err(Reason::NoRoute),
        (route, _) => Ok(route),
    }
}

/// Rewrites a packet whose way out is known.
#[inline(always)]
pub(super) fn send<A: Rewrite, P: Packet + ?Sized>(
    packet: &mut P,
    segment: &Segment<A>,
    to: &Tuple<A>,
    route: Route,
    reason: Reason,
) -> Outcome {
    let Route::Hop(hop) = route else { return Outcome::new(Reason::NoRoute) };
    if translate(packet, &segment.tuple, to, true).is_none() || link(packet, &hop).is_none() {
        return Outcome::new(Reason::NotLinear);
    }
    Outcome::new(reason).with_hop(hop)
}

/// Tells both entries of a flow what its packet means: at once when the state changes, else at most
/// once a second.
#[inline(always)]
pub(super) fn track<A: Addr, S: Store<A>>(
    store: &S,
    segment: &Segment<A>,
    found: &Found<A>,
    side: Side,
) {
    if !S::LIVE {
        return;
    }
    let old = found.entry.state;
    let state = next(old, side, segment.tuple.protocol, segment.tcp_flags);
    if state == old && store.now().wrapping_sub(found.stamp) < Settings::SECOND {
        return;
    }
    table::refresh(store, found, state);
    if let Some(other) = table::find(store, &found.entry.to.reply()) {
        table::refresh(store, &other, state);
    }
}
