//! The packet cases: which packets, through which programs, and what is aimed at.

use std::collections::BTreeSet;

use lb_common::{
    abi::bench::Run,
    addr::{V4, V6},
    verdict::Reason,
    wire::Tcp,
};

use super::{
    Wanted, broken,
    flows::{self, Established, List, Sender},
    harness::{Entry, FLOOR, Harness, TRIVIAL},
    network::{NODE, Network, POD},
    part::{SET_UP, Tell},
    target::Target,
    world::{self, World},
};
use crate::{
    cli::Failure,
    cluster::synthetic::{Cluster, Reach},
    datapath::object::Sizes,
    model::{Family, Node},
};

/// As many flows of IPv6.
const MANY_V6: u32 = 1 << 16;
/// Packets for somebody else, all different.
const STRANGERS: u32 = 1 << 16;
/// Services that are many.
const SERVICES: u32 = 10_000;

/// One service with enough backends that source ports do not run out.
const ONE: Cluster = Cluster { reach: Reach::LoadBalancer, dual: true, ..Cluster::new(1, 200) };
const TEN_THOUSAND: Cluster = Cluster { reach: Reach::LoadBalancer, ..Cluster::new(SERVICES, 10) };

/// What shall have become of every packet.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// Each was counted for one of these.
    Each(&'static [Reason]),
    /// But for one in a thousand, which found no room.
    Nearly(&'static [Reason]),
    /// None was counted: they are somebody else's.
    Nothing,
    /// The floor knew every flow.
    Known,
}

/// One case.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub flows: u32,
    pub services: u32,
    pub entry: Entry,
    /// Where the case is in its list, and where the same walk with the empty program is.
    pub run: Run,
    pub empty: Run,
    /// Index of the world whose counters tell.
    pub world: Option<usize>,
    pub expect: Expect,
    /// The number of flows at which the floor is its measure.
    pub floor: u32,
    pub target: Option<Target>,
}

/// Everything that packet cases need.
pub struct Stage {
    pub harness: Harness,
    pub worlds: Vec<World>,
    pub cases: Vec<Case>,
    /// Flows of the largest case.
    many: u32,
    _network: Network,
}

impl Stage {
    /// Makes what the wanted cases need, and no more.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_up(wanted: &Wanted, tell: &Tell<'_>) -> Result<Self, Failure> {
        let set_up = |what: &str, at: u32| tell(what, Some(SET_UP * f64::from(at) / 6.0));
        let network = Network::enter()?;
        let many = wanted.flows;
        let harness = Harness::load(8 * dialled(many), 3 * MANY_V6, many)?;
        let mut stage =
            Self { harness, worlds: Vec::new(), cases: Vec::new(), many, _network: network };
        let established = wanted.any(&["established-v4", "established-v6"]);
        if established || wanted.any(&["services-10000"]) {
            set_up("one service, 1,048,576 flows", 0);
            stage.one_service(wanted)?;
        }
        if wanted.any(&["new-v4"]) {
            set_up("one service, new flows", 1);
            stage.new_flows()?;
        }
        if wanted.any(&["syn-flood"]) {
            set_up("one service, a flood", 2);
            stage.flood()?;
        }
        if wanted.any(&["pass-other", "services-10000", "services-10000x10"]) {
            set_up("10,000 services, 1,048,576 flows", 3);
            stage.ten_thousand(wanted)?;
        }
        if wanted.any(&["dsr-v4"]) {
            set_up("one service, spread over nodes", 4);
            stage.spread()?;
        }
        set_up("the floor, 1,048,576 flows", 5);
        stage.floor()?;
        Ok(stage)
    }

    fn world(&mut self, flow_sets_v4: u32, cluster: Cluster) -> Result<(usize, u32), Failure> {
        self.world_of(flow_sets_v4, cluster, world::node())
    }

    fn world_of(
        &mut self,
        flow_sets_v4: u32,
        cluster: Cluster,
        node: Node,
    ) -> Result<(usize, u32), Failure> {
        let [flow_sets_v4, flow_sets_v6] =
            [flow_sets_v4, 1 << 18].map(|sets| sets.min(self.many.next_power_of_two()));
        let sizes = Sizes { flow_sets_v4, flow_sets_v6, ..Sizes::with_flow_bytes(0) };
        let world = World::load(sizes, &[world::PROGRAM], cluster, node)?;
        let slot = self.harness.admit(world.program()?)?;
        self.worlds.push(world);
        Ok((self.worlds.len() - 1, slot))
    }

    /// Takes a case in: what is left open are those of a packet of a known flow.
    fn add(&mut self, name: &'static str, list: List, slot: u32, world: usize) -> &mut Case {
        self.cases.push(Case {
            name,
            flows: list.count,
            services: self.worlds[world].cluster.services,
            entry: Entry::NextV4,
            run: list.run(slot, Tcp::ACK),
            empty: list.run(TRIVIAL, Tcp::ACK),
            world: Some(world),
            expect: Expect::Each(&[Reason::ToRemote]),
            floor: list.count,
            target: None,
        });
        self.cases.last_mut().expect("it was just pushed")
    }

    fn one_service(&mut self, wanted: &Wanted) -> Result<(), Failure> {
        let (world, slot) = self.world(1 << 18, ONE)?;
        let flows = self.established::<V4>(world, slot, dialled(self.many), self.many)?;
        for count in counts([1, 1 << 14, 1 << 17, self.many]) {
            let target = match count {
                1 => Some(Target::Floor(1.6)),
                16_384 => None,
                _ => Some(Target::Floor(0.75)),
            };
            self.add("established-v4", flows.forward.take(count), slot, world).target = target;
            let reply = self.add("established-v4-reply", flows.reply.take(count), slot, world);
            reply.expect = Expect::Each(&[Reason::ReplyRemote]);
            reply.target = target;
        }
        if !wanted.any(&["established-v6"]) {
            return Ok(());
        }
        let flows = self.established::<V6>(world, slot, dialled(MANY_V6), MANY_V6)?;
        for count in [1, MANY_V6] {
            let target = (count == 1).then_some(Target::Floor(2.0));
            let forward = self.add("established-v6", flows.forward.take(count), slot, world);
            forward.entry = Entry::NextV6;
            forward.target = target;
            let reply = self.add("established-v6-reply", flows.reply.take(count), slot, world);
            reply.entry = Entry::NextV6;
            reply.expect = Expect::Each(&[Reason::ReplyRemote]);
            reply.target = target;
        }
        Ok(())
    }

    /// Packets whose sources were never seen before.
    fn new_flows(&mut self) -> Result<(), Failure> {
        let (world, slot) = self.world(1 << 18, ONE)?;
        let dst = destination::<V4>(&self.worlds[world], 0)?;
        let stamp = V4::stamp(V4([0; 4]), [0, 0], dst, Cluster::PORT.to_be_bytes());
        let list = List::write(&mut self.harness, &[stamp])?;
        let many = self.many;
        let case = self.add("new-v4", list, slot, world);
        case.entry = Entry::FreshV4;
        case.flows = many;
        case.floor = many;
        case.run.flags = Tcp::SYN.into();
        case.expect = Expect::Nearly(&[Reason::ToRemote]);
        case.target = Some(Target::Floor(2.5));
        Ok(())
    }

    fn flood(&mut self) -> Result<(), Failure> {
        // As large as by default for a flood of a million, four times what is let in.
        let (world, slot) = self.world((self.many / 32).next_power_of_two(), ONE)?;
        let dst = destination::<V4>(&self.worlds[world], 0)?;
        let mut flood = |network| {
            let mut stamps: Vec<_> = (0..self.many)
                .map(|at| {
                    let (src, sport) = V4::client(network, at);
                    V4::stamp(src, sport, dst, Cluster::PORT.to_be_bytes())
                })
                .collect();
            flows::shuffle(&mut stamps);
            List::write(&mut self.harness, &stamps)
        };
        let (before, list) = (flood(31)?, flood(30)?);
        // Past the cap before anything is measured, and for as long as that takes.
        self.worlds[world].be_patient(true)?;
        self.harness.run(Entry::NextV4, &mut before.run(slot, Tcp::SYN), before.count)?;
        let case = self.add("syn-flood", list, slot, world);
        case.run.flags = Tcp::SYN.into();
        case.expect = Expect::Each(&[Reason::HalfOpenFull]);
        case.target = Some(Target::Floor(1.25));
        Ok(())
    }

    /// The first step of DSR. No packet is of a flow that anybody knows.
    fn spread(&mut self) -> Result<(), Failure> {
        let (world, slot) = self.world_of(1 << 18, ONE, world::node_of_many(&ONE))?;
        let dst = destination::<V4>(&self.worlds[world], 0)?;
        let mut stamps: Vec<_> = (0..self.many)
            .map(|at| {
                let (src, sport) = V4::client(60, at);
                V4::stamp(src, sport, dst, Cluster::PORT.to_be_bytes())
            })
            .collect();
        flows::shuffle(&mut stamps);
        let list = List::write(&mut self.harness, &stamps)?;
        let few = Target::Case { name: "dsr-v4", flows: 1, services: 1, most: 1.25 };
        for (count, target) in [(1, Target::Most(70.0)), (self.many, few)] {
            let case = self.add("dsr-v4", list.take(count), slot, world);
            case.expect = Expect::Each(&[Reason::ToNode]);
            case.target = Some(target);
        }
        Ok(())
    }

    fn ten_thousand(&mut self, wanted: &Wanted) -> Result<(), Failure> {
        let (world, slot) = self.world(1 << 19, TEN_THOUSAND)?;
        self.strangers(world, slot)?;
        if !wanted.any(&["services-10000", "services-10000x10"]) {
            return Ok(());
        }
        // No more: source ports are kept for `limits::PORT_POOLS` backends, a third of these.
        let flows = self.established::<V4>(world, slot, dialled(self.many), self.many / 4)?;
        let against = |name, flows| Some(Target::Case { name, flows, services: 1, most: 1.1 });
        self.add("services-10000", flows.forward.take(1), slot, world).target =
            against("established-v4", 1);
        let reply = self.add("services-10000-reply", flows.reply.take(1), slot, world);
        reply.expect = Expect::Each(&[Reason::ReplyRemote]);
        reply.target = against("established-v4-reply", 1);
        let many = self.many;
        let random = self.add("services-10000x10", flows.forward, slot, world);
        random.floor = many;
        random.target = Some(Target::Floor(2.0));
        Ok(())
    }

    /// Packets that are for somebody else.
    fn strangers(&mut self, world: usize, slot: u32) -> Result<(), Failure> {
        let node = NODE.iter().find_map(|text| V4::of(text.parse().ok()?));
        let node = node.ok_or_else(|| broken("this node", &"it has no address"))?;
        let foreign = |at| {
            let (src, sport) = V4::client(40, at);
            let (dst, dport) = V4::client(50, at.wrapping_mul(7));
            V4::stamp(src, sport, dst, dport)
        };
        let (client, sport) = V4::client(40, 0);
        let cases = [
            ("pass-other-foreign", (0..STRANGERS).map(foreign).collect::<Vec<_>>()),
            ("pass-other-node", vec![V4::stamp(client, sport, node, [0, 22])]),
            ("pass-other-pod", vec![V4::stamp(V4(POD), sport, client, [1, 187])]),
        ];
        for (name, stamps) in cases {
            let list = List::write(&mut self.harness, &stamps)?;
            let case = self.add(name, list, slot, world);
            case.expect = Expect::Nothing;
            case.floor = 1;
            case.target = Some(Target::Floor(0.6));
        }
        Ok(())
    }

    fn established<A: super::harness::Stamped + Sender>(
        &mut self,
        world: usize,
        slot: u32,
        dialled: u32,
        wanted: u32,
    ) -> Result<Established, Failure> {
        let services = self.worlds[world].cluster.services;
        let to: Vec<(A, u16)> = (0..services)
            .map(|at| Ok((destination(&self.worlds[world], at)?, Cluster::PORT)))
            .collect::<Result<_, Failure>>()?;
        self.worlds[world].be_patient(true)?;
        let made = flows::establish::<A>(&mut self.harness, slot, &to, dialled)?;
        self.worlds[world].be_patient(false)?;
        if made.forward.count < wanted {
            let what = format!("of {dialled} flows only {} were taken in", made.forward.count);
            return Err(broken("the flow table", &what));
        }
        Ok(Established { forward: made.forward.take(wanted), reply: made.reply.take(wanted) })
    }

    /// The floor at every number of flows that a case is measured by, and the harness alone.
    fn floor(&mut self) -> Result<(), Failure> {
        let mut stamps = Vec::new();
        for at in 0..self.many {
            let (src, sport) = V4::client(20, at);
            let stamp = V4::stamp(src, sport, V4([198, 18, 0, 1]), Cluster::PORT.to_be_bytes());
            let to = V4::stamp(V4([192, 0, 2, 1]), sport, V4([10, 128, 0, 1]), [0x1f, 0x90]);
            let (key, value) = flows::floor_entry(&stamp, &to);
            self.harness.teach(&key, &value)?;
            stamps.push(stamp);
        }
        flows::shuffle(&mut stamps);
        let list = List::write(&mut self.harness, &stamps)?;
        let mut counts: Vec<u32> = self.cases.iter().map(|case| case.floor).collect();
        counts.push(1);
        counts.sort_unstable();
        counts.dedup();
        for (at, count) in counts.into_iter().enumerate() {
            let list = list.take(count);
            self.cases.insert(
                at,
                Case {
                    name: "floor",
                    flows: count,
                    services: 0,
                    entry: Entry::NextV4,
                    run: list.run(FLOOR, Tcp::ACK),
                    empty: list.run(TRIVIAL, Tcp::ACK),
                    world: None,
                    expect: Expect::Known,
                    floor: count,
                    target: None,
                },
            );
        }
        Ok(())
    }
}

/// Flows that are dialled where so many are wanted: some may be refused.
const fn dialled(wanted: u32) -> u32 {
    wanted + wanted / 32
}

/// Each once, and none above the last.
fn counts<const N: usize>(counts: [u32; N]) -> BTreeSet<u32> {
    let most = counts[N - 1];
    counts.into_iter().filter(|count| *count <= most).collect()
}

/// What clients outside dial for a Service.
fn destination<A: Sender>(world: &World, service: u32) -> Result<A, Failure> {
    let family = if A::IS_V4 { Family::V4 } else { Family::V6 };
    A::of(world.cluster.outside_ip(service, family))
        .ok_or_else(|| broken("the cluster", &"an address of the other family"))
}
