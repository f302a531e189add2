//! From what Services ask for to the content of the kernel's maps, as ordered writes.
//!
//! [`Tables`] remembers what the maps hold and who owns each slot. [`Tables::apply`] takes the
//! Services that changed and returns the few [`Op`]s that their change needs, in an order in which
//! every prefix serves every service: backends, then the segments that name them, then the answer
//! words that name those, then frontends; and back. [`Tables::adopt`] rebuilds the memory from the
//! pinned maps, so that a restart that changes nothing writes nothing.
//!
//! A backend that left keeps its id while flows may refer to it; [`Tables::reclaim`] frees it.
//! Nothing that a program may still be reading is reused before [`GRACE`] has passed: that time is
//! counted from the next call of `thaw` or `reclaim`, because by then the writes have been made.

mod adopt;
mod answers;
mod claims;
mod draft;
mod image;
mod limits;
mod look;
mod names;
mod nodes;
mod op;
mod publish;
mod record;
mod retire;
mod settings;
#[cfg(test)]
mod spread;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use lb_common::abi::{Kind, Settings};

use self::{
    claims::Claims,
    nodes::Nodes,
    record::{BackendRecord, ServiceRecord},
    retire::Limbo,
};
pub use self::{
    image::Image,
    limits::{Capacities, Refusal, Use},
    look::Member,
    names::{BackendName, NAME_LENGTH, PortKey},
    nodes::{Dsr, NodeKey},
    op::{Op, Place, RULES_WORD},
    record::ANSWERS,
    settings::{TooManyCidrs, pod_networks, settings},
};
use super::{ServicePlan, arena::Arena, ids::Ids, slots::Slots};
use crate::model::ObjectName;

/// How long a program can be in the middle of a look-up, and far more: programs end within
/// microseconds.
pub const GRACE: Duration = Duration::from_secs(1);

/// What the tables depend on beside the Services.
pub struct Environment<'a> {
    /// The cluster's seed included.
    pub settings: &'a Settings,
    /// Every address of this node; loopback is left out here.
    pub node_addresses: &'a BTreeSet<IpAddr>,
    /// The address that this node uses towards a remote backend; `None` if there is no route. Asked
    /// for when a backend comes, and by [`Tables::reroute`].
    pub source_towards: &'a dyn Fn(IpAddr) -> Result<Option<IpAddr>, Unasked>,
    /// `None`: packets are forwarded by SNAT.
    pub dsr: Option<Dsr<'a>>,
}

/// The way to a backend could not be asked for now: one that is known stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unasked {
    /// For a backend that is new: most ways begin at the node's own address.
    pub guess: Option<IpAddr>,
}

/// What has become of a Service.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    Put(&'a ServicePlan),
    Remove(&'a ObjectName),
}

impl Change<'_> {
    const fn name(&self) -> &ObjectName {
        match self {
            Self::Put(plan) => &plan.name,
            Self::Remove(name) => name,
        }
    }
}

/// What is to be written, and what was left as it is.
#[derive(Debug, Default, PartialEq)]
pub struct Planned {
    pub ops: Vec<Op>,
    /// These Services did not fit: they stay as they were, whole. Try again when others have gone.
    pub refused: Vec<(ObjectName, Refusal)>,
}

/// What the maps hold, and whose it is.
#[derive(Clone, Debug)]
pub struct Tables {
    capacities: Capacities,
    settings: Option<Settings>,
    node_addresses: BTreeSet<IpAddr>,
    services: Slots<ServiceRecord>,
    by_key: BTreeMap<Arc<PortKey>, u32>,
    backends: Slots<BackendRecord>,
    /// Who is, or was, at an address.
    by_place: BTreeSet<(Place, u32)>,
    /// Backends that are not in their service's slices, and when [`Tables::reclaim`] first saw that.
    left: BTreeMap<u32, Option<Duration>>,
    /// Ports that no Service has, the same.
    closed: BTreeMap<u32, Option<Duration>>,
    claims: Claims,
    /// How many backends a watched place is of.
    locals: BTreeMap<Place, u32>,
    /// Source ranges of each family.
    ranges: [usize; 2],
    nodes: Nodes,
    service_ids: Ids,
    backend_ids: Ids,
    arena: Arena,
    /// What is free once nobody can be reading it, and when [`Tables::thaw`] first saw it.
    limbo: Vec<(Option<Duration>, Limbo)>,
    /// The last that was given to a service, backend or segment.
    generation: u32,
    /// What an interrupted change has left in the maps and nobody owns.
    litter: Vec<Op>,
}

impl Tables {
    /// Empty maps of these sizes.
    pub fn new(capacities: Capacities) -> Self {
        Self {
            capacities,
            settings: None,
            node_addresses: BTreeSet::new(),
            services: Slots::default(),
            by_key: BTreeMap::new(),
            backends: Slots::default(),
            by_place: BTreeSet::new(),
            left: BTreeMap::new(),
            closed: BTreeMap::new(),
            claims: Claims::default(),
            locals: BTreeMap::new(),
            ranges: [0; 2],
            nodes: Nodes::default(),
            service_ids: Ids::new(capacities.services),
            backend_ids: Ids::new(capacities.backends),
            arena: Arena::new(capacities.arena_lines),
            limbo: Vec::new(),
            generation: 0,
            litter: Vec::new(),
        }
    }

    /// Plans the changes of some Services; all others stay. Of several changes of one Service the
    /// last counts.
    pub fn apply(&mut self, environment: &Environment<'_>, changes: &[Change<'_>]) -> Planned {
        let mut planned = Planned { ops: std::mem::take(&mut self.litter), refused: Vec::new() };
        let mut gone = Vec::new();
        let settings = self.put_nodes(environment, &mut planned.ops, &mut gone);
        self.put_settings(settings, &mut planned.ops);
        self.put_node_addresses(environment);
        let mut after = Vec::new();
        let last: BTreeMap<_, _> = changes.iter().map(|change| (change.name(), change)).collect();
        for change in last.into_values() {
            match change {
                Change::Put(plan) => match self.draft(environment, plan) {
                    Ok(drafts) => self.publish(plan, drafts, &mut planned.ops, &mut after),
                    Err(refusal) => planned.refused.push((plan.name.clone(), refusal)),
                },
                Change::Remove(name) => self.close_all(name, &mut after),
            }
        }
        self.claims.settle(&self.services, &mut planned.ops);
        self.retire(after, &mut planned.ops);
        planned.ops.extend(gone);
        planned
    }

    /// Makes these the only Services. For use when the listings are complete: what is not in them
    /// goes, with whatever an interrupted change has left. Ways are looked up again.
    pub fn reset(&mut self, environment: &Environment<'_>, plans: &[&ServicePlan]) -> Planned {
        let listed: BTreeSet<&ObjectName> = plans.iter().map(|plan| &plan.name).collect();
        let known: BTreeSet<ObjectName> =
            self.by_key.keys().map(|key| key.service.clone()).collect();
        let gone = known.iter().filter(|name| !listed.contains(name)).map(Change::Remove);
        let changes: Vec<Change<'_>> =
            plans.iter().map(|plan| Change::Put(plan)).chain(gone).collect();
        self.claims.doubt_all();
        let rerouted = self.reroute(environment);
        let mut planned = self.apply(environment, &changes);
        planned.ops.splice(0..0, rerouted);
        planned
    }

    /// Looks up the way to every remote backend again; what cannot be asked for stays as it is.
    pub fn reroute(&mut self, environment: &Environment<'_>) -> Vec<Op> {
        let mut ops = Vec::new();
        for (id, record) in self.backends.iter_mut() {
            let source = environment.source_of(record.place().address, record.row.is_local());
            let Ok(source) = source else { continue };
            let row = record.row.with_source(source.map_or([0; 16], draft::slot));
            if row != record.row {
                record.row = row;
                ops.push(Op::Backend { id, row });
            }
        }
        ops
    }

    /// How full each map is.
    pub fn usage(&self) -> Vec<Use> {
        let of = |map, used: usize, capacity: u32| Use { map, used, capacity: capacity as usize };
        let [v4, v6] = ["0.0.0.0", "::"].map(|any| {
            let address = any.parse().expect("an address");
            self.claims.occupied(&Place::of_address(address))
        });
        let of_v4 = self.locals.keys().filter(|place| place.address.is_ipv4()).count();
        let locals = [of_v4, self.locals.len() - of_v4];
        let Self { service_ids, backend_ids, arena, capacities, ranges, nodes, .. } = self;
        vec![
            of("SERVICES", service_ids.used() as usize, service_ids.capacity()),
            of("BACKENDS", backend_ids.used() as usize, backend_ids.capacity()),
            of("ARENA", arena.used() as usize, arena.capacity()),
            of("FRONTENDS_V4", v4, capacities.frontends),
            of("FRONTENDS_V6", v6, capacities.frontends),
            of("LOCALS_V4", locals[0], capacities.locals),
            of("LOCALS_V6", locals[1], capacities.locals),
            of("SOURCES_V4", ranges[0], capacities.sources),
            of("SOURCES_V6", ranges[1], capacities.sources),
            nodes.usage(),
        ]
    }

    /// The id of a Service's port.
    pub fn service_id(&self, key: &PortKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    fn generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    fn put_settings(&mut self, settings: Settings, ops: &mut Vec<Op>) {
        if self.settings != Some(settings) {
            self.settings = Some(settings);
            ops.push(Op::Settings(Box::new(settings)));
        }
    }

    fn put_node_addresses(&mut self, environment: &Environment<'_>) {
        let wanted: BTreeSet<IpAddr> =
            environment.node_addresses.iter().copied().filter(|a| !a.is_loopback()).collect();
        for address in wanted.difference(&self.node_addresses) {
            self.claims.add(Place::of_address(*address), Kind::NodeAddress, 0);
        }
        for address in self.node_addresses.difference(&wanted) {
            self.claims.remove(Place::of_address(*address), Kind::NodeAddress, 0);
        }
        self.node_addresses = wanted;
    }
}

impl Environment<'_> {
    /// The source of packets to a backend; those to a local one keep theirs.
    fn source_of(&self, backend: IpAddr, local: bool) -> Result<Option<IpAddr>, Unasked> {
        if local { Ok(None) } else { (self.source_towards)(backend) }
    }
}
