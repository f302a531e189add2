//! Counts of all CPUs together.

use std::collections::BTreeMap;

use aya::maps::{MapData, MapError, PerCpuArray};
use lb_common::{abi::Count, verdict::Reason};

use super::maps::Maps;

/// A count that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("count {index} of map {map} cannot be read")]
pub struct CountError {
    map: &'static str,
    index: u32,
    source: MapError,
}

impl Maps {
    /// What was counted for each Reason, in their order.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn reason_counts(&self) -> Result<Vec<(Reason, Count)>, CountError> {
        let count = |reason: &Reason| Ok((*reason, sum("REASONS", &self.reasons, *reason as u32)?));
        Reason::ALL.iter().map(count).collect()
    }

    /// What was counted for these services.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn service_counts(
        &self,
        ids: impl IntoIterator<Item = u32>,
    ) -> Result<BTreeMap<u32, Count>, CountError> {
        sums("SERVICE_COUNTS", &self.service_counts, ids)
    }

    /// What was counted for these backends.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn backend_counts(
        &self,
        ids: impl IntoIterator<Item = u32>,
    ) -> Result<BTreeMap<u32, Count>, CountError> {
        sums("BACKEND_COUNTS", &self.backend_counts, ids)
    }
}

fn sums(
    map: &'static str,
    counts: &PerCpuArray<MapData, Count>,
    ids: impl IntoIterator<Item = u32>,
) -> Result<BTreeMap<u32, Count>, CountError> {
    ids.into_iter().map(|id| Ok((id, sum(map, counts, id)?))).collect()
}

fn sum(
    map: &'static str,
    counts: &PerCpuArray<MapData, Count>,
    index: u32,
) -> Result<Count, CountError> {
    let values = counts.get(&index, 0).map_err(|source| CountError { map, index, source })?;
    Ok(values.iter().fold(Count::default(), |sum, count| sum.plus(*count)))
}
