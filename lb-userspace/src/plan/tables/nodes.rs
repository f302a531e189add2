//! DSR: the nodes of the cluster as the maps have them, and the rings over them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lb_common::{
    abi::{Answer, Kind, Line, Node, NodeSlot, Service, Settings},
    addr::{V4, V6},
    limits::NODES,
};

use super::{
    Environment, Tables,
    answers::Wanted,
    limits::Use,
    op::{Op, Place},
    publish::is_unset,
    retire::Limbo,
};
use crate::{
    model::{ClusterNode, ClusterNodes, Family, Protocol},
    plan::{PortPlan, Spread, ids::Ids, maglev},
};

/// What DSR depends on.
#[derive(Clone, Copy, Debug)]
pub struct Dsr<'a> {
    pub nodes: &'a ClusterNodes,
    /// This node's name.
    pub own: &'a str,
    /// The programs' clock, in ticks.
    pub now: u32,
}

impl<'a> Dsr<'a> {
    /// What `node` says of it, at a tick; `None` if packets are forwarded by SNAT.
    pub fn of(node: &'a crate::model::Node, now: u32) -> Option<Self> {
        Some(Self { nodes: node.nodes.as_deref()?, own: &node.name, now })
    }
}

/// What a node's id stands for. Whoever gets other addresses gets another id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeKey {
    pub name: String,
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl NodeKey {
    fn of(name: &str, node: &ClusterNode) -> Self {
        Self { name: name.to_owned(), v4: node.v4, v6: node.v6 }
    }

    /// The reverse of `Display`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('|');
        let (name, v4, v6) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { name: name.to_owned(), v4: v4.parse().ok(), v6: v6.parse().ok() })
    }

    fn row(&self) -> Node {
        let v4 = self.v4.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let v6 = self.v6.unwrap_or(Ipv6Addr::UNSPECIFIED);
        Node::new(V4(v4.octets()), V6(v6.octets()))
    }
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, v4, v6 } = self;
        let text = |address: Option<IpAddr>| address.map_or_else(String::new, |it| it.to_string());
        write!(f, "{name}|{}|{}", text(v4.map(IpAddr::from)), text(v6.map(IpAddr::from)))
    }
}

/// Ids of nodes, and whose addresses are known.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    ids: Ids,
    /// Those that are written.
    here: BTreeMap<NodeKey, u32>,
    /// Those that are not any more; rings may still name them.
    left: BTreeSet<u32>,
    peers: BTreeSet<IpAddr>,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            ids: Ids::new(NODES),
            here: BTreeMap::new(),
            left: BTreeSet::new(),
            peers: BTreeSet::new(),
        }
    }
}

/// A ring over nodes, as it is written.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    /// [`NodeSlot`]s.
    pub slots: Box<[u32]>,
    /// The tick in which it last led somewhere else.
    pub changed: u32,
}

/// Sizes of rings over nodes. Each is four times the one before, so that a ring that grows leads each
/// flow from one known slot to another: with primes, as rings of backends have, one flow in eight would
/// be looked for where it never was.
const SLOTS: [u32; 5] = [251, 1004, 4016, 16_064, 64_256];

impl Ring {
    /// Its size, as a step of [`SLOTS`].
    fn step(&self) -> u8 {
        SLOTS.iter().position(|slots| *slots as usize >= self.slots.len()).unwrap_or(0) as u8
    }
}

impl Nodes {
    /// As the maps have them: rows that are written, by their names.
    pub fn adopt(names: &BTreeMap<u32, String>, rows: &BTreeMap<u32, Node>) -> Self {
        let mut nodes = Self::default();
        for (id, name) in names {
            // Who died while writing a node has left a part of it.
            let is_whole = |key: &NodeKey| rows.get(id) == Some(&key.row());
            match NodeKey::parse(name).filter(is_whole) {
                Some(key) => drop(nodes.here.insert(key, *id)),
                None => drop(nodes.left.insert(*id)),
            }
        }
        nodes.ids = Ids::with_taken(NODES, &names.keys().copied().collect());
        nodes
    }

    /// The id of a node, under whatever addresses it has now.
    fn id(&self, name: &str) -> Option<u32> {
        let first = NodeKey { name: name.to_owned(), v4: None, v6: None };
        let (key, id) = self.here.range(first..).next()?;
        (key.name == name).then_some(*id)
    }

    pub fn give_back(&mut self, id: u32) {
        self.ids.give_back(id);
    }

    pub fn usage(&self) -> Use {
        let (used, capacity) = (self.ids.used() as usize, self.ids.capacity() as usize);
        Use { map: "NODES", used, capacity }
    }
}

impl Tables {
    /// Writes the nodes that DSR knows now, this one among them; who is gone is cleared by `after`
    /// the rings. The settings that say so are returned.
    pub(super) fn put_nodes(
        &mut self,
        environment: &Environment<'_>,
        ops: &mut Vec<Op>,
        after: &mut Vec<Op>,
    ) -> Settings {
        let mut wanted = BTreeSet::new();
        let mut peers = BTreeSet::new();
        if let Some(Dsr { nodes, own, .. }) = environment.dsr {
            for (name, node) in nodes {
                if node.forwards || name == own {
                    wanted.insert(NodeKey::of(name, node));
                }
                if name != own {
                    peers.extend([Family::V4, Family::V6].iter().filter_map(|f| node.address(*f)));
                }
            }
        }
        let nodes = &mut self.nodes;
        let gone: Vec<NodeKey> =
            nodes.here.keys().filter(|key| !wanted.contains(key)).cloned().collect();
        for key in gone {
            let Some(id) = nodes.here.remove(&key) else { continue };
            nodes.left.insert(id);
            after.push(Op::Node { id, row: Node::default() });
        }
        for key in wanted {
            if nodes.here.contains_key(&key) {
                continue;
            }
            // A cluster with more nodes than there are ids has the others served by SNAT.
            let Some(id) = nodes.ids.take() else { continue };
            ops.push(Op::NameNode { id, name: key.to_string() });
            ops.push(Op::Node { id, row: key.row() });
            nodes.here.insert(key, id);
        }
        for address in peers.difference(&nodes.peers) {
            self.claims.add(Place::of_address(*address), Kind::PeerAddress, 0);
        }
        for address in nodes.peers.difference(&peers) {
            self.claims.remove(Place::of_address(*address), Kind::PeerAddress, 0);
        }
        nodes.peers = peers;
        let own_node = environment.dsr.and_then(|dsr| nodes.id(dsr.own)).unwrap_or(0);
        Settings { own_node, ..*environment.settings }
    }

    /// The ring over the nodes of a port, with what each slot led to before; and the tick in which it
    /// last led somewhere else.
    pub(super) fn ring_over_nodes(
        &self,
        environment: &Environment<'_>,
        id: u32,
        plan: &PortPlan,
    ) -> (Wanted, u32) {
        let (Some(spread), Some(dsr)) = (&plan.spread, environment.dsr) else {
            return (Wanted::Fixed(Answer::UNSET), 0);
        };
        let record = self.services.get(id);
        let (members, ids) = self.sharers(spread);
        let old = record.and_then(|record| record.nodes.as_ref());
        match old {
            // Where nobody is ready any more, connections go on to where they are.
            Some(Ring { slots, changed }) if members.is_empty() => {
                return (Wanted::List(slots.to_vec()), *changed);
            }
            None if members.is_empty() => return (Wanted::Fixed(Answer::REJECT), 0),
            Some(_) | None => {}
        }
        let step = maglev::step(members.len(), old.map_or(0, Ring::step));
        let seed = environment.settings.seed;
        let ring = maglev::ring(seed, &members, SLOTS[usize::from(step)]);
        let now: Vec<u32> = ring.into_iter().map(|member| ids[member as usize]).collect();
        let Some(old) = old else {
            // What a Service had before it was spread was served here.
            let unspread = |row: &Service| !is_unset(row) && !row.is_spread();
            let served = record.is_some_and(|record| unspread(&record.row));
            let before = |now: u32| if served { NodeSlot::REST } else { now };
            let slots =
                now.iter().map(|now| NodeSlot { now: *now, before: before(*now), asks: false });
            return (Wanted::List(slots.map(NodeSlot::to_word).collect()), dsr.now);
        };
        // Flows without connections are not looked for elsewhere for ever.
        let udp = environment.settings.timeouts.udp;
        let settled = plan.protocol == Protocol::Udp && dsr.now.wrapping_sub(old.changed) >= udp;
        let serving: BTreeSet<u32> =
            spread.serving.iter().filter_map(|name| self.nodes.id(name)).collect();
        let growth = now.len() / old.slots.len();
        let mut changed = old.changed;
        let slots = now.iter().enumerate().map(|(slot, now)| {
            let was = NodeSlot::from_word(old.slots[slot / growth]);
            let before = if was.now != *now {
                changed = dsr.now;
                was.now
            } else if settled {
                *now
            } else {
                was.before
            };
            // A slot that never moved has nobody to ask: it stays as it was first written.
            NodeSlot { now: *now, before, asks: before != *now && serving.contains(&before) }
        });
        let slots: Vec<u32> = slots.map(NodeSlot::to_word).collect();
        (Wanted::List(slots), changed)
    }

    /// Who shares a ring, and the ids that its slots have.
    fn sharers<'a>(&self, spread: &'a Spread) -> (Vec<maglev::Member<&'a str>>, Vec<u32>) {
        let mut rest: u32 = spread.rest.iter().map(|backend| u32::from(backend.weight)).sum();
        let mut has_rest = !spread.rest.is_empty();
        let (mut members, mut ids) = (Vec::new(), Vec::new());
        for (name, weight) in &spread.nodes {
            match self.nodes.id(name) {
                Some(id) => {
                    members.push(maglev::Member { who: &**name, weight: *weight });
                    ids.push(id);
                }
                None => {
                    has_rest = true;
                    rest += weight;
                }
            }
        }
        if has_rest {
            // No node has no name.
            members.push(maglev::Member { who: "", weight: rest });
            ids.push(NodeSlot::REST);
        }
        (members, ids)
    }

    /// Frees the ids of nodes that left and that no ring names any more.
    pub(super) fn reclaim_nodes(&mut self, ops: &mut Vec<Op>) {
        if self.nodes.left.is_empty() {
            return;
        }
        let rings = self.services.iter().filter_map(|(_, record)| record.nodes.as_ref());
        let slots = rings.flat_map(|ring| ring.slots.iter().copied());
        let named: BTreeSet<u32> = slots
            .flat_map(|word| {
                let NodeSlot { now, before, .. } = NodeSlot::from_word(word);
                [now, before]
            })
            .collect();
        for id in std::mem::take(&mut self.nodes.left) {
            if named.contains(&id) {
                self.nodes.left.insert(id);
            } else {
                ops.push(Op::ForgetNode(id));
                self.limbo.push((None, Limbo::Node(id)));
            }
        }
    }
}

/// A ring that was read back.
pub(super) fn read_back(slots: &[u32], head: &Line) -> Ring {
    Ring { slots: slots.into(), changed: head.changed() }
}

/// Addresses of other nodes among what is written.
pub(super) fn adopt_peers(tables: &mut Tables, peers: BTreeSet<IpAddr>) {
    for address in &peers {
        tables.claims.add(Place::of_address(*address), Kind::PeerAddress, 0);
    }
    tables.nodes.peers = peers;
}

const _: () = assert!(NODES < NodeSlot::REST);
