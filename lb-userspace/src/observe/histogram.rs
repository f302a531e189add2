//! How long things take, in classes.

use std::time::Duration;

/// Upper ends of the classes, in seconds; the last class has none.
const ENDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0];

/// Durations, counted by class.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: [u64; ENDS.len() + 1],
    sum: f64,
}

impl Histogram {
    /// Counts one.
    pub fn put(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let class = ENDS.iter().position(|end| seconds <= *end).unwrap_or(ENDS.len());
        self.counts[class] += 1;
        self.sum += seconds;
    }

    /// Sum, number, and how many are in each class.
    pub fn parts(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let ends = ENDS.iter().copied().chain([f64::INFINITY]);
        (self.sum, self.counts.iter().sum(), ends.zip(self.counts).collect())
    }
}
