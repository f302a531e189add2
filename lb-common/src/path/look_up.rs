//! What a packet that comes in is: of a known flow, the first of a new one, or nobody's here.

use super::{
    Course, Draft, Keep, Outcome, Trace,
    dsr::{self, Lead},
    steps,
};
use crate::{
    abi::{FrontendKey, Kind, Scope, Settings},
    addr::Addr,
    envelope::Step,
    flow::Tuple,
    gate::{Plane, is_node, passes},
    table::Role,
    tracking::{has_connections, opens},
    verdict::Reason,
    world::Store,
};

/// Finds or chooses what the packet becomes: `draft.to`, and whether that is a new flow
/// (`outcome.opened`).
#[inline(always)]
pub fn look_up<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
) -> Course {
    let Some(settings) = store.settings() else { return ends(outcome, Reason::NotService) };
    let opened = store.has_dsr() && !matches!(draft.step, Step::First);
    let dialled = opened || passes_dialled(store, &draft.segment.tuple);
    if dialled && dsr::is_on(store) && !draft.from_pod {
        let lead = if opened { Lead::Here } else { store.lead(draft, outcome, trace) };
        if let Some(course) = led(store, draft, outcome, trace, lead) {
            return course;
        }
    }
    if dialled {
        // A connection that is under way needs no frontend, only its flow; it may outlive a Service.
        let under_way =
            has_connections(draft.segment.tuple.protocol) && !opens(draft.segment.tcp_flags);
        if under_way && find_from_client(store, draft) {
            return match steps::keeps(store, draft) {
                Keep::Yes => hit(store, draft, outcome),
                Keep::No | Keep::Gone => gone(store, draft, outcome),
            };
        }
        if find_frontend(store, draft) {
            outcome.service = draft.frontend.service();
            let known = !under_way && store.find_flow(&draft.segment.tuple, &mut draft.found);
            return to_frontend(store, draft, outcome, trace, known);
        }
    }
    // A flow from there tells that the address is this node's, whatever else it may be.
    if settings.is_snat_port(draft.segment.tuple.dport)
        && passes_node(store, draft.segment.tuple.dst)
        && store.find_flow(&draft.segment.tuple, &mut draft.found)
        && matches!(draft.found.entry.role, Role::ReplyRemote)
    {
        draft.to = draft.found.entry.to;
        return Course::FromRemote;
    }
    let reason = match place_of(store, settings, draft.segment.tuple.dst) {
        Address::Cluster => Reason::UnknownPort,
        Address::Unallocated => Reason::UnallocatedAddress,
        Address::Other => Reason::NotService,
    };
    ends(outcome, reason)
}

/// With DSR, what comes of what the ring over nodes says; `None` if the packet is not one that is
/// spread.
#[inline(always)]
fn led<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
    lead: Lead,
) -> Option<Course> {
    let set = match lead {
        Lead::Nowhere => return None,
        Lead::Ends => return Some(Course::Ends),
        Lead::Node => return Some(Course::ToNode),
        Lead::NodeUnlessKnown if !find_from_client(store, draft) => return Some(Course::ToNode),
        Lead::NodeUnlessKnown => {
            let course = match steps::keeps(store, draft) {
                Keep::Yes => hit(store, draft, outcome),
                Keep::Gone => gone(store, draft, outcome),
                Keep::No => return Some(Course::ToNode),
            };
            draft.node = 0;
            return Some(course);
        }
        Lead::Here => Scope::Local,
        Lead::Rest => Scope::Rest,
    };
    Some(dsr::serve(store, draft, outcome, trace, set))
}

// Functions of their own, for the sake of BPF's stack: keys are large.

#[inline(never)]
fn passes_dialled<A: Addr, S: Store<A>>(store: &S, tuple: &Tuple<A>) -> bool {
    passes(store, Plane::Frontend, tuple.dst, tuple.dport, tuple.protocol)
}

#[inline(never)]
fn passes_node<A: Addr, S: Store<A>>(store: &S, address: A) -> bool {
    is_node(store, address)
}

#[inline(never)]
pub(super) fn find_frontend<A: Addr, S: Store<A>>(store: &S, draft: &mut Draft<A>) -> bool {
    find_frontend_here(store, draft)
}

/// As [`find_frontend`], without a call where there is room for the key: DSR's first step looks for
/// every packet.
#[inline(always)]
pub(super) fn find_frontend_quickly<A: Addr, S: Store<A>>(store: &S, draft: &mut Draft<A>) -> bool {
    if A::IS_V4 { find_frontend_here(store, draft) } else { find_frontend(store, draft) }
}

#[inline(always)]
fn find_frontend_here<A: Addr, S: Store<A>>(store: &S, draft: &mut Draft<A>) -> bool {
    let Tuple { dst, dport, protocol, .. } = draft.segment.tuple;
    let Some(frontend) = store.frontend(&FrontendKey::new(dst, dport, protocol)) else {
        return false;
    };
    draft.frontend = frontend;
    true
}

/// What an address is to us when its port is no frontend's.
#[repr(u32)]
enum Address {
    /// A live ClusterIP.
    Cluster = 0,
    /// One that could be a ClusterIP.
    Unallocated = 1,
    Other = 2,
}

#[inline(never)]
fn place_of<A: Addr, S: Store<A>>(store: &S, settings: &Settings, address: A) -> Address {
    let in_services = settings.services::<A>().contains(address);
    if !in_services && !passes(store, Plane::Address, address, [0; 2], 0) {
        return Address::Other;
    }
    let entry = store.frontend(&FrontendKey::of_address(address));
    match entry.and_then(|entry| entry.kind()) {
        Some(Kind::ClusterAddress) => Address::Cluster,
        // A load balancer's address in a range of ClusterIPs is none of them.
        None | Some(Kind::VirtualAddress) if in_services => Address::Unallocated,
        _ => Address::Other,
    }
}

#[inline(always)]
pub(super) fn find_from_client<A: Addr, S: Store<A>>(store: &S, draft: &mut Draft<A>) -> bool {
    store.find_flow(&draft.segment.tuple, &mut draft.found)
        && matches!(draft.found.entry.role, Role::ToLocal | Role::ToRemote)
}

#[inline(always)]
fn to_frontend<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
    known: bool,
) -> Course {
    if known && matches!(steps::keeps(store, draft), Keep::Yes) {
        return hit(store, draft, outcome);
    }
    draft.reselects = known;
    if store.decide(draft, outcome, trace) {
        outcome.opened = true;
        return to(draft.entry.role);
    }
    // A UDP flow whose service has nothing better stays where it is.
    let is_udp = !has_connections(draft.segment.tuple.protocol);
    let nothing = matches!(outcome.reason, Reason::NoEndpoints | Reason::NoLocalEndpoints);
    if known && is_udp && nothing { hit(store, draft, outcome) } else { Course::Ends }
}

/// A packet of a flow that is known, from the client.
#[inline(always)]
pub(super) fn hit<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
) -> Course {
    attribute(store, draft, outcome);
    draft.to = draft.found.entry.to;
    to(draft.found.entry.role)
}

/// A packet of a connection whose backend is gone for good.
#[inline(always)]
pub(super) fn gone<A: Addr, S: Store<A>>(
    store: &S,
    draft: &Draft<A>,
    outcome: &mut Outcome,
) -> Course {
    attribute(store, draft, outcome);
    ends(outcome, Reason::BackendGone)
}

/// Backend and service of the flow that was found.
#[inline(always)]
fn attribute<A: Addr, S: Store<A>>(store: &S, draft: &Draft<A>, outcome: &mut Outcome) {
    let entry = &draft.found.entry;
    outcome.backend = entry.backend;
    if let Some(backend) = store.backend(entry.backend)
        && backend.generation() == entry.generation
    {
        outcome.service = backend.service();
    }
}

#[inline(always)]
pub(super) fn to(role: Role) -> Course {
    if role == Role::ToLocal { Course::ToLocal } else { Course::ToRemote }
}

#[inline(always)]
pub(super) const fn ends(outcome: &mut Outcome, reason: Reason) -> Course {
    outcome.end(reason);
    Course::Ends
}
