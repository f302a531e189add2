//! What others watch: metrics, read from the maps when somebody asks for them.

pub mod histogram;
pub mod http;
pub mod metrics;
pub mod series;

pub use self::{histogram::Histogram, series::Snapshot};
