//! Changes of Services told as stories, and random ones held against simulated maps.

mod backends;
mod draw;
mod meaning;
mod restarts;
mod room;
mod services;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::abi::{BackendState, Settings};

use super::*;
use crate::{
    model::{Family, Protocol},
    plan::{self, BackendSet, Frontend, FrontendKind, PortPlan, WhenEmpty},
};

const ROOMY: Capacities = Capacities {
    services: 64,
    backends: 512,
    arena_lines: 100_000,
    frontends: 256,
    locals: 256,
    sources: 64,
};

/// An agent's tables and the maps that it writes.
struct Rig {
    tables: Tables,
    maps: Image,
    settings: Settings,
    addresses: BTreeSet<IpAddr>,
    clock: Duration,
}

impl Rig {
    fn new(capacities: Capacities) -> Self {
        Self {
            tables: Tables::new(capacities),
            maps: Image::default(),
            settings: Settings::default(),
            addresses: ["127.0.0.1", "192.0.2.1", "2001:db8::1"].map(|a| a.parse().unwrap()).into(),
            clock: Duration::ZERO,
        }
    }

    fn plan(&mut self, what: impl FnOnce(&mut Tables, &Environment<'_>) -> Planned) -> Planned {
        let towards = |backend: IpAddr| {
            let own = if backend.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
            Ok(Some(own.parse().unwrap()))
        };
        let environment = Environment {
            settings: &self.settings,
            node_addresses: &self.addresses,
            source_towards: &towards,
            dsr: None,
        };
        what(&mut self.tables, &environment)
    }

    fn apply(&mut self, changes: &[Change<'_>]) -> Planned {
        let planned = self.plan(|tables, environment| tables.apply(environment, changes));
        planned.ops.iter().for_each(|op| self.maps.run(op));
        planned
    }

    fn put(&mut self, plan: &ServicePlan) -> Vec<Op> {
        let planned = self.apply(&[Change::Put(plan)]);
        assert_eq!(planned.refused, []);
        planned.ops
    }

    fn reset(&mut self, plans: &[&ServicePlan]) -> Planned {
        let planned = self.plan(|tables, environment| tables.reset(environment, plans));
        planned.ops.iter().for_each(|op| self.maps.run(op));
        planned
    }

    /// The agent dies and another one finds its maps.
    fn restart(&mut self) {
        self.tables = Tables::adopt(self.tables.capacities, &self.maps);
    }

    /// Two rounds of housekeeping, far enough apart; flows refer to `referenced`.
    fn reclaim(&mut self, referenced: &[u32]) -> Vec<Op> {
        let mut ops = Vec::new();
        for _ in 0..2 {
            self.clock += GRACE;
            let referenced = referenced.iter().copied().collect();
            let freed = self.tables.reclaim(self.clock, &referenced);
            freed.iter().for_each(|op| self.maps.run(op));
            ops.extend(freed);
        }
        for _ in 0..2 {
            self.clock += GRACE;
            self.tables.thaw(self.clock);
        }
        ops
    }

    fn backend(&self, address: &str, uid: &str) -> Option<(u32, BackendState, bool)> {
        let place = Place::new(address.parse().unwrap(), 6);
        let record = self
            .tables
            .at_place(&place)
            .into_iter()
            .find(|id| BackendName::parse(&self.maps.backend_names[id]).uid == uid)?;
        let row = self.maps.backends[&record];
        Some((record, row.state(), row.is_serving()))
    }
}

impl Tables {
    fn at_place(&self, place: &Place) -> Vec<u32> {
        self.by_place.range((*place, 0)..=(*place, u32::MAX)).map(|(_, id)| *id).collect()
    }
}

fn backend(address: &str, uid: &str) -> plan::Backend {
    plan::Backend {
        address: address.parse().unwrap(),
        local: false,
        node: Some("b".into()),
        zone: None,
        state: plan::BackendState::Active,
        weight: 1,
        uid: uid.into(),
        serving: true,
    }
}

fn set(backends: &[plan::Backend]) -> BackendSet {
    BackendSet { backends: backends.to_vec(), when_empty: WhenEmpty::Reject }
}

/// A Service with a ClusterIP and these backends.
fn web(backends: &[plan::Backend]) -> ServicePlan {
    service("web", "10.96.0.1:80", backends)
}

fn service(name: &str, address: &str, backends: &[plan::Backend]) -> ServicePlan {
    let name = ObjectName::new("shop", name);
    let address: SocketAddr = address.parse().unwrap();
    let port = PortPlan {
        service: name.clone(),
        port_name: String::new(),
        protocol: Protocol::Tcp,
        family: Family::of(address.ip()),
        frontends: vec![Frontend { kind: FrontendKind::ClusterIp, address }],
        cluster: set(backends),
        local: set(&backends.iter().filter(|b| b.local).cloned().collect::<Vec<_>>()),
        retired: Vec::new(),
        internal: plan::Scope::Cluster,
        external: plan::Scope::Cluster,
        affinity_seconds: None,
        source_ranges: Vec::new(),
        algorithm: None,
        spread: None,
    };
    ServicePlan { name, ports: vec![port], health_check: None }
}

fn with_node_port(mut plan: ServicePlan) -> ServicePlan {
    let address = "192.0.2.1:30080".parse().unwrap();
    plan.ports[0].frontends.push(Frontend { kind: FrontendKind::NodePort, address });
    plan
}

fn kinds(ops: &[Op]) -> Vec<&'static str> {
    ops.iter().map(kind).collect()
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::Settings(_) => "settings",
        Op::NameService { .. } => "name service",
        Op::ForgetService(_) => "forget service",
        Op::Service { .. } => "service",
        Op::Rules { .. } => "rules",
        Op::Answer { .. } => "answer",
        Op::NameBackend { .. } => "name backend",
        Op::ForgetBackend(_) => "forget backend",
        Op::Backend { .. } => "backend",
        Op::NameNode { .. } => "name node",
        Op::ForgetNode(_) => "forget node",
        Op::Node { .. } => "node",
        Op::Segment { .. } => "segment",
        Op::PutFrontend { .. } => "frontend",
        Op::RemoveFrontend(_) => "no frontend",
        Op::PutLocal(_) => "local",
        Op::RemoveLocal(_) => "no local",
        Op::PutSource { .. } => "source",
        Op::RemoveSource { .. } => "no source",
    }
}

const A: &str = "10.1.0.1:8080";
const B: &str = "10.1.0.2:8080";
