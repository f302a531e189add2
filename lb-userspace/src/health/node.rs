//! The answers of `/healthz` and `/livez` (docs/kubernetes.md, rows 73 and 74).
//!
//! The proxy is well as long as no change waits for longer than [`PATIENCE`] to reach the kernel.
//! `/healthz` adds whether the node may be sent new traffic at all. `/readyz` is our own: whether what
//! is in the kernel is what the cluster says now.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use crate::model::Family;

/// How long a change may wait: twice what the reference calls its sync period.
pub const PATIENCE: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

/// How old the last word of the API server may be for the proxy to be ready.
pub const FRESH: Duration = Duration::from_secs(120);

/// The proxy's health on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeHealth {
    families: BTreeMap<Family, FamilyHealth>,
    /// How long a change may wait.
    patience: jiff::SignedDuration,
    /// Whether the Node object lets new traffic come.
    pub eligible: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FamilyHealth {
    synced: Option<Timestamp>,
    /// Since when the oldest change that is not in the kernel waits.
    waits: Option<Timestamp>,
}

/// `/healthz` and `/livez`, as they are answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Timestamp>,
    pub current_time: Timestamp,
    /// `/healthz` alone says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_eligible: Option<bool>,
    pub healthy: bool,
    pub status: BTreeMap<&'static str, FamilyBody>,
}

/// `/readyz`, as it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    pub ready: bool,
    /// Whether a complete plan has reached the kernel since the start.
    pub synced: bool,
    /// Since the API server was last heard of; none with manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_age_seconds: Option<f64>,
}

/// The health of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Timestamp>,
    pub healthy: bool,
}

impl NodeHealth {
    /// Nothing has been synced, and nothing waits.
    pub fn new(patience: jiff::SignedDuration) -> Self {
        Self { families: BTreeMap::new(), patience, eligible: true }
    }

    /// Makes these the families that are asked after.
    pub fn set_families(&mut self, families: &[Family]) {
        self.families.retain(|family, _| families.contains(family));
        for family in families {
            self.families.entry(*family).or_default();
        }
    }

    /// A change is known that the kernel does not have yet. The oldest one counts.
    pub fn queue(&mut self, family: Family, now: Timestamp) {
        self.families.entry(family).or_default().waits.get_or_insert(now);
    }

    /// Everything that was known is in the kernel.
    pub fn sync(&mut self, family: Family, now: Timestamp) {
        *self.families.entry(family).or_default() = FamilyHealth { synced: Some(now), waits: None };
    }

    /// As [`NodeHealth::queue`], for every family.
    pub fn queue_all(&mut self, now: Timestamp) {
        self.families.values_mut().for_each(|family| _ = family.waits.get_or_insert(now));
    }

    /// As [`NodeHealth::sync`], for every family.
    pub fn sync_all(&mut self, now: Timestamp) {
        let synced = FamilyHealth { synced: Some(now), waits: None };
        self.families.values_mut().for_each(|family| *family = synced);
    }

    /// Whether the proxy keeps up with what it is told.
    pub fn is_healthy(&self, now: Timestamp) -> bool {
        self.families.values().all(|family| self.keeps_up(family, now))
    }

    /// Status and body of `/healthz`.
    pub fn healthz(&self, now: Timestamp) -> (u16, Body) {
        let body = Body { node_eligible: Some(self.eligible), ..self.body(now) };
        (status(body.healthy && self.eligible), body)
    }

    /// Status and body of `/livez`.
    pub fn livez(&self, now: Timestamp) -> (u16, Body) {
        let body = self.body(now);
        (status(body.healthy), body)
    }

    /// Status and body of `/readyz`, when the source was last heard of so long ago. Whoever is not
    /// ready still serves by what it knows.
    pub fn readyz(&self, age: Option<Duration>) -> (u16, Ready) {
        let synced = self.families.values().any(|family| family.synced.is_some());
        let ready = synced && age.is_none_or(|age| age <= FRESH);
        let source_age_seconds = age.map(|age| age.as_secs_f64());
        (status(ready), Ready { ready, synced, source_age_seconds })
    }

    fn keeps_up(&self, family: &FamilyHealth, now: Timestamp) -> bool {
        family.waits.is_none_or(|since| now.duration_since(since) < self.patience)
    }

    fn body(&self, now: Timestamp) -> Body {
        let healthy = self.is_healthy(now);
        let last = self.families.values().filter_map(|family| family.synced).max();
        let each = self.families.iter().map(|(family, health)| {
            let name = match family {
                Family::V4 => "IPv4",
                Family::V6 => "IPv6",
            };
            let healthy = self.keeps_up(health, now);
            (name, FamilyBody { last_updated: health.synced, healthy })
        });
        Body {
            // Who keeps up is as new as can be.
            last_updated: if healthy { Some(now) } else { last },
            current_time: now,
            node_eligible: None,
            healthy,
            status: each.collect(),
        }
    }
}

const fn status(well: bool) -> u16 {
    if well { 200 } else { 503 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_synced_is_ready_until_the_source_has_been_silent_for_long() {
        let mut node = NodeHealth::new(PATIENCE);
        node.set_families(&[Family::V4]);
        let answer = |node: &NodeHealth, age: Option<Duration>| {
            let (status, Ready { ready, synced, .. }) = node.readyz(age);
            assert_eq!(status == 200, ready);
            (ready, synced)
        };
        assert_eq!(answer(&node, Some(Duration::ZERO)), (false, false));
        node.sync_all(Timestamp::now());
        assert_eq!(answer(&node, None), (true, true));
        assert_eq!(answer(&node, Some(FRESH)), (true, true));
        assert_eq!(answer(&node, Some(FRESH + Duration::from_secs(1))), (false, true));
    }
}
