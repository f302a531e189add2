use super::names::NAME_LENGTH;

/// Sizes of the maps, as they were loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    pub services: u32,
    pub backends: u32,
    pub arena_lines: u32,
    /// Of each family.
    pub frontends: u32,
    /// Of each family.
    pub locals: u32,
    /// Of each family.
    pub sources: u32,
}

/// How much of a map is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub map: &'static str,
    pub used: usize,
    pub capacity: usize,
}

/// Why a Service was left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("map {map} is full: {used} of {capacity} in use, {needed} more needed")]
    Full { map: &'static str, used: usize, capacity: usize, needed: usize },
    #[error("its name and a port's are longer together than {NAME_LENGTH} bytes")]
    NameTooLong,
    #[error("two of its ports have the same name, protocol and family")]
    SamePortTwice,
}

impl Refusal {
    /// `Err` unless `needed` more fit in.
    pub(super) fn check(
        map: &'static str,
        used: usize,
        capacity: u32,
        needed: usize,
    ) -> Result<(), Self> {
        let capacity = capacity as usize;
        if used + needed <= capacity {
            Ok(())
        } else {
            Err(Self::Full { map, used, capacity, needed })
        }
    }
}
