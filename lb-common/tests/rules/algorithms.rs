//! How connections are shared out by each algorithm.

use std::collections::BTreeMap;

use lb_common::{
    abi::{AffinityKey, Backend, Scope, Service},
    addr::{Addr as _, V4},
    affinity::note,
    model::TestWorld,
    path::Hook,
    select::{Pick, choose},
    verdict::Reason,
    wire::proto,
    world::World as _,
};

use crate::{
    support::SYN,
    town::{SERVICE, Town},
};

/// How many of `draws` connections each backend gets, when none of them ever ends.
fn shares(world: &TestWorld, draws: u32) -> BTreeMap<u32, u32> {
    let mut shares = BTreeMap::new();
    for _ in 0..draws {
        let service = world.services[&SERVICE];
        let chance = u64::from(world.random()) << 32;
        let pick = Pick::of(world, SERVICE, &service, false, chance);
        let choice = choose(world, SERVICE, Scope::Cluster, pick).expect("a backend");
        note(world, &AffinityKey::nobody(SERVICE), choice.id, 1);
        *shares.entry(choice.id).or_default() += 1;
        *world.loads.borrow_mut().entry(choice.id).or_default() += 1;
    }
    shares
}

/// A service with these weights by backend, ids from 10; its list repeats them as the plan does.
fn world(weights: &[u16], change: impl FnOnce(Service) -> Service) -> TestWorld {
    let mut world = TestWorld::new(Hook::Tc);
    let mut list = Vec::new();
    for (id, weight) in (10..).zip(weights) {
        let address = V4([10, 1, 0, id as u8]).to_slot();
        let backend =
            Backend::new(SERVICE, 1, address, [0, 80], proto::TCP, false, [0; 16], u64::from(id));
        world.add_backend::<V4>(id, backend.with_weight(*weight));
        list.extend(std::iter::repeat_n(id, usize::from(*weight)));
    }
    world.set_backends(SERVICE, Scope::Cluster, &list);
    world.change_service(SERVICE, change);
    world
}

#[test]
fn backends_take_turns_exactly() {
    let even = world(&[1, 1, 1], Service::with_turns);
    assert_eq!(shares(&even, 300), BTreeMap::from([(10, 100), (11, 100), (12, 100)]));
    let weighted = world(&[3, 1], Service::with_turns);
    assert_eq!(shares(&weighted, 400), BTreeMap::from([(10, 300), (11, 100)]));
}

#[test]
fn the_less_loaded_of_two_keeps_loads_closer_together_than_chance_does() {
    let spread = |shares: &BTreeMap<u32, u32>| {
        shares.values().max().expect("shares") - shares.values().min().expect("shares")
    };
    let random = shares(&world(&[1; 10], |service| service), 10_000);
    let least = shares(&world(&[1; 10], Service::with_least_connections), 10_000);
    assert!(spread(&least) <= 10, "{least:?}");
    assert!(spread(&random) > 4 * spread(&least), "{random:?} against {least:?}");
}

#[test]
fn connections_follow_weights_where_they_are_counted() {
    let weighted = shares(&world(&[4, 1], Service::with_least_connections), 5000);
    assert!((3900..=4100).contains(&weighted[&10]), "{weighted:?}");
}

#[test]
fn a_backend_that_is_loaded_by_others_is_left_alone_until_it_is_even() {
    let world = world(&[1, 1], Service::with_least_connections);
    world.loads.borrow_mut().insert(10, 500);
    let first = shares(&world, 400);
    assert_eq!(first, BTreeMap::from([(11, 400)]));
    let later = shares(&world, 1000);
    assert!(later[&11].abs_diff(later[&10] + 100) <= 2, "{later:?}");
}

#[test]
fn a_single_backend_is_chosen_by_every_algorithm() {
    for change in [Service::with_turns, Service::with_least_connections] {
        assert_eq!(shares(&world(&[1], change), 9), BTreeMap::from([(10, 9)]));
    }
}

#[test]
fn packets_from_outside_take_turns_too_and_what_xdp_leaves_to_tc_takes_none() {
    for town in Town::all(Hook::Tc) {
        let mut town = town.with_backends(2, 2);
        town.world = town.world.with_flow_sets(1024);
        town.world.change_service(SERVICE, |s| s.with_choice(false, false).with_turns());
        let mut met = BTreeMap::new();
        for port in 40_000..40_100 {
            *met.entry(town.served_by(&town.to_vip(port, SYN))).or_insert(0) += 1;
        }
        assert_eq!(met, BTreeMap::from([(10, 25), (11, 25), (20, 25), (21, 25)]));
        // The next is 10, on this node: XDP leaves the packet to tc, however often it is asked.
        town.world = town.world.behind(Hook::Xdp);
        for _ in 0..3 {
            town.ends(&town.to_vip(41_000, SYN), Reason::NeedsStack);
        }
        town.world = town.world.behind(Hook::Tc);
        assert_eq!(town.served_by(&town.to_vip(41_000, SYN)), 10);
        assert_eq!(town.served_by(&town.to_vip(41_001, SYN)), 11);
    }
}
