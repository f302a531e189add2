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
fn a_thing_is_two_bits_of_a_word_that_there_is() {
    bolero::check!().with_type::<([u8; 4], [u8; 16], [u8; 2], u8)>().for_each(
        |&(v4, v6, port, protocol)| {
            for plane in PLANES {
                for (word, bits) in
                    [place(plane, V4(v4), port, protocol), place(plane, V6(v6), port, protocol)]
                {
                    assert!(word < GATE_WORDS && matches!(bits.count_ones(), 1 | 2));
                }
            }
        },
    );
}

#[test]
fn few_foreign_packets_get_through_where_twenty_thousand_things_are_known() {
    let mut gate = vec![0; GATE_WORDS as usize];
    let known = (0..20_000_u32)
        .map(|number| place(Plane::Frontend, V4((number + (10 << 24)).to_be_bytes()), [0, 80], 6));
    known.for_each(|(word, bits)| gate[word as usize] |= bits);
    let foreign = 100_000_u32;
    let through = (0..foreign)
        .map(|number| place(Plane::Frontend, V4((number + (11 << 24)).to_be_bytes()), [0, 80], 6))
        .filter(|(word, bits)| gate[*word as usize] & bits == *bits)
        .count();
    assert!((50..500).contains(&through), "{through} of {foreign}");
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
fn what_is_known_of_an_address_is_in_one_word() {
    bolero::check!().with_type::<([u8; 4], [u8; 16])>().for_each(|&(v4, v6)| {
        let of = |plane| [place(plane, V4(v4), [0; 2], 0), place(plane, V6(v6), [0; 2], 0)];
        for (address, node) in of(Plane::Address).into_iter().zip(of(Plane::Node)) {
            assert_eq!(address.0, node.0);
            assert_ne!(address.1, node.1);
        }
    });
}

#[test]
fn only_the_nodes_own_addresses_are_entered_as_such() {
    assert_eq!(Plane::of_address(Kind::NodeAddress), Plane::Node);
    for kind in [Kind::ClusterAddress, Kind::VirtualAddress] {
        assert_eq!(Plane::of_address(kind), Plane::Address);
    }
}
