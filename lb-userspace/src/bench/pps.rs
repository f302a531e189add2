//! Live traffic: packets to a NodePort come over a veth pair, as many as one core can send, take and
//! pass on to a backend elsewhere; how many arrive a second through the shipped program, and through
//! the rules that Kubernetes' own proxy would write.
//!
//! The core does everything: it makes the packets, runs what is measured, and counts what comes back.

use std::time::Instant;

use lb_common::{abi::bench::Run, addr::V4, wire::Tcp};

use super::{
    broken,
    flows::{self, Sender as _},
    harness::{self, Harness, TRIVIAL},
    network::{FAR, FAR_INDEX, NODE, Network, UPLINK_NAME},
    part::Tell,
    report::Row,
    rules::Rules,
    statistics::{self, median},
    target::Target,
    world::{self, World},
};
use crate::{
    cli::Failure,
    cluster::synthetic::{Cluster, Reach},
    datapath::object::Sizes,
};

/// Flows that packets are of.
const FLOWS: u32 = 1024;
/// Backends of the Service.
const BACKENDS: u32 = 20;

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    /// Packets of each side in a round.
    pub packets: u32,
}

impl Effort {
    pub const FULL: Self = Self { rounds: 15, packets: 1 << 19 };
    pub const QUICK: Self = Self { rounds: 7, packets: 1 << 16 };
}

/// Who has the packets between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Ours,
    Nftables,
    /// A program that sends each packet back as it is: what the traffic itself costs.
    Nothing,
}

const SIDES: [(Side, &str); 3] = [
    (Side::Ours, "live-pps"),
    (Side::Nftables, "live-pps-nftables"),
    (Side::Nothing, "live-pps-nothing"),
];

/// Measures all sides in turn.
///
/// # Errors
/// If the kernel refuses, a tool is missing, or packets get lost.
pub fn measure(effort: Effort, tell: &Tell<'_>) -> Result<Vec<Row>, Failure> {
    let _network = Network::enter()?;
    let cluster = Cluster { reach: Reach::NodePort, ..Cluster::new(1, BACKENDS) };
    let mut harness = Harness::load(4 * FLOWS, 1, 1)?;
    let sizes = Sizes { flow_sets_v4: FLOWS, flow_sets_v6: 64, ..Sizes::with_flow_bytes(0) };
    let mut world = World::load(sizes, &[world::PROGRAM], cluster, world::node())?;
    let to = dialled(&cluster)?;
    let slot = harness.admit(world.program()?)?;
    let made = flows::establish::<V4>(&mut harness, slot, &[to], FLOWS)?;
    let run = made.forward.run(TRIVIAL, Tcp::ACK);
    Rules::Nftables.load(&cluster)?;
    let _sink = harness.attach("sink", FAR)?;
    let mut rates = [const { Vec::new() }; SIDES.len()];
    for round in 0..=effort.rounds {
        for at in 0..SIDES.len() {
            let at = if round % 2 == 0 { at } else { SIDES.len() - 1 - at };
            let (side, name) = SIDES[at];
            tell(name, Some(round as f64 / (effort.rounds + 1) as f64));
            let rate = send(&mut harness, &mut world, side, run, effort.packets)?;
            // The first round opens flows where there are none.
            if round > 0 {
                rates[at].push(rate);
            }
        }
    }
    Ok(rows(&rates))
}

/// The NodePort, at this node's address.
fn dialled(cluster: &Cluster) -> Result<(V4, u16), Failure> {
    let node = NODE.iter().find_map(|text| V4::of(text.parse().ok()?));
    node.zip(cluster.node_port(0)).ok_or_else(|| broken("the cluster", &"it has no NodePort"))
}

/// Packets a second that came back.
fn send(
    harness: &mut Harness,
    world: &mut World,
    side: Side,
    mut run: Run,
    packets: u32,
) -> Result<f64, Failure> {
    let _link = match side {
        Side::Ours => harness::attach(&mut world.kernel.object, world::PROGRAM, UPLINK_NAME)?,
        Side::Nftables => harness.attach("to_stack", UPLINK_NAME)?,
        Side::Nothing => harness.attach("trivial", UPLINK_NAME)?,
    };
    let before = harness.sunk()?;
    let began = Instant::now();
    harness.send(&mut run, packets, FAR_INDEX)?;
    let took = began.elapsed().as_secs_f64();
    let came = harness.sunk()? - before;
    // What is lost is lost where a core that can take no more drops it: never most of it.
    if came * 2 < u64::from(packets) {
        let what = format!("of {packets} packets through {side:?} only {came} came back");
        return Err(broken("live-pps", &what));
    }
    Ok(came as f64 / took)
}

fn rows(rates: &[Vec<f64>; SIDES.len()]) -> Vec<Row> {
    let [ours, theirs, nothing] = rates;
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    let row = |((side, name), rates): (&(Side, &str), &Vec<f64>)| {
        let row = Row {
            name: (*name).to_owned(),
            flows: Some(FLOWS),
            services: Some(1),
            value: Some(median(rates) / 1e6),
            unit: Some("Mpps".to_owned()),
            samples: rates.clone(),
            ..Row::default()
        };
        if *side != Side::Ours {
            return row;
        }
        let [low, high] = statistics::interval(&ratios);
        // What is left of a packet's time without what the traffic itself takes.
        let net = |rates: &[f64]| (1.0 / median(rates) - 1.0 / median(nothing)) * 1e9;
        let (mine, others) = (net(ours), net(theirs));
        let note = format!(
            "{low:.2} to {high:.2} times the rules of nftables (95 %); without what the traffic takes, \
             {mine:.0} ns a packet against {others:.0}"
        );
        Row { note: Some(note), ..row }
            .held_against(Some(Target::Least(4.0)), Some(median(&ratios)))
    };
    SIDES.iter().zip(rates).map(row).collect()
}
