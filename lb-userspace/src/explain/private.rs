//! An instance of the datapath that is made for some questions and goes with them.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use lb_common::abi::Settings;

use super::{ExplainError, Explainer};
use crate::{
    agent::setup,
    api::{Explanation, Packet},
    cli::{
        Exit, Explained, Failure,
        manifests::{self, Manifests},
    },
    config::Config,
    datapath::{
        maps::{Birth, Maps},
        object::{self, Object, Sizes},
    },
    model::{Node, ObjectName},
    plan::{
        Plan,
        tables::{self, Dsr, Environment, Refusal, Tables},
    },
};

/// Packets' fates on a node that has nothing but the manifests that the configuration names, and how
/// long they took.
///
/// # Errors
/// If the manifests cannot be read, a packet cannot be, or the privilege to use BPF is missing.
pub fn from_files(config: &Config, packets: &[Packet]) -> Result<Explained, Failure> {
    let Manifests { node, plan, .. } = manifests::read(config)?;
    let private = Private::new(config, node, &plan)?;
    for (name, refusal) in private.refused() {
        eprintln!("warning: Service {name} is left out: {refusal}");
    }
    let began = Instant::now();
    let answers = private.explain(packets)?;
    Ok((answers, began.elapsed()))
}

/// The programs on tables of their own: nothing is pinned or attached, all of it is gone on drop.
pub struct Private {
    object: Object,
    maps: Maps,
    node: Node,
    refused: Vec<(ObjectName, Refusal)>,
}

impl Private {
    /// Loads the programs and writes a plan into their tables.
    ///
    /// # Errors
    /// If the privilege is missing, or the configuration cannot be carried out.
    pub fn new(config: &Config, node: Node, plan: &Plan) -> Result<Self, Failure> {
        let private = Self::with_sizes(Sizes::SMALL, config, &node, plan)?;
        let is_full = |(_, refusal): &_| matches!(refusal, Refusal::Full { .. });
        if !private.refused.iter().any(is_full) {
            return Ok(private);
        }
        // As large as the agent's.
        drop(private);
        Self::with_sizes(Sizes::with_flow_bytes(0), config, &node, plan)
    }

    /// Services that the agent, too, would leave out.
    pub fn refused(&self) -> &[(ObjectName, Refusal)] {
        &self.refused
    }

    /// The loaded programs.
    pub const fn object(&self) -> &Object {
        &self.object
    }

    /// Their tables.
    pub const fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The fate of each packet, in their order.
    ///
    /// # Errors
    /// The first packet that cannot be explained.
    pub fn explain(&self, packets: &[Packet]) -> Result<Vec<Explanation>, ExplainError> {
        Explainer::new(&self.object, &self.maps, &self.node)?.explain(packets)
    }

    fn with_sizes(
        sizes: Sizes,
        config: &Config,
        node: &Node,
        plan: &Plan,
    ) -> Result<Self, Failure> {
        // Nothing was ever installed here that could be taken over.
        let birth = Birth { table_key: setup::draw(), tick: 0 };
        let base = Settings { takeover_until: 0, ..setup::settings(config, sizes, birth)? };
        let settings = tables::settings(base, node).map_err(|error| {
            Failure::new(Exit::Error, error, "give fewer: networks side by side count as one")
        })?;
        let mut object = object::load_explaining(sizes)?;
        let mut maps = Maps::from_object(&mut object).map_err(|error| unusable(&error))?;
        let addresses: BTreeSet<IpAddr> = node.local_addresses.iter().copied().collect();
        // Routing never changes the verdict, so no route is asked for.
        let own = |to: IpAddr| node.addresses.iter().find(|own| own.is_ipv4() == to.is_ipv4());
        let environment = Environment {
            settings: &settings,
            node_addresses: &addresses,
            source_towards: &|to| Ok(own(to).copied()),
            dsr: Dsr::of(node, 0),
        };
        let plans: Vec<_> = plan.services().collect();
        let planned = Tables::new(maps.capacities).reset(&environment, &plans);
        maps.apply(&planned.ops).map_err(|error| unusable(&error))?;
        Ok(Self { object, maps, node: node.clone(), refused: planned.refused })
    }
}

fn unusable(error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Unreachable, error, "see that there is memory for the tables")
}
