//! Backends leave, return and are replaced: whose flows go on, and what is reused when.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::abi::BackendState;

use super::*;
use crate::plan;

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
fn another_way_to_a_backend_changes_its_row_alone() {
    let mut rig = Rig::new(ROOMY);
    rig.put(&web(&[backend(A, "a"), plan::Backend { local: true, ..backend(B, "b") }]));
    let towards = |_| Ok(Some("192.0.2.77".parse().unwrap()));
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
fn a_way_that_cannot_be_asked_for_stays_and_a_new_backend_gets_the_guess() {
    let mut rig = Rig::new(ROOMY);
    let (one, two) = (web(&[backend(A, "a")]), web(&[backend(A, "a"), backend(B, "b")]));
    rig.put(&one);
    rig.restart();
    let before = rig.maps.backends[&1];
    let towards = |_| Err(Unasked { guess: Some("192.0.2.66".parse().unwrap()) });
    let environment = Environment {
        settings: &rig.settings,
        node_addresses: &rig.addresses,
        source_towards: &towards,
        dsr: None,
    };
    let ops = rig.tables.reset(&environment, &[&two]).ops;
    ops.iter().for_each(|op| rig.maps.run(op));
    assert_eq!(rig.maps.backends[&1], before, "as it was");
    assert_eq!(rig.maps.backends[&2].source()[..4], [192, 0, 2, 66]);
    assert_eq!(rig.tables.reroute(&environment), []);
    // And when it can be.
    let ops = rig.plan(|tables, it| Planned { ops: tables.reroute(it), ..Planned::default() }).ops;
    assert_eq!(kinds(&ops), ["backend"]);
    let Op::Backend { id: 2, row } = ops[0] else { panic!("{ops:?}") };
    assert_eq!(row.source()[..4], [192, 0, 2, 1]);
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
            Ok(Some(IpAddr::from([192, 0, 2, 1])))
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
