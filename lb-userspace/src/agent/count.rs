//! What the agent counts beside the programs.

use std::time::Instant;

use super::{setup, state::State};
use crate::{model::Algorithm, plan::PortPlan};

impl State {
    /// Counts anew what Services that share out by open connections have open.
    pub(super) fn count_connections(&self) {
        let counts = |port: &PortPlan| port.algorithm == Some(Algorithm::LeastConnections);
        if self.plan.services().flat_map(|plan| &plan.ports).any(counts) {
            let flows = self.maps.flows(setup::ticks());
            self.maps.count_flows(&flows, 1..self.maps.capacities.backends);
        }
    }

    /// Samples the counts, when it is time, for the rates.
    pub(super) fn count(&mut self) {
        let now = Instant::now();
        if !self.rates.is_due(now) {
            return;
        }
        let (services, backends) = self.tables.id_ends();
        match self.maps.sample(services, backends) {
            Ok(sample) => self.rates.put(now, sample),
            Err(error) => tracing::debug!(%error, "counts cannot be sampled"),
        }
    }
}
