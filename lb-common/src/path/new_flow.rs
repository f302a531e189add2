use super::{
    Hook, Outcome, SourceClass,
    ingress::{deliver, send, way_out},
    masquerade,
};
use crate::{
    abi::{Frontend, Kind, Settings},
    addr::Addr,
    flow::Tuple,
    hash,
    limits::PORT_TRIES,
    packet::Packet,
    parse::Segment,
    rewrite::Rewrite,
    select::{Choice, Pick, choose},
    table::{self, Entry, Found, Refused, Role},
    tracking::{State, opens},
    verdict::Reason,
    wire::{Tcp, proto},
    world::Store,
};

/// The first packet of a flow, or one whose flow must choose again (`old`).
#[inline(always)]
pub(super) fn open<A: Rewrite, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    segment: &Segment<A>,
    store: &S,
    hook: Hook,
    settings: &Settings,
    frontend: Frontend,
    old: Option<&Found<A>>,
) -> Outcome {
    let tuple = &segment.tuple;
    let (Some(kind), Some(service)) = (frontend.kind(), store.service(frontend.service())) else {
        return Outcome::new(Reason::StaleAnswer);
    };
    let class = SourceClass::of(store, settings, tuple.src);
    let mut outcome = Outcome::new(Reason::StaleAnswer);
    outcome.trace.kind = Some(kind);
    outcome.trace.class = class;
    if matches!(kind, Kind::LoadBalancer)
        && service.has_source_ranges()
        && !store.allows_source(frontend.service(), tuple.src)
    {
        outcome.reason = Reason::SourceRange;
        return outcome;
    }
    let inside = !matches!(class, SourceClass::Outside);
    let ring = if inside { service.ring_inside() } else { service.ring_outside() };
    let flow_hash = hash::tuple(settings.seed, tuple);
    let pick = if ring { Pick::Hash(flow_hash) } else { Pick::Random(store.random()) };
    let mid_stream = tuple.protocol == proto::TCP && !opens(segment.tcp_flags);
    if mid_stream && takes_over(store, settings) {
        outcome.reason = Reason::Takeover;
        return outcome;
    }
    let scope = class.scope(kind, service);
    let choice = match choose(store, frontend.service(), scope, pick) {
        Ok(choice) => choice,
        Err(reason) => {
            outcome.reason = reason;
            return outcome;
        }
    };
    let hairpin = choice.backend.is_local() && A::from_slot(choice.backend.address()) == tuple.src;
    outcome.trace.masquerade = masquerade::<A>(settings, kind, class, service, hairpin);
    outcome.trace.answer = choice.answer;
    // Only a local backend that the ring names can have been this flow's all along.
    if mid_stream && (!choice.backend.is_local() || !ring || segment.tcp_flags & Tcp::RST != 0) {
        outcome.reason = Reason::UnknownFlow;
        return outcome;
    }
    if let (Some(old), Hook::Tc) = (old, hook)
        && S::LIVE
    {
        table::release(store, old);
    }
    let opened = start(packet, segment, store, hook, flow_hash, &choice, mid_stream);
    Outcome {
        opened: matches!(opened.0.reason, Reason::ToLocal | Reason::ToRemote),
        backend: choice.id,
        trace: super::Trace { source: opened.1.to_slot(), ..outcome.trace },
        ..opened.0
    }
}

#[inline(always)]
fn takes_over<A: Addr, S: Store<A>>(store: &S, settings: &Settings) -> bool {
    settings.takeover_until.wrapping_sub(store.now()) as i32 > 0 && settings.takeover_until != 0
}

/// Writes both entries of a new flow and sends its packet on; also says the source that the backend
/// sees.
#[inline(always)]
fn start<A: Rewrite, P: Packet + ?Sized, S: Store<A>>(
    packet: &mut P,
    segment: &Segment<A>,
    store: &S,
    hook: Hook,
    flow_hash: u64,
    choice: &Choice<'_>,
    mid_stream: bool,
) -> (Outcome, A) {
    let tuple = &segment.tuple;
    let backend = choice.backend;
    let local = backend.is_local();
    let mut to = Tuple { dst: A::from_slot(backend.address()), dport: backend.port(), ..*tuple };
    if local && matches!(hook, Hook::Xdp) {
        return (Outcome::new(Reason::NeedsStack), to.src);
    }
    let route = if local {
        None
    } else {
        to.src = A::from_slot(backend.source());
        match way_out(segment, store, hook, &to) {
            Ok(route) => Some(route),
            Err(reason) => return (Outcome::new(reason), to.src),
        }
    };
    let state = if mid_stream { State::Established } else { State::HalfOpen };
    let flow =
        NewFlow { tuple, local, state, backend: choice.id, generation: backend.generation() };
    let to = match flow.record(store, to, flow_hash) {
        Ok(to) => to,
        Err(reason) => return (Outcome::new(reason), to.src),
    };
    let outcome = match route {
        None => deliver(packet, segment, hook, &to),
        Some(route) => send(packet, segment, &to, route, Reason::ToRemote),
    };
    (outcome, to.src)
}

/// A flow about to get its entries.
struct NewFlow<'a, A> {
    tuple: &'a Tuple<A>,
    local: bool,
    state: State,
    backend: u32,
    generation: u32,
}

impl<A: Addr> NewFlow<'_, A> {
    /// Finds a source port whose replies are nobody else's, and writes the reply entry, then the
    /// forward entry. Returns what the flow's packets become.
    ///
    /// A remote backend sees a port of this node's range. A local one sees the client's own port,
    /// unless the client already uses it for another of our addresses with the same backend.
    #[inline(always)]
    fn record<S: Store<A>>(
        &self,
        store: &S,
        mut to: Tuple<A>,
        hash: u64,
    ) -> Result<Tuple<A>, Reason> {
        let Some(settings) = store.settings() else { return Err(Reason::FlowTableFull) };
        let ports = settings.snat_last.wrapping_sub(settings.snat_first) as u32 + 1;
        let mut offset = hash::scale(hash.rotate_left(17), ports);
        let mut tries = 0;
        while tries < PORT_TRIES {
            if !self.local || tries > 0 {
                to.sport = settings.snat_first.wrapping_add(offset as u16).to_be_bytes();
                offset = if offset + 1 >= ports { 0 } else { offset + 1 };
            }
            if !S::LIVE {
                return Ok(to);
            }
            let role = if self.local { Role::ReplyLocal } else { Role::ReplyRemote };
            match table::insert(store, &to.reply(), &self.entry(role, self.tuple.reply())) {
                Ok(()) => return self.record_forward(store, to),
                Err(Refused::Exists(_)) => {}
                Err(refused) => return Err(refused.reason()),
            }
            tries += 1;
        }
        Err(Reason::SnatPortsFull)
    }

    #[inline(always)]
    fn record_forward<S: Store<A>>(&self, store: &S, to: Tuple<A>) -> Result<Tuple<A>, Reason> {
        let role = if self.local { Role::ToLocal } else { Role::ToRemote };
        match table::insert(store, self.tuple, &self.entry(role, to)) {
            Ok(()) => Ok(to),
            // Another CPU was faster with a packet of the same flow: its choice stands. Only a
            // packet of the same way out may use it; the other is sent again by its sender.
            Err(Refused::Exists(theirs)) if theirs.role == role && theirs.to.dst == to.dst => {
                Ok(theirs.to)
            }
            Err(Refused::Exists(_)) => Err(Reason::Contended),
            Err(refused) => Err(refused.reason()),
        }
    }

    #[inline(always)]
    fn entry(&self, role: Role, to: Tuple<A>) -> Entry<A> {
        Entry { state: self.state, role, to, backend: self.backend, generation: self.generation }
    }
}
