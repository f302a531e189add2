//! The sieve before the tables.

use std::collections::BTreeSet;

use lb_common::{
    abi::Kind,
    addr::{V4, V6},
    gate::{Plane, place},
    limits::GATE_WORDS,
};

const PLANES: [Plane; 4] = [Plane::Frontend, Plane::Address, Plane::Node, Plane::Local];

#[test]
fn a_thing_is_a_few_bits_of_a_word_that_there_is() {
    bolero::check!().with_type::<([u8; 4], [u8; 16], [u8; 2], u8)>().for_each(
        |&(v4, v6, port, protocol)| {
            for plane in PLANES {
                for (word, bits) in
                    [place(plane, V4(v4), port, protocol), place(plane, V6(v6), port, protocol)]
                {
                    assert!(word < GATE_WORDS && matches!(bits.count_ones(), 1..=5));
                }
            }
        },
    );
}

/// Of 100,000 that are not known, how many get through where so many things of a plane are.
fn let_through(plane: Plane, known: u32) -> usize {
    let place_of = |network: u32, number: u32| {
        place(plane, V4((number + (network << 24)).to_be_bytes()), [0, 80], 6)
    };
    let mut gate = vec![0; GATE_WORDS as usize];
    for (word, bits) in (0..known).map(|number| place_of(10, number)) {
        gate[word as usize] |= bits;
    }
    let foreign = (0..100_000).map(|number| place_of(11, number));
    foreign.filter(|(word, bits)| gate[*word as usize] & bits == *bits).count()
}

#[test]
fn few_foreign_packets_get_through_where_ten_thousand_services_are_known() {
    // A ClusterIP and a load balancer's address each, and a NodePort.
    let addresses = let_through(Plane::Address, 20_000);
    assert!((20..130).contains(&addresses), "{addresses}");
    let ports = let_through(Plane::Frontend, 30_000);
    assert!((50..500).contains(&ports), "{ports}");
    let node = let_through(Plane::Node, 10);
    assert!(node < 100, "{node}");
}

#[test]
fn planes_families_ports_and_protocols_do_not_stand_for_each_other() {
    let mut places = BTreeSet::new();
    for plane in PLANES {
        for port in [[0, 80], [80, 0]] {
            for protocol in [6, 17] {
                places.insert(place(plane, V4([10, 0, 0, 1]), port, protocol));
                places.insert(place(plane, V6([10; 16]), port, protocol));
            }
        }
    }
    // To an address by itself, port and protocol are nothing.
    assert_eq!(places.len(), 2 * 2 * 2 * 2 + 2 * 2);
}

#[test]
fn this_nodes_addresses_are_in_one_cache_line() {
    let words =
        (0..10_000_u32).map(|number| place(Plane::Node, V4(number.to_be_bytes()), [0; 2], 0).0);
    assert_eq!(words.collect::<BTreeSet<_>>(), (0..8).collect());
    let others = (0..10_000_u32).flat_map(|number| {
        [Plane::Address, Plane::Frontend, Plane::Local]
            .map(|plane| place(plane, V4(number.to_be_bytes()), [0, 80], 6).0)
    });
    assert!(others.into_iter().all(|word| (8..GATE_WORDS).contains(&word)));
}

#[test]
fn only_the_nodes_own_addresses_are_entered_as_such() {
    assert_eq!(Plane::of_address(Kind::NodeAddress), Plane::Node);
    for kind in [Kind::ClusterAddress, Kind::VirtualAddress] {
        assert_eq!(Plane::of_address(kind), Plane::Address);
    }
}
