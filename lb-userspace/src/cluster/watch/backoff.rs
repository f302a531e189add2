//! How long to wait before the next attempt.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Doubling pauses between two bounds, with jitter so that a cluster's nodes do not return
/// to a recovering server in step.
pub(super) struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new((shortest, longest): (Duration, Duration)) -> Self {
        Self { shortest, longest, next: shortest }
    }

    /// The next pause: somewhere between half and the whole of the current step.
    pub(super) fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        step.mul_f64(0.5 + random_fraction() / 2.0)
    }

    /// Tells how long the last attempt lived. One that outlived the longest pause was healthy:
    /// a server that answers only to hang up does not start over from the shortest.
    pub(super) fn lasted(&mut self, time: Duration) {
        if time > self.longest {
            self.next = self.shortest;
        }
    }
}

/// In `0.0..1.0`, from the keys that std draws for its hash maps: jitter needs no better.
fn random_fraction() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default();
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

    #[test]
    fn pauses_double_up_to_the_longest_and_jitter_by_at_most_half() {
        let mut backoff = Backoff::new(BOUNDS);
        for step in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let pause = backoff.pause();
            let step = Duration::from_millis(step);
            assert!(step / 2 <= pause && pause <= step, "{pause:?} for a step of {step:?}");
        }
    }

    #[test]
    fn only_an_attempt_that_lasted_brings_the_short_pauses_back() {
        let mut backoff = Backoff::new(BOUNDS);
        for _ in 0..9 {
            backoff.pause();
        }
        backoff.lasted(Duration::from_secs(9));
        assert!(backoff.pause() >= Duration::from_secs(5));
        backoff.lasted(Duration::from_secs(11));
        assert!(backoff.pause() <= Duration::from_millis(100));
    }

    #[test]
    fn no_two_nodes_pause_alike() {
        let pauses: std::collections::BTreeSet<_> =
            (0..64).map(|_| Backoff::new((BOUNDS.1, BOUNDS.1)).pause()).collect();
        assert!(pauses.len() > 32, "{pauses:?}");
    }
}
