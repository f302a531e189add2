//! Services come, change and go: what is written of them, and in which order.

use std::{collections::BTreeSet, net::IpAddr};

use lb_common::abi::{Answer, Kind, Scope, SizeClass};

use super::*;
use crate::{
    model::Algorithm,
    plan::{self, Frontend, FrontendKind, WhenEmpty},
};

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
