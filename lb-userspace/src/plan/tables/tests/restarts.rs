//! Random Services change and agents end anywhere: what the maps hold then is what a fresh start
//! would have written, and every prefix of the writes serves.

use std::collections::BTreeMap;

use super::{
    draw::Draw,
    meaning::{essence, every_prefix_serves},
    *,
};

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
