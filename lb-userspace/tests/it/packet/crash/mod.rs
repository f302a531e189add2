//! An agent that dies before any of its writes: what the programs answer in between, and what its
//! successor makes of it.

mod hooks;
mod wishes;
mod words;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    sync::Arc,
    time::Duration,
};

use lb_common::abi::Settings;
use lb_userspace::{
    api::{Explanation, Packet, Verdict},
    datapath::{
        crash,
        maps::Maps,
        object::{Object, Sizes, Unused, load_only},
    },
    explain::Explainer,
    model::{ClusterNode, ClusterNodes, Node},
    plan::{
        Plan,
        tables::{self, Dsr, Environment, Image, Op, Tables},
    },
};
use serde_json::{Value, json};

use self::wishes::{AFTER, BEFORE, HERE, Wish, node_of, of_v6, places};
use crate::support::{
    counted,
    objects::{
        apply_service, apply_slice, complaints, index_of, object, service, slice_of, this_node,
    },
};

const EXPLAINING: &[&str] = &["explain_packet", "explain_socket"];

/// Everything is read back many times.
const SIZES: Sizes =
    Sizes { services: 64, backends: 256, arena_lines: 4096, flow_sets_v4: 16, flow_sets_v6: 16 };

/// What ends an agent in these stories.
struct Killed;

/// Who is killed says nothing.
fn be_quiet() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Killed>() {
            before(info);
        }
    }));
}

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    verdict: Verdict,
    candidates: Vec<SocketAddr>,
    /// With DSR, the node that it is sent to.
    node: Option<String>,
    /// Whether who gets it sees this node; only of what goes on.
    masquerade: Option<bool>,
}

/// By who asks, and where.
type Answers = BTreeMap<(IpAddr, SocketAddr), Answer>;

impl Answer {
    /// Whether it is one of these. Where a policy and the endpoints change at once, those who come
    /// may be told for a moment as those who left would have been.
    fn is_whole(&self, wholes: &[&Self]) -> bool {
        let whom = |it: &Self| (it.verdict, it.candidates.clone(), it.node.clone());
        wholes.iter().any(|it| whom(self) == whom(it))
            && wholes.iter().any(|it| self.masquerade == it.masquerade)
    }
}

struct World {
    object: Object,
    maps: Maps,
    node: Node,
    settings: Settings,
    forwards_by_dsr: bool,
    /// Before which of its writes the next agent dies: within which step, and how many it makes there.
    end: Option<(usize, u64)>,
    /// How many steps the agent has finished.
    steps: usize,
}

impl World {
    fn new(forwards_by_dsr: bool) -> Self {
        let mut object = load_only(SIZES, EXPLAINING, Unused::default()).unwrap();
        let maps = Maps::from_object(&mut object).unwrap();
        let mut node = this_node();
        node.addresses.push(of_v6("fd00:192", 2));
        node.local_addresses.clone_from(&node.addresses);
        node.pod_cidrs.push("fd00:10::/64".parse().unwrap());
        node.service_cidrs =
            ["10.96.0.0/12", "fd00:96::/112"].map(|net| net.parse().unwrap()).into();
        let base = Settings {
            flow_mask_v4: SIZES.flow_sets_v4 - 1,
            flow_mask_v6: SIZES.flow_sets_v6 - 1,
            ..Settings::default()
        };
        let settings = tables::settings(base, &node).unwrap();
        Self { object, maps, node, settings, forwards_by_dsr, end: None, steps: 0 }
    }

    /// An agent begins, reads everything back, and carries out the wish; the writes that it planned.
    fn reconcile(&mut self, wish: Wish) -> Vec<Op> {
        let nodes = || Arc::new(nodes(wish));
        self.node.nodes = self.forwards_by_dsr.then(nodes);
        let plan = plan(wish, &self.node);
        let mut tables = Tables::adopt(self.maps.capacities, &self.image());
        let node_addresses = self.node.local_addresses.iter().copied().collect();
        let addresses = &self.node.addresses;
        let towards =
            |to: IpAddr| Ok(addresses.iter().find(|at| at.is_ipv4() == to.is_ipv4()).copied());
        let environment = Environment {
            settings: &self.settings,
            node_addresses: &node_addresses,
            source_towards: &towards,
            dsr: Dsr::of(&self.node, 1),
        };
        let plans: Vec<_> = plan.services().collect();
        let planned = tables.reset(&environment, &plans);
        assert_eq!(planned.refused, []);
        self.steps = 0;
        self.carry_out(&planned.ops);
        // Time passes: what nobody can be reading is used again.
        for seconds in [1, 10, 100] {
            let ops: Vec<Op> = tables.reclaim(Duration::from_secs(seconds), &[].into());
            self.carry_out(&ops);
        }
        self.step(|maps| maps.tighten_gate().unwrap());
        planned.ops
    }

    fn carry_out(&mut self, ops: &[Op]) {
        ops.chunks(1).for_each(|op| self.step(|maps| maps.apply(op).unwrap()));
    }

    /// How many writes a step takes is another number each time: words that are right already are not
    /// written. So an agent dies in a certain step, and not after so many writes in all.
    fn step(&mut self, work: impl FnOnce(&mut Maps)) {
        if let Some((_, writes)) = self.end.filter(|(step, _)| *step == self.steps) {
            crash::after_here(writes, || panic_any(Killed));
        }
        work(&mut self.maps);
        // It is past where it should have died, if it should.
        crash::left_here();
        self.steps += 1;
    }

    fn image(&self) -> Image {
        self.maps.image().unwrap()
    }

    /// What is answered once each of these wishes was carried out; the last one stays.
    fn answers_to(&mut self, wishes: [Wish; 2]) -> [Answers; 2] {
        wishes.map(|wish| {
            self.reconcile(wish);
            self.answers()
        })
    }

    /// What clients outside, pods of the cluster and this node itself get at every place.
    fn answers(&self) -> Answers {
        let explainer = Explainer::new(&self.object, &self.maps, &self.node).unwrap();
        let sources = ["203.0.113.9", "192.0.2.9", "10.0.7.7", "2001:db8::9", "fd00:10::7:7"];
        let sources = sources.map(|source| source.parse::<IpAddr>().unwrap());
        let sources = [&sources[..], &self.node.addresses].concat();
        let places = places();
        let asked: Vec<_> = sources
            .iter()
            .flat_map(|source| places.iter().map(move |(proto, at)| (*source, *proto, *at)))
            .filter(|(source, _, at)| source.is_ipv4() == at.is_ipv4())
            .map(|(src, proto, at)| {
                let (proto, sport) = (proto.to_owned(), Some(40_000));
                Packet { src, sport, proto, dst: at.ip(), port: at.port(), flags: None }
            })
            .collect();
        let told = explainer.explain(&asked).unwrap();
        let answer = |(packet, told): (Packet, Explanation)| {
            let Explanation { verdict, mut candidates, masquerade, node, .. } = told;
            candidates.sort();
            let masquerade = (verdict == Verdict::Forward).then_some(masquerade);
            let at = SocketAddr::new(packet.dst, packet.port);
            ((packet.src, at), Answer { verdict, candidates, node, masquerade })
        };
        asked.into_iter().zip(told).map(answer).collect()
    }
}

/// This node, and those with endpoints.
fn nodes(wish: Wish) -> ClusterNodes {
    let node = |name: &str| {
        let last = name[1..].parse::<u8>().unwrap() + 1;
        let IpAddr::V6(v6) = of_v6("fd00:192", last) else { unreachable!("IPv6") };
        let v4 = Some([192, 168, 0, last].into());
        (name.to_owned(), ClusterNode { v4, v6: Some(v6), forwards: true })
    };
    let endpoints = wish.iter().flat_map(|(_, _, _, endpoints)| endpoints.iter().copied());
    endpoints.chain([HERE]).map(|endpoint| node(node_of(endpoint))).collect()
}

fn plan(wish: Wish, node: &Node) -> Plan {
    let objects = wish.iter().flat_map(|(name, last, more, endpoints)| {
        let mut spec: Value = serde_json::from_str(more).unwrap();
        let protocol = spec["protocol"].as_str().unwrap_or("TCP").to_owned();
        let mut ips = vec![format!("10.96.0.{last}")];
        let has_v6 = !spec["ipFamilies"].is_null();
        ips.extend(has_v6.then(|| of_v6("fd00:96", *last).to_string()));
        spec["clusterIP"] = json!(ips[0]);
        spec["clusterIPs"] = json!(ips);
        let node_port = spec["nodePort"].take();
        spec["ports"] = json!([
            {"name": "http", "port": 80, "protocol": protocol, "nodePort": node_port},
        ]);
        spec["loadBalancerSourceRanges"] = spec["ranges"].take();
        let is_balanced = spec["type"] == "LoadBalancer";
        let mut service = service(name, spec);
        if is_balanced {
            let ingress = json!([{"ip": format!("198.51.100.{last}")}]);
            service.status = Some(object(json!({"loadBalancer": {"ingress": ingress}})));
        }
        let slice = |family: &str, address: &dyn Fn(u8) -> IpAddr| {
            let endpoint =
                |last: &u8| json!({"addresses": [address(*last)], "nodeName": node_of(*last)});
            let endpoints = endpoints.iter().map(endpoint).collect();
            let mut slice = slice_of(&format!("{name}-{}", family.to_lowercase()), name, endpoints);
            family.clone_into(&mut slice.address_type);
            slice.ports.as_mut().unwrap()[0].protocol = Some(protocol.clone());
            apply_slice(slice)
        };
        let v4 = slice("IPv4", &|last| [10, 0, 0, last].into());
        let v6 = has_v6.then(|| slice("IPv6", &|last| of_v6("fd00:10", last)));
        [apply_service(service), v4].into_iter().chain(v6)
    });
    let mut index = index_of(objects);
    assert_eq!(complaints(&index), Vec::<String>::new());
    let mut plan = Plan::default();
    plan.update(&mut index, node);
    plan
}

#[test]
fn an_agent_may_die_before_any_write_and_every_service_gives_an_old_or_a_new_answer() {
    dies_before_every_write(false);
}

#[test]
fn so_may_one_whose_node_forwards_by_dsr() {
    dies_before_every_write(true);
}

fn dies_before_every_write(forwards_by_dsr: bool) {
    let mut world = World::new(forwards_by_dsr);
    let [new, old] = world.answers_to([AFTER, BEFORE]);
    // What is served by DSR may be served by SNAT for a moment: as whole, but through this node.
    let [new_by_snat, old_by_snat] = World::new(false).answers_to([AFTER, BEFORE]);
    assert!(old.iter().filter(|(at, answer)| new[*at] != **answer).count() >= 30);
    be_quiet();

    let (mut step, mut writes, mut deaths) = (0, 0, 0);
    loop {
        world.reconcile(BEFORE);
        assert_eq!(world.answers(), old, "the way back, after {deaths} deaths");
        world.end = Some((step, writes));
        let died = catch_unwind(AssertUnwindSafe(|| world.reconcile(AFTER)));
        world.end = None;
        let Err(died) = died else {
            // So many writes did not end it within that step: the next one, if there is one.
            if step == world.steps {
                break;
            }
            (step, writes) = (step + 1, 0);
            continue;
        };
        let place = format!("before write {writes} of step {step}");
        assert!(died.is::<Killed>(), "{place} something else went wrong");
        for (at, answer) in world.answers() {
            let wholes = [&old, &new, &old_by_snat, &new_by_snat].map(|all| &all[&at]);
            assert!(answer.is_whole(&wholes), "{at:?} {place}: {answer:?}, and not of {wholes:?}");
        }
        world.reconcile(AFTER);
        assert_eq!(world.answers(), new, "the next agent, {place}");
        assert_eq!(world.reconcile(AFTER), [], "the maps are the plan's, {place}");
        writes += 1;
        deaths += 1;
    }
    counted(deaths, "places to die at");
    assert!(deaths >= 200, "{deaths} deaths are no reconciliation");
}
