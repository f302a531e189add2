//! Maps that are full, and how full they are.

use std::collections::BTreeMap;

use super::*;
use crate::plan::{self, PortPlan};

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
fn a_refused_service_fits_when_another_has_gone() {
    let mut rig = Rig::new(Capacities { services: 2, ..ROOMY });
    let (first, second) = (web(&[]), service("second", "10.96.0.2:80", &[]));
    rig.put(&first);
    assert_eq!(rig.apply(&[Change::Put(&second)]).refused.len(), 1);
    rig.apply(&[Change::Remove(&first.name)]);
    rig.reclaim(&[]);
    rig.put(&second);
}
