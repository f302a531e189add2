//! The place where the stories happen: one service with a ClusterIP, a load balancer's address and a
//! NodePort, on a node with some backends, in either family.

use std::net::SocketAddr;

use lb_common::{
    abi::{Answer, Backend, BackendState, Kind, NextHop, Node, NodeSlot, Scope, Service, Settings},
    addr::{Addr, V4, V6},
    model::{Modelled, Run, Tables, TestWorld},
    path::{Hook, Outcome},
    table::{Entry, Role},
    verdict::{Reason, Verdict},
    wire::proto,
    world::Route,
};

use super::support::{ACK, FromIp, SYN, Sample, ip, packet};

pub const SERVICE: u32 = 4;
pub const PORT: u16 = 80;
pub const NODE_PORT: u16 = 30_080;
pub const BACKEND_PORT: u16 = 8080;
pub const HOP: NextHop = Tables::<V4>::HOP;

/// Who lives where.
pub struct Names {
    pub v4: bool,
    pub client: &'static str,
    pub pod: &'static str,
    pub node: &'static str,
    pub cluster_ip: &'static str,
    pub vip: &'static str,
    pub unallocated: &'static str,
    /// Backends on this node, by number.
    pub here: [&'static str; 3],
    /// Backends elsewhere, by number.
    pub there: [&'static str; 3],
    /// Other nodes, with DSR.
    pub peers: [&'static str; 2],
}

const NAMES_V4: Names = Names {
    v4: true,
    client: "198.51.100.9",
    pod: "10.1.0.77",
    node: "192.0.2.1",
    cluster_ip: "10.96.0.10",
    vip: "203.0.113.1",
    unallocated: "10.96.0.99",
    here: ["10.1.0.10", "10.1.0.11", "10.1.0.12"],
    there: ["10.2.0.10", "10.2.0.11", "10.2.0.12"],
    peers: ["192.0.5.2", "192.0.5.3"],
};

const NAMES_V6: Names = Names {
    v4: false,
    client: "2001:db8:9::9",
    pod: "fd00:1::77",
    node: "2001:db8::1",
    cluster_ip: "fd00:96::10",
    vip: "2001:db8:f::1",
    unallocated: "fd00:96::99",
    here: ["fd00:1::10", "fd00:1::11", "fd00:1::12"],
    there: ["fd00:2::10", "fd00:2::11", "fd00:2::12"],
    peers: ["2001:db8:5::2", "2001:db8:5::3"],
};

pub struct Town {
    pub world: TestWorld,
    pub names: &'static Names,
    pub protocol: u8,
}

/// Address and port as text.
pub fn at(address: &str, port: u16) -> String {
    SocketAddr::new(address.parse().expect(address), port).to_string()
}

impl Town {
    /// A town for both families and every protocol, behind `hook`; no backend yet.
    pub fn all(hook: Hook) -> Vec<Self> {
        let families = [&NAMES_V4, &NAMES_V6];
        let protocols = [proto::TCP, proto::UDP, proto::SCTP];
        families
            .into_iter()
            .flat_map(|names| protocols.map(|protocol| Self::new(names, protocol, hook)))
            .collect()
    }

    /// As [`Town::all`], of one protocol.
    pub fn all_of(protocol: u8, hook: Hook) -> Vec<Self> {
        Self::all(hook).into_iter().filter(|town| town.protocol == protocol).collect()
    }

    /// An IPv4 town.
    pub fn v4(protocol: u8, hook: Hook) -> Self {
        Self::new(&NAMES_V4, protocol, hook)
    }

    fn new(names: &'static Names, protocol: u8, hook: Hook) -> Self {
        let mut town = Self { world: TestWorld::new(hook), names, protocol };
        if names.v4 {
            town.found::<V4>();
        } else {
            town.found::<V6>();
        }
        town
    }

    fn found<A: Modelled + FromIp>(&mut self) {
        let (world, names, protocol) = (&mut self.world, self.names, self.protocol);
        world.add_frontend::<A>(ip(names.cluster_ip), PORT, protocol, SERVICE, Kind::ClusterIp);
        world.add_frontend::<A>(ip(names.vip), PORT, protocol, SERVICE, Kind::LoadBalancer);
        world.add_frontend::<A>(ip(names.node), NODE_PORT, protocol, SERVICE, Kind::NodePort);
        world.add_address::<A>(ip(names.cluster_ip), Kind::ClusterAddress);
        world.add_address::<A>(ip(names.vip), Kind::VirtualAddress);
        world.add_address::<A>(ip(names.node), Kind::NodeAddress);
        world.set_nothing(SERVICE, Scope::Cluster, Answer::REJECT);
        world.set_nothing(SERVICE, Scope::Local, Answer::REJECT);
        let net = |text: &str| ip::<V4>(text).to_slot();
        let wide = |text: &str| ip::<V6>(text).to_slot();
        let settings = &mut world.settings;
        let own = ip::<A>(names.node).to_slot();
        if names.v4 {
            settings.own_v4 = own;
        } else {
            settings.own_v6 = own;
        }
        settings.pods_v4.set(0, net("10.1.0.0"), net("255.255.0.0"));
        settings.pods_v4.set(1, net("10.2.0.0"), net("255.255.0.0"));
        settings.services_v4.set(0, net("10.96.0.0"), net("255.255.0.0"));
        settings.pods_v6.set(0, wide("fd00:1::"), wide("ffff:ffff::"));
        settings.pods_v6.set(1, wide("fd00:2::"), wide("ffff:ffff::"));
        settings.services_v6.set(0, wide("fd00:96::"), wide("ffff:ffff::"));
    }

    /// Backends of this node get ids 10, 11, 12; those of others 20, 21, 22. They are the whole
    /// cluster's set, and those here the local set.
    pub fn with_backends(mut self, here: usize, there: usize) -> Self {
        let here: Vec<u32> = (10..10 + here as u32).collect();
        let there: Vec<u32> = (20..20 + there as u32).collect();
        for id in here.iter().chain(&there) {
            self.set_backend(*id, 1);
        }
        let all: Vec<u32> = here.iter().chain(&there).copied().collect();
        if !all.is_empty() {
            self.world.set_backends(SERVICE, Scope::Cluster, &all);
            self.world.set_nothing(SERVICE, Scope::Local, Answer::DROP);
        }
        if !here.is_empty() {
            self.world.set_backends(SERVICE, Scope::Local, &here);
        }
        self
    }

    /// Spreads the service by DSR over this node, 1, and the others, 2 and 3: its ring takes turns by
    /// these slots, and has done so for an hour. Backends here may get flows if there are any.
    pub fn spread(mut self, slots: &[(u32, u32)]) -> Self {
        let names = self.names;
        if names.v4 {
            self.meet::<V4>();
        } else {
            self.meet::<V6>();
        }
        self.world.settings.own_node = 1;
        for (id, address) in (1..).zip([names.node].into_iter().chain(names.peers)) {
            let node = if names.v4 {
                Node::new(ip(address), V6::default())
            } else {
                Node::new(V4::default(), ip(address))
            };
            self.world.nodes.insert(id, node);
        }
        let slots: Vec<_> =
            slots.iter().map(|&(now, before)| NodeSlot { now, before, asks: true }).collect();
        let now = self.world.now.get();
        self.world.set_nodes(SERVICE, &slots, now.wrapping_sub(seconds(3600)));
        if self.world.backends.keys().any(|id| *id < 20) {
            self.world.change_service(SERVICE, Service::with_usable_here);
        }
        self
    }

    /// Other nodes, and what tells that somebody has the NodePort everywhere.
    fn meet<A: Modelled + FromIp>(&mut self) {
        for peer in self.names.peers {
            self.world.add_address::<A>(ip(peer), Kind::PeerAddress);
        }
        let (port, protocol) = (NODE_PORT, self.protocol);
        self.world.add_frontend(A::default(), port, protocol, SERVICE, Kind::AnyNodePort);
    }

    /// (Re)writes a backend, as one of `generation`.
    pub fn set_backend(&mut self, id: u32, generation: u32) {
        if self.names.v4 {
            self.set_backend_in::<V4>(id, generation);
        } else {
            self.set_backend_in::<V6>(id, generation);
        }
    }

    fn set_backend_in<A: Modelled + FromIp>(&mut self, id: u32, generation: u32) {
        let backend = Backend::new(
            SERVICE,
            generation,
            ip::<A>(self.backend(id)).to_slot(),
            BACKEND_PORT.to_be_bytes(),
            self.protocol,
            !A::IS_V4,
            ip::<A>(self.names.node).to_slot(),
            u64::from(id) << 32 | u64::from(generation),
        );
        self.world.add_backend::<A>(id, backend.with_local(id < 20));
    }

    /// The address of a backend.
    pub fn backend(&self, id: u32) -> &'static str {
        let place = if id < 20 { &self.names.here } else { &self.names.there };
        place[id as usize % 10]
    }

    /// Where a backend listens.
    pub fn listens(&self, id: u32) -> SocketAddr {
        at(self.backend(id), BACKEND_PORT).parse().expect("an address and port")
    }

    pub fn retire(&mut self, id: u32, state: BackendState, serving: bool) {
        self.world.change_backend(id, |backend| backend.with_state(state, serving));
    }

    /// Only these backends are the cluster's set from now on.
    pub fn only(&mut self, ids: &[u32]) {
        if ids.is_empty() {
            self.world.set_nothing(SERVICE, Scope::Cluster, Answer::REJECT);
        } else {
            self.world.set_backends(SERVICE, Scope::Cluster, ids);
        }
    }

    pub fn route(&mut self, route: Route) {
        (self.world.v4.default_route, self.world.v6.default_route) = (route, route);
    }

    pub fn allow_source(&mut self, address: &str) {
        if self.names.v4 {
            self.world.v4.sources.push((SERVICE, ip(address), 32));
        } else {
            self.world.v6.sources.push((SERVICE, ip(address), 128));
        }
    }

    /// A packet to the load balancer's address, from `port` of the client.
    pub fn to_vip(&self, port: u16, flags: u8) -> Sample {
        self.packet(self.names.client, port, self.names.vip, PORT, flags)
    }

    pub fn packet(&self, src: &str, sport: u16, dst: &str, dport: u16, flags: u8) -> Sample {
        packet(self.protocol, &at(src, sport), &at(dst, dport), flags)
    }

    /// Lets the packet in.
    pub fn arrive(&self, sample: &Sample) -> Run {
        self.world.arrive(&sample.bytes())
    }

    /// What a backend on this node gets of the packet.
    #[track_caller]
    pub fn delivered(&self, sample: &Sample) -> Sample {
        let run = self.arrive(sample);
        assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ToLocal), "{sample:?}");
        Sample::read(&run.bytes)
    }

    /// What a backend elsewhere gets of the packet.
    #[track_caller]
    pub fn forwarded(&self, sample: &Sample) -> Sample {
        let run = self.arrive(sample);
        assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToRemote), "{sample:?}");
        assert_eq!(run.outcome.hop, HOP);
        Sample::read(&run.bytes)
    }

    /// Which backend gets the packet; either kind.
    #[track_caller]
    pub fn served_by(&self, sample: &Sample) -> u32 {
        let run = self.arrive(sample);
        assert!(matches!(run.reason, Reason::ToLocal | Reason::ToRemote), "{:?}", run.reason);
        assert_eq!(Sample::read(&run.bytes).dst, self.listens(run.outcome.backend));
        run.outcome.backend
    }

    /// What the client gets of a remote backend's answer.
    #[track_caller]
    pub fn returned(&self, answer: &Sample) -> Sample {
        let run = self.arrive(answer);
        assert_eq!(
            (run.verdict, run.reason),
            (Verdict::Forward, Reason::ReplyRemote),
            "{answer:?}"
        );
        Sample::read(&run.bytes)
    }

    /// What the client gets of a local backend's answer.
    #[track_caller]
    pub fn left(&self, answer: &Sample) -> Sample {
        let run = self.world.leave(&answer.bytes());
        assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ReplyLocal), "{answer:?}");
        Sample::read(&run.bytes)
    }

    /// The packet ends for `reason`, with not one of its bytes changed; the verdict is the reason's.
    #[track_caller]
    pub fn ends(&self, sample: &Sample, reason: Reason) -> Outcome {
        let run = self.arrive(sample);
        assert_eq!((run.reason, run.verdict), (reason, reason.verdict()), "{sample:?}");
        assert_eq!(run.bytes, sample.bytes(), "{reason:?} changed the packet");
        run.outcome
    }

    /// The packet is answered, for `reason`; see the tests of `reject` for the answers themselves.
    #[track_caller]
    pub fn rejected(&self, sample: &Sample, reason: Reason) -> Outcome {
        let run = self.arrive(sample);
        assert_eq!((run.reason, run.verdict), (reason, Verdict::Reject), "{sample:?}");
        run.outcome
    }

    /// All flow entries, as text: a copy to compare with.
    pub fn flows(&self) -> String {
        let (mut v4, mut v6) = (self.world.v4.flow_entries(), self.world.v6.flow_entries());
        v4.iter_mut().for_each(|(_, entry, _)| entry.way = 0);
        v6.iter_mut().for_each(|(_, entry, _)| entry.way = 0);
        format!("{v4:?} {v6:?}")
    }

    /// The handshake's last packet, so that the connection is established.
    pub fn establish(&self, port: u16) -> u32 {
        let backend = self.served_by(&self.to_vip(port, SYN));
        assert_eq!(self.served_by(&self.to_vip(port, ACK)), backend);
        backend
    }
}

/// The roles and states of a world's flow entries, forward ones first.
pub fn states(world: &TestWorld) -> Vec<(Role, lb_common::tracking::State)> {
    let of = |role, state| (role, state);
    let mut states: Vec<_> = world
        .v4
        .flow_entries()
        .into_iter()
        .map(|(_, Entry { role, state, .. }, _)| of(role, state))
        .chain(world.v6.flow_entries().into_iter().map(|(_, entry, _)| of(entry.role, entry.state)))
        .collect();
    states.sort_by_key(|(role, _)| *role as u8);
    states
}

/// As the settings have it.
pub fn seconds(count: u32) -> u32 {
    count * Settings::SECOND
}
