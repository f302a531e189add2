//! One Service and its endpoints → what this node does for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    Backend, BackendSet, BackendState, Frontend, FrontendKind, HealthCheck, PortPlan, Scope,
    ServicePlan, Spread, WhenEmpty, node_ports, topology::Mode,
};
use crate::model::{Endpoint, Endpoints, Family, Node, Service, ServicePort, TrafficPolicy};

/// Plans a Service. Two of its own frontends never share an address, port and protocol.
pub fn plan(service: &Service, endpoints: &Endpoints, node: &Node) -> ServicePlan {
    let mut taken = BTreeSet::new();
    let mut ports = Vec::with_capacity(service.cluster_ips.len() * service.ports.len());
    for cluster_ip in &service.cluster_ips {
        let view = FamilyView::new(service, *cluster_ip, node);
        for port in &service.ports {
            let key = (port.name.clone(), port.protocol);
            let all = endpoints.get(&key).map(Vec::as_slice).unwrap_or_default();
            let mut planned = view.port(port, all);
            planned.frontends.retain(|frontend| taken.insert((frontend.address, port.protocol)));
            ports.push(planned);
        }
    }
    let families: Vec<Family> = service.cluster_ips.iter().copied().map(Family::of).collect();
    let health_check = service
        .health_check_node_port
        .map(|port| HealthCheck { port, local_endpoints: local_ready(&families, endpoints, node) });
    ServicePlan { name: service.name.clone(), ports, health_check }
}

/// Distinct ready addresses on this node over all ports, but for drained ones and those of other
/// families than these, the Service's. A pod with an address of each family counts once: the family with
/// more of them is the answer.
pub fn local_ready(families: &[Family], endpoints: &Endpoints, node: &Node) -> usize {
    let serves = |e: &Endpoint| families.contains(&Family::of(e.address.ip()));
    let counts = |e: &&Endpoint| e.ready && serves(e) && is_local(e, node) && !node.drains(e);
    let ready = endpoints.values().flatten().filter(counts);
    let addresses: BTreeSet<IpAddr> = ready.map(|endpoint| endpoint.address.ip()).collect();
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    v4.max(addresses.len() - v4)
}

/// A Service in one address family.
struct FamilyView<'a> {
    service: &'a Service,
    node: &'a Node,
    family: Family,
    cluster_ip: IpAddr,
    load_balancer_ips: Vec<IpAddr>,
    external_ips: Vec<IpAddr>,
    source_ranges: Vec<IpNet>,
}

impl<'a> FamilyView<'a> {
    fn new(service: &'a Service, cluster_ip: IpAddr, node: &'a Node) -> Self {
        let family = Family::of(cluster_ip);
        let of_family = |addresses: &[IpAddr]| {
            addresses.iter().copied().filter(|a| Family::of(*a) == family).collect::<Vec<_>>()
        };
        let load_balancer_ips = of_family(&service.load_balancer_ips);
        Self {
            service,
            node,
            family,
            cluster_ip,
            source_ranges: source_ranges(service, &load_balancer_ips, family, node),
            external_ips: of_family(&service.external_ips),
            load_balancer_ips,
        }
    }

    fn port(&self, port: &ServicePort, endpoints: &[Endpoint]) -> PortPlan {
        let Self { service, node, family, .. } = *self;
        let endpoints: Vec<_> = of_family(endpoints, family);
        // Drained ones are there for what they have, as if they were not ready.
        let open: Vec<_> = endpoints.iter().copied().filter(|it| !node.drains(it)).collect();
        let internal = scope(service.internal_policy);
        let external = scope(service.external_policy);
        let accessible = self.externally_accessible(port);
        let used = Used::of(internal, external, accessible);
        let spread =
            if external == Scope::Cluster && accessible { self.spread(&open) } else { None };
        let cluster = match used.cluster {
            true => usable(&open, Mode::of(&open, node), |_| true),
            false => Vec::new(),
        };
        let here = |endpoint: &Endpoint| is_local(endpoint, node);
        let local = match (used.local, &spread) {
            (true, _) => usable(&open, Mode::All, here),
            // Those that terminate while others are ready are nobody's choice then.
            (false, Some(_)) => {
                let all = usable(&open, Mode::All, |_| true).into_iter();
                all.filter(|endpoint| here(endpoint)).collect()
            }
            (false, None) => Vec::new(),
        };
        let in_use = cluster.iter().chain(&local).map(|e| e.address);
        let rest = spread.iter().flat_map(|spread| &spread.rest).map(|rest| rest.address);
        let in_use: BTreeSet<_> = in_use.chain(rest).collect();
        let has_any = open.iter().any(|e| e.ready || (e.serving && e.terminating));
        let nothing_here = if has_any { WhenEmpty::Drop } else { WhenEmpty::Reject };
        let idle = endpoints.iter().copied().filter(|e| !in_use.contains(&e.address)).collect();
        let backends =
            |chosen: Vec<&Endpoint>| chosen.into_iter().map(|e| backend(e, node)).collect();
        PortPlan {
            service: service.name.clone(),
            port_name: port.name.clone(),
            protocol: port.protocol,
            family,
            frontends: self.frontends(port),
            cluster: BackendSet { backends: backends(cluster), when_empty: WhenEmpty::Reject },
            local: BackendSet { backends: backends(local), when_empty: nothing_here },
            retired: backends(idle),
            internal,
            external,
            affinity_seconds: service.affinity_seconds,
            source_ranges: self.source_ranges.clone(),
            algorithm: service.algorithm,
            spread,
        }
    }

    /// How packets from outside are spread, if this node forwards them by DSR and others know it by an
    /// address.
    fn spread(&self, open: &[&Endpoint]) -> Option<Spread> {
        let nodes = self.node.nodes.as_ref()?;
        nodes.get(&self.node.name)?.address(self.family)?;
        let mut spread = Spread::default();
        for endpoint in usable(open, Mode::All, |_| true) {
            spread.usable_here |= is_local(endpoint, self.node);
            let takes_part = |name: &&Arc<str>| {
                let node = nodes.get(&***name);
                node.is_some_and(|node| node.forwards && node.address(self.family).is_some())
            };
            match endpoint.node.as_ref().filter(takes_part) {
                Some(name) => {
                    *spread.nodes.entry(Arc::clone(name)).or_default() +=
                        u32::from(endpoint.weight);
                }
                None => spread.rest.push(backend(endpoint, self.node)),
            }
        }
        let serving = open.iter().filter(|endpoint| endpoint.ready || endpoint.serving);
        spread.serving = serving.filter_map(|endpoint| endpoint.node.clone()).collect();
        Some(spread)
    }

    fn externally_accessible(&self, port: &ServicePort) -> bool {
        port.node_port.is_some()
            || !self.load_balancer_ips.is_empty()
            || !self.external_ips.is_empty()
    }

    /// Where two kinds meet on one address, the first wins: a load balancer's source ranges hold
    /// although its address is also an external one.
    fn frontends(&self, port: &ServicePort) -> Vec<Frontend> {
        let kinds = [
            (FrontendKind::ClusterIp, vec![self.cluster_ip], Some(port.port)),
            (FrontendKind::LoadBalancer, self.load_balancer_ips.clone(), Some(port.port)),
            (FrontendKind::ExternalIp, self.external_ips.clone(), Some(port.port)),
            (FrontendKind::NodePort, node_ports::addresses(self.node, self.family), port.node_port),
        ];
        let mut found = BTreeMap::new();
        for (kind, addresses, number) in kinds {
            for address in addresses {
                let Some(number) = number else { continue };
                found.entry(SocketAddr::new(address, number)).or_insert(kind);
            }
        }
        let mut frontends: Vec<_> =
            found.into_iter().map(|(address, kind)| Frontend { kind, address }).collect();
        frontends.sort();
        frontends
    }
}

/// Which of a port's two sets any traffic can reach.
struct Used {
    cluster: bool,
    local: bool,
}

impl Used {
    fn of(internal: Scope, external: Scope, externally_accessible: bool) -> Self {
        Self {
            cluster: internal == Scope::Cluster || externally_accessible,
            local: internal == Scope::Local || (external == Scope::Local && externally_accessible),
        }
    }
}

/// The ready ones that `mode` allows; without any ready one, those that serve while terminating.
fn usable<'a>(
    endpoints: &[&'a Endpoint],
    mode: Mode<'_>,
    eligible: impl Fn(&Endpoint) -> bool,
) -> Vec<&'a Endpoint> {
    let eligible = || endpoints.iter().copied().filter(|endpoint| eligible(endpoint));
    let ready: Vec<_> = eligible().filter(|e| e.ready && mode.allows(e)).collect();
    if !ready.is_empty() {
        return ready;
    }
    eligible().filter(|e| e.serving && e.terminating).collect()
}

/// Empty without a restriction. Where this node's primary address is let in, so are the load balancer's
/// addresses: bound locally, they are the node's sources towards themselves.
fn source_ranges(service: &Service, vips: &[IpAddr], family: Family, node: &Node) -> Vec<IpNet> {
    let ranges = service.source_ranges.iter().copied();
    let mut ranges: Vec<_> = ranges.filter(|range| Family::of(range.addr()) == family).collect();
    if ranges.iter().any(|range| range.prefix_len() == 0) {
        return Vec::new();
    }
    let lets_in = |address: &IpAddr| ranges.iter().any(|range| range.contains(address));
    if node_ports::primary(node, family).as_ref().is_some_and(lets_in) {
        ranges.extend(vips.iter().copied().map(IpNet::from));
    }
    ranges.sort();
    ranges.dedup();
    ranges
}

fn backend(endpoint: &Endpoint, node: &Node) -> Backend {
    Backend {
        address: endpoint.address,
        local: is_local(endpoint, node),
        node: endpoint.node.clone(),
        zone: endpoint.zone.clone(),
        state: match endpoint.terminating {
            true => BackendState::Terminating,
            false => BackendState::Active,
        },
        weight: endpoint.weight,
        uid: Arc::clone(&endpoint.uid),
        serving: endpoint.serving,
    }
}

fn of_family(endpoints: &[Endpoint], family: Family) -> Vec<&Endpoint> {
    endpoints.iter().filter(|e| Family::of(e.address.ip()) == family).collect()
}

fn is_local(endpoint: &Endpoint, node: &Node) -> bool {
    endpoint.node.as_deref() == Some(node.name.as_str())
}

const fn scope(policy: TrafficPolicy) -> Scope {
    match policy {
        TrafficPolicy::Cluster => Scope::Cluster,
        TrafficPolicy::Local => Scope::Local,
    }
}
