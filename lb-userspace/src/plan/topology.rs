//! Topology hints: which ready endpoints traffic from this node should keep to.

use std::collections::BTreeSet;

use crate::model::{Endpoint, Node};

/// The hints that apply here, decided by the ready endpoints alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode<'a> {
    /// No usable hints: every endpoint will do.
    All,
    /// Keep to endpoints hinted for this node.
    Node(&'a str),
    /// Keep to endpoints hinted for this zone.
    Zone(&'a str),
}

impl<'a> Mode<'a> {
    /// A kind of hint counts only if every ready endpoint has it and one of them names us.
    pub fn of(endpoints: &[&Endpoint], node: &'a Node) -> Self {
        let ready = || endpoints.iter().copied().filter(|endpoint| endpoint.ready);
        let all_and_one = |hints: fn(&Endpoint) -> &BTreeSet<String>, name: &str| {
            ready().all(|endpoint| !hints(endpoint).is_empty())
                && ready().any(|endpoint| hints(endpoint).contains(name))
        };
        if !node.name.is_empty() && all_and_one(|endpoint| &endpoint.node_hints, &node.name) {
            return Self::Node(&node.name);
        }
        match node.zone.as_deref().filter(|zone| !zone.is_empty()) {
            Some(zone) if all_and_one(|endpoint| &endpoint.zone_hints, zone) => Self::Zone(zone),
            _ => Self::All,
        }
    }

    /// Whether traffic from this node may use the endpoint.
    pub fn allows(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::All => true,
            Self::Node(name) => endpoint.node_hints.contains(name),
            Self::Zone(zone) => endpoint.zone_hints.contains(zone),
        }
    }
}
