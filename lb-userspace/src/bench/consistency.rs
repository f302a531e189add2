//! Consistency while backends come and go: every packet of every flow is looked at, one by one, and
//! one that goes elsewhere than to its flow's backend, which still exists, is counted.
//!
//! Packets are sent on another CPU than that on which the agent's steps run, so they meet each change
//! at any of its writes.

use std::{
    collections::HashMap,
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Acquire, Release},
    },
    thread,
    time::{Duration, Instant},
};

use lb_common::{
    addr::V4,
    wire::{Tcp, proto},
};

use super::{
    broken,
    flows::{self, Sender as _},
    machine,
    network::Network,
    node::{self, At, End, Node},
    part::Tell,
    plane::Kernel,
    report::Row,
    target::Target,
    world::{self, World},
};
use crate::{
    cli::Failure,
    cluster::synthetic::{Cluster, Reach},
    datapath::object::Sizes,
    model::Family,
};

/// Backends that there are at first.
const BACKENDS: u32 = 100;
/// One packet in so many is a SYN once more.
const SYN_AGAIN: u32 = 8;
/// Nodes that a packet comes to at most: the first, the second, the one before, and the second again.
const HOPS: usize = 4;

/// How much is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub flows: u32,
    /// Backends that come or go, in turn.
    pub changes: u32,
    /// From one change to the next.
    pub every: Duration,
    /// Nodes that DSR spreads packets over; packets come to each of them.
    pub nodes: u32,
}

impl Effort {
    pub const FULL: Self =
        Self { flows: 1 << 17, changes: 60, every: Duration::from_secs(1), nodes: 4 };
    pub const QUICK: Self =
        Self { flows: 1 << 13, changes: 12, every: Duration::from_millis(250), nodes: 2 };
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    packets: u64,
    /// They went elsewhere, or nowhere.
    astray: u64,
    /// Flows that lost their backend so: by a SYN that came again, and by any other packet.
    by_syn: u64,
    by_other: u64,
    /// Their flow's backend was gone.
    orphans: u64,
    /// Packets that more than one node had to look at.
    sent_on: u64,
}

/// The tracked path, and DSR's two steps.
///
/// # Errors
/// If the kernel refuses, or flows cannot be made.
pub fn measure(effort: Effort, tell: &Tell<'_>) -> Result<Vec<Row>, Failure> {
    let _network = Network::enter()?;
    let cluster = Cluster { reach: Reach::LoadBalancer, ..Cluster::new(1, BACKENDS) };
    tell("consistency-tracked", Some(0.0));
    let tracked = run(effort, cluster, vec![world::node()])?;
    tell("consistency-dsr", Some(0.5));
    let cluster = Cluster { nodes: effort.nodes, ..cluster };
    let nodes = (0..effort.nodes).map(|at| world::node_among(&cluster, at)).collect();
    let spread = run(effort, cluster, nodes)?;
    let known = Seen { astray: spread.by_other, ..spread };
    let rows = [
        ("consistency-tracked", tracked),
        ("consistency-dsr", spread),
        // The same without flows that a SYN began anew on another node.
        ("consistency-dsr-known", known),
    ];
    Ok(rows.map(|(name, seen)| row(name, effort, &seen)).into())
}

fn row(name: &str, effort: Effort, seen: &Seen) -> Row {
    let Seen { packets, astray, by_syn, by_other, orphans, sent_on } = seen;
    let mut row = Row {
        name: name.to_owned(),
        flows: Some(effort.flows),
        services: Some(1),
        endpoints: Some(BACKENDS),
        value: Some(*astray as f64),
        unit: Some("packets astray".to_owned()),
        ..Row::default()
    };
    row.note = Some(format!(
        "of {packets} in {} changes; {by_syn} flows by a SYN that came again, {by_other} by another \
         packet; {orphans} more packets were of flows whose backend was gone; {sent_on} were looked \
         at by more than one node",
        effort.changes
    ));
    row.held_against(Some(Target::Most(0.0)), Some(*astray as f64))
}

/// Makes flows, then changes backends while their packets are sent.
fn run(effort: Effort, cluster: Cluster, nodes: Vec<crate::model::Node>) -> Result<Seen, Failure> {
    let sizes = Sizes {
        flow_sets_v4: (effort.flows / 2).next_power_of_two(),
        flow_sets_v6: 64,
        ..Sizes::with_flow_bytes(0)
    };
    let load = |node| World::load(sizes, node::PROGRAMS, cluster, node);
    let mut worlds = nodes.into_iter().map(load).collect::<Result<Vec<World>, Failure>>()?;
    let parts = worlds.iter_mut().map(|World { kernel, plane, .. }| {
        let Kernel { object, maps, .. } = kernel;
        (&*object, (plane, maps))
    });
    let (objects, mut planes): (Vec<_>, Vec<_>) = parts.unzip();
    let nodes = objects.into_iter().map(Node::of).collect::<Result<Vec<_>, _>>()?;
    let town = Town::new(cluster, nodes);
    let flows = town.open(effort.flows)?;
    let (done, gone) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            machine::unpin();
            town.look(&flows, &done, &gone)
        });
        let changed = (0..effort.changes).try_for_each(|at| {
            let began = Instant::now();
            // One comes, then the one that is there longest goes.
            let (first, end) = (at.div_ceil(2), BACKENDS + at / 2 + 1);
            gone.store(first as usize, Release);
            for (plane, maps) in &mut planes {
                plane.take(maps, [cluster.window(0, first, end)])?;
            }
            // The pace of changes is what is asked for: one a second.
            thread::sleep(effort.every.saturating_sub(began.elapsed()));
            Ok(())
        });
        done.store(true, Release);
        let seen = looking.join().map_err(|_| broken("consistency", &"a thread ended early"))?;
        changed.and(seen)
    })
}

/// Nodes, and the packets between them.
struct Town<'a> {
    nodes: Vec<Node<'a>>,
    by_address: HashMap<V4, usize>,
    backends: HashMap<V4, usize>,
    service: At,
}

/// A flow's client, and the number of its backend.
struct Flow {
    client: At,
    backend: usize,
}

impl<'a> Town<'a> {
    fn new(cluster: Cluster, nodes: Vec<Node<'a>>) -> Self {
        let v4 = |address| V4::of(address).unwrap_or_default();
        let backend = |at| (v4(cluster.endpoint_ip(0, at, Family::V4)), at as usize);
        Self {
            by_address: (0..cluster.nodes)
                .map(|at| (V4(world::address_of(at).octets()), at as usize))
                .collect(),
            // As many more come as there are at first, at most.
            backends: (0..2 * BACKENDS).map(backend).collect(),
            service: (v4(cluster.outside_ip(0, Family::V4)), Cluster::PORT.to_be_bytes()),
            nodes,
        }
    }

    /// Dials from so many clients until all have their connections.
    fn open(&self, count: u32) -> Result<Vec<Flow>, Failure> {
        let open = |at| {
            let client = V4::client(20, at);
            let first = at as usize % self.nodes.len();
            let refused = |what: &str| broken("a flow", &format!("client {at}: {what}"));
            let syn = node::frame(client, self.service, Tcp::SYN);
            let (place, end) = self.follow(first, syn)?;
            let (from, to) = arrived(&end).ok_or_else(|| refused("its SYN did not arrive"))?;
            let backend = self.backends.get(&to.0);
            let backend = *backend.ok_or_else(|| refused("its SYN went to no backend"))?;
            let answer = node::frame(to, from, Tcp::SYN | Tcp::ACK);
            let node = &self.nodes[place];
            match end {
                End::Sent(_) => node.arrive(&answer)?,
                End::Delivered(_) | End::Dropped => node.leave(&answer)?,
            };
            self.follow(first, node::frame(client, self.service, Tcp::ACK))?;
            Ok(Flow { client, backend })
        };
        (0..count).map(open).collect()
    }

    /// Sends packets of all flows, round after round, until it is done; all of them once more then.
    fn look(&self, flows: &[Flow], done: &AtomicBool, gone: &AtomicUsize) -> Result<Seen, Failure> {
        let mut seen = Seen::default();
        let mut lost = vec![false; flows.len()];
        for round in 0_u32.. {
            let last = done.load(Acquire);
            for ((at, flow), lost) in (0_u32..).zip(flows).zip(&mut lost) {
                let chance = flows::random(u64::from(round) << 32 | u64::from(at), u32::MAX);
                let flags = if chance.is_multiple_of(SYN_AGAIN) { Tcp::SYN } else { Tcp::ACK };
                let first = (chance / SYN_AGAIN) as usize % self.nodes.len();
                let frame = node::frame(flow.client, self.service, flags);
                let (place, end) = self.follow(first, frame)?;
                let to = arrived(&end).and_then(|(_, to)| self.backends.get(&to.0));
                seen.packets += 1;
                seen.sent_on += u64::from(place != first);
                // Asked after the packet: a backend that was there until now counts as gone.
                if flow.backend < gone.load(Acquire) {
                    seen.orphans += 1;
                } else if to != Some(&flow.backend) {
                    seen.astray += 1;
                    let by = if flags == Tcp::SYN { &mut seen.by_syn } else { &mut seen.by_other };
                    *by += u64::from(!std::mem::replace(lost, true));
                }
            }
            if last {
                break;
            }
        }
        Ok(seen)
    }

    /// What comes of a frame, and at which node, wherever envelopes take it.
    fn follow(&self, first: usize, frame: Vec<u8>) -> Result<(usize, End), Failure> {
        let (mut place, mut frame) = (first, frame);
        for _ in 0..HOPS {
            let end = self.nodes[place].arrive(&frame)?;
            let End::Sent(bytes) = end else { return Ok((place, end)) };
            let next = match node::ends(&bytes) {
                Some((_, (node, _), proto::IPIP)) => self.by_address.get(&node),
                _ => None,
            };
            let Some(next) = next else { return Ok((place, End::Sent(bytes))) };
            (place, frame) = (*next, bytes);
        }
        Ok((place, End::Dropped))
    }
}

/// From where and to where a packet went on.
fn arrived(end: &End) -> Option<(At, At)> {
    match end {
        End::Sent(frame) | End::Delivered(frame) => {
            let (from, to, _) = node::ends(frame)?;
            Some((from, to))
        }
        End::Dropped => None,
    }
}
