//! The plans of all Services, kept up to date Service by Service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{PortPlan, ServicePlan, service};
use crate::{
    cluster::index::Index,
    model::{Ignored, Node, ObjectName, Protocol},
};

/// What two Services may not both have.
type Claim = (SocketAddr, Protocol);

/// What this node should do for every Service.
///
/// Where two Services claim one address, port and protocol, the first by namespace and name has
/// it, whichever came first in time: so every node, and every restart, decides alike.
#[derive(Debug, Default)]
pub struct Plan {
    node: Node,
    services: BTreeMap<ObjectName, ServicePlan>,
    claims: BTreeMap<Claim, BTreeSet<ObjectName>>,
    /// Claims that went to another Service.
    lost: BTreeMap<ObjectName, BTreeSet<Claim>>,
}

impl Plan {
    /// Plans again what changed in the index (everything, if it is the node that changed), and
    /// names the Services whose plan is now another one.
    pub fn update(&mut self, index: &mut Index, node: &Node) -> BTreeSet<ObjectName> {
        let mut dirty = index.take_dirty();
        if self.node != *node {
            self.node = node.clone();
            dirty.extend(self.services.keys().cloned());
            dirty.extend(index.services().map(|service| service.name.clone()));
        }
        let mut plans = BTreeMap::new();
        let mut rivals = BTreeSet::new();
        for name in dirty {
            let plan = self.plan(index, &name);
            rivals.extend(self.claim(&name, plan.as_ref()));
            plans.insert(name, plan);
        }
        for name in rivals {
            plans.entry(name).or_insert_with_key(|name| self.plan(index, name));
        }
        let settled = plans.into_iter().map(|(name, plan)| (self.settle(&name, plan), name));
        settled.filter(|(changed, _)| *changed).map(|(_, name)| name).collect()
    }

    /// The plan of a Service, if this node does anything for it.
    pub fn get(&self, name: &ObjectName) -> Option<&ServicePlan> {
        self.services.get(name)
    }

    /// All plans, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &ServicePlan> {
        self.services.values()
    }

    /// Whether some load balancer's address does not let everybody in.
    pub fn bars_sources(&self) -> bool {
        self.services().flat_map(|plan| &plan.ports).any(PortPlan::bars_sources)
    }

    /// Frontends that their Service does not get, each with the Service that has it.
    pub fn ignored(&self) -> Vec<Ignored> {
        let lost = self.lost.iter().flat_map(|(name, lost)| lost.iter().map(move |c| (name, c)));
        lost.filter_map(|(name, claim)| {
            let (address, protocol) = claim;
            let owner = self.claims.get(claim)?.first()?;
            let reason = format!("{address}/{protocol} belongs to Service {owner}");
            Some(Ignored::new("Service", name, reason))
        })
        .collect()
    }

    fn plan(&self, index: &Index, name: &ObjectName) -> Option<ServicePlan> {
        let service = index.service(name)?;
        Some(service::plan(service, &index.endpoints(name), &self.node))
    }

    /// Notes what a Service claims now; answers who else claims what it took up or gave back.
    fn claim(&mut self, name: &ObjectName, plan: Option<&ServicePlan>) -> BTreeSet<ObjectName> {
        let had = self.services.get(name).into_iter().flat_map(claims_of);
        let had: BTreeSet<_> =
            had.chain(self.lost.get(name).into_iter().flatten().copied()).collect();
        let wants: BTreeSet<_> = plan.into_iter().flat_map(claims_of).collect();
        let mut rivals = BTreeSet::new();
        for claim in had.symmetric_difference(&wants) {
            let claimants = self.claims.entry(*claim).or_default();
            if !claimants.remove(name) {
                claimants.insert(name.clone());
            }
            rivals.extend(claimants.iter().filter(|other| *other != name).cloned());
            if claimants.is_empty() {
                self.claims.remove(claim);
            }
        }
        rivals
    }

    /// Stores a plan without the frontends that went to others; whether that changed anything.
    fn settle(&mut self, name: &ObjectName, plan: Option<ServicePlan>) -> bool {
        let mut lost = BTreeSet::new();
        let plan = plan.map(|mut plan| {
            for port in &mut plan.ports {
                port.frontends.retain(|frontend| {
                    let claim = (frontend.address, port.protocol);
                    let ours = self.claims.get(&claim).and_then(BTreeSet::first) == Some(name);
                    if !ours {
                        lost.insert(claim);
                    }
                    ours
                });
            }
            plan
        });
        match lost.is_empty() {
            true => self.lost.remove(name),
            false => self.lost.insert(name.clone(), lost),
        };
        let changed = self.services.get(name) != plan.as_ref();
        match plan {
            Some(plan) => self.services.insert(name.clone(), plan),
            None => self.services.remove(name),
        };
        changed
    }
}

fn claims_of(plan: &ServicePlan) -> impl Iterator<Item = Claim> {
    plan.ports
        .iter()
        .flat_map(|port| port.frontends.iter().map(|frontend| (frontend.address, port.protocol)))
}
