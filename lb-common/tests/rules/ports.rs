//! Source ports towards remote backends: all of them, each once, and found when few are left.

use std::collections::BTreeSet;

use lb_common::{
    abi::{PortPool, Settings, Word},
    gauge::{self, Gauge},
    limits::SNAT_PORTS,
    path::Hook,
    verdict::{Reason, Verdict},
    wire::proto,
};

use crate::{
    support::{ACK, RST, SYN, Sample},
    town::{Town, seconds},
};

/// A town with one remote backend, whose flows outlive the story, and a range of so many ports.
fn prepared(mut town: Town, ports: u16, flow_sets: u32) -> Town {
    town = town.with_backends(0, 1);
    town.world = town.world.with_flow_sets(flow_sets);
    let settings = &mut town.world.settings;
    settings.snat_last = settings.snat_first + ports - 1;
    (settings.timeouts.tcp, settings.timeouts.udp) = (u32::MAX / 4, u32::MAX / 4);
    town
}

/// The packet that client number `number` opens its flow with.
fn opening(town: &Town, number: u32) -> Sample {
    let client = if town.names.v4 {
        format!("198.{}.{}.9", 18 + (number >> 15 & 1), number >> 7 & 0xff)
    } else {
        format!("2001:db8:9::{:x}", number >> 7)
    };
    town.packet(&client, 10_000 + (number & 0x7f) as u16, town.names.vip, 80, SYN)
}

/// Opens a flow and answers it, so that it lives long; the port that the backend saw.
fn establish(town: &Town, number: u32) -> Result<u16, Reason> {
    let sent = opening(town, number);
    let run = town.arrive(&sent);
    if run.reason != Reason::ToRemote {
        assert_eq!((run.verdict, run.bytes), (Verdict::Drop, sent.bytes()));
        return Err(run.reason);
    }
    let seen = Sample::read(&run.bytes);
    town.returned(&seen.answered(SYN | ACK));
    if town.protocol != proto::UDP {
        town.forwarded(&town.packet(
            &sent.src.ip().to_string(),
            sent.src.port(),
            town.names.vip,
            80,
            ACK,
        ));
    }
    Ok(seen.src.port())
}

/// A port of a pool of so many; looked for as often as it takes.
fn take(pool: &PortPool, count: u32, from: u32) -> u32 {
    let mut looks = (0..1000).map(|_| pool.take(count, from));
    looks.find(|port| *port != PortPool::AGAIN).expect("a pool that comes to rest")
}

#[test]
fn a_pool_gives_every_port_once_from_wherever_it_starts() {
    for count in [1, 2, 63, 64, 65, 4096, 5000, 28_976, SNAT_PORTS] {
        let words = count.div_ceil(64);
        for from in [0, 1, words / 2, words - 1] {
            let pool = PortPool::default();
            let from = from.min(words - 1);
            let taken: BTreeSet<u32> = (0..count).map(|_| take(&pool, count, from)).collect();
            assert_eq!(taken, (0..count).collect(), "{count} from {from}");
            assert_eq!(take(&pool, count, from), SNAT_PORTS);
        }
    }
}

#[test]
fn many_cpus_at_one_pool_get_different_ports() {
    let pool = PortPool::default();
    let taken: Vec<u32> = std::thread::scope(|scope| {
        let cpus: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..500).map(|_| take(&pool, 28_976, 7)).collect::<Vec<_>>()))
            .collect();
        cpus.into_iter().flat_map(|cpu| cpu.join().unwrap()).collect()
    });
    let different: BTreeSet<u32> = taken.iter().copied().collect();
    assert_eq!(different.len(), taken.len());
    assert_eq!(taken.len(), 2000);
}

#[test]
fn every_port_of_the_range_is_used_before_a_flow_is_refused() {
    for town in Town::all(Hook::Xdp).into_iter().map(|one| prepared(one, 300, 256)) {
        let ports: BTreeSet<u16> =
            (0..300).map(|number| establish(&town, number).unwrap()).collect();
        assert_eq!(ports, (1024..1324).collect());
        for number in 300..400 {
            assert_eq!(establish(&town, number), Err(Reason::SnatPortsFull));
        }
    }
}

#[test]
fn at_nine_tenths_of_the_range_no_new_flow_fails() {
    const PORTS: u16 = 28_976;
    let full = Town::v4(proto::TCP, Hook::Xdp);
    let town = prepared(full, PORTS, 1 << 13);
    // All are taken; every tenth flow is reset, and soon over.
    for number in 0..u32::from(PORTS) {
        establish(&town, number).unwrap();
        if number % 10 == 0 {
            let mut reset = opening(&town, number);
            reset.l4 = town.packet("192.0.2.9", 1, town.names.vip, 80, RST).l4;
            town.forwarded(&reset);
        }
    }
    assert_eq!(establish(&town, 40_000), Err(Reason::SnatPortsFull));
    town.world.wait(seconds(61));
    let mut failed = 0;
    for number in 40_000..50_000 {
        failed += u32::from(town.arrive(&opening(&town, number)).reason != Reason::ToRemote);
        town.world.wait(seconds(4));
    }
    assert_eq!(failed, 0, "of 10,000");
}

#[test]
fn a_pool_without_a_dead_port_rests_and_then_looks_again() {
    for town in Town::all(Hook::Xdp).into_iter().map(|one| prepared(one, 64, 256)) {
        for number in 0..64 {
            establish(&town, number).unwrap();
        }
        for number in 100..120 {
            assert_eq!(establish(&town, number), Err(Reason::SnatPortsFull));
        }
        town.world.wait(u32::MAX / 4 + 1);
        for number in 200..264 {
            establish(&town, number).unwrap();
        }
    }
}

#[test]
fn flows_that_nobody_answered_hold_at_most_half_of_a_backends_ports() {
    for town in Town::all(Hook::Tc).into_iter().map(|one| prepared(one, 64, 256)) {
        for number in 0..32 {
            town.forwarded(&opening(&town, number));
        }
        for number in 32..64 {
            town.ends(&opening(&town, number), Reason::HalfOpenFull);
        }
        // A flow that is known goes on, and its answer makes room for one more.
        let seen = town.forwarded(&opening(&town, 0));
        town.returned(&seen.answered(SYN | ACK));
        town.forwarded(&Sample {
            l4: town.packet("192.0.2.9", 1, town.names.vip, 80, ACK).l4,
            ..opening(&town, 0)
        });
        town.forwarded(&opening(&town, 32));
        town.ends(&opening(&town, 33), Reason::HalfOpenFull);
        // Half-open flows are soon forgotten.
        town.world.wait(seconds(6) + 1);
        for number in 100..131 {
            town.forwarded(&opening(&town, number));
        }
    }
}

#[test]
fn a_gauge_forgets_with_its_windows_whatever_was_in_it_and_not_for_a_clock_that_is_late() {
    let settings = Settings::default();
    let window = settings.timeouts.half_open;
    // As far from the beginning, where every gauge is zero, as windows can be.
    for first in [1, 100, 0x7fff, 0x8000, 0xfffe].map(|windows| windows * window) {
        let word = Word::default();
        let count = |now| gauge::count(&word, &settings, now);
        for _ in 0..5 {
            gauge::change(&word, &settings, first, Gauge::opened);
        }
        assert_eq!(count(first), 5, "{first}");
        gauge::change(&word, &settings, first + window, Gauge::opened);
        gauge::change(&word, &settings, first + window - 1, Gauge::opened);
        assert_eq!(count(first + window), 7, "of two windows");
        assert_eq!(count(first + 2 * window), 2, "the first is over");
        assert_eq!(count(first + 3 * window), 0);
    }
}
