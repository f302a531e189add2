use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::abi::Settings;

use super::setup;
use crate::{
    model::Node,
    net,
    plan::tables::{Dsr, Environment},
};

/// What the tables depend on beside the Services; the ways to backends are asked for once.
pub struct Surroundings {
    addresses: BTreeSet<IpAddr>,
    source: Box<dyn Fn(IpAddr) -> Option<IpAddr>>,
}

impl Surroundings {
    pub fn of(node: &Node) -> Self {
        let known = RefCell::new(BTreeMap::new());
        Self {
            addresses: node.local_addresses.iter().copied().collect(),
            source: Box::new(move |to| {
                *known.borrow_mut().entry(to).or_insert_with(|| net::source_towards(to))
            }),
        }
    }

    pub fn with<'a>(&'a self, settings: &'a Settings, node: &'a Node) -> Environment<'a> {
        Environment {
            settings,
            node_addresses: &self.addresses,
            source_towards: &*self.source,
            dsr: Dsr::of(node, setup::ticks()),
        }
    }
}
