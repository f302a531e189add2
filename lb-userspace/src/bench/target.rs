//! What a case is held against.

use std::fmt;

/// The most, or the least, that a figure may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// At most so many times the floor.
    Floor(f64),
    /// At most so many times another case.
    Case { name: &'static str, flows: u32, services: u32, most: f64 },
    /// The value itself, at most.
    Most(f64),
    /// The value itself, at least.
    Least(f64),
}

impl Target {
    /// The number.
    pub const fn bound(&self) -> f64 {
        match self {
            Self::Floor(bound)
            | Self::Case { most: bound, .. }
            | Self::Most(bound)
            | Self::Least(bound) => *bound,
        }
    }

    /// Whether a figure is within it.
    pub fn is_met_by(&self, figure: f64) -> bool {
        match self {
            Self::Floor(_) | Self::Case { .. } | Self::Most(_) => figure <= self.bound(),
            Self::Least(least) => figure >= *least,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Floor(most) => write!(f, "≤ {most} × floor"),
            Self::Case { name, most, .. } => write!(f, "≤ {most} × {name}"),
            Self::Most(most) => write!(f, "≤ {most}"),
            Self::Least(least) => write!(f, "≥ {least}"),
        }
    }
}
