//! The large steps of a packet's way: functions of the tables alone. None sees the packet.
//!
//! They return little and leave the rest in the notes: the verifier walks what follows once for
//! each value returned, not for each of the many reasons.

use super::{Draft, Keep, Outcome, SourceClass, Trace, is_barred, masquerade};
use crate::{
    abi::{AffinityKey, Answer, BackendState, Kind, Scope, Settings},
    addr::Addr,
    affinity, gauge, hash,
    limits::PORT_TRIES,
    ports::{self, Lease},
    select::{Choice, Pick},
    table::{self, Insert, Role},
    tracking::{Side, State, has_connections, next, opens, renews, timeout},
    verdict::Reason,
    wire::Tcp,
    world::Store,
};

/// Whether the flow that was found keeps its backend.
#[inline(always)]
pub fn keeps<A: Addr, S: Store<A>>(store: &S, draft: &Draft<A>) -> Keep {
    let (segment, entry) = (&draft.segment, &draft.found.entry);
    let (state, serving, service) = match store.backend(entry.backend) {
        Some(backend) if backend.generation() == entry.generation => {
            (backend.state(), backend.is_serving(), backend.service())
        }
        _ => (BackendState::Gone, false, Outcome::NOBODY),
    };
    // What opens a connection, or has none, goes to whoever has the frontend now.
    let connection = has_connections(segment.tuple.protocol);
    let begins = !connection || opens(segment.tcp_flags);
    if begins && service != draft.frontend.service() {
        return Keep::No;
    }
    if !connection {
        return match state {
            BackendState::Active => Keep::Yes,
            BackendState::Retired if serving => Keep::Yes,
            _ => Keep::No,
        };
    }
    let resets = || store.settings().is_some_and(|settings| settings.reset_gone != 0);
    match (state, opens(segment.tcp_flags)) {
        (BackendState::Active, true) if !matches!(entry.state, State::Closing) => Keep::Yes,
        (_, true) => Keep::No,
        (BackendState::Gone | BackendState::Free, false) if resets() => Keep::Gone,
        (_, false) => Keep::Yes,
    }
}

/// Chooses a backend for the first packet of a flow, or for one whose flow must choose again;
/// `draft.to` and `draft.entry` are then the flow's. `false`: `outcome.reason` says why not.
#[inline(always)]
pub fn decide<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
) -> bool {
    match choice(store, draft, outcome, trace) {
        Ok(()) => true,
        Err(reason) => {
            outcome.end(reason);
            false
        }
    }
}

#[inline(always)]
fn choice<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    trace: &mut Trace,
) -> Result<(), Reason> {
    let frontend = draft.frontend;
    let (Some(settings), Some(kind), Some(service)) =
        (store.settings(), frontend.kind(), store.service(frontend.service()))
    else {
        return Err(Reason::StaleAnswer);
    };
    if matches!(kind, Kind::AnyNodePort) {
        return Err(Reason::NotService);
    }
    let tuple = &draft.segment.tuple;
    let flags = draft.segment.tcp_flags;
    let class = match SourceClass::of(store, settings, tuple.src) {
        // Where nobody says which addresses are pods', the interface does.
        SourceClass::Outside if draft.from_pod && settings.pods::<A>().is_empty() => {
            SourceClass::Pod
        }
        class => class,
    };
    // Field by field: a whole one would be built on the stack.
    (trace.kind, trace.class) = (Some(kind), class);
    (trace.masquerade, trace.answer, trace.source) = (false, Answer::UNSET, [0; 16]);
    // Sources were looked at before a node was chosen.
    if draft.from.is_none() && is_barred(store, &frontend, service, tuple.src) {
        return Err(Reason::SourceRange);
    }
    let now = store.now();
    if is_before(now, settings.paused_until) {
        return Err(Reason::Contended);
    }
    let mid_stream = has_connections(tuple.protocol) && !opens(flags);
    if mid_stream && is_before(now, settings.takeover_until) {
        return Err(Reason::Takeover);
    }
    if !mid_stream && gauge::is_full(store, settings) {
        return Err(Reason::HalfOpenFull);
    }
    let outside = matches!(class, SourceClass::Outside);
    let ring = if outside { service.ring_outside() } else { service.ring_inside() };
    // Chance comes from the packet: what XDP leaves to tc is then decided there alike.
    let hash = hash::tuple(settings.seed, tuple);
    let pick = Pick::of(store, frontend.service(), service, ring, hash);
    draft.client = AffinityKey::of_address(frontend.service(), tuple.src.to_slot());
    let scope = draft.from.unwrap_or(class.scope(kind, service));
    let Choice { id, backend, answer } =
        affinity::choose(store, &draft.client, service, scope, pick)?;
    let local = backend.is_local();
    let address = A::from_slot(backend.address());
    let hairpin = local && address == tuple.src;
    // With DSR the backends of this node see the client.
    trace.masquerade = !matches!(draft.from, Some(Scope::Local))
        && masquerade::<A>(settings, kind, class, service, hairpin);
    trace.answer = answer;
    outcome.backend = id;
    // Only a local backend that the ring names can have been this flow's all along.
    if mid_stream && (!local || !ring || flags & Tcp::RST != 0) {
        return Err(Reason::UnknownFlow);
    }
    // Replies to a pod pass its interface, whoever sends them; those to itself would not.
    let keeps = if draft.from_pod { !trace.masquerade || (local && !hairpin) } else { local };
    draft.to = *tuple;
    draft.to.dst = address;
    draft.to.dport = backend.port();
    if !keeps {
        draft.to.src = if hairpin {
            settings.own::<A>().ok_or(Reason::NoRoute)?
        } else {
            A::from_slot(backend.source())
        };
        if ports::is_flooded(store, settings, &draft.to) {
            return Err(Reason::HalfOpenFull);
        }
    }
    draft.entry.state = if mid_stream { State::Established } else { State::HalfOpen };
    draft.entry.backend = id;
    draft.entry.generation = backend.generation();
    draft.entry.way = 0;
    draft.entry.role = if keeps { Role::ToLocal } else { Role::ToRemote };
    Ok(())
}

/// Whether it is before a tick that may be zero, for never.
#[inline(always)]
pub(super) const fn is_before(now: u32, end: u32) -> bool {
    end != 0 && end.wrapping_sub(now) as i32 > 0
}

/// Gives the flow a source port whose replies are nobody else's: `draft.to` is then what its packets
/// become, and `draft.reply` the key of its reply entry.
///
/// A remote backend sees a port of this node's range. A local one sees the client's own port, unless
/// the client already uses it for another of our addresses with the same backend.
#[inline(always)]
pub fn lease<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    tries: u32,
) -> Lease {
    let Some(settings) = store.settings() else { return Lease::Refused };
    draft.entry.to = draft.segment.tuple.reply();
    if !matches!(draft.entry.role, Role::ToLocal) {
        return ports::lease(store, settings, draft, outcome, tries);
    }
    outcome.end(Reason::SnatPortsFull);
    if keep_port(store, settings, draft) { Lease::Done } else { Lease::Refused }
}

/// Writes the reply entry, then the forward entry. `false`: `outcome.reason` says why not.
#[inline(always)]
pub fn record<A: Addr, S: Store<A>>(
    store: &S,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
) -> bool {
    match entries(store, draft) {
        Ok(()) => true,
        Err(reason) => {
            outcome.end(reason);
            false
        }
    }
}

#[inline(always)]
fn entries<A: Addr, S: Store<A>>(store: &S, draft: &mut Draft<A>) -> Result<(), Reason> {
    if !S::LIVE {
        return Ok(());
    }
    if draft.reselects {
        table::release(store, &draft.found);
    }
    let role = draft.entry.role;
    let keeps_port = matches!(role, Role::ToLocal);
    draft.entry.role = if keeps_port { Role::ReplyLocal } else { Role::ReplyRemote };
    let way = core::mem::take(&mut draft.entry.way);
    match store.insert_flow(&draft.reply, &draft.entry, &mut draft.other) {
        Insert::Done => {}
        Insert::Full => return Err(Reason::FlowTableFull),
        // Another CPU took the port between the look and the grip: the sender will try again.
        Insert::Exists | Insert::Contended => return Err(Reason::Contended),
    }
    draft.entry.role = role;
    draft.entry.way = way;
    draft.entry.to = draft.to;
    match store.insert_flow(&draft.segment.tuple, &draft.entry, &mut draft.other) {
        Insert::Done => {
            if matches!(draft.entry.state, State::HalfOpen) {
                gauge::opened(store);
            }
            affinity::note(store, &draft.client, draft.entry.backend, draft.entry.generation);
            Ok(())
        }
        // Another CPU was faster with a packet of the same flow: its choice stands. This packet may
        // follow it on the same way out; else it is for its sender to send again.
        Insert::Exists
            if draft.other.entry.role == role && draft.other.entry.to.dst == draft.to.dst =>
        {
            draft.to = draft.other.entry.to;
            Ok(())
        }
        Insert::Exists | Insert::Contended => Err(Reason::Contended),
        Insert::Full => Err(Reason::FlowTableFull),
    }
}

/// Leaves `draft.to` the client's own port, unless that is taken: then another. `draft.reply` is the
/// key of its reply entry.
#[inline(always)]
fn keep_port<A: Addr, S: Store<A>>(store: &S, settings: &Settings, draft: &mut Draft<A>) -> bool {
    let mut hash = hash::tuple(settings.seed, &draft.segment.tuple).rotate_left(17);
    let first = u32::from(settings.snat_first);
    let ports = u32::from(settings.snat_last) - first + 1;
    // No branch on the port: the verifier would walk the loop once for each outcome.
    let port = |hash: u64| ((first + hash::scale(hash, ports)) as u16).to_be_bytes();
    let mut tries = 0;
    while tries < PORT_TRIES {
        draft.reply = draft.to.reply();
        if !store.find_flow(&draft.reply, &mut draft.other)
            || draft.other.entry.to == draft.entry.to
        {
            return true;
        }
        hash = hash::finish(hash::mix(hash, 1));
        draft.to.sport = port(hash);
        tries += 1;
    }
    false
}

/// Tells both entries of a flow what its packet means: at once when the state changes, else as
/// seldom as [`renews`] says.
#[inline(always)]
pub fn track<A: Addr, S: Store<A>>(store: &S, draft: &mut Draft<A>, side: Side) {
    if !S::LIVE {
        return;
    }
    let old = draft.found.entry.state;
    let state = next(old, side, draft.segment.tuple.protocol, draft.segment.tcp_flags);
    let Some(settings) = store.settings() else { return };
    let timeout = timeout(state, draft.segment.tuple.protocol, &settings.timeouts);
    let expiry = store.now().wrapping_add(timeout);
    if state == old && !renews(draft.found.expiry(), expiry, timeout) {
        return;
    }
    ports::answered(store, settings, draft, state);
    table::refresh(store, &draft.found, state);
    draft.reply = draft.found.entry.to.reply();
    if store.find_flow(&draft.reply, &mut draft.other) {
        table::refresh(store, &draft.other, state);
    }
}
