//! What became of each Service lately.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{api::ChangeRow, model::ObjectName, plan::ServicePlan};

/// As many are remembered of each Service.
const REMEMBERED: usize = 4;

/// The last changes of every Service that there is.
#[derive(Debug, Default)]
pub struct Changes(BTreeMap<ObjectName, VecDeque<Change>>);

#[derive(Clone, Copy, Debug)]
struct Change {
    at: Instant,
    took: Duration,
    backends: usize,
}

impl Changes {
    /// A change of the Service is in the kernel; without a plan it is gone, and forgotten.
    pub fn put(&mut self, name: &ObjectName, plan: Option<&ServicePlan>, took: Duration) {
        let Some(plan) = plan else {
            self.0.remove(name);
            return;
        };
        let backends = plan.ports.iter().map(|port| port.cluster.backends.len()).sum();
        let changes = self.0.entry(name.clone()).or_default();
        changes.push_back(Change { at: Instant::now(), took, backends });
        if changes.len() > REMEMBERED {
            changes.pop_front();
        }
    }

    /// The changes of a Service, the newest first.
    pub fn of(&self, name: &ObjectName) -> Vec<ChangeRow> {
        let Some(changes) = self.0.get(name) else { return Vec::new() };
        let before = std::iter::once(0).chain(changes.iter().map(|change| change.backends));
        let rows = changes.iter().zip(before).map(|(change, before)| ChangeRow {
            seconds_ago: change.at.elapsed().as_secs(),
            took_ms: change.took.as_secs_f64() * 1000.0,
            backends_before: before,
            backends_after: change.backends,
        });
        let mut rows: Vec<_> = rows.collect();
        rows.reverse();
        rows
    }
}
