use super::{
    Draft, Family, Hook, Job, SourceClass, Trace,
    ingress::{deliver, send, way_out},
    masquerade,
};
use crate::{
    abi::{Frontend, Kind, Settings},
    addr::Addr,
    hash,
    limits::PORT_TRIES,
    packet::Packet,
    select::{Choice, Pick, choose},
    table::{self, Insert, Role},
    tracking::{State, opens},
    verdict::Reason,
    wire::{Tcp, proto},
    world::Store,
};

/// The first packet of a flow, or one whose flow must choose again (`known`).
#[inline(always)]
pub(super) fn open<A: Family, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    job: &mut Job<'_, A, S>,
    frontend: Frontend,
    known: bool,
) -> Reason {
    if let Err(reason) = decide(job, frontend, known).and_then(|()| record(job)) {
        return reason;
    }
    job.outcome.opened = true;
    job.trace.source = job.draft.to.src.to_slot();
    match job.draft.entry.role {
        Role::ToLocal => deliver(packet, job),
        _ => send(packet, job, Reason::ToRemote),
    }
}

/// Chooses a backend and looks up everything that can fail before anything is changed.
#[inline(never)]
fn decide<A: Family, S: Store<A>>(
    job: &mut Job<'_, A, S>,
    frontend: Frontend,
    known: bool,
) -> Result<(), Reason> {
    let store = job.store;
    let (Some(settings), Some(kind), Some(service)) =
        (store.settings(), frontend.kind(), store.service(frontend.service()))
    else {
        return Err(Reason::StaleAnswer);
    };
    let tuple = &job.draft.segment.tuple;
    let flags = job.draft.segment.tcp_flags;
    let class = SourceClass::of(store, settings, tuple.src);
    *job.trace = Trace { kind: Some(kind), class, ..Trace::default() };
    if matches!(kind, Kind::LoadBalancer)
        && service.has_source_ranges()
        && !store.allows_source(frontend.service(), tuple.src)
    {
        return Err(Reason::SourceRange);
    }
    let mid_stream = tuple.protocol == proto::TCP && !opens(flags);
    if mid_stream && takes_over(settings, store.now()) {
        return Err(Reason::Takeover);
    }
    let outside = matches!(class, SourceClass::Outside);
    let ring = if outside { service.ring_outside() } else { service.ring_inside() };
    let pick = if ring {
        Pick::Hash(hash::tuple(settings.seed, tuple))
    } else {
        Pick::Random(store.random())
    };
    let Choice { id, backend, answer } =
        choose(store, frontend.service(), class.scope(kind, service), pick)?;
    let local = backend.is_local();
    let address = A::from_slot(backend.address());
    let hairpin = local && address == tuple.src;
    job.trace.masquerade = masquerade::<A>(settings, kind, class, service, hairpin);
    job.trace.answer = answer;
    job.outcome.backend = id;
    // Only a local backend that the ring names can have been this flow's all along.
    if mid_stream && (!local || !ring || flags & Tcp::RST != 0) {
        return Err(Reason::UnknownFlow);
    }
    job.draft.to = *tuple;
    job.draft.to.dst = address;
    job.draft.to.dport = backend.port();
    job.draft.entry.state = if mid_stream { State::Established } else { State::HalfOpen };
    job.draft.entry.backend = id;
    job.draft.entry.generation = backend.generation();
    if local {
        if matches!(store.hook(), Hook::Xdp) {
            return Err(Reason::NeedsStack);
        }
        job.draft.entry.role = Role::ToLocal;
    } else {
        job.draft.to.src = A::from_slot(backend.source());
        job.draft.entry.role = Role::ToRemote;
        way_out(job)?;
    }
    if known && S::LIVE {
        table::release(store, &job.draft.found);
    }
    Ok(())
}

#[inline(always)]
const fn takes_over(settings: &Settings, now: u32) -> bool {
    settings.takeover_until != 0 && settings.takeover_until.wrapping_sub(now) as i32 > 0
}

/// Finds a source port whose replies are nobody else's, and writes the reply entry, then the forward
/// entry; `draft.to` is then what the flow's packets become.
///
/// A remote backend sees a port of this node's range. A local one sees the client's own port, unless
/// the client already uses it for another of our addresses with the same backend.
#[inline(never)]
fn record<A: Addr, S: Store<A>>(job: &mut Job<'_, A, S>) -> Result<(), Reason> {
    let Some(settings) = job.store.settings() else { return Err(Reason::FlowTableFull) };
    let (store, draft) = (job.store, &mut *job.draft);
    let hash = hash::tuple(settings.seed, &draft.segment.tuple);
    let role = draft.entry.role;
    let keeps_port = matches!(role, Role::ToLocal);
    draft.entry.to = draft.segment.tuple.reply();
    if !find_port(store, settings, draft, hash.rotate_left(17), keeps_port) {
        return Err(Reason::SnatPortsFull);
    }
    if !S::LIVE {
        return Ok(());
    }
    draft.entry.role = if keeps_port { Role::ReplyLocal } else { Role::ReplyRemote };
    match table::insert(store, &draft.reply, &draft.entry, &mut draft.other) {
        Insert::Done => {}
        Insert::Full => return Err(Reason::FlowTableFull),
        // Another CPU took the port between the look and the grip: the sender will try again.
        Insert::Exists | Insert::Contended => return Err(Reason::Contended),
    }
    draft.entry.role = role;
    draft.entry.to = draft.to;
    match table::insert(store, &draft.segment.tuple, &draft.entry, &mut draft.other) {
        Insert::Done => Ok(()),
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

/// Sets the source port of `draft.to`, and `draft.reply`, to one that is free for this flow.
#[inline(always)]
fn find_port<A: Addr, S: Store<A>>(
    store: &S,
    settings: &Settings,
    draft: &mut Draft<A>,
    mut hash: u64,
    keeps_port: bool,
) -> bool {
    let first = u32::from(settings.snat_first);
    let ports = u32::from(settings.snat_last) - first + 1;
    // No branch on the port: the verifier would walk the loop once for each outcome.
    let port = |hash: u64| ((first + hash::scale(hash, ports)) as u16).to_be_bytes();
    if !keeps_port {
        draft.to.sport = port(hash);
    }
    let mut tries = 0;
    while tries < PORT_TRIES {
        draft.reply = draft.to.reply();
        if !table::find(store, &draft.reply, &mut draft.other)
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
