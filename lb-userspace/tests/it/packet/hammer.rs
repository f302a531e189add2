//! Two services change all the time while packets to both come in: no packet ever gets a backend
//! that is not its service's.

use std::{
    collections::BTreeSet,
    env,
    net::{IpAddr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use lb_common::{
    abi::{Settings, Timeouts},
    verdict::Reason,
};
use lb_userspace::{
    datapath::{
        maps::Maps,
        object::{Sizes, Unused},
    },
    model::{Family, ObjectName, Protocol},
    plan::{
        Backend, BackendSet, BackendState, Frontend, FrontendKind, PortPlan, Scope, ServicePlan,
        WhenEmpty,
        tables::{Change, Environment, GRACE, Tables},
    },
};

use super::{
    kernel::{Program, Programs},
    support::{RST, SYN, tcp},
};

/// Small, so that what one service gives up is soon the other's; but for flows, of which none is answered.
const SIZES: Sizes = Sizes {
    services: 16,
    backends: 4096,
    arena_lines: 32_768,
    flow_sets_v4: 1 << 14,
    flow_sets_v6: 64,
};

const NODE: &str = "192.0.2.1";

/// One of the two services.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    A,
    B,
}

impl Who {
    const BOTH: [Self; 2] = [Self::A, Self::B];

    const fn vip(self) -> &'static str {
        match self {
            Self::A => "203.0.113.1:80",
            Self::B => "203.0.113.2:80",
        }
    }

    /// Its backends have addresses that begin so.
    const fn net(self) -> u8 {
        match self {
            Self::A => 1,
            Self::B => 2,
        }
    }

    /// The service with these of its backends.
    fn plan(self, backends: impl Iterator<Item = u16>) -> ServicePlan {
        let backend = |number: u16| {
            let [high, low] = number.to_be_bytes();
            Backend {
                address: SocketAddr::from(([10, self.net(), high, low], 8080)),
                local: false,
                node: None,
                zone: None,
                state: BackendState::Active,
                weight: 1,
                uid: "".into(),
                serving: true,
            }
        };
        let cluster =
            BackendSet { backends: backends.map(backend).collect(), when_empty: WhenEmpty::Reject };
        let local = BackendSet { backends: Vec::new(), when_empty: WhenEmpty::Drop };
        let name = ObjectName::new("hammer", if self == Self::A { "a" } else { "b" });
        let address = self.vip().parse().expect("an address");
        let port = PortPlan {
            service: name.clone(),
            port_name: String::new(),
            protocol: Protocol::Tcp,
            family: Family::of(IpAddr::from([0, 0, 0, 0])),
            frontends: vec![Frontend { kind: FrontendKind::LoadBalancer, address }],
            cluster,
            local,
            retired: Vec::new(),
            internal: Scope::Cluster,
            external: Scope::Cluster,
            affinity_seconds: None,
            source_ranges: Vec::new(),
            algorithm: None,
            spread: None,
        };
        ServicePlan { name, ports: vec![port], health_check: None }
    }
}

/// Plans changes and makes them, as the agent does.
struct Publisher<'a> {
    maps: &'a Mutex<Maps>,
    tables: Tables,
    started: Instant,
    flips: u32,
    refused: u32,
}

impl<'a> Publisher<'a> {
    fn new(maps: &'a Mutex<Maps>) -> Self {
        let tables = Tables::new(maps.lock().expect("maps").capacities);
        let mut publisher = Self { maps, tables, started: Instant::now(), flips: 0, refused: 0 };
        publisher.publish(&Who::BOTH.map(|who| who.plan(0..4)));
        publisher
    }

    /// Old backends go and new ones come, in both services at once. With `reuse`, each comes with an
    /// address of its own and what the old ones held is given away again.
    fn flip(&mut self, reuse: bool) {
        let now = self.started.elapsed();
        if reuse {
            let ops = self.tables.reclaim(now, &BTreeSet::new());
            self.maps.lock().expect("maps").apply(&ops).expect("reclaimed");
        } else {
            self.tables.thaw(now);
        }
        self.flips += 1;
        let round = if reuse { self.flips } else { self.flips % 3 } as u16;
        let (first, count) = (round.wrapping_mul(5), 2 + round % 4);
        let backends = || (0..count).map(move |at| first.wrapping_add(at));
        self.publish(&Who::BOTH.map(|who| who.plan(backends())));
    }

    fn publish(&mut self, plans: &[ServicePlan]) {
        let node: IpAddr = NODE.parse().expect("an address");
        let towards = move |_| Ok(Some(node));
        let half_open = 0;
        let settings = Settings {
            flow_mask_v4: SIZES.flow_sets_v4 - 1,
            flow_mask_v6: SIZES.flow_sets_v6 - 1,
            // A flow is over at once: every SYN is a choice anew.
            timeouts: Timeouts { half_open, ..Settings::default().timeouts },
            ..Settings::default()
        };
        let environment = Environment {
            settings: &settings,
            node_addresses: &BTreeSet::from([node]),
            source_towards: &towards,
            dsr: None,
        };
        let changes: Vec<Change<'_>> = plans.iter().map(Change::Put).collect();
        let planned = self.tables.apply(&environment, &changes);
        self.maps.lock().expect("maps").apply(&planned.ops).expect("written");
        if !planned.refused.is_empty() {
            // Room comes back with time alone.
            self.refused += planned.refused.len() as u32;
            thread::sleep(GRACE / 50);
        }
    }
}

/// Reads while another thread publishes; how often that one did, and was refused for want of room.
fn under_the_hammer(maps: &Mutex<Maps>, reuse: bool, read: impl FnOnce(&AtomicU32)) -> (u32, u32) {
    let (done, flips) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut publisher = Publisher::new(maps);
    thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            while !done.load(Relaxed) {
                publisher.flip(reuse);
                flips.store(publisher.flips, Relaxed);
            }
            (publisher.flips, publisher.refused)
        });
        // The publisher ends also if reading panics.
        let _end = OnDrop(|| done.store(true, Relaxed));
        read(&flips);
        done.store(true, Relaxed);
        publishing.join().expect("the publisher")
    })
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

fn reads_wanted(default: u64) -> u64 {
    env::var("LB_HAMMER").map_or(default, |reads| reads.parse().expect("LB_HAMMER is a number"))
}

/// Programs and maps, so that each thread has its own.
fn load() -> (Programs, Mutex<Maps>) {
    let (programs, maps) = Programs::load(SIZES, Unused::default());
    (programs, Mutex::new(maps))
}

#[test]
fn ten_million_reads_while_two_services_flip_get_no_foreign_backend() {
    const BATCH: u32 = 10_000;
    let wanted = reads_wanted(10_000_000);
    let (programs, maps) = load();
    let began = Instant::now();
    let mut reads = 0;
    let (flips, refused) = under_the_hammer(&maps, false, |_| {
        while reads < wanted {
            // A reset that belongs to no flow is dropped as it is, so each of a batch is the same;
            // its backend is chosen, and counted, before that.
            let who = Who::BOTH[(reads / u64::from(BATCH)) as usize % 2];
            let port = 1024 + (reads / u64::from(BATCH) % 60_000) as u16;
            let frame = tcp(&format!("198.51.100.9:{port}"), who.vip(), RST).bytes();
            programs.run_often(Program::Xdp, &frame, BATCH);
            reads += u64::from(BATCH);
        }
    });
    let took = began.elapsed();
    println!(
        "{reads} reads in {took:.1?} under {flips} flips ({refused} refused for want of room)"
    );
    assert!(flips > 100, "hardly a hammer: {flips} flips");
    let maps = maps.into_inner().expect("maps");
    let all = maps.reason_counts().expect("counts");
    let refused: u64 = all.iter().map(|(_, count)| count.packets).sum();
    let unknown = all.iter().find(|(reason, _)| *reason == Reason::UnknownFlow).expect("a reason");
    assert_eq!((unknown.1.packets, refused), (reads, reads), "each found a backend: {all:?}");
    // Ids stay with their owners here: nothing was reclaimed.
    let image = maps.image().expect("the maps");
    let owners: Vec<(u32, u32)> =
        image.backends.iter().map(|(id, row)| (*id, row.service())).collect();
    let backends = maps.backend_counts(0..SIZES.backends).expect("counts");
    let services = maps.service_counts(0..SIZES.services).expect("counts");
    for (service, count) in &services {
        let own = owners.iter().filter(|(_, owner)| owner == service);
        let sum: u64 = own.map(|(id, _)| backends[id].packets).sum();
        assert_eq!(sum, count.packets, "service {service}: a foreign backend was read");
    }
    let sum: u64 = backends.values().map(|count| count.packets).sum();
    assert_eq!(sum, reads);
}

#[test]
fn packets_go_to_their_own_services_backends_while_ids_and_segments_change_hands() {
    let wanted = reads_wanted(10_000_000) / 50;
    let (programs, maps) = load();
    let mut stale = 0;
    let mut reads = 0_u64;
    let began = Instant::now();
    let (flips, refused) = under_the_hammer(&maps, true, |_| {
        let mut frames = Who::BOTH.map(|who| tcp("198.51.100.9:1024", who.vip(), SYN).bytes());
        let mut out = [0; 256];
        // Long enough for every id and segment to be given away again.
        while reads < wanted || began.elapsed() < Duration::from_secs(4) {
            for (who, frame) in Who::BOTH.into_iter().zip(&mut frames) {
                // The client's port.
                frame[34..36].copy_from_slice(&(1024 + (reads % 60_000) as u16).to_be_bytes());
                let run = programs.try_run(Program::Xdp, frame, &mut out, 1).expect("a test run");
                reads += 1;
                if run.return_value != 3 {
                    assert_eq!(run.return_value, 1, "sent or dropped");
                    stale += 1;
                    continue;
                }
                let backend = &out[30..34];
                assert_eq!(backend[..2], [10, who.net()], "{}: foreign {backend:?}", who.vip());
            }
        }
    });
    let took = began.elapsed();
    println!("{reads} packets in {took:.1?} under {flips} flips ({refused} refused)");
    assert!(flips > 100, "hardly a hammer: {flips} flips");
    let counts = maps.into_inner().expect("maps").reason_counts().expect("counts");
    let sent = counts.iter().find(|(reason, _)| *reason == Reason::ToRemote).expect("a reason");
    assert_eq!((sent.1.packets, stale), (reads, 0), "each found its way: {counts:?}");
}
