//! The same packet on two CPUs at once: a client that sends its SYN again, or a network that does.

use std::sync::atomic::Ordering::Relaxed;

use lb_common::{abi::PortPool, verdict::Reason};
use lb_userspace::datapath::object::Unused;

use super::{
    both::{Both, patient, tcp_towns},
    kernel::{Kernel, Program},
    support::{SYN, Sample},
    town::{SERVICE, Town},
};
use crate::support::{counted, full_size};

/// Pairs of SYNs in each of four towns, and how many of them between two cleanings of the small flow
/// table: fewer than half of its flows, which is as many as may be half-open.
const PAIRS: u32 = 2500;
const BATCH: u32 = 125;

const XDP_DROP: u32 = 1;
const XDP_TX: u32 = 3;

#[test]
fn of_ten_thousand_syns_on_two_cpus_at_once_none_reaches_two_backends() {
    let both = [true, false];
    let towns = both
        .into_iter()
        .flat_map(|ring| patient(tcp_towns(0, 3)).into_iter().map(move |town| race(town, ring)));
    let met: usize = towns.sum();
    // How often they meet is the processors' affair; if they never do, nothing was shown.
    assert!(met > 0 || !full_size(), "no SYN met the other");
}

/// With a ring both choose the same; without one, each what it likes. How many found the other at work
/// on the same flows.
fn race(town: Town, ring: bool) -> usize {
    let mut both = Both::new(town, Unused::default());
    both.town.world.change_service(SERVICE, |service| service.with_choice(ring, ring));
    both.kernel.write(&mut both.town.world, &both.uplinks);
    let (mut split, mut together, mut dropped) = (0, 0, 0);
    let contended = both.kernel.counts().reasons[Reason::Contended as usize].packets;
    for batch in 0..PAIRS / BATCH {
        forget(&mut both.kernel);
        let frames: Vec<Vec<u8>> = (0..BATCH)
            .map(|number| {
                let port = 10_000 + (batch * BATCH + number) as u16;
                both.town.to_vip(port, SYN).bytes()
            })
            .collect();
        for (frame, pair) in frames.iter().zip(both.kernel.programs.race(&frames)) {
            assert!(pair.iter().all(|(code, _)| [XDP_DROP, XDP_TX].contains(code)));
            let sent: Vec<Sample> = pair
                .iter()
                .filter(|(code, _)| *code == XDP_TX)
                .map(|(_, bytes)| Sample::read(bytes))
                .collect();
            // One that lost the race may be dropped: its sender sends it again, and it goes where the
            // other one went.
            let again = both.kernel.programs.run(Program::Xdp, frame);
            let (code, bytes) = again.expect("a test run of XDP");
            assert_eq!((code, sent.is_empty()), (XDP_TX, false), "nobody won");
            let again = Sample::read(&bytes);
            split += u32::from(sent.iter().any(|one| *one != again));
            together += usize::from(sent.len() == 2);
            dropped += 2 - sent.len();
        }
    }
    counted(PAIRS as usize, "pairs of SYNs on two CPUs at once");
    counted(split as usize, "of them split");
    counted(together, "of them sent on both");
    counted(dropped, "packets dropped, and sent on when they came again");
    assert_eq!(split, 0, "of {PAIRS}");
    // For no other reason: whom a limit refuses cannot be split. How often both are sent on is the two
    // processors' affair.
    let named = both.kernel.counts().reasons[Reason::Contended as usize].packets - contended;
    assert_eq!(named, dropped as u64);
    dropped
}

/// Makes no flow known, in the table or in what is counted beside it.
fn forget(kernel: &mut Kernel) {
    for flows in [&kernel.maps.flows_v4, &kernel.maps.flows_v6] {
        flows.words().iter().for_each(|word| word.store(0, Relaxed));
    }
    kernel.programs.forget_opening();
    let pools = &mut kernel.maps.port_pools;
    let keys: Vec<_> = pools.keys().collect::<Result<_, _>>().expect("the pools' keys");
    for key in keys {
        pools.insert(key, [0; size_of::<PortPool>()], 0).expect("a pool without a flow");
    }
}
