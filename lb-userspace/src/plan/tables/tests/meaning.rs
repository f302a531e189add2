//! What the maps mean to clients, and whether they are served after each of some writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use lb_common::abi::{Answer, BackendState, Line, Scope, Service, SizeClass};

use super::*;

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
pub fn essence(maps: &Image) -> impl PartialEq + std::fmt::Debug + use<> {
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
pub fn every_prefix_serves(before: &Image, ops: &[Op]) {
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
