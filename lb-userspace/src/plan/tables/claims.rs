//! Who answers at an address: several Services may ask for one, or a Service for an address of this
//! node. The claims are all remembered, so that the next in line takes over when the first goes.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{Frontend, Kind};

use super::{
    op::{Op, Place},
    record::ServiceRecord,
};
use crate::plan::slots::Slots;

/// Frontends as they are claimed and as they are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    claims: BTreeMap<Place, Vec<Claim>>,
    written: BTreeMap<Place, Frontend>,
    /// Claimed or given up since the last [`Claims::settle`].
    dirty: BTreeSet<Place>,
    /// Places of each family that are written or claimed.
    occupied: [usize; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    kind: Kind,
    /// Zero is this node.
    service: u32,
}

impl Claims {
    /// What the maps hold; nothing is claimed yet.
    pub fn with_written(written: BTreeMap<Place, Frontend>) -> Self {
        let mut claims = Self::default();
        for place in written.keys() {
            claims.occupied[family(place)] += 1;
        }
        Self { written, ..claims }
    }

    pub fn add(&mut self, place: Place, kind: Kind, service: u32) {
        if self.is_free(&place) {
            self.occupied[family(&place)] += 1;
        }
        let claims = self.claims.entry(place).or_default();
        let claim = Claim { kind, service };
        if !claims.contains(&claim) {
            claims.push(claim);
            self.dirty.insert(place);
        }
    }

    pub fn remove(&mut self, place: Place, kind: Kind, service: u32) {
        let Some(claims) = self.claims.get_mut(&place) else { return };
        claims.retain(|claim| *claim != Claim { kind, service });
        if claims.is_empty() {
            self.claims.remove(&place);
            if !self.written.contains_key(&place) {
                self.occupied[family(&place)] -= 1;
            }
        }
        self.dirty.insert(place);
    }

    /// Whether nothing is, or is about to be, written there.
    pub fn is_free(&self, place: &Place) -> bool {
        !self.written.contains_key(place) && !self.claims.contains_key(place)
    }

    /// How many entries the map of a place's family has once all claims are settled and before any
    /// entry goes.
    pub fn occupied(&self, place: &Place) -> usize {
        self.occupied[family(place)]
    }

    /// Looks at everything that is written, too: what nobody claims goes.
    pub fn doubt_all(&mut self) {
        self.dirty.extend(self.written.keys());
    }

    /// Writes the winners of what has changed: first what comes, then what goes.
    pub fn settle(&mut self, services: &Slots<ServiceRecord>, ops: &mut Vec<Op>) {
        let (mut come, mut gone) = (Vec::new(), Vec::new());
        for place in std::mem::take(&mut self.dirty) {
            match self.winner(&place, services) {
                Some(frontend) if self.written.get(&place) == Some(&frontend) => {}
                Some(frontend) => {
                    self.written.insert(place, frontend);
                    come.push((place, frontend));
                }
                None if self.written.remove(&place).is_some() => {
                    self.occupied[family(&place)] -= 1;
                    gone.push(place);
                }
                None => {}
            }
        }
        // Addresses of services reject or hide what they do not serve: they come after their
        // frontends and go before them.
        come.sort_by_key(|(_, frontend)| hides(*frontend));
        gone.sort_by_key(|place| !place.is_address());
        ops.extend(come.into_iter().map(|(at, frontend)| Op::PutFrontend { at, frontend }));
        ops.extend(gone.into_iter().map(Op::RemoveFrontend));
    }

    /// The same whatever the order in which the claims came, and after a restart.
    fn winner(&self, place: &Place, services: &Slots<ServiceRecord>) -> Option<Frontend> {
        let claims = self.claims.get(place)?;
        let name = |claim: &Claim| services.get(claim.service).map(|record| &record.key);
        let first = claims
            .iter()
            .min_by(|a, b| rank(a.kind).cmp(&rank(b.kind)).then_with(|| name(a).cmp(&name(b))))?;
        let service = if place.is_address() { 0 } else { first.service };
        Some(Frontend::new(service, first.kind))
    }
}

/// This node's own addresses come first, then those of other nodes.
const fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::NodeAddress => 0,
        Kind::PeerAddress => 1,
        other => other as u8,
    }
}

const fn hides(frontend: Frontend) -> bool {
    matches!(frontend.kind(), Some(Kind::ClusterAddress | Kind::VirtualAddress))
}

const fn family(place: &Place) -> usize {
    place.address.is_ipv6() as usize
}
