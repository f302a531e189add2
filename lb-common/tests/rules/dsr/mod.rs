//! DSR in two steps, held against envelopes that etherparse writes and reads.

mod errors;
mod first_node;
mod second_node;
mod sent_on;

use lb_common::{
    abi::NodeSlot,
    model::Run,
    path::Hook,
    verdict::{Reason, Verdict},
};

use super::{
    envelopes::{Outside, opened, outside, wrapped},
    support::Sample,
    town::{HOP, SERVICE, Town},
};

const REST: u32 = NodeSlot::REST;

/// Towns where every flow's slot is this one.
fn towns(hook: Hook, here: usize, there: usize, slot: (u32, u32)) -> Vec<Town> {
    let towns = Town::all(hook).into_iter();
    towns.map(|town| town.with_backends(here, there).spread(&[slot])).collect()
}

/// The same for one protocol.
fn towns_of(protocol: u8, hook: Hook, here: usize, slot: (u32, u32)) -> Vec<Town> {
    let all = towns(hook, here, 2, slot);
    all.into_iter().filter(|town| town.protocol == protocol).collect()
}

/// What leaves for another node: the envelope and the packet in it, one hop older.
#[track_caller]
fn sent(town: &Town, run: &Run) -> (Outside, Sample) {
    assert_eq!((run.verdict, run.reason), (Verdict::Forward, Reason::ToNode));
    assert_eq!((run.outcome.service, run.outcome.hop), (SERVICE, HOP));
    let (outside, inner) = opened(&run.bytes);
    assert_eq!(outside.src.to_string(), town.names.node);
    (outside, inner)
}

/// A packet of the client's that comes in an envelope from the first of the others.
fn from_peer(town: &Town, sample: &Sample, ttl: u8) -> Vec<u8> {
    wrapped(&sample.bytes(), outside(town.names.peers[0], town.names.node, ttl))
}

/// What a backend on this node gets of a packet that comes in an envelope.
#[track_caller]
fn delivered(town: &Town, sample: &Sample, ttl: u8) -> Sample {
    let run = town.world.arrive(&from_peer(town, sample, ttl));
    assert_eq!((run.verdict, run.reason), (Verdict::Deliver, Reason::ToLocal), "{sample:?}");
    Sample::read(&run.bytes)
}
