//! A third world: programs and rules are held against others' ideas of the same thing, on packets that
//! are whole and right. One is a balancer that knows nothing of how rules work ([`balancer`]), the
//! other Linux's own address translation ([`linux`]).

mod balancer;
mod linux;
mod plain;

use std::{collections::BTreeMap, net::SocketAddr};

use lb_common::{
    abi::{Scope, Service},
    wire::proto,
};
use lb_userspace::datapath::object::Unused;

use super::{
    both::{Both, patient, tell_as_they_come, towns},
    icmp::{kinds, router},
    kernel::Program,
    random::{Dice, inputs, seed},
    town::{NODE_PORT, PORT, SERVICE},
};
use balancer::{Asked, Balancer, Error, Flow};
use plain::{Plain, Says};

/// Packets in a world, and in all unless `LB_INPUTS` says otherwise.
const PACKETS: usize = 200;
const INPUTS: usize = 20_000;

/// A service of a random kind, and the balancer that serves it.
struct Place {
    balancer: Balancer,
    internal: Scope,
    external: Scope,
    /// Whether source ranges keep the client out, and others but it.
    barred: Option<&'static str>,
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect(address), port)
}

fn place(both: &mut Both, dice: &mut Dice) -> Place {
    let town = &mut both.town;
    let scopes = [Scope::Cluster, Scope::Cluster, Scope::Local];
    let (internal, external) = (dice.one_of(&scopes), dice.one_of(&scopes));
    let rings = (dice.one_in(2), dice.one_in(2));
    town.world.change_service(SERVICE, |service| {
        service.with_policies(internal, external).with_choice(rings.1, rings.0)
    });
    let mut barred = None;
    if dice.one_in(4) {
        town.world.change_service(SERVICE, Service::with_source_ranges);
        let allowed = dice.one_of(&[town.names.client, town.names.pod]);
        town.allow_source(allowed);
        barred = Some(allowed);
    }
    let settings = &mut town.world.settings;
    (settings.seed, settings.table_key) = (dice.roll(), dice.roll());
    let snat = settings.snat_first..=settings.snat_last;
    let ids: Vec<u32> = town.world.backends.keys().copied().collect();
    let of = |here: bool| ids.iter().filter(move |id| (**id < 20) == here);
    let balancer = Balancer {
        flows: BTreeMap::new(),
        here: of(true).map(|id| town.listens(*id)).collect(),
        there: of(false).map(|id| town.listens(*id)).collect(),
        node: town.names.node.parse().expect("an address"),
        snat,
        rings,
    };
    Place { balancer, internal, external, barred }
}

fn says(protocol: u8, dice: &mut Dice) -> Says {
    if protocol == proto::UDP {
        return Says::default();
    }
    let ack = Says { ack: true, ..Says::default() };
    dice.one_of(&[
        Says::SYN,
        Says::SYN,
        ack,
        ack,
        Says { fin: true, ..ack },
        Says { rst: true, ..Says::default() },
    ])
}

impl Place {
    fn ask(&mut self, both: &mut Both, program: Program, dice: &mut Dice) {
        let (names, protocol) = (both.town.names, both.town.protocol);
        let source = dice.one_of(&[names.client, names.client, names.pod, names.there[0]]);
        let targets = [(names.vip, PORT), (names.cluster_ip, PORT), (names.node, NODE_PORT)];
        let (address, port) = dice.one_of(&targets);
        let src = at(source, 40_000 + dice.below(6) as u16);
        let says = says(protocol, dice);
        let sent = Plain::draw((protocol, src, at(address, port)), says, dice);
        let outside = source == names.client;
        let scope = match address {
            _ if address == names.cluster_ip => self.internal,
            _ if outside => self.external,
            _ => Scope::Cluster,
        };
        let barred = address == names.vip && self.barred.is_some_and(|allowed| allowed != source);
        let asked = Asked { sent: &sent, says, scope, outside, barred };
        self.balancer.asked(both, program, &asked);
    }

    fn answer(&mut self, both: &mut Both, program: Program, flow: &Flow, dice: &mut Dice) {
        let (protocol, ..) = flow.key;
        let says = match says(protocol, dice) {
            Says { syn: true, .. } => Says { ack: true, ..Says::SYN },
            says => says,
        };
        let sent = Plain::draw((protocol, flow.seen.1, flow.seen.0), says, dice);
        self.balancer.answered(both, program, flow, says, &sent);
    }
}

/// An error about the last packet of a flow in one of its directions.
fn tell_error(both: &mut Both, program: Program, flow: &Flow, dice: &mut Dice) {
    let kinds = kinds(both.town.names.v4);
    let error = Error {
        kind: kinds[dice.below(kinds.len())].clone(),
        router: router(both).parse().expect("an address"),
        quoted: dice.one_of(&[8, 12, 20, 28, 400]),
    };
    if dice.one_in(2) {
        flow.error_about_there(both, program, &error);
    } else {
        flow.error_about_back(both, program, &error);
    }
}

#[test]
fn a_balancer_that_knows_none_of_the_rules_makes_the_same_packets() {
    let seed = seed();
    let inputs = inputs(INPUTS);
    println!("LB_SEED={seed} LB_INPUTS={inputs} repeats this");
    let (mut dice, mut builder) = (Dice(seed), Dice(!seed));
    let worlds = (0..inputs.div_ceil(PACKETS)).map(|_| {
        let (here, there) = (builder.below(4), builder.below(4));
        let all = patient(towns(here, there));
        all.into_iter().nth(builder.below(6)).expect("six towns")
    });
    let mut fates = [0; 3];
    // By programs as an agent loads them that does not forward by DSR.
    tell_as_they_come(Unused::PARTS, worlds, |both| {
        let mut place = place(both, &mut dice);
        for _ in 0..PACKETS {
            let program = dice.one_of(&[Program::Xdp, Program::Ingress]);
            let flows: Vec<&Flow> = place.balancer.flows.values().collect();
            let known = (!flows.is_empty()).then(|| flows[dice.below(flows.len())].clone());
            match (dice.below(4), known) {
                (0, Some(flow)) => {
                    place.answer(both, program, &flow, &mut dice);
                    fates[0] += 1;
                }
                (1, Some(flow)) => {
                    tell_error(both, program, &flow, &mut dice);
                    fates[1] += 1;
                }
                _ => {
                    place.ask(both, program, &mut dice);
                    fates[2] += 1;
                }
            }
        }
    });
    assert!(fates.iter().all(|count| *count > inputs / 20), "answers, errors, requests: {fates:?}");
}
