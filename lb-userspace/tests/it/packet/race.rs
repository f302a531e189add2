//! The same packet on two CPUs at once: a client that sends its SYN again, or a network that does.

use std::sync::atomic::Ordering::Relaxed;

use lb_userspace::datapath::object::Unused;

use super::{
    both::{Both, tcp_towns},
    support::{SYN, Sample},
    town::{SERVICE, Town},
};
use crate::support::counted;

/// Pairs of SYNs in each of four towns, and how many of them between two cleanings of the small flow
/// table.
const PAIRS: u32 = 2500;
const BATCH: u32 = 125;

const XDP_DROP: u32 = 1;
const XDP_TX: u32 = 3;

#[test]
fn of_ten_thousand_syns_on_two_cpus_at_once_none_reaches_two_backends() {
    for ring in [true, false] {
        tcp_towns(0, 3).into_iter().for_each(|town| race(town, ring));
    }
}

/// With a ring both choose the same; without one, each what it likes.
fn race(town: Town, ring: bool) {
    let mut both = Both::new(town, Unused::default());
    both.town.world.change_service(SERVICE, |service| service.with_choice(ring, ring));
    both.kernel.write(&mut both.town.world, &both.uplinks);
    let (mut split, mut dropped) = (0, 0);
    for batch in 0..PAIRS / BATCH {
        both.kernel.maps.flows_v4.words().iter().for_each(|word| word.store(0, Relaxed));
        both.kernel.maps.flows_v6.words().iter().for_each(|word| word.store(0, Relaxed));
        let frames: Vec<Vec<u8>> = (0..BATCH)
            .map(|number| {
                let port = 10_000 + (batch * BATCH + number) as u16;
                both.town.to_vip(port, SYN).bytes()
            })
            .collect();
        for pair in both.kernel.programs.race(&frames) {
            assert!(pair.iter().all(|(code, _)| [XDP_DROP, XDP_TX].contains(code)));
            // One that lost the race may be dropped: its sender will send it again.
            let sent: Vec<Sample> = pair
                .iter()
                .filter(|(code, _)| *code == XDP_TX)
                .map(|(_, bytes)| Sample::read(bytes))
                .collect();
            dropped += 2 - sent.len();
            split += u32::from(sent.iter().any(|one| *one != sent[0]));
        }
    }
    counted(PAIRS as usize, "pairs of SYNs on two CPUs at once");
    counted(split as usize, "of them split");
    counted(dropped, "packets dropped, to be sent again");
    assert_eq!(split, 0, "of {PAIRS}");
}
