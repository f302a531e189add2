//! What the tables hold, as the agent remembers it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use lb_common::{
    abi::{Backend, Kind, Scope, Service},
    hash::{finish, mix},
};

use super::{
    names::{BackendName, PortKey},
    nodes::Ring,
    op::Place,
};
use crate::plan::{FrontendKind, arena::Segment};

/// A slot of the services' map in use.
#[derive(Clone, Debug)]
pub(super) struct ServiceRecord {
    pub key: Arc<PortKey>,
    /// As it is written.
    pub row: Service,
    /// In the order of [`ANSWERS`].
    pub contents: [Option<Content>; ANSWERS.len()],
    /// Step of each ring: it never goes back.
    pub steps: [u8; ANSWERS.len()],
    /// With DSR, the last ring over nodes.
    pub nodes: Option<Ring>,
    pub frontends: BTreeSet<(FrontendKind, Place)>,
    pub ranges: BTreeSet<IpNet>,
    /// Ids by identity: those in the slices, and those that left and may still have flows.
    pub backends: BTreeMap<u64, u32>,
}

impl ServiceRecord {
    pub fn new(key: Arc<PortKey>, generation: u32) -> Self {
        Self {
            key,
            row: Service::new(generation, 0),
            contents: [const { None }; ANSWERS.len()],
            steps: [0; ANSWERS.len()],
            nodes: None,
            frontends: BTreeSet::new(),
            ranges: BTreeSet::new(),
            backends: BTreeMap::new(),
        }
    }
}

/// What a service with these frontends claims: them, their addresses, and NodePorts against those who
/// would bind them.
pub(super) fn claims(
    frontends: &BTreeSet<(FrontendKind, Place)>,
) -> impl Iterator<Item = (Place, Kind)> {
    frontends.iter().flat_map(|(kind, place)| {
        let address = Place::of_address(place.address);
        let beside = match kind {
            FrontendKind::ClusterIp => (address, Kind::ClusterAddress),
            FrontendKind::NodePort => (place.anywhere(), Kind::AnyNodePort),
            FrontendKind::LoadBalancer | FrontendKind::ExternalIp => {
                (address, Kind::VirtualAddress)
            }
        };
        [(*place, kind_of(*kind)), beside]
    })
}

const fn kind_of(kind: FrontendKind) -> Kind {
    match kind {
        FrontendKind::ClusterIp => Kind::ClusterIp,
        FrontendKind::NodePort => Kind::NodePort,
        FrontendKind::LoadBalancer => Kind::LoadBalancer,
        FrontendKind::ExternalIp => Kind::ExternalIp,
    }
}

/// The answers of a service, each before what leads to it.
pub const ANSWERS: [(Scope, bool); 6] = [
    (Scope::Cluster, false),
    (Scope::Cluster, true),
    (Scope::Local, false),
    (Scope::Local, true),
    (Scope::Rest, true),
    (Scope::Nodes, true),
];

/// What an answer leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    pub segment: Segment,
    /// Of the slots: [`fingerprint`].
    pub fingerprint: u64,
}

/// Stands for the backend ids of a segment, so that they need not be remembered.
pub(super) fn fingerprint(slots: impl IntoIterator<Item = u32>) -> u64 {
    let sum = |hash, slot| mix(hash, u64::from(slot));
    finish(slots.into_iter().fold(0x5107, sum))
}

/// A slot of the backends' map in use.
#[derive(Clone, Debug)]
pub(super) struct BackendRecord {
    /// As it is written.
    pub row: Backend,
    /// Of what is written.
    pub name: NameMark,
    /// Replies from its place are looked at. Stays as long as the record.
    pub watched: bool,
}

impl BackendRecord {
    pub fn place(&self) -> Place {
        Place::of_backend(&self.row)
    }
}

/// Stands for a [`BackendName`], so that it need not be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameMark {
    text: u64,
    /// Zero where nobody said it.
    uid: u64,
    pub terminating: bool,
}

impl NameMark {
    pub fn of(name: &BackendName) -> Self {
        Self {
            text: hash(0x3a, &name.to_string()),
            uid: if name.uid.is_empty() { 0 } else { hash(0x1d, &name.uid) },
            terminating: name.terminating,
        }
    }

    /// Whether the uids of both are known and differ.
    pub const fn is_other_than(&self, other: &Self) -> bool {
        self.uid != 0 && other.uid != 0 && self.uid != other.uid
    }
}

/// Tells a backend from any other that ever has its address: address, port, protocol and uid.
pub(super) fn identity(place: &Place, uid: &str) -> u64 {
    let address = match place.address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let ports = u64::from(place.port) | u64::from(place.protocol) << 16;
    let place = mix(mix(mix(0x1d, (address >> 64) as u64), address as u64), ports);
    hash(place, uid)
}

/// Of a text, after what `start` stands for.
fn hash(start: u64, text: &str) -> u64 {
    let words = text
        .as_bytes()
        .chunks(8)
        .map(|chunk| chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    finish(words.fold(mix(start, text.len() as u64), mix))
}
