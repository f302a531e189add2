//! A Service's next state, with everything it needs set aside but nothing published: it fits whole,
//! or it is refused whole.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use lb_common::{
    abi::{Answer, Backend, BackendState, Line, Scope, Service},
    addr::{Addr, V4, V6},
};

use super::{
    Environment, Tables,
    answers::{self, Wanted},
    limits::Refusal,
    names::{BackendName, NAME_LENGTH, PortKey},
    op::Place,
    record::{ANSWERS, claims, fingerprint, identity},
};
use crate::model::Algorithm;
use crate::plan::{
    self, BackendSet, FrontendKind, PortPlan, ServicePlan, WhenEmpty, arena::Segment,
};

/// One port's next state.
pub(super) struct Draft {
    pub id: u32,
    pub key: PortKey,
    /// Row without answers.
    pub rules: Service,
    /// By identity.
    pub members: BTreeMap<u64, Member>,
    pub answers: [Next; ANSWERS.len()],
    /// The tick in which the ring over nodes last led somewhere else.
    pub changed: u32,
    pub frontends: BTreeSet<(FrontendKind, Place)>,
    pub ranges: BTreeSet<IpNet>,
}

/// A backend that the slices have.
pub(super) struct Member {
    pub id: u32,
    pub place: Place,
    pub row: Backend,
    pub name: BackendName,
}

/// What becomes of one answer.
pub(super) enum Next {
    Keep,
    Fixed(Answer),
    Write { segment: Segment, step: Option<u8>, slots: Vec<u32>, fingerprint: u64 },
}

/// What drafts have taken, to be given back if the Service is refused.
#[derive(Default)]
struct Taken {
    services: Vec<u32>,
    backends: Vec<u32>,
    segments: Vec<Segment>,
    frontends: BTreeSet<Place>,
    locals: BTreeSet<Place>,
    ranges: [usize; 2],
}

impl Tables {
    /// Drafts all ports of a Service.
    pub(super) fn draft(
        &mut self,
        environment: &Environment<'_>,
        plan: &ServicePlan,
    ) -> Result<Vec<Draft>, Refusal> {
        let mut taken = Taken::default();
        let keys: BTreeSet<PortKey> = plan.ports.iter().map(PortKey::of).collect();
        if keys.len() < plan.ports.len() {
            return Err(Refusal::SamePortTwice);
        }
        let drafts = plan.ports.iter().map(|port| self.draft_port(environment, port, &mut taken));
        let drafts: Result<Vec<Draft>, Refusal> = drafts.collect();
        if drafts.is_err() {
            let Taken { services, backends, segments, frontends: _, locals: _, ranges: _ } = taken;
            services.into_iter().for_each(|id| self.service_ids.give_back(id));
            backends.into_iter().for_each(|id| self.backend_ids.give_back(id));
            segments.into_iter().for_each(|segment| self.arena.give_back(segment));
        }
        drafts
    }

    fn draft_port(
        &mut self,
        environment: &Environment<'_>,
        plan: &PortPlan,
        taken: &mut Taken,
    ) -> Result<Draft, Refusal> {
        let key = PortKey::of(plan);
        if key.to_string().len() > NAME_LENGTH {
            return Err(Refusal::NameTooLong);
        }
        let id = match self.by_key.get(&key) {
            Some(id) => *id,
            None => self.take_service(taken)?,
        };
        let frontends = plan
            .frontends
            .iter()
            .map(|f| (f.kind, Place::new(f.address, plan.protocol.number())))
            .collect();
        let ranges: BTreeSet<IpNet> = plan.source_ranges.iter().map(IpNet::trunc).collect();
        self.check_frontends(&frontends, taken)?;
        self.check_ranges(id, &ranges, taken)?;
        let members = self.draft_members(environment, id, plan, taken)?;
        let (answers, changed) = self.draft_answers(environment, id, plan, &members, taken)?;
        let generation = match self.services.get(id) {
            Some(record) => record.row.generation(),
            None => self.generation(),
        };
        let rules = rules(plan, generation, self.services.get(id).map(|record| &record.row));
        Ok(Draft { id, key, rules, members, answers, changed, frontends, ranges })
    }

    fn take_service(&mut self, taken: &mut Taken) -> Result<u32, Refusal> {
        let ids = &mut self.service_ids;
        let id = ids.take().ok_or_else(|| Refusal::Full {
            map: "SERVICES",
            used: ids.used() as usize,
            capacity: ids.capacity() as usize,
            needed: 1,
        })?;
        taken.services.push(id);
        Ok(id)
    }

    fn check_frontends(
        &self,
        frontends: &BTreeSet<(FrontendKind, Place)>,
        taken: &mut Taken,
    ) -> Result<(), Refusal> {
        for (place, _) in claims(frontends).filter(|(place, _)| self.claims.is_free(place)) {
            taken.frontends.insert(place);
            let v4 = place.address.is_ipv4();
            let needed = taken.frontends.iter().filter(|p| p.address.is_ipv4() == v4).count();
            let used = self.claims.occupied(&place);
            let map = if v4 { "FRONTENDS_V4" } else { "FRONTENDS_V6" };
            Refusal::check(map, used, self.capacities.frontends, needed)?;
        }
        Ok(())
    }

    fn check_ranges(
        &self,
        id: u32,
        ranges: &BTreeSet<IpNet>,
        taken: &mut Taken,
    ) -> Result<(), Refusal> {
        let have = self.services.get(id).map(|record| &record.ranges);
        for range in ranges.iter().filter(|range| have.is_none_or(|have| !have.contains(range))) {
            let family = usize::from(range.addr().is_ipv6());
            let map = ["SOURCES_V4", "SOURCES_V6"][family];
            taken.ranges[family] += 1;
            let needed = taken.ranges[family];
            Refusal::check(map, self.ranges[family], self.capacities.sources, needed)?;
        }
        Ok(())
    }

    /// Backends of the sets, and those of the slices beside them that had an id.
    fn draft_members(
        &mut self,
        environment: &Environment<'_>,
        service: u32,
        plan: &PortPlan,
        taken: &mut Taken,
    ) -> Result<BTreeMap<u64, Member>, Refusal> {
        let mut members = BTreeMap::new();
        let rest = plan.spread.iter().flat_map(|spread| &spread.rest);
        for backend in plan.cluster.backends.iter().chain(&plan.local.backends).chain(rest) {
            let (place, name, identity) = who(plan, backend);
            if members.contains_key(&identity) {
                continue;
            }
            let id = match self.known(service, identity) {
                Some(id) => id,
                None => self.take_backend(taken)?,
            };
            self.check_local(id, &place, backend.local, taken)?;
            let row = self.row(environment, service, id, place, identity, (plan, backend));
            members.insert(identity, Member { id, place, row, name });
        }
        for backend in &plan.retired {
            let (place, name, identity) = who(plan, backend);
            let Some(id) = self.known(service, identity) else { continue };
            self.check_local(id, &place, backend.local, taken)?;
            let row = self.row(environment, service, id, place, identity, (plan, backend));
            let row = row.with_state(BackendState::Retired, backend.serving);
            members.entry(identity).or_insert(Member { id, place, row, name });
        }
        Ok(members)
    }

    fn known(&self, service: u32, identity: u64) -> Option<u32> {
        self.services.get(service)?.backends.get(&identity).copied()
    }

    fn take_backend(&mut self, taken: &mut Taken) -> Result<u32, Refusal> {
        let ids = &mut self.backend_ids;
        let id = ids.take().ok_or_else(|| Refusal::Full {
            map: "BACKENDS",
            used: ids.used() as usize,
            capacity: ids.capacity() as usize,
            needed: 1,
        })?;
        taken.backends.push(id);
        Ok(id)
    }

    fn check_local(
        &self,
        id: u32,
        place: &Place,
        local: bool,
        taken: &mut Taken,
    ) -> Result<(), Refusal> {
        let watched = self.backends.get(id).is_some_and(|record| record.watched);
        if !local || watched || self.locals.contains_key(place) || !taken.locals.insert(*place) {
            return Ok(());
        }
        let v4 = place.address.is_ipv4();
        let of_family = |place: &&Place| place.address.is_ipv4() == v4;
        let used = self.locals.keys().filter(of_family).count();
        let needed = taken.locals.iter().filter(of_family).count();
        let map = if v4 { "LOCALS_V4" } else { "LOCALS_V6" };
        Refusal::check(map, used, self.capacities.locals, needed)
    }

    /// The row of an active backend.
    fn row(
        &mut self,
        environment: &Environment<'_>,
        service: u32,
        id: u32,
        place: Place,
        identity: u64,
        (plan, backend): (&PortPlan, &plan::Backend),
    ) -> Backend {
        let generation = match self.backends.get(id) {
            Some(record) => record.row.generation(),
            None => self.generation(),
        };
        // `reroute` looks up the ways that may have changed.
        let known = self.backends.get(id).map(|record| &record.row);
        let source = match known.filter(|row| !row.is_local() && !backend.local) {
            Some(row) => *row.source(),
            None => {
                let source = environment.source_of(place.address, backend.local);
                source.unwrap_or_else(|unasked| unasked.guess).map_or([0; 16], slot)
            }
        };
        Backend::new(
            service,
            generation,
            slot(place.address),
            place.port.to_be_bytes(),
            place.protocol,
            place.address.is_ipv6(),
            source,
            identity,
        )
        .with_state(BackendState::Active, backend.serving)
        .with_local(backend.local)
        .with_weight(backend.weight)
        .with_sets(plan.cluster.has(backend), plan.local.has(backend))
    }

    fn draft_answers(
        &mut self,
        environment: &Environment<'_>,
        id: u32,
        plan: &PortPlan,
        members: &BTreeMap<u64, Member>,
        taken: &mut Taken,
    ) -> Result<([Next; ANSWERS.len()], u32), Refusal> {
        let mut next = [const { Next::Keep }; ANSWERS.len()];
        let mut changed = 0;
        let seed = environment.settings.seed;
        let id_of = |backend: &plan::Backend| members[&who(plan, backend).2].id;
        let rest = plan.spread.as_ref().map(|spread| BackendSet {
            backends: spread.rest.clone(),
            when_empty: WhenEmpty::Reject,
        });
        for (index, (scope, ring)) in ANSWERS.into_iter().enumerate() {
            let record = self.services.get(id);
            let least = record.map_or(0, |record| record.steps[index]);
            let set = match scope {
                Scope::Local => Some(&plan.local),
                Scope::Cluster => Some(&plan.cluster),
                Scope::Rest => rest.as_ref(),
                Scope::Nodes => None,
            };
            let wanted = match set.filter(|_| answers::is_asked_for(plan, scope, ring)) {
                // Of the rest there is one answer, whether that is a ring or a list.
                Some(set) => {
                    let ring = ring && (scope != Scope::Rest || answers::choice(plan).1);
                    answers::wanted(set, ring, least, seed, id_of)
                }
                None if scope == Scope::Nodes && answers::is_asked_for(plan, scope, ring) => {
                    let (wanted, at) = self.ring_over_nodes(environment, id, plan);
                    changed = at;
                    wanted
                }
                None => Wanted::Fixed(Answer::UNSET),
            };
            next[index] = self.draft_answer(id, index, wanted, taken)?;
        }
        Ok((next, changed))
    }

    fn draft_answer(
        &mut self,
        id: u32,
        index: usize,
        wanted: Wanted,
        taken: &mut Taken,
    ) -> Result<Next, Refusal> {
        let record = self.services.get(id);
        let (scope, ring) = ANSWERS[index];
        let (step, slots) = match wanted {
            Wanted::Fixed(answer) => {
                let written = record.is_some_and(|r| r.row.answer(scope, ring) == answer);
                return Ok(if written { Next::Keep } else { Next::Fixed(answer) });
            }
            Wanted::List(slots) => (None, slots),
            Wanted::Ring(step, slots) => (Some(step), slots),
        };
        let fingerprint = fingerprint(slots.iter().copied());
        let content = record.and_then(|record| record.contents[index]);
        if content.is_some_and(|content| content.fingerprint == fingerprint) {
            return Ok(Next::Keep);
        }
        let segment = self.arena.take(slots.len() as u32).ok_or_else(|| Refusal::Full {
            map: "ARENA",
            used: self.arena.used() as usize,
            capacity: self.arena.capacity() as usize,
            needed: Line::lines_for(slots.len() as u32) as usize,
        })?;
        taken.segments.push(segment);
        Ok(Next::Write { segment, step, slots, fingerprint })
    }
}

/// Place, name and identity of a backend.
fn who(plan: &PortPlan, backend: &plan::Backend) -> (Place, BackendName, u64) {
    let place = Place::new(backend.address, plan.protocol.number());
    let name = BackendName::of(backend);
    let identity = identity(&place, &backend.uid);
    (place, name, identity)
}

fn rules(plan: &PortPlan, generation: u32, old: Option<&Service>) -> Service {
    let (inside, outside) = answers::choice(plan);
    // Clients that were remembered before affinity was switched off are strangers.
    let epoch = old.map_or(0, |old| match (old.affinity_seconds(), plan.affinity_seconds) {
        (0, Some(_)) => old.affinity_epoch().wrapping_add(1),
        _ => old.affinity_epoch(),
    });
    let rules = Service::new(generation, plan.affinity_seconds.unwrap_or(0))
        .with_policies(answers::scope(plan.internal), answers::scope(plan.external))
        .with_affinity_epoch(epoch)
        .with_choice(inside, outside);
    let rules = match plan.algorithm {
        Some(Algorithm::RoundRobin) => rules.with_turns(),
        Some(Algorithm::LeastConnections) => rules.with_least_connections(),
        Some(Algorithm::Random | Algorithm::Maglev) | None => rules,
    };
    let usable_here = plan.spread.as_ref().is_some_and(|spread| spread.usable_here);
    let rules = if usable_here { rules.with_usable_here() } else { rules };
    if plan.source_ranges.is_empty() { rules } else { rules.with_source_ranges() }
}

/// The address as rows have it.
pub(super) fn slot(address: std::net::IpAddr) -> [u8; 16] {
    match address {
        std::net::IpAddr::V4(v4) => V4(v4.octets()).to_slot(),
        std::net::IpAddr::V6(v6) => V6(v6.octets()).to_slot(),
    }
}
