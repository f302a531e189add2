//! Changes of Services told as stories, and random ones held against simulated maps.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{
    abi::{Answer, BackendState, Kind, Line, Scope, Service, Settings, SizeClass},
    hash::mix,
};

use super::*;
use crate::{
    model::{Algorithm, Family, Protocol},
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
            Some(if backend.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" }.parse().unwrap())
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

#[test]
fn a_new_service_is_published_from_its_backends_to_its_frontends() {
    let mut rig = Rig::new(ROOMY);
    rig.reset(&[]);
    let ops = rig.put(&web(&[backend(A, "a")]));
    assert_eq!(
        kinds(&ops),
        ["name service", "name backend", "backend", "segment", "service", "frontend", "frontend"]
    );
    let frontend = rig.maps.frontends[&Place::new("10.96.0.1:80".parse().unwrap(), 6)];
    assert_eq!((frontend.service(), frontend.kind()), (1, Some(Kind::ClusterIp)));
    assert_eq!(rig.maps.service_names[&1], "shop/web||TCP|4");
    let answer = rig.maps.services[&1].answer(Scope::Cluster, false);
    assert_eq!(rig.maps.slots(1, answer), Some(vec![1]));
    assert_eq!(rig.maps.backends[&1].source()[..4], [192, 0, 2, 1]);
}

#[test]
fn the_same_plan_again_writes_nothing() {
    let mut rig = Rig::new(ROOMY);
    let plan = with_node_port(web(&[backend(A, "a"), backend(B, "b")]));
    rig.reset(&[&plan]);
    assert_eq!(rig.reset(&[&plan]), Planned::default());
    assert_eq!(rig.apply(&[Change::Put(&plan)]), Planned::default());
}

#[test]
fn one_endpoint_more_takes_four_writes() {
    let mut rig = Rig::new(ROOMY);
    rig.reset(&[&web(&[backend(A, "a")])]);
    let ops = rig.put(&web(&[backend(A, "a"), backend(B, "b")]));
    assert_eq!(kinds(&ops), ["name backend", "backend", "segment", "answer"]);
}

#[test]
fn a_service_that_outside_clients_can_dial_has_a_ring_beside_its_list() {
    let mut rig = Rig::new(ROOMY);
    let ops = rig.put(&with_node_port(web(&[backend(A, "a"), backend(B, "b")])));
    let segments = ops.iter().filter(|op| matches!(op, Op::Segment { .. })).count();
    assert_eq!(segments, 2);
    let ring = rig.maps.services[&1].answer(Scope::Cluster, true);
    assert_eq!(ring.class(), SizeClass::Ring(251));
    let slots = rig.maps.slots(1, ring).unwrap();
    assert_eq!(slots.iter().filter(|id| **id == 1).count().abs_diff(125), 0, "{slots:?}");
}

#[test]
fn a_ring_grows_and_never_shrinks_while_its_service_lives() {
    let many: Vec<_> = (1..=11).map(|n| backend(&format!("10.1.0.{n}:80"), "")).collect();
    let mut rig = Rig::new(ROOMY);
    let size = |rig: &mut Rig, count: usize| {
        rig.put(&with_node_port(web(&many[..count])));
        rig.maps.services[&1].answer(Scope::Cluster, true).class()
    };
    assert_eq!(size(&mut rig, 2), SizeClass::Ring(251));
    assert_eq!(size(&mut rig, 11), SizeClass::Ring(4093));
    assert_eq!(size(&mut rig, 2), SizeClass::Ring(4093));
    rig.restart();
    assert_eq!(size(&mut rig, 3), SizeClass::Ring(4093), "nor at a restart");
}

#[test]
fn maglev_everywhere_has_rings_inside_and_random_has_none() {
    for (algorithm, ring) in [(Algorithm::Maglev, true), (Algorithm::Random, false)] {
        let mut plan =
            if ring { web(&[backend(A, "a")]) } else { with_node_port(web(&[backend(A, "a")])) };
        plan.ports[0].algorithm = Some(algorithm);
        let mut rig = Rig::new(ROOMY);
        rig.put(&plan);
        let row = rig.maps.services[&1];
        assert_eq!(row.answer(Scope::Cluster, true) != Answer::UNSET, ring);
        assert_eq!((row.ring_inside(), row.ring_outside()), (ring, ring));
    }
}

#[test]
fn an_empty_set_says_what_happens() {
    let mut rig = Rig::new(ROOMY);
    let mut plan = with_node_port(web(&[]));
    plan.ports[0].local.when_empty = WhenEmpty::Drop;
    plan.ports[0].external = plan::Scope::Local;
    rig.put(&plan);
    let row = rig.maps.services[&1];
    assert_eq!(row.answer(Scope::Cluster, false), Answer::REJECT);
    assert_eq!(row.answer(Scope::Local, false), Answer::DROP);
    assert_eq!(row.external(), Scope::Local);
}

#[test]
fn an_endpoint_that_leaves_keeps_its_flows_and_serves_no_udp() {
    let mut rig = Rig::new(ROOMY);
    rig.put(&web(&[backend(A, "a"), backend(B, "b")]));
    let ops = rig.put(&web(&[backend(A, "a")]));
    assert_eq!(kinds(&ops), ["segment", "answer", "backend"], "out of the answer first");
    assert_eq!(rig.backend(B, "b"), Some((2, BackendState::Retired, false)));
}

#[test]
fn an_endpoint_that_is_not_ready_keeps_its_flows_and_may_serve() {
    let mut rig = Rig::new(ROOMY);
    rig.put(&web(&[backend(A, "a"), backend(B, "b")]));
    let mut plan = web(&[backend(A, "a")]);
    plan.ports[0].retired.push(backend(B, "b"));
    rig.put(&plan);
    assert_eq!(rig.backend(B, "b"), Some((2, BackendState::Retired, true)));
    let ops = rig.put(&web(&[backend(A, "a"), backend(B, "b")]));
    assert_eq!(kinds(&ops), ["backend", "segment", "answer"], "active before it is named");
}

#[test]
fn an_endpoint_that_was_terminating_and_left_is_gone() {
    for restarts in [false, true] {
        let mut rig = Rig::new(ROOMY);
        rig.put(&web(&[backend(A, "a"), backend(B, "b")]));
        let mut plan = web(&[backend(A, "a")]);
        let state = plan::BackendState::Terminating;
        plan.ports[0].retired.push(plan::Backend { state, ..backend(B, "b") });
        rig.put(&plan);
        assert_eq!(rig.backend(B, "b"), Some((2, BackendState::Retired, true)));
        if restarts {
            rig.restart();
        }
        rig.reset(&[&web(&[backend(A, "a")])]);
        assert_eq!(rig.backend(B, "b"), Some((2, BackendState::Gone, false)));
    }
}

#[test]
fn an_address_that_comes_back_under_another_uid_inherits_nothing() {
    let mut rig = Rig::new(ROOMY);
    rig.put(&web(&[backend(A, "old")]));
    rig.put(&web(&[]));
    assert_eq!(rig.backend(A, "old"), Some((1, BackendState::Retired, false)));
    rig.put(&service("other", "10.96.0.2:80", &[backend(A, "new")]));
    assert_eq!(rig.backend(A, "old"), Some((1, BackendState::Gone, false)));
    assert_eq!(rig.backend(A, "new"), Some((2, BackendState::Active, true)));
}

#[test]
fn a_pod_that_is_replaced_in_one_step_is_gone() {
    let mut rig = Rig::new(ROOMY);
    rig.put(&web(&[backend(A, "old")]));
    rig.put(&web(&[backend(A, "new")]));
    assert_eq!(rig.backend(A, "old"), Some((1, BackendState::Gone, false)));
}

#[test]
fn an_unknown_uid_proves_nothing() {
    let mut rig = Rig::new(ROOMY);
    rig.put(&web(&[backend(A, "")]));
    rig.put(&web(&[backend(A, "new")]));
    assert_eq!(rig.backend(A, ""), Some((1, BackendState::Retired, false)));
}

#[test]
fn an_endpoint_that_returns_has_its_id_back() {
    let mut rig = Rig::new(ROOMY);
    rig.put(&web(&[backend(A, "a"), backend(B, "b")]));
    let generation = rig.maps.backends[&2].generation();
    rig.put(&web(&[backend(A, "a")]));
    rig.put(&web(&[backend(A, "a"), backend(B, "b")]));
    assert_eq!(rig.backend(B, "b"), Some((2, BackendState::Active, true)));
    assert_eq!(rig.maps.backends[&2].generation(), generation);
}

#[test]
fn an_id_is_free_when_no_flow_refers_to_it() {
    let mut rig = Rig::new(ROOMY);
    rig.put(&web(&[backend(A, "a"), plan::Backend { local: true, ..backend(B, "b") }]));
    rig.put(&web(&[backend(A, "a")]));
    assert_eq!(rig.reclaim(&[2]), [], "a flow still does");
    let freed = rig.tables.backends.get(2).unwrap().row.generation();
    assert_eq!(kinds(&rig.reclaim(&[])), ["backend", "no local", "forget backend"]);
    assert_eq!(rig.maps.backends[&2].state(), BackendState::Free);
    rig.put(&web(&[backend(A, "a"), backend("10.1.0.3:1", "c")]));
    assert_eq!(rig.backend("10.1.0.3:1", "c"), Some((2, BackendState::Active, true)));
    assert!(rig.maps.backends[&2].generation() > freed, "and tells its owners apart");
}

#[test]
fn nothing_is_reused_before_programs_have_let_go_of_it() {
    let mut rig = Rig::new(ROOMY);
    rig.put(&web(&[backend(A, "a")]));
    rig.put(&web(&[backend(B, "b")]));
    let first = |ops: Vec<Op>| {
        ops.into_iter().find_map(|op| match op {
            Op::Segment { first, .. } => Some(first),
            _ => None,
        })
    };
    assert_eq!(first(rig.put(&web(&[backend(A, "a"), backend(B, "b")]))), Some(3));
    rig.tables.thaw(Duration::from_secs(10));
    assert_eq!(first(rig.put(&web(&[backend(A, "a")]))), Some(4), "seen, but not long enough ago");
    rig.tables.thaw(Duration::from_secs(11));
    assert_eq!(first(rig.put(&web(&[backend(B, "b")]))), Some(1));
}

#[test]
fn a_service_that_goes_takes_its_frontends_first_and_its_slot_last() {
    let mut rig = Rig::new(ROOMY);
    let mut plan = with_node_port(web(&[backend(A, "a")]));
    plan.ports[0].frontends[1].kind = FrontendKind::LoadBalancer;
    plan.ports[0].source_ranges.push("198.51.100.7/24".parse().unwrap());
    rig.reset(&[&plan]);
    let empty = {
        let mut rig = Rig::new(ROOMY);
        rig.reset(&[]);
        rig.maps
    };
    let ops = rig.apply(&[Change::Remove(&plan.name)]).ops;
    assert_eq!(
        kinds(&ops),
        ["no frontend", "no frontend", "no frontend", "no source", "service", "backend"]
    );
    assert_eq!(kinds(&rig.reclaim(&[])), ["backend", "forget backend", "forget service"]);
    assert_eq!(rig.maps.frontends, empty.frontends);
    assert_eq!(
        (&rig.maps.service_names, &rig.maps.sources),
        (&empty.service_names, &empty.sources)
    );
}

#[test]
fn a_service_that_comes_back_has_its_slot_and_backends_again() {
    let mut rig = Rig::new(ROOMY);
    let plan = web(&[backend(A, "a")]);
    rig.put(&plan);
    rig.apply(&[Change::Remove(&plan.name)]);
    let ops = rig.put(&plan);
    assert_eq!(kinds(&ops), ["backend", "segment", "service", "frontend", "frontend"]);
    assert_eq!(rig.tables.services.ids().len(), 1);
}

#[test]
fn a_frontend_moves_between_services_without_a_gap() {
    let mut rig = Rig::new(ROOMY);
    let (old, new) = (web(&[]), service("new", "10.96.0.1:80", &[]));
    rig.put(&old);
    let ops = rig.apply(&[Change::Remove(&old.name), Change::Put(&new)]).ops;
    assert_eq!(kinds(&ops), ["name service", "service", "frontend", "service"]);
}

#[test]
fn two_services_at_one_address_take_turns_by_name() {
    let mut rig = Rig::new(ROOMY);
    let (first, second) = (service("a", "10.96.0.1:80", &[]), service("b", "10.96.0.1:80", &[]));
    rig.put(&second);
    rig.put(&first);
    let place = Place::new("10.96.0.1:80".parse().unwrap(), 6);
    let owner = |rig: &Rig| rig.maps.service_names[&rig.maps.frontends[&place].service()].clone();
    assert_eq!(owner(&rig), "shop/a||TCP|4");
    rig.restart();
    assert_eq!(rig.reset(&[&first, &second]).ops, []);
    rig.apply(&[Change::Remove(&first.name)]);
    assert_eq!(owner(&rig), "shop/b||TCP|4");
}

#[test]
fn addresses_of_the_node_are_its_own_whoever_else_uses_them() {
    let mut rig = Rig::new(ROOMY);
    let mut plan = web(&[]);
    let external = |address: &str| Frontend {
        kind: FrontendKind::ExternalIp,
        address: address.parse().unwrap(),
    };
    plan.ports[0].frontends.extend([external("192.0.2.1:80"), external("203.0.113.9:80")]);
    rig.reset(&[&plan]);
    let kind = |rig: &Rig, address: &str| {
        let place = Place::of_address(address.parse().unwrap());
        rig.maps.frontends.get(&place).and_then(lb_common::abi::Frontend::kind)
    };
    assert_eq!(kind(&rig, "192.0.2.1"), Some(Kind::NodeAddress));
    assert_eq!(kind(&rig, "203.0.113.9"), Some(Kind::VirtualAddress));
    assert_eq!(kind(&rig, "10.96.0.1"), Some(Kind::ClusterAddress));
    assert_eq!(kind(&rig, "127.0.0.1"), None);
    rig.addresses.remove(&"192.0.2.1".parse::<IpAddr>().unwrap());
    rig.apply(&[]);
    assert_eq!(kind(&rig, "192.0.2.1"), Some(Kind::VirtualAddress));
}

#[test]
fn a_policy_changes_after_the_set_that_it_asks_for_exists() {
    let mut rig = Rig::new(ROOMY);
    let here = plan::Backend { local: true, ..backend(A, "a") };
    let cluster = with_node_port(web(&[here, backend(B, "b")]));
    let mut local = cluster.clone();
    local.ports[0].external = plan::Scope::Local;
    rig.put(&cluster);
    let ops = rig.put(&local);
    assert_eq!(kinds(&ops), ["segment", "segment", "answer", "answer", "rules", "answer"]);
    let unset = matches!(
        ops[5],
        Op::Answer { answer: Answer::UNSET, scope: Scope::Cluster, ring: true, .. }
    );
    assert!(unset, "{ops:?}");
}

#[test]
fn every_map_that_services_fill_is_told_to_be_as_full_as_it_is() {
    let mut rig = Rig::new(ROOMY);
    let here = |address: &str| plan::Backend { local: true, ..backend(address, address) };
    let mut plan = web(&[here(A), here(B), backend("10.1.9.1:1", "c")]);
    plan.ports[0].source_ranges = vec!["198.51.100.7/24".parse().unwrap()];
    rig.put(&plan);
    for _ in 0..2 {
        let used: BTreeMap<_, _> =
            rig.tables.usage().into_iter().map(|it| (it.map, (it.used, it.capacity))).collect();
        let locals = (rig.maps.locals.len(), ROOMY.locals as usize);
        assert_eq!(locals.0, 2);
        assert_eq!((used["LOCALS_V4"], used["LOCALS_V6"].0), (locals, 0));
        assert_eq!((used["SOURCES_V4"], used["SOURCES_V6"].0), ((1, ROOMY.sources as usize), 0));
        assert_eq!((used["BACKENDS"].0, used["SERVICES"].0), (3, 1));
        assert_eq!(used["NODES"], (0, lb_common::limits::NODES as usize - 1));
        rig.restart();
    }
}

#[test]
fn source_ranges_exist_before_they_are_asked_for() {
    let mut rig = Rig::new(ROOMY);
    let mut plan = web(&[]);
    rig.put(&plan);
    plan.ports[0].source_ranges = vec!["198.51.100.7/24".parse().unwrap()];
    assert_eq!(kinds(&rig.put(&plan)), ["source", "rules"]);
    assert_eq!(rig.maps.sources, BTreeSet::from([(1, "198.51.100.0/24".parse().unwrap())]));
    plan.ports[0].source_ranges.clear();
    assert_eq!(kinds(&rig.put(&plan)), ["rules", "no source"]);
}

#[test]
fn another_way_to_a_backend_changes_its_row_alone() {
    let mut rig = Rig::new(ROOMY);
    rig.put(&web(&[backend(A, "a"), plan::Backend { local: true, ..backend(B, "b") }]));
    let towards = |_| Some("192.0.2.77".parse().unwrap());
    let environment = Environment {
        settings: &rig.settings,
        node_addresses: &rig.addresses,
        source_towards: &towards,
        dsr: None,
    };
    let ops = rig.tables.reroute(&environment);
    assert_eq!(kinds(&ops), ["backend"]);
    let Op::Backend { id: 1, row } = ops[0] else { panic!("{ops:?}") };
    assert_eq!((row.source()[3], row.generation()), (77, rig.maps.backends[&1].generation()));
    assert_eq!(rig.tables.reroute(&environment), []);
}

#[test]
fn what_does_not_fit_is_refused_whole_and_by_name() {
    let tight = Capacities {
        services: 3,
        backends: 4,
        arena_lines: 20,
        frontends: 4,
        locals: 1,
        sources: 1,
    };
    let local = |address: &str| plan::Backend { local: true, ..backend(address, "x") };
    let other = |backends: &[plan::Backend]| service("other", "10.96.0.1:81", backends);
    let mut two_ranges = other(&[]);
    two_ranges.ports[0].source_ranges =
        ["10.0.0.0/8", "11.0.0.0/8"].map(|net| net.parse().unwrap()).to_vec();
    let mut two_ports = other(&[backend(B, "b")]);
    let second = PortPlan { port_name: "second".into(), ..two_ports.ports[0].clone() };
    two_ports.ports.push(second);
    let cases = [
        ("SERVICES", two_ports),
        ("BACKENDS", other(&[1, 2, 3].map(|n| backend(&format!("10.1.9.{n}:1"), "x")))),
        ("ARENA", with_node_port(other(&[backend(B, "b"), backend(A, "a")]))),
        ("FRONTENDS_V4", service("other", "10.96.0.9:80", &[])),
        ("LOCALS_V4", other(&[local(A), local(B)])),
        ("SOURCES_V4", two_ranges),
    ];
    for (map, plan) in cases {
        let mut rig = Rig::new(tight);
        rig.tables.capacities.frontends = if map == "FRONTENDS_V4" { 4 } else { 9 };
        rig.reset(&[&web(&[backend(A, "a")])]);
        if map == "ARENA" {
            rig.tables.arena.take(12).unwrap();
            rig.tables.arena.take(12).unwrap();
        }
        let (maps, used) = (rig.maps.clone(), rig.tables.usage());
        let planned = rig.apply(&[Change::Put(&plan)]);
        assert_eq!(planned.ops, [], "{map}");
        let (name, refusal) = &planned.refused[0];
        assert_eq!(name, &plan.name);
        assert!(
            refusal.to_string().starts_with(&format!("map {map} is full: ")),
            "{map}: {refusal}"
        );
        assert_eq!((&rig.maps, rig.tables.usage()), (&maps, used), "{map}");
        assert_eq!(rig.put(&web(&[backend(A, "a")])), [], "what was there is as it was");
    }
}

#[test]
fn the_way_to_a_backend_is_looked_up_when_it_comes_and_when_ways_may_have_changed() {
    let mut rig = Rig::new(ROOMY);
    let one = web(&[backend(A, "a")]);
    let two = web(&[backend(A, "a"), backend(B, "b")]);
    let asked = |rig: &mut Rig, what: &dyn Fn(&mut Tables, &Environment<'_>) -> Vec<Op>| {
        let asked = RefCell::new(Vec::new());
        let towards = |backend: IpAddr| {
            asked.borrow_mut().push(backend.to_string());
            Some(IpAddr::from([192, 0, 2, 1]))
        };
        let environment = Environment {
            settings: &rig.settings,
            node_addresses: &rig.addresses,
            source_towards: &towards,
            dsr: None,
        };
        what(&mut rig.tables, &environment).iter().for_each(|op| rig.maps.run(op));
        asked.take()
    };
    let put = |plan| {
        move |tables: &mut Tables, it: &Environment<'_>| tables.apply(it, &[Change::Put(plan)]).ops
    };
    let [a, b] = [A, B].map(|at| at.parse::<SocketAddr>().unwrap().ip().to_string());
    assert_eq!(asked(&mut rig, &put(&one)), [a.as_str()]);
    assert_eq!(asked(&mut rig, &put(&two)), [b.as_str()], "the one that came");
    assert_eq!(asked(&mut rig, &put(&one)), Vec::<String>::new());
    rig.restart();
    let listed = asked(&mut rig, &|tables, it| tables.reset(it, &[&two]).ops);
    assert_eq!(listed, [a, b], "once each");
}

#[test]
fn a_refused_service_fits_when_another_has_gone() {
    let mut rig = Rig::new(Capacities { services: 2, ..ROOMY });
    let (first, second) = (web(&[]), service("second", "10.96.0.2:80", &[]));
    rig.put(&first);
    assert_eq!(rig.apply(&[Change::Put(&second)]).refused.len(), 1);
    rig.apply(&[Change::Remove(&first.name)]);
    rig.reclaim(&[]);
    rig.put(&second);
}

#[test]
fn what_an_interrupted_change_left_goes_with_the_first_complete_listing() {
    let mut rig = Rig::new(ROOMY);
    let kept = web(&[backend(A, "a")]);
    rig.reset(&[&kept]);
    let clean = rig.maps.clone();
    let mut other = with_node_port(service("other", "10.96.0.2:80", &[backend(B, "b")]));
    other.ports[0].source_ranges.push("10.0.0.0/8".parse().unwrap());
    let ops = rig.plan(|tables, environment| tables.apply(environment, &[Change::Put(&other)])).ops;
    for stop in 0..ops.len() {
        let mut rig = Rig { maps: clean.clone(), ..Rig::new(ROOMY) };
        ops[..stop].iter().for_each(|op| rig.maps.run(op));
        rig.restart();
        rig.reset(&[&kept]);
        rig.reclaim(&[]);
        let rest = |maps: &Image| {
            let Image { frontends, service_names, backend_names, locals, sources, .. } = maps;
            let names = (service_names.clone(), backend_names.clone());
            (frontends.clone(), names, locals.clone(), sources.clone())
        };
        assert_eq!(rest(&rig.maps), rest(&clean), "stopped before {:?}", ops[stop]);
    }
}

/// A small world of Services, drawn at random.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = mix(self.0, 0x5eed);
        (self.0 >> 32) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn service(&mut self, number: u64) -> ServicePlan {
        let name = ObjectName::new("shop", format!("s{number}"));
        let ports = (0..=self.below(2)).flat_map(|port| {
            [Family::V4, Family::V6].map(|family| self.port(&name, number, port, family))
        });
        ServicePlan { name: name.clone(), ports: ports.collect(), health_check: None }
    }

    fn port(&mut self, name: &ObjectName, number: u64, port: u64, family: Family) -> PortPlan {
        let ip = |net4: &str, net6: &str, host: u64| match family {
            Family::V4 => format!("{net4}.{host}"),
            Family::V6 => format!("[{net6}::{host}]"),
        };
        let at = |ip: String, port: u64| format!("{ip}:{port}").parse::<SocketAddr>().unwrap();
        let mut frontends = vec![Frontend {
            kind: FrontendKind::ClusterIp,
            address: at(ip("10.96.0", "fd00", number + 1), 80 + port),
        }];
        if self.one_in(2) {
            // Sometimes one that another Service asks for, too.
            let host = self.below(3);
            let kind = FrontendKind::ExternalIp;
            let address = at(ip("203.0.113", "2001:db8:1", host + 1), 80 + port);
            frontends.push(Frontend { kind, address });
        }
        let mut sets = [Vec::new(), Vec::new(), Vec::new()];
        for host in 0..6 {
            let backend = plan::Backend {
                address: at(ip("10.1.0", "fd01", host + 1), 8080),
                local: host < 2,
                node: self.one_in(2).then(|| "n".into()),
                zone: None,
                state: match self.one_in(4) {
                    true => plan::BackendState::Terminating,
                    false => plan::BackendState::Active,
                },
                weight: self.below(3) as u16,
                uid: ["", "one", "two"][self.below(3) as usize].into(),
                serving: !self.one_in(3),
            };
            sets[self.below(3) as usize].push(backend);
        }
        let [usable, retired, _] = sets;
        let when_empty = if self.one_in(2) { WhenEmpty::Reject } else { WhenEmpty::Drop };
        let local = usable.iter().filter(|b| b.local).cloned().collect();
        let scope = |local| if local { plan::Scope::Local } else { plan::Scope::Cluster };
        PortPlan {
            service: name.clone(),
            port_name: format!("p{port}"),
            protocol: Protocol::Tcp,
            family,
            frontends,
            cluster: BackendSet { backends: usable, when_empty },
            local: BackendSet { backends: local, when_empty },
            retired,
            internal: scope(self.one_in(2)),
            external: scope(self.one_in(2)),
            affinity_seconds: self.one_in(3).then_some(60),
            source_ranges: match (self.one_in(3), family) {
                (true, Family::V4) => vec!["198.51.100.0/24".parse().unwrap()],
                (true, Family::V6) => vec!["2001:db8:2::/64".parse().unwrap()],
                (false, _) => Vec::new(),
            },
            algorithm: [None, Some(Algorithm::Maglev), Some(Algorithm::Random)]
                [self.below(3) as usize],
            spread: None,
        }
    }
}

/// What clients of one answer meet: its backends in slot order, or the answer itself where it leads
/// nowhere.
type Meaning = Result<Vec<(SocketAddr, u64)>, Answer>;

/// What every frontend means, without ids. Panics if an answer leads to nobody, to a segment of
/// somebody else or to a backend that is not the service's own and active.
fn meanings(maps: &Image) -> BTreeMap<(String, usize), Meaning> {
    let mut meanings = BTreeMap::new();
    for (id, name) in &maps.service_names {
        let row = maps.services.get(id).copied().unwrap_or_default();
        for (index, meaning) in meaning(maps, *id, &row).into_iter().enumerate() {
            meanings.insert((name.clone(), index), meaning);
        }
    }
    for frontend in maps.frontends.values().filter(|f| f.service() != 0) {
        let name = maps.service_names.get(&frontend.service()).expect("a frontend of a service");
        let answers = [0, 2].map(|list| meanings[&(name.clone(), list)] != meanings_unset());
        assert_ne!(answers, [false; 2], "{name} has a frontend");
    }
    meanings
}

fn meanings_unset() -> Meaning {
    Err(Answer::UNSET)
}

fn meaning(maps: &Image, id: u32, row: &Service) -> [Meaning; ANSWERS.len()] {
    ANSWERS.map(|(scope, ring)| {
        let answer = row.answer(scope, ring);
        if matches!(answer.class(), SizeClass::Unset | SizeClass::Reject | SizeClass::Drop) {
            return Err(answer);
        }
        let slots = maps.slots(id, answer).expect("a whole segment");
        let backend = |slot: u32| {
            let row = maps.backends.get(&slot).expect("a backend");
            assert_eq!((row.service(), row.state()), (id, BackendState::Active), "backend {slot}");
            let port = u16::from_be_bytes(row.port());
            let address = match <[u8; 4]>::try_from(&row.address()[..4]) {
                Ok(v4) if !row.is_v6() => IpAddr::from(v4),
                _ => IpAddr::from(*row.address()),
            };
            (SocketAddr::new(address, port), row.identity())
        };
        Ok(slots.into_iter().map(backend).collect())
    })
}

/// Everything that must not depend on what was there before.
fn essence(maps: &Image) -> impl PartialEq + std::fmt::Debug + use<> {
    let name = |id: u32| maps.service_names.get(&id).cloned();
    let open: BTreeSet<String> = maps
        .services
        .iter()
        .filter(|(_, row)| {
            row.answer(Scope::Cluster, false) != Answer::UNSET
                || row.answer(Scope::Local, false) != Answer::UNSET
        })
        .filter_map(|(id, _)| name(*id))
        .collect();
    let frontends: Vec<_> =
        maps.frontends.iter().map(|(at, f)| (*at, f.kind(), name(f.service()))).collect();
    let sources: BTreeSet<_> = maps.sources.iter().map(|(id, net)| (name(*id), *net)).collect();
    let rules: BTreeMap<_, _> = maps
        .services
        .iter()
        .filter_map(|(id, row)| Some((name(*id)?, row)))
        .filter(|(name, _)| open.contains(name))
        .map(|(name, row)| {
            (
                name,
                (
                    row.internal(),
                    row.external(),
                    row.ring_inside(),
                    row.ring_outside(),
                    row.has_source_ranges(),
                    row.affinity_seconds(),
                ),
            )
        })
        .collect();
    let active: BTreeSet<_> = maps
        .live_backends()
        .filter(|(_, row)| row.state() == BackendState::Active)
        .map(|(id, row)| {
            (
                name(row.service()),
                *row.address(),
                row.identity(),
                *row.source(),
                row.is_local(),
                row.weight(),
                maps.backend_names[&id].clone(),
            )
        })
        .collect();
    let mut meanings = meanings(maps);
    meanings.retain(|(name, _), _| open.contains(name));
    // A ring's size depends on how many backends there have ever been; who is in it does not.
    for (_, ring) in meanings.iter_mut().filter(|((_, answer), _)| answer % 2 == 1) {
        if let Ok(slots) = ring {
            slots.sort_unstable();
            slots.dedup();
        }
    }
    (frontends, sources, rules, active, meanings)
}

/// Runs `ops` one by one: after each, every answer of every service is the one before all of them
/// or the one after.
fn every_prefix_serves(before: &Image, ops: &[Op]) {
    let mut after = before.clone();
    ops.iter().for_each(|op| after.run(op));
    let (old, new) = (meanings(before), meanings(&after));
    let mut maps = before.clone();
    for op in ops {
        maps.run(op);
        let touched = match op {
            Op::Service { id, .. } | Op::Rules { id, .. } | Op::Answer { service: id, .. } => *id,
            Op::Backend { row, .. } => row.service(),
            Op::Segment { first, lines } => {
                assert!(!is_read(&maps, *first, lines.len() as u32), "{op:?}");
                continue;
            }
            Op::PutFrontend { frontend, .. } if frontend.service() != 0 => {
                let row = maps.services[&frontend.service()];
                assert!(!publish::is_unset(&row), "{op:?}");
                continue;
            }
            _ => continue,
        };
        let Some(name) = maps.service_names.get(&touched) else { continue };
        let row = maps.services.get(&touched).copied().unwrap_or_default();
        for (index, meaning) in meaning(&maps, touched, &row).into_iter().enumerate() {
            let what = (name.clone(), index);
            let unset = meaning == meanings_unset() && !old.contains_key(&what);
            let known = old.get(&what) == Some(&meaning) || new.get(&what) == Some(&meaning);
            assert!(known || unset, "{what:?} after {op:?}");
        }
    }
}

/// Whether an answer leads into these lines.
fn is_read(maps: &Image, first: u32, lines: u32) -> bool {
    maps.services.values().flat_map(|row| ANSWERS.map(|(s, ring)| row.answer(s, ring))).any(
        |answer| {
            let slots = match answer.class() {
                SizeClass::Unset | SizeClass::Reject | SizeClass::Drop => return false,
                SizeClass::List => maps.arena[&answer.line()].slots(),
                SizeClass::Ring(slots) => slots,
            };
            let end = answer.line() + Line::lines_for(slots);
            answer.line() < first + lines && first < end
        },
    )
}

#[test]
fn any_sequence_of_changes_ends_like_a_fresh_start_and_serves_all_the_way() {
    for seed in 0..25 {
        let mut draw = Draw(seed);
        let mut rig = Rig::new(ROOMY);
        let mut wanted: BTreeMap<u64, ServicePlan> = BTreeMap::new();
        rig.reset(&[]);
        for _ in 0..12 {
            let mut removed = Vec::new();
            for _ in 0..=draw.below(3) {
                let number = draw.below(4);
                if draw.one_in(3) {
                    removed.extend(wanted.remove(&number).map(|plan| plan.name));
                } else {
                    let plan = draw.service(number);
                    removed.retain(|name| *name != plan.name);
                    wanted.insert(number, plan);
                }
            }
            let changes: Vec<_> = wanted
                .values()
                .map(Change::Put)
                .chain(removed.iter().map(Change::Remove))
                .collect();
            let before = rig.maps.clone();
            let planned = rig.apply(&changes);
            assert_eq!(planned.refused, []);
            every_prefix_serves(&before, &planned.ops);
            if draw.one_in(2) {
                rig.reclaim(&[draw.below(20) as u32]);
            }
            let mut fresh = Rig::new(ROOMY);
            fresh.reset(&wanted.values().collect::<Vec<_>>());
            assert_eq!(essence(&rig.maps), essence(&fresh.maps), "seed {seed}");
        }
    }
}

#[test]
fn a_restart_that_changes_nothing_writes_nothing() {
    for seed in 100..140 {
        let mut draw = Draw(seed);
        let mut rig = Rig::new(ROOMY);
        let mut wanted = BTreeMap::new();
        for round in 0..8 {
            for number in 0..4 {
                if draw.one_in(2) {
                    wanted.insert(number, draw.service(number));
                } else if draw.one_in(3) {
                    wanted.remove(&number);
                }
            }
            let plans: Vec<_> = wanted.values().collect();
            rig.reset(&plans);
            rig.restart();
            assert_eq!(rig.reset(&plans), Planned::default(), "seed {seed}, round {round}");
        }
    }
}

#[test]
fn a_restart_after_any_write_ends_where_an_undisturbed_run_does() {
    for seed in 200..206 {
        let mut draw = Draw(seed);
        let mut rig = Rig::new(ROOMY);
        let old: Vec<_> = (0..3).map(|number| draw.service(number)).collect();
        let new: Vec<_> = (1..4).map(|number| draw.service(number)).collect();
        rig.reset(&old.iter().collect::<Vec<_>>());
        let before = rig.maps.clone();
        let new: Vec<_> = new.iter().collect();
        let ops = rig.plan(|tables, environment| tables.reset(environment, &new)).ops;
        let mut whole = before.clone();
        ops.iter().for_each(|op| whole.run(op));
        for stop in (0..ops.len()).step_by(5) {
            let mut rig = Rig { maps: before.clone(), ..Rig::new(ROOMY) };
            ops[..stop].iter().for_each(|op| rig.maps.run(op));
            rig.restart();
            let interrupted = rig.maps.clone();
            let rest = rig.reset(&new).ops;
            every_prefix_serves(&interrupted, &rest);
            assert_eq!(essence(&rig.maps), essence(&whole), "seed {seed}, before {:?}", ops[stop]);
            assert_eq!(rig.reset(&new), Planned::default());
        }
    }
}
