//! `lb monitor`: packets that are refused are told to who watches, and to nobody else.

use std::fs;

use aya::{TestRun as _, TestRunOptions, programs::SchedClassifier};
use lb_common::abi::Settings;
use lb_userspace::{
    api::{Packet, SeenPacket},
    cli::Sampling,
    datapath::{
        maps::Maps,
        monitor::Monitor,
        object::{Object, Sizes, Unused, load_pinned},
    },
    explain::Asked,
    lab::Lab,
    plan::{
        Plan,
        tables::{self, Environment, Tables},
    },
};

use crate::support::objects::{apply_service, index_of, this_node, web};

/// Looks until something is told; each look waits as long as a second.
const LOOKS: usize = 20;

fn packet(sport: u16) -> Packet {
    Packet {
        src: [203, 0, 113, 9].into(),
        sport: Some(sport),
        proto: "tcp".into(),
        dst: [10, 96, 0, 10].into(),
        port: 80,
        flags: None,
    }
}

fn arrives(object: &Object, packet: &Packet) {
    let frame = Asked::new(packet).unwrap().frame();
    let program: &SchedClassifier = object.program("uplink_ingress").unwrap().try_into().unwrap();
    let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
    program.test_run(options).unwrap();
}

fn clock() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE).unwrap();
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

#[test]
fn a_refused_packet_is_told_with_its_reason_and_service_while_somebody_watches() {
    let lab = Lab::new("monitor").expect("a lab, and with it a bpffs");
    let bpffs = lab.bpffs("node").unwrap();
    let (mut object, _) = load_pinned(Sizes::SMALL, &bpffs, Unused::default()).unwrap();
    let mut maps = Maps::from_object(&mut object).unwrap();
    let node = this_node();
    let mut index = index_of([apply_service(web("empty", "10.96.0.10"))]);
    let mut plan = Plan::default();
    plan.update(&mut index, &node);
    let base = Settings {
        flow_mask_v4: Sizes::SMALL.flow_sets_v4 - 1,
        flow_mask_v6: Sizes::SMALL.flow_sets_v6 - 1,
        ..Settings::default()
    };
    let settings = tables::settings(base, &node).unwrap();
    let environment = Environment {
        settings: &settings,
        node_addresses: &node.local_addresses.iter().copied().collect(),
        source_towards: &|_| Ok(None),
        dsr: None,
    };
    let plans: Vec<_> = plan.services().collect();
    maps.apply(&Tables::new(maps.capacities).reset(&environment, &plans).ops).unwrap();

    // Nobody watches yet: the first look finds nothing of this one.
    arrives(&object, &packet(1));
    let mut monitor = Monitor::new(Maps::from_pins(&bpffs.join("maps")).unwrap(), &bpffs).unwrap();
    let what = Sampling { refused_only: true, one_of: 1 };
    let mut told: Vec<SeenPacket> = monitor.next(what, clock).unwrap();
    assert_eq!(told, []);
    for look in 0..LOOKS {
        arrives(&object, &packet(100 + look as u16));
        told = monitor.next(what, clock).unwrap();
        if !told.is_empty() {
            break;
        }
    }
    let first = told.first().expect("a packet that was told");
    assert_eq!((first.verdict.as_str(), first.reason.as_str()), ("reject", "no-endpoints"));
    assert_eq!(first.packet.service.as_deref(), Some("ns/empty:http"));
    assert_eq!(first.packet.hook, "ingress");
    let source = first.packet.source.unwrap();
    assert!(source.port() >= 100, "{source}: from before anybody watched");
    assert_eq!(first.packet.destination.to_string(), "10.96.0.10:80");
    assert!(first.bytes >= 54 && !first.opened && first.backend.is_none());

    // The watcher leaves: programs are told so at once.
    drop(monitor);
    assert_eq!(maps.watch.get(&0, 0).unwrap().until, 0);
    fs::remove_dir_all(bpffs).ok();
}
