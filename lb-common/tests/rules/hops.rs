//! Next hops that are remembered.

use lb_common::{
    abi::{NextHop, Settings, Words as _},
    hops::{Way, asks, by_stack, changed, remember},
    limits::{HOP_CHECKS, HOPS},
    model::TestWorld,
    path::Hook,
};

fn hop(number: u32) -> NextHop {
    let [a, b, c, d] = number.to_be_bytes();
    NextHop::new(number % 7 + 1, 1500, [2, 0, a, b, c, d], [6, d, c, b, a, 1])
}

fn recall(world: &TestWorld, word: u64) -> Way {
    lb_common::hops::recall(world, word, world.now.get())
}

#[test]
fn a_hop_comes_back_whole_for_a_second_and_no_longer() {
    bolero::check!().with_type::<(u32, u32)>().for_each(|&(number, waited)| {
        let world = TestWorld::new(Hook::Xdp).with_flow_sets(1);
        let word = remember(&world, &hop(number));
        let waited = waited % (3 * Settings::SECOND);
        world.wait(waited);
        let good = waited <= Settings::SECOND;
        let want = if good { Way::Hop(hop(number)) } else { Way::Unknown };
        assert_eq!(recall(&world, word), want, "after {waited} ticks");
    });
}

#[test]
fn many_flows_over_one_hop_share_its_place() {
    let world = TestWorld::new(Hook::Xdp);
    let words = [1, 2, 3].map(|_| remember(&world, &hop(9)));
    assert_eq!(words, [words[0]; 3]);
    let used = world.hops.iter().filter(|slot| slot.seal() != 0).count();
    assert_eq!(used, 1);
}

#[test]
fn a_flow_whose_place_went_to_another_hop_does_not_follow_that_one() {
    let world = TestWorld::new(Hook::Xdp);
    let words: Vec<u64> = (0..20 * HOPS).map(|number| remember(&world, &hop(number))).collect();
    let mut lost = 0;
    for (number, word) in words.iter().enumerate() {
        match recall(&world, *word) {
            Way::Hop(found) => assert_eq!(found, hop(number as u32)),
            Way::Unknown => lost += 1,
            Way::Stack => panic!("nobody said so"),
        }
    }
    assert!(lost >= 19 * HOPS, "places are few");
}

#[test]
fn a_hop_that_is_being_written_is_not_followed() {
    let world = TestWorld::new(Hook::Xdp);
    let word = remember(&world, &hop(1));
    let slot = &world.hops[(word & 0xffff) as usize];
    let (seal, new) = (slot.seal(), hop(2).to_words());
    let found = slot.read(seal);
    assert_eq!(found, Some(hop(1).to_words()));
    assert!(slot.write(seal, &new, 2 | 1 << 63));
    assert_eq!(slot.read(seal), None, "what was read in between may be of both");
    assert!(!slot.write(seal, &new, seal), "another CPU was faster");
    assert_eq!(recall(&world, word), Way::Unknown);
}

#[test]
fn what_only_the_stack_can_send_is_remembered_as_long() {
    let world = TestWorld::new(Hook::Xdp);
    let word = by_stack(&world);
    assert_eq!(recall(&world, word), Way::Stack);
    world.wait(Settings::SECOND + 1);
    assert_eq!(recall(&world, word), Way::Unknown);
    assert_eq!(recall(&world, 0), Way::Unknown, "nothing was ever remembered");
}

#[test]
fn of_very_many_flows_only_so_many_ask_anew_in_a_tick_and_the_others_go_on() {
    let world = TestWorld::new(Hook::Xdp);
    let word = remember(&world, &hop(1));
    world.wait(Settings::SECOND + 1);
    for _ in 0..HOP_CHECKS {
        assert_eq!(recall(&world, word), Way::Unknown);
        asks(&world, word);
    }
    assert_eq!(recall(&world, word), Way::Hop(hop(1)));
    world.wait(1);
    assert_eq!(recall(&world, word), Way::Unknown, "in the next tick it is some others' turn");
}

#[test]
fn when_one_flow_found_another_way_all_that_shared_its_old_one_ask_and_then_no_more() {
    let world = TestWorld::new(Hook::Xdp);
    let (old, bystander) = (remember(&world, &hop(1)), remember(&world, &hop(2)));
    world.wait(3);
    changed(&world, old, remember(&world, &hop(1)));
    assert_eq!(recall(&world, old), Way::Hop(hop(1)), "the same way again is no change");
    changed(&world, old, remember(&world, &hop(3)));
    assert_eq!(recall(&world, old), Way::Unknown);
    assert_eq!(recall(&world, bystander), Way::Hop(hop(2)));
    world.wait(1);
    let again = remember(&world, &hop(1));
    assert_eq!(recall(&world, again), Way::Hop(hop(1)), "that was asked for afterwards");
    assert_eq!(recall(&world, old), Way::Unknown);
}
