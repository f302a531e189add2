//! How much of a ring moves when one backend leaves or comes: what new flows of the others notice.

use std::net::SocketAddr;

use lb_common::abi::Answer;
use lb_userspace::plan::maglev::{Member, ring, step};

use crate::support::counted;

const SEEDS: [u64; 3] = [7, 0x5eed, u64::MAX];
const LARGEST: u32 = 65_537;

fn members(count: u32) -> Vec<Member> {
    let address = |n: u32| SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 8080));
    (0..count).map(|n| Member { who: address(n), weight: 1 }).collect()
}

/// Of 10,000 slots of those who stay, how many have another owner when one of all goes, rounded up:
/// the worst of every `nth`. One that comes makes the same two rings, the other way round.
fn moved(seed: u64, count: u32, slots: u32, nth: usize) -> usize {
    let all = members(count);
    let before = ring(seed, &all, slots);
    let worst = (0..all.len()).step_by(nth).map(|gone| {
        let mut rest = all.clone();
        rest.remove(gone);
        let after = ring(seed, &rest, slots);
        let pairs = before.iter().zip(&after).map(|(old, new)| (*old as usize, *new as usize));
        let (mut stay, mut moved) = (0, 0);
        for (old, new) in pairs.filter(|(old, _)| *old != gone) {
            stay += 1;
            moved += usize::from(all[old] != rest[new]);
        }
        (moved * 10_000_usize).div_ceil(stay)
    });
    worst.max().unwrap()
}

/// The worst of all seeds, in the ring that so many backends get.
fn worst(count: u32, nth: usize) -> usize {
    let slots = Answer::RINGS[usize::from(step(count as usize, 0))];
    assert!(slots >= 100 * count, "{slots} slots for {count}");
    SEEDS.map(|seed| moved(seed, count, slots, nth)).into_iter().max().unwrap()
}

#[test]
fn of_a_ring_of_a_hundred_slots_for_each_at_most_a_fortieth_moves_when_one_of_a_hundred_goes() {
    let worst = [(100, 1), (163, 25), (655, 50)].map(|(count, nth)| worst(count, nth));
    let [hundred, more, most] = worst;
    counted(hundred, "of 10,000 slots of survivors moved at most, of 100 backends");
    counted(more, "of 10,000 slots of survivors moved at most, of 163 backends");
    counted(most, "of 10,000 slots of survivors moved at most, of 655 backends");
    assert!(worst.iter().all(|share| *share <= 250), "{worst:?} of 10,000");
}

/// Where one of few goes, a larger part of the ring is shared out anew.
#[test]
fn of_the_ring_of_ten_backends_what_stays_is_still_most_when_one_goes() {
    let worst = worst(10, 1);
    counted(worst, "of 10,000 slots of survivors moved at most, of 10 backends");
    assert!(worst <= 10_000 / 9, "{worst} of 10,000: more than it had itself");
}

#[test]
fn of_the_largest_ring_at_most_a_hundredth_moves_when_one_of_a_hundred_backends_goes() {
    let worst = SEEDS.map(|seed| moved(seed, 100, LARGEST, 3)).into_iter().max().unwrap();
    counted(worst, "of 10,000 slots of survivors moved at most, of 100 backends in 65,537");
    assert!(Answer::RINGS.contains(&LARGEST) && worst <= 100, "{worst} of 10,000");
}
