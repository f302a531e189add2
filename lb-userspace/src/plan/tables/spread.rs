//! Tests of DSR's part: nodes as they come and go, and what rings over them remember.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use lb_common::abi::{Kind, NodeSlot, Scope, Service, Settings, SizeClass};

use super::*;
use crate::{
    model::{ClusterNode, ClusterNodes, Family, Protocol},
    plan::{self, BackendSet, Frontend, FrontendKind, PortPlan, Spread, WhenEmpty},
};

const CAPACITIES: Capacities = Capacities {
    services: 16,
    backends: 64,
    arena_lines: 20_000,
    frontends: 64,
    locals: 16,
    sources: 16,
};

/// Tables of node `n1`, and the maps that they are written to.
struct Rig {
    tables: Tables,
    maps: Image,
    nodes: ClusterNodes,
    now: u32,
    clock: Duration,
}

impl Rig {
    fn new(nodes: &[&str]) -> Self {
        let nodes = nodes.iter().map(|name| ((*name).to_owned(), node(name))).collect();
        let (tables, maps) = (Tables::new(CAPACITIES), Image::default());
        Self { tables, maps, nodes, now: 1_000_000, clock: Duration::ZERO }
    }

    fn plan(&mut self, spread: bool, changes: &[Change<'_>]) -> Vec<Op> {
        let settings = Settings::default();
        let addresses = BTreeSet::from([address("n1")]);
        let environment = Environment {
            settings: &settings,
            node_addresses: &addresses,
            source_towards: &|_| Ok(Some(address("n1"))),
            dsr: spread.then_some(Dsr { nodes: &self.nodes, own: "n1", now: self.now }),
        };
        let planned = self.tables.apply(&environment, changes);
        assert_eq!(planned.refused, []);
        for op in &planned.ops {
            self.maps.run(op);
            self.is_whole();
        }
        planned.ops
    }

    fn put(&mut self, spread: &[(&str, u32)]) -> Vec<Op> {
        let plan = service(Protocol::Tcp, spread);
        self.plan(true, &[Change::Put(&plan)])
    }

    /// After each write, a slot of a ring leads to a node that is known, or to the rest.
    fn is_whole(&self) {
        for (id, row) in &self.maps.services {
            for word in self.slots(*id, row) {
                let NodeSlot { now, .. } = NodeSlot::from_word(word);
                assert!(now == NodeSlot::REST || self.maps.nodes.contains_key(&now), "slot {now}");
            }
        }
    }

    fn slots(&self, id: u32, row: &Service) -> Vec<u32> {
        let answer = row.answer(Scope::Nodes, true);
        match answer.class() {
            SizeClass::List => self.maps.slots(id, answer).expect("a whole segment"),
            _ => Vec::new(),
        }
    }

    /// The slots of the only Service, by the names of their nodes.
    fn ring(&self) -> Vec<(String, String)> {
        let (id, row) = self.maps.services.iter().next().expect("a service");
        let name = |id: u32| match id {
            NodeSlot::REST => "rest".to_owned(),
            id => NodeKey::parse(&self.maps.node_names[&id]).expect("a name").name,
        };
        let words = self.slots(*id, row).into_iter().map(NodeSlot::from_word);
        words.map(|slot| (name(slot.now), name(slot.before))).collect()
    }

    fn changed(&self) -> u32 {
        let row = self.maps.services.values().next().expect("a service");
        self.maps.arena[&row.answer(Scope::Nodes, true).line()].changed()
    }
}

fn address(name: &str) -> IpAddr {
    let last = name.trim_start_matches('n').parse().expect("a number");
    IpAddr::from([192, 0, 2, last])
}

fn node(name: &str) -> ClusterNode {
    let IpAddr::V4(v4) = address(name) else { unreachable!("IPv4") };
    ClusterNode { v4: Some(v4), v6: None, forwards: true }
}

fn backend(address: &str) -> plan::Backend {
    plan::Backend {
        address: address.parse().expect("an address"),
        local: false,
        node: None,
        zone: None,
        state: plan::BackendState::Active,
        weight: 1,
        uid: "".into(),
        serving: true,
    }
}

/// A Service that is spread over nodes by these weights; the name "rest" stands for a backend that is
/// elsewhere.
fn service(protocol: Protocol, weights: &[(&str, u32)]) -> ServicePlan {
    let name = ObjectName::new("shop", "web");
    let elsewhere = [backend("10.9.0.1:80")];
    let rest = weights.iter().any(|(name, _)| *name == "rest");
    let nodes: BTreeMap<Arc<str>, u32> = weights
        .iter()
        .filter(|(name, _)| *name != "rest")
        .map(|(name, weight)| (Arc::from(*name), *weight))
        .collect();
    let usable_here = nodes.contains_key("n1");
    let set = |backends: &[plan::Backend]| BackendSet {
        backends: backends.to_vec(),
        when_empty: WhenEmpty::Reject,
    };
    let vip: SocketAddr = "203.0.113.1:80".parse().expect("an address");
    let port = PortPlan {
        service: name.clone(),
        port_name: String::new(),
        protocol,
        family: Family::V4,
        frontends: vec![Frontend { kind: FrontendKind::LoadBalancer, address: vip }],
        cluster: set(&elsewhere),
        local: set(&[]),
        retired: Vec::new(),
        internal: plan::Scope::Cluster,
        external: plan::Scope::Cluster,
        affinity_seconds: None,
        source_ranges: Vec::new(),
        algorithm: None,
        spread: Some(Spread {
            serving: nodes.keys().cloned().collect(),
            nodes,
            rest: if rest { elsewhere.to_vec() } else { Vec::new() },
            usable_here,
        }),
    };
    ServicePlan { name, ports: vec![port], health_check: None }
}

#[test]
fn only_nodes_with_endpoints_that_serve_are_asked_about_what_may_begin_a_flow() {
    let mut rig = Rig::new(&["n1", "n2", "n3"]);
    let moved = |rig: &Rig| -> Vec<(String, bool)> {
        let (id, row) = rig.maps.services.iter().next().expect("a service");
        let slots = rig.slots(*id, row).into_iter().map(NodeSlot::from_word);
        let asks = slots.map(|slot| slot.asks);
        let moved = rig.ring().into_iter().zip(asks).filter(|((now, before), _)| now != before);
        moved.map(|((_, before), asks)| (before, asks)).collect()
    };
    rig.put(&[("n1", 1), ("n2", 1)]);
    rig.put(&[("n1", 1), ("n2", 1), ("n3", 1)]);
    assert!(moved(&rig).iter().all(|(_, asks)| *asks), "from nodes that serve");
    rig.put(&[("n1", 1), ("n2", 1)]);
    let moved = moved(&rig);
    assert!(
        moved.iter().all(|(before, asks)| *asks == (before != "n3")),
        "n3 has nothing any more"
    );
    assert!(moved.iter().any(|(before, _)| before == "n3"));
}

#[test]
fn nodes_are_written_before_the_rings_that_name_them_and_are_known_by_their_addresses() {
    let mut rig = Rig::new(&["n1", "n2", "n3"]);
    rig.put(&[("n1", 1), ("n2", 1)]);
    let kind = |name| rig.maps.frontends[&Place::of_address(address(name))].kind();
    assert_eq!(
        [kind("n1"), kind("n2"), kind("n3")],
        [Some(Kind::NodeAddress), Some(Kind::PeerAddress), Some(Kind::PeerAddress)]
    );
    let own = rig.maps.settings.unwrap().own_node;
    assert_eq!(NodeKey::parse(&rig.maps.node_names[&own]).unwrap().name, "n1");
    let row = rig.maps.services.values().next().unwrap();
    assert!(row.is_spread() && row.is_usable_here());
    assert_eq!(row.answer(Scope::Cluster, true).class(), SizeClass::Unset, "no ring of backends");
}

#[test]
fn a_new_ring_has_no_past_and_a_changed_one_remembers_where_each_slot_led() {
    let mut rig = Rig::new(&["n1", "n2", "n3"]);
    rig.put(&[]);
    rig.put(&[("n1", 1), ("n2", 1)]);
    let first = rig.ring();
    assert!(first.iter().all(|(now, before)| now == before), "it began without endpoints");
    rig.now += 100;
    rig.put(&[("n1", 1), ("n2", 1), ("n3", 1)]);
    let second = rig.ring();
    assert_eq!((first.len(), second.len(), rig.changed()), (251, 1004, rig.now));
    let moved = second.iter().filter(|(now, before)| now != before).count();
    assert!((600..760).contains(&moved), "{moved} of 1004 slots moved");
    assert!(second.iter().filter(|(now, _)| now == "n3").all(|(_, before)| before != "n3"));
    for (at, (_, before)) in second.iter().enumerate() {
        assert_eq!(*before, first[at / 4].0, "slot {at}: the same hashes");
    }
    // Without a change it is left alone, and so it is where nobody is ready: connections go on.
    assert_eq!(rig.put(&[]), [Op::Rules { id: 1, row: rig.maps.services[&1] }]);
    rig.put(&[("n1", 1), ("n2", 1), ("n3", 1)]);
    assert_eq!(rig.ring(), second);
    rig.now += 100;
    assert_eq!(rig.put(&[("n1", 1), ("n2", 1), ("n3", 1)]), []);
    // Two changes ago nobody knows any more, but where nothing changed the memory stays.
    rig.put(&[("n1", 1), ("n3", 1)]);
    let third = rig.ring();
    for ((was, before), (now, since)) in second.iter().zip(&third) {
        assert_eq!(since, if was == now { before } else { was });
    }
}

#[test]
fn datagrams_are_looked_for_elsewhere_only_as_long_as_their_flows_may_live() {
    let mut rig = Rig::new(&["n1", "n2", "n3"]);
    let put = |rig: &mut Rig, weights: &[(&str, u32)]| {
        let plan = service(Protocol::Udp, weights);
        rig.plan(true, &[Change::Put(&plan)]);
    };
    put(&mut rig, &[("n1", 1), ("n2", 1), ("n3", 1)]);
    put(&mut rig, &[("n1", 1), ("n2", 1)]);
    assert!(rig.ring().iter().any(|(now, before)| now != before));
    rig.now += Settings::default().timeouts.udp;
    put(&mut rig, &[("n1", 2), ("n2", 2)]);
    assert!(rig.ring().iter().all(|(now, before)| now == before));
}

#[test]
fn what_was_served_by_snat_is_looked_for_here_once_a_service_is_spread() {
    let mut rig = Rig::new(&["n1", "n2"]);
    let mut plan = service(Protocol::Tcp, &[("n2", 1)]);
    let spread = plan.ports[0].spread.take();
    rig.plan(false, &[Change::Put(&plan)]);
    assert_eq!(rig.maps.settings.unwrap().own_node, 0);
    plan.ports[0].spread = spread;
    rig.plan(true, &[Change::Put(&plan)]);
    assert!(rig.ring().iter().all(|slot| *slot == ("n2".to_owned(), "rest".to_owned())));
    // And back.
    plan.ports[0].spread = None;
    rig.plan(false, &[Change::Put(&plan)]);
    assert_eq!(rig.maps.settings.unwrap().own_node, 0);
    assert!(!rig.maps.services.values().next().unwrap().is_spread());
    assert_eq!(rig.maps.nodes, BTreeMap::new());
    let peer = Place::of_address(address("n2"));
    assert!(!rig.maps.frontends.contains_key(&peer));
}

#[test]
fn places_without_an_agent_have_their_share_and_their_backends_an_answer() {
    let mut rig = Rig::new(&["n1", "n2"]);
    rig.put(&[("n2", 1), ("rest", 1)]);
    let rest = rig.ring().iter().filter(|(now, _)| now == "rest").count();
    assert!((120..=131).contains(&rest), "{rest} of 251");
    let (id, row) = rig.maps.services.iter().next().unwrap();
    let slots = rig.maps.slots(*id, row.answer(Scope::Rest, true)).unwrap();
    assert!(slots.iter().all(|backend| rig.maps.backends[backend].address()[..4] == [10, 9, 0, 1]));
}

#[test]
fn a_node_that_went_keeps_its_number_while_a_ring_remembers_it_and_an_agent_that_starts_knows_all()
{
    let mut rig = Rig::new(&["n1", "n2", "n3"]);
    rig.put(&[("n1", 1), ("n2", 1), ("n3", 1)]);
    let id = |rig: &Rig, wanted: &str| {
        let of = |(_, name): &(&u32, &String)| NodeKey::parse(name).unwrap().name == wanted;
        rig.maps.node_names.iter().find(of).map(|(id, _)| *id)
    };
    let gone = id(&rig, "n3").unwrap();
    rig.nodes.remove("n3");
    rig.put(&[("n1", 1), ("n2", 1)]);
    assert!(!rig.maps.nodes.contains_key(&gone), "it is nobody's");
    let housekeeping = |rig: &mut Rig| {
        for _ in 0..3 {
            rig.clock += GRACE;
            let ops = rig.tables.reclaim(rig.clock, &BTreeSet::new());
            ops.iter().for_each(|op| rig.maps.run(op));
        }
    };
    housekeeping(&mut rig);
    assert_eq!(id(&rig, "n3"), Some(gone), "slots remember it");
    rig.tables = Tables::adopt(CAPACITIES, &rig.maps);
    assert_eq!(rig.put(&[("n1", 1), ("n2", 1)]), [], "a restart that changes nothing");
    rig.put(&[("n1", 1)]);
    rig.put(&[("n2", 1)]);
    housekeeping(&mut rig);
    assert_eq!(id(&rig, "n3"), None);
    rig.nodes.insert("n4".into(), node("n4"));
    rig.put(&[("n4", 1)]);
    assert_eq!(id(&rig, "n4"), Some(gone), "the lowest free one");
}

#[test]
fn nodes_with_other_numbers_agree_on_the_names_in_every_slot() {
    let (mut one, mut other) = (Rig::new(&["n1", "n2", "n3"]), Rig::new(&["n1", "n3"]));
    one.put(&[("n2", 2), ("n3", 1)]);
    other.put(&[("n3", 1)]);
    other.nodes.insert("n2".into(), node("n2"));
    other.put(&[("n2", 2), ("n3", 1)]);
    let names = |rig: &Rig| rig.ring().into_iter().map(|(now, _)| now).collect::<Vec<_>>();
    // The one grew, the other is as large as it ever was.
    assert_eq!(one.ring().len(), other.ring().len());
    assert_eq!(names(&one), names(&other));
    assert_ne!(one.maps.node_names, other.maps.node_names);
}
