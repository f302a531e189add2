use super::{
    Family, Hook, Job, SourceClass, Trace,
    ingress::{deliver, send, way_out},
    masquerade,
};
use crate::{
    abi::{Frontend, Kind, NextHop, Settings},
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
    let way = match decide(job, frontend, known) {
        Ok(way) => way,
        Err(reason) => return reason,
    };
    if let Err(reason) = record(job, matches!(way, Way::Local)) {
        return reason;
    }
    job.outcome.opened = true;
    job.trace.source = job.draft.to.src.to_slot();
    match way {
        Way::Local => deliver(packet, job),
        Way::Remote(hop) => send(packet, job, hop, Reason::ToRemote),
    }
}

/// Where the chosen backend is.
enum Way {
    Local,
    Remote(NextHop),
}

/// Chooses a backend and looks up everything that can fail before anything is changed.
#[inline(never)]
fn decide<A: Family, S: Store<A>>(
    job: &mut Job<'_, A, S>,
    frontend: Frontend,
    known: bool,
) -> Result<Way, Reason> {
    let store = job.store;
    let (settings, kind, service) =
        match (store.settings(), frontend.kind(), store.service(frontend.service())) {
            (Some(settings), Some(kind), Some(service)) => (settings, kind, service),
            _ => return Err(Reason::StaleAnswer),
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
    let way = if local {
        if matches!(store.hook(), Hook::Xdp) {
            return Err(Reason::NeedsStack);
        }
        Way::Local
    } else {
        job.draft.to.src = A::from_slot(backend.source());
        Way::Remote(way_out(job)?)
    };
    if known && S::LIVE {
        table::release(store, &job.draft.found);
    }
    Ok(way)
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
fn record<A: Addr, S: Store<A>>(job: &mut Job<'_, A, S>, local: bool) -> Result<(), Reason> {
    let Some(settings) = job.store.settings() else { return Err(Reason::FlowTableFull) };
    let (store, draft) = (job.store, &mut *job.draft);
    let ports = u32::from(settings.snat_last.wrapping_sub(settings.snat_first)) + 1;
    let hash = hash::tuple(settings.seed, &draft.segment.tuple);
    let mut offset = hash::scale(hash.rotate_left(17), ports);
    let (to_role, reply_role) =
        if local { (Role::ToLocal, Role::ReplyLocal) } else { (Role::ToRemote, Role::ReplyRemote) };
    let mut tries = 0;
    while tries < PORT_TRIES {
        if !local || tries > 0 {
            draft.to.sport = settings.snat_first.wrapping_add(offset as u16).to_be_bytes();
            offset = if offset + 1 >= ports { 0 } else { offset + 1 };
        }
        if !S::LIVE {
            return Ok(());
        }
        draft.reply = draft.to.reply();
        draft.entry.role = reply_role;
        draft.entry.to = draft.segment.tuple.reply();
        match table::insert(store, &draft.reply, &draft.entry, &mut draft.other) {
            Insert::Done => {
                draft.entry.role = to_role;
                draft.entry.to = draft.to;
                return record_forward(job);
            }
            Insert::Exists => {}
            Insert::Full => return Err(Reason::FlowTableFull),
            Insert::Contended => return Err(Reason::Contended),
        }
        tries += 1;
    }
    Err(Reason::SnatPortsFull)
}

#[inline(always)]
fn record_forward<A: Addr, S: Store<A>>(job: &mut Job<'_, A, S>) -> Result<(), Reason> {
    let draft = &mut *job.draft;
    match table::insert(job.store, &draft.segment.tuple, &draft.entry, &mut draft.other) {
        Insert::Done => Ok(()),
        // Another CPU was faster with a packet of the same flow: its choice stands. This packet may
        // follow it on the same way out; else it is for its sender to send again.
        Insert::Exists
            if draft.other.entry.role == draft.entry.role
                && draft.other.entry.to.dst == draft.to.dst =>
        {
            draft.to = draft.other.entry.to;
            Ok(())
        }
        Insert::Exists | Insert::Contended => Err(Reason::Contended),
        Insert::Full => Err(Reason::FlowTableFull),
    }
}
