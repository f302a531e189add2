//! DSR in two steps. The first node asks a ring over nodes where a packet goes, and sends it there in
//! an envelope: it keeps nothing of the flow. The second takes the envelope off, has a flow table for
//! what comes to it, and chooses among its own backends, whose replies go straight to the client.
//!
//! A slot of the ring says which node it led to before: what the second node does not know may be
//! known there, and is sent on, once (the mark is in the envelope); what is not comes back. So is what
//! begins a flow, for it may be a SYN or a datagram of one that is known there; and what belongs to a
//! connection that is over here, whose ports another may have by now.

use super::{
    Course, Draft, Job, Keep, Outcome, SourceClass, Trace, is_barred,
    look_up::{ends, find_from_client, find_frontend_quickly, gone, hit, to},
    steps,
};
use crate::{
    abi::{AffinityKey, Kind, Node, NodeSlot, Scope, Service, Settings},
    addr::Addr,
    affinity,
    envelope::Step,
    hash, hops,
    select::{self, Led},
    tracking::{State, has_connections, opens},
    verdict::Reason,
    world::{Network, Store},
};

/// For so many ticks a SYN may come again: as long as Linux answers one again (`tcp_synack_retries`,
/// 63 s).
const SYN_AGAIN: u32 = 64 * Settings::SECOND;
/// However long ago it was.
const EVER: u32 = i32::MAX as u32;

/// Where a packet from outside is led by the ring over nodes.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// It is not one that is spread over nodes.
    Nowhere = 0,
    /// To another node: `draft.to` has the envelope's addresses.
    Node = 1,
    /// The same; but before, this node served it by SNAT, if it knows its flow.
    NodeUnlessKnown = 2,
    /// This node.
    Here = 3,
    /// Backends that live where no agent runs.
    Rest = 4,
    /// Nowhere, and the outcome says why.
    Ends = 5,
}

impl Lead {
    /// The reverse of `as u32`.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Nowhere,
            1 => Self::Node,
            2 => Self::NodeUnlessKnown,
            3 => Self::Here,
            4 => Self::Rest,
            _ => Self::Ends,
        }
    }
}

/// The first step, for a packet that came without an envelope. It touches no memory that belongs to
/// the flow.
#[inline(always)]
pub fn lead<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
) -> Lead {
    let Some(settings) = store.settings() else { return Lead::Nowhere };
    if !store.has_dsr() || !find_frontend_quickly(store, draft) {
        return Lead::Nowhere;
    }
    let (frontend, own) = (draft.frontend, settings.own_node);
    let Some(service) = store.service(frontend.service()) else { return Lead::Nowhere };
    let Some(kind) = frontend.kind().filter(|kind| spreads(service, *kind)) else {
        return Lead::Nowhere;
    };
    // Others know this node by one address alone.
    let known = || store.node(own).and_then(Node::address::<A>);
    if matches!(kind, Kind::NodePort) && known() != Some(draft.segment.tuple.dst) {
        return Lead::Nowhere;
    }
    let class = SourceClass::of_quickly(store, settings, draft.segment.tuple.src);
    if !matches!(class, SourceClass::Outside) {
        return Lead::Nowhere;
    }
    outcome.service = frontend.service();
    (trace.kind, trace.class) = (Some(kind), class);
    if is_barred(store, &frontend, service, draft.segment.tuple.src) {
        outcome.end(Reason::SourceRange);
        return Lead::Ends;
    }
    let slot = match led(store, settings, service, draft) {
        Ok(Led { slot, .. }) => slot,
        Err(reason) => {
            outcome.end(reason);
            return Lead::Ends;
        }
    };
    if slot.now == NodeSlot::REST {
        return Lead::Rest;
    }
    if slot.now == own {
        return Lead::Here;
    }
    if !address(store, draft, own, slot.now) {
        // The node is gone, and nobody took its place.
        outcome.end(Reason::NoEndpoints);
        return Lead::Ends;
    }
    draft.next = Step::Second;
    if slot.before == NodeSlot::REST { Lead::NodeUnlessKnown } else { Lead::Node }
}

/// Whether this node forwards by DSR.
#[inline(always)]
pub(super) fn is_on<A: Addr, S: Store<A>>(store: &S) -> bool {
    store.has_dsr() && store.settings().is_some_and(|settings| settings.own_node != 0)
}

/// Whether packets from outside to a frontend of this kind are spread over nodes.
#[inline(always)]
pub(super) const fn spreads(service: &Service, kind: Kind) -> bool {
    service.is_spread() && matches!(kind, Kind::NodePort | Kind::LoadBalancer | Kind::ExternalIp)
}

/// What the ring over nodes says of the packet's flow. The bits are others than those by which a node
/// chooses among its backends, which would have only a part of their ring otherwise.
#[inline(always)]
fn led<A: Addr, S: Store<A>>(
    store: &S,
    settings: &Settings,
    service: &Service,
    draft: &Draft<A>,
) -> Result<Led, Reason> {
    let (tuple, id) = (&draft.segment.tuple, draft.frontend.service());
    let hash = if service.affinity_seconds() != 0 {
        affinity::hash_of(!settings.seed, &AffinityKey::of_address(id, tuple.src.to_slot()))
    } else {
        hash::tuple(!settings.seed, tuple)
    };
    select::node(store, id, hash)
}

/// Gives the envelope its addresses; `false` if the node, or this one, is not known.
#[inline(always)]
fn address<A: Addr, S: Store<A>>(store: &S, draft: &mut Draft<A>, own: u32, node: u32) -> bool {
    let (Some(own), Some(other)) = (store.node(own), store.node(node)) else { return false };
    let (Some(src), Some(dst)) = (own.address::<A>(), other.address::<A>()) else { return false };
    draft.to.src.set(src);
    draft.to.dst.set(dst);
    (draft.to.sport, draft.to.dport, draft.to.protocol) = ([0; 2], [0; 2], A::IN_ITSELF);
    draft.node = node;
    true
}

/// Sends a packet to where its flow may be known, if the ring over nodes has changed less than `within`
/// ticks ago. If it was sent here for that, it goes back, if it `returns`; and no further. A function of its
/// own, for the sake of BPF's stack.
#[inline(never)]
fn sends_on<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    within: u32,
    returns: bool,
) -> bool {
    let asked = matches!(draft.step, Step::SentOn);
    if matches!(draft.step, Step::Back) || (asked && !returns) {
        return false;
    }
    let (Some(settings), Some(service)) =
        (store.settings(), store.service(draft.frontend.service()))
    else {
        return false;
    };
    let Ok(Led { slot, changed }) = led(store, settings, service, draft) else { return false };
    // Whose tick it is may be one ahead.
    if !asked && store.now().wrapping_sub(changed) as i32 >= within as i32 {
        return false;
    }
    let own = settings.own_node;
    let other = match (asked, within) {
        (true, _) => slot.now_elsewhere(own),
        (false, EVER) => slot.other_than(own),
        (false, _) => slot.to_ask(own),
    };
    let Some(other) = other else { return false };
    draft.next = if asked { Step::Back } else { Step::SentOn };
    address(store, draft, own, other)
}

/// The second step, and whatever the first leaves to this node: a known flow goes its way; one that
/// begins gets a backend out of `set`; what is unknown may be known elsewhere.
#[inline(always)]
pub(super) fn serve<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
    set: Scope,
) -> Course {
    outcome.service = draft.frontend.service();
    let connection = has_connections(draft.segment.tuple.protocol);
    let begins = !connection || opens(draft.segment.tcp_flags);
    let Some(settings) = store.settings() else { return ends(outcome, Reason::NotService) };
    let timeouts = &settings.timeouts;
    let known = find_from_client(store, draft);
    let keeps = known && matches!(steps::keeps(store, draft), Keep::Yes);
    if known && !keeps && !begins {
        return gone(store, draft, outcome);
    }
    let asked = matches!(draft.step, Step::SentOn);
    // For how long after a change of the ring it may be known elsewhere.
    let (within, returns) = if keeps && matches!(draft.found.entry.state, State::Closing) {
        // It is over here; its ports may be another's by now, whose slot was elsewhere.
        (timeouts.tcp_closing, false)
    } else if !begins && !known {
        (EVER, true)
    } else if begins && !keeps && (!known || asked) {
        // What begins anew begins where its slot leads.
        (if connection { SYN_AGAIN } else { timeouts.udp }, true)
    } else {
        (0, false)
    };
    if within != 0 && sends_on(store, draft, within, returns) {
        return Course::ToNode;
    }
    if keeps {
        return hit(store, draft, outcome);
    }
    if !begins {
        return ends(outcome, unknown(store, draft));
    }
    draft.reselects = known;
    begin(store, draft, outcome, trace, set)
}

/// A backend for a flow that begins: out of `set`, or the other node's, or else any.
#[inline(always)]
fn begin<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
    set: Scope,
) -> Course {
    let usable = !matches!(set, Scope::Local)
        || store.service(draft.frontend.service()).is_some_and(Service::is_usable_here);
    draft.from = Some(set);
    if usable && store.decide(draft, outcome, trace) {
        outcome.opened = true;
        return to(draft.entry.role);
    }
    if usable && matches!(outcome.reason, Reason::HalfOpenFull) {
        return Course::Ends;
    }
    if !draft.reselects && sends_on(store, draft, EVER, false) {
        return Course::ToNode;
    }
    // Who came here by a ring that has changed meanwhile: as where no agent runs.
    draft.from = Some(Scope::Cluster);
    if store.decide(draft, outcome, trace) {
        outcome.opened = true;
        return to(draft.entry.role);
    }
    let is_udp = !has_connections(draft.segment.tuple.protocol);
    let nothing = matches!(outcome.reason, Reason::NoEndpoints | Reason::NoLocalEndpoints);
    if draft.reselects && is_udp && nothing { hit(store, draft, outcome) } else { Course::Ends }
}

/// Why a packet in mid-stream ends that belongs to no flow anywhere.
#[inline(always)]
fn unknown<A: Addr, S: Store<A>>(store: &S, draft: &Draft<A>) -> Reason {
    let takes_over =
        store.settings().is_some_and(|all| steps::is_before(store.now(), all.takeover_until));
    // The stack has nothing to do with what came in an envelope.
    if takes_over && matches!(draft.step, Step::First) {
        Reason::Takeover
    } else {
        Reason::UnknownFlow
    }
}

/// The way of envelopes to a node, whatever the flow, as [`hops`] remembers it.
#[inline(always)]
pub(super) fn way_to<A: Addr, S: Store<A>>(store: &S, node: u32) -> u64 {
    store.way_to_node(node).map_or(0, |ways| ways[usize::from(!A::IS_V4)].get())
}

/// Remembers the way to a node, which was `before`.
#[inline(always)]
pub(super) fn set_way<A: Addr, S: Store<A>>(store: &S, node: u32, before: u64, word: u64) {
    if let Some(ways) = store.way_to_node(node)
        && S::LIVE
    {
        hops::changed(store, before, word);
        ways[usize::from(!A::IS_V4)].set(word);
    }
}

/// Does something with the flow that an error quotes in the place of the packet's own.
#[inline(always)]
pub(super) fn with_quoted<A: Addr, S: Store<A>, N: Network<A>, R>(
    job: &mut Job<'_, A, S, N>,
    work: impl FnOnce(&mut Job<'_, A, S, N>) -> R,
) -> R {
    let Draft { segment, reply, .. } = &mut *job.draft;
    core::mem::swap(&mut segment.tuple, reply);
    let result = work(job);
    let Draft { segment, reply, .. } = &mut *job.draft;
    core::mem::swap(&mut segment.tuple, reply);
    result
}

/// An ICMP error about a packet that went to a client: whether another node is to have it, for it has
/// the flow.
#[inline(never)]
pub(super) fn error_goes_on<A: Addr, S: Store<A>, N: Network<A>>(
    job: &mut Job<'_, A, S, N>,
) -> bool {
    with_quoted(job, follows)
}

/// Whether another node is to have a packet that begins no flow: a later fragment, or an error.
#[inline(always)]
pub(super) fn follows<A: Addr, S: Store<A>, N: Network<A>>(job: &mut Job<'_, A, S, N>) -> bool {
    if !is_on(job.store) || job.draft.from_pod {
        return false;
    }
    let known = |job: &mut Job<'_, A, S, N>| {
        job.store.find_flow(&job.draft.segment.tuple, &mut job.draft.found)
    };
    if matches!(job.draft.step, Step::First) {
        match job.store.lead(job.draft, job.outcome, job.trace) {
            Lead::Node => return true,
            Lead::NodeUnlessKnown if !known(job) => return true,
            Lead::NodeUnlessKnown => {
                job.draft.node = 0;
                return false;
            }
            Lead::Nowhere | Lead::Ends => return false,
            Lead::Here | Lead::Rest => {}
        }
    }
    !known(job) && sends_on(job.store, job.draft, EVER, false)
}
