//! What the cluster's objects amount to, Service by Service.
//!
//! Fed by [`Change`]s from any source and in any order; holds what endpoints are made from, not
//! the objects. It does no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1, discovery::v1::EndpointSlice};

use super::{
    Change, Kind, Op,
    endpoints::{self, Group, Names, Slice},
    lease,
    mirror::{self, Mirror},
    node::{self, NodeInfo},
    pods::{Pod, PodRule},
    service,
};
use crate::model::{ClusterNodes, Endpoints, Ignored, ObjectName, Service};

/// The objects seen so far. See the module.
#[derive(Debug, Default)]
pub struct Index {
    services: BTreeMap<ObjectName, ServiceEntry>,
    slices: BTreeMap<ObjectName, Slice>,
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    mirrors: BTreeMap<ObjectName, Mirror>,
    pods: BTreeMap<ObjectName, Option<Pod>>,
    nodes: BTreeMap<ObjectName, NodeInfo>,
    /// The nodes that Leases say forward by DSR.
    leases: BTreeMap<ObjectName, String>,
    holders: BTreeSet<String>,
    /// Nodes as DSR must know them.
    cluster: Arc<ClusterNodes>,
    service_cidrs: BTreeMap<ObjectName, (Vec<IpNet>, Vec<String>)>,
    names: Names,
    pending: Pending,
    /// When what was told of since [`Index::take_triggers`] happened in the cluster.
    triggers: BTreeMap<ObjectName, Vec<Timestamp>>,
    /// The kinds of which a complete listing has been told.
    listed: BTreeSet<Kind>,
}

#[derive(Debug, Default, PartialEq)]
struct ServiceEntry {
    service: Option<Arc<Service>>,
    pods: Option<PodRule>,
    problems: Vec<String>,
}

/// What changed since [`Index::take_dirty`].
#[derive(Debug, Default)]
struct Pending {
    /// Each as it was then: one that is back to that is not dirty.
    services: BTreeMap<ObjectName, Option<Arc<Service>>>,
    endpoints: BTreeSet<ObjectName>,
}

impl Index {
    /// Takes in a change. One that tells nothing new makes nothing dirty.
    pub fn apply(&mut self, change: Change) {
        self.listed.extend(change.lists());
        match change {
            Change::Service(op) => self.apply_services(op),
            Change::EndpointSlice(op) => self.apply_slices(op),
            Change::Endpoints(op) => self.apply_mirrors(op),
            Change::Pod(op) => self.apply_pods(op),
            Change::Node(op) => self.apply_nodes(op),
            Change::Lease(op) => self.apply_leases(op),
            Change::ServiceCidr(op) => {
                for (name, object) in op.steps(self.service_cidrs.keys()) {
                    put(&mut self.service_cidrs, name, object.as_ref().map(node::service_cidrs));
                }
            }
        }
    }

    /// Whether Services and EndpointSlices have both been listed completely: what is missing before
    /// may merely not have been told yet.
    pub fn complete(&self) -> bool {
        self.unlisted(&[Kind::Service, Kind::EndpointSlice]).is_empty()
    }

    /// Those of the kinds that have not been listed completely yet.
    pub fn unlisted(&self, kinds: &[Kind]) -> Vec<Kind> {
        kinds.iter().copied().filter(|kind| !self.listed.contains(kind)).collect()
    }

    /// Services of which something changed since the last call, gone ones included.
    pub fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        let Pending { services, endpoints } = std::mem::take(&mut self.pending);
        services.into_keys().chain(endpoints).collect()
    }

    /// The trigger times of slices that changed since the last call, by their Service.
    pub fn take_triggers(&mut self) -> BTreeMap<ObjectName, Vec<Timestamp>> {
        std::mem::take(&mut self.triggers)
    }

    /// The Service, if it is one for this proxy.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)?.service.as_deref()
    }

    /// Every Service for this proxy.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().filter_map(|entry| entry.service.as_deref())
    }

    /// The Service's endpoints: from its slices; without any, from pods where it has a selector,
    /// else from the Endpoints object of its name.
    pub fn endpoints(&self, name: &ObjectName) -> Endpoints {
        if let Some(slices) = self.slices_of.get(name) {
            let slices = slices.iter().filter_map(|slice| self.slices.get(slice));
            return endpoints::merge(slices.filter_map(|slice| slice.group.as_ref()));
        }
        match self.services.get(name) {
            Some(ServiceEntry { service: Some(_), pods: Some(rule), .. }) => {
                endpoints::merge(&self.pod_groups(name, rule))
            }
            Some(ServiceEntry { service: Some(_), pods: None, .. }) => {
                endpoints::merge(self.mirrors.get(name).into_iter().flat_map(|m| &m.groups))
            }
            _ => Endpoints::new(),
        }
    }

    /// How many EndpointSlices name the Service.
    pub fn slice_count(&self, service: &ObjectName) -> usize {
        self.slices_of.get(service).map_or(0, BTreeSet::len)
    }

    /// A node of the cluster.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(&ObjectName::new("", name))
    }

    /// Every node of the cluster with its name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeInfo)> {
        self.nodes.iter().map(|(name, node)| (name.name.as_str(), node))
    }

    /// Every node of the cluster, as DSR must know it.
    pub fn cluster_nodes(&self) -> Arc<ClusterNodes> {
        Arc::clone(&self.cluster)
    }

    /// The ranges of all ServiceCIDR objects, each once.
    pub fn service_cidrs(&self) -> BTreeSet<IpNet> {
        self.service_cidrs.values().flat_map(|(cidrs, _)| cidrs).copied().collect()
    }

    /// What was left out and why, sorted.
    pub fn ignored(&self) -> Vec<Ignored> {
        let services = self.services.iter().map(|(name, e)| ("Service", name, &e.problems));
        let slices = self.slices.iter().map(|(name, s)| ("EndpointSlice", name, &s.problems));
        let mirrors = self.mirrors.iter().map(|(name, m)| ("Endpoints", name, &m.problems));
        let pods = self.pods.iter();
        let pods = pods.filter_map(|(name, pod)| Some(("Pod", name, &pod.as_ref()?.problems)));
        let nodes = self.nodes.iter().map(|(name, node)| ("Node", name, &node.problems));
        let cidrs = self.service_cidrs.iter().map(|(name, (_, p))| ("ServiceCIDR", name, p));
        let all = services.chain(slices).chain(mirrors).chain(pods).chain(nodes).chain(cidrs);
        let mut ignored: Vec<_> = all
            .flat_map(|(kind, name, reasons)| {
                reasons.iter().map(move |reason| Ignored::new(kind, name, reason))
            })
            .chain(self.orphans())
            .collect();
        ignored.sort();
        ignored
    }

    /// Slices whose Service nobody knows, once all Services have been listed.
    fn orphans(&self) -> impl Iterator<Item = Ignored> {
        let all = self.listed.contains(&Kind::Service);
        let slices = self.slices.iter().filter(move |_| all);
        slices.filter_map(|(name, slice)| {
            let service = slice.service.as_ref()?;
            let orphan = slice.group.is_some() && !self.services.contains_key(service);
            let reason = || format!("its Service {service} is not known");
            orphan.then(|| Ignored::new("EndpointSlice", name, reason()))
        })
    }

    fn pod_groups(&self, service: &ObjectName, rule: &PodRule) -> Vec<Group> {
        let pods = in_namespace(&self.pods, &service.namespace);
        let pods = pods.filter_map(|(_, pod)| pod.as_ref()).filter(|pod| rule.selects(pod));
        pods.map(|pod| rule.group(pod, self.zone_of(pod))).collect()
    }

    fn zone_of(&self, pod: &Pod) -> Option<&Arc<str>> {
        self.node(pod.node()?)?.zone.as_ref()
    }

    fn apply_services(&mut self, op: Op<v1::Service>) {
        for (name, object) in op.steps(self.services.keys()) {
            let new = object.map(|object| {
                let service::Reading { service, pods, problems } = service::read(&object);
                let service = service.map(|it| Arc::new(Service { name: name.clone(), ..it }));
                ServiceEntry { service, pods, problems }
            });
            let after = new.as_ref().and_then(|entry| entry.service.clone());
            let rule = new.as_ref().and_then(|entry| entry.pods.clone());
            let old = put(&mut self.services, name.clone(), new).unwrap_or_default();
            if old.pods != rule && !self.pods.is_empty() && after.is_some() {
                self.pending.endpoints.insert(name.clone());
            }
            self.pending.service(name, old.service, after.as_ref());
        }
    }

    fn apply_slices(&mut self, op: Op<EndpointSlice>) {
        let listing = matches!(op, Op::Reset(_));
        for (name, object) in op.steps(self.slices.keys()) {
            let trigger = object.as_ref().and_then(endpoints::trigger);
            let mut new = object.map(|object| endpoints::read(&object, &mut self.names));
            if let Some(owner) = new.as_mut().and_then(|slice| slice.service.as_mut())
                && let Some((known, _)) = self.services.get_key_value(owner)
            {
                *owner = known.clone();
            }
            self.note_trigger(&name, new.as_ref(), trigger);
            self.put_slice(name, new);
        }
        if listing {
            self.names.sweep();
        }
    }

    /// Notes when a change of a slice began; with a slice that goes, what waits of its Service says
    /// nothing any more.
    fn note_trigger(&mut self, name: &ObjectName, new: Option<&Slice>, trigger: Option<Timestamp>) {
        let old = self.slices.get(name);
        if old == new {
            return;
        }
        match (new, old.and_then(|old| old.service.as_ref())) {
            (None, Some(service)) => drop(self.triggers.remove(service)),
            (Some(Slice { service: Some(service), .. }), _) => {
                if let Some(trigger) = trigger {
                    self.triggers.entry(service.clone()).or_default().push(trigger);
                }
            }
            _ => {}
        }
    }

    fn put_slice(&mut self, name: ObjectName, new: Option<Slice>) {
        if self.slices.get(&name) == new.as_ref() {
            return;
        }
        let owner = new.as_ref().and_then(|slice| slice.service.clone());
        let adds = new.as_ref().is_some_and(|slice| slice.group.is_some());
        let old = put(&mut self.slices, name.clone(), new);
        let old_adds = old.as_ref().is_some_and(|slice| slice.group.is_some());
        let old_owner = old.and_then(|slice| slice.service);
        if let Some(service) = &old_owner
            && let Some(slices) = self.slices_of.get_mut(service)
        {
            slices.remove(&name);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
        // Even a slice that adds nothing takes the place of pods or of an Endpoints object.
        let replaces = |service| !self.pods.is_empty() || self.mirrors.contains_key(service);
        for (service, adds) in [(&old_owner, old_adds), (&owner, adds)] {
            if let Some(service) = service.as_ref().filter(|service| adds || replaces(service)) {
                self.pending.endpoints.insert(service.clone());
            }
        }
        if let Some(service) = owner {
            self.slices_of.entry(service).or_default().insert(name);
        }
    }

    fn apply_mirrors(&mut self, op: Op<v1::Endpoints>) {
        for (name, object) in op.steps(self.mirrors.keys()) {
            let new = object.map(|object| mirror::read(&object, &mut self.names));
            if self.mirrors.get(&name) != new.as_ref() {
                put(&mut self.mirrors, name.clone(), new);
                self.pending.endpoints.insert(name);
            }
        }
    }

    fn apply_pods(&mut self, op: Op<v1::Pod>) {
        for (name, object) in op.steps(self.pods.keys()) {
            let new = object.map(|object| Pod::read(&object, &mut self.names));
            if self.pods.get(&name) == new.as_ref() {
                continue;
            }
            let old = put(&mut self.pods, name.clone(), new).flatten();
            let new = self.pods.get(&name).and_then(Option::as_ref);
            for (service, entry) in in_namespace(&self.services, &name.namespace) {
                let Some(rule) = &entry.pods else { continue };
                if [old.as_ref(), new].into_iter().flatten().any(|pod| rule.selects(pod)) {
                    self.pending.endpoints.insert(service.clone());
                }
            }
        }
    }

    fn apply_leases(&mut self, op: Op<Lease>) {
        for (name, object) in op.steps(self.leases.keys()) {
            let holder = object.as_ref().and_then(lease::holder).map(str::to_owned);
            let old = put(&mut self.leases, name.clone(), holder);
            let new = self.leases.get(&name).cloned();
            for holder in old.into_iter().chain(new) {
                if self.leases.values().any(|other| *other == holder) {
                    self.holders.insert(holder.clone());
                } else {
                    self.holders.remove(&holder);
                }
                self.see(&ObjectName::new("", holder));
            }
        }
    }

    /// Brings what DSR must know of a node up to date.
    fn see(&mut self, name: &ObjectName) {
        let leased = self.holders.contains(&name.name);
        let seen = self.nodes.get(name).map(|node| node::as_seen_by_others(node, leased));
        if self.cluster.get(&name.name) != seen.as_ref() {
            let cluster = Arc::make_mut(&mut self.cluster);
            match seen {
                Some(seen) => drop(cluster.insert(name.name.clone(), seen)),
                None => drop(cluster.remove(&name.name)),
            }
        }
    }

    fn apply_nodes(&mut self, op: Op<v1::Node>) {
        for (name, object) in op.steps(self.nodes.keys()) {
            let new = object.map(|object| node::read(&object, &mut self.names));
            let zone = new.as_ref().and_then(|node| node.zone.clone());
            let old = put(&mut self.nodes, name.clone(), new).and_then(|node| node.zone);
            self.see(&name);
            if zone != old && !self.pods.is_empty() {
                let selecting = self.services.iter().filter(|(_, entry)| entry.pods.is_some());
                self.pending.endpoints.extend(selecting.map(|(name, _)| name.clone()));
            }
        }
    }
}

impl Pending {
    fn service(&mut self, name: ObjectName, old: Option<Arc<Service>>, new: Option<&Arc<Service>>) {
        if old.as_ref() == new {
            return;
        }
        let first = self.services.entry(name.clone()).or_insert(old);
        if first.as_ref() == new {
            self.services.remove(&name);
        }
    }
}

/// Sets or removes, and returns what was there.
fn put<V>(table: &mut BTreeMap<ObjectName, V>, name: ObjectName, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => table.insert(name, value),
        None => table.remove(&name),
    }
}

fn in_namespace<'a, V>(
    table: &'a BTreeMap<ObjectName, V>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a ObjectName, &'a V)> {
    let start = ObjectName::new(namespace, "");
    table.range(start..).take_while(move |(name, _)| name.namespace == namespace)
}
