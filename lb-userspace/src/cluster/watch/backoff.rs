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
    /// Whether the short cut of [`Backoff::soon`] was taken since an attempt last lasted.
    hurried: bool,
}

impl Backoff {
    pub(super) fn new((shortest, longest): (Duration, Duration)) -> Self {
        Self { shortest, longest, next: shortest, hurried: false }
    }

    /// The next pause: somewhere between half and the whole of the current step.
    pub(super) fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        jittered(step)
    }

    /// The pause before another question than the one that failed: a server that is back, but has
    /// forgotten where we were, has made us wait already. Only once until an attempt lasts: one that
    /// forgets at once what it lists is not listed without rest.
    pub(super) fn soon(&mut self) -> Duration {
        if std::mem::replace(&mut self.hurried, true) {
            return self.pause();
        }
        jittered(self.shortest)
    }

    /// Tells how long the last attempt lived. One that outlived the longest pause was healthy:
    /// a server that answers only to hang up does not start over from the shortest.
    pub(super) fn lasted(&mut self, time: Duration) {
        if time > self.longest {
            self.next = self.shortest;
            self.hurried = false;
        }
    }
}

/// Somewhere between half and the whole of a step.
fn jittered(step: Duration) -> Duration {
    step.mul_f64(0.5 + random_fraction() / 2.0)
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
    fn another_question_is_asked_soon_but_once_until_an_attempt_lasted() {
        let mut backoff = Backoff::new(BOUNDS);
        for _ in 0..9 {
            backoff.pause();
        }
        assert!(backoff.soon() <= Duration::from_millis(100));
        assert!(backoff.soon() >= Duration::from_secs(5), "as if it had not been another");
        backoff.lasted(Duration::from_secs(11));
        assert!(backoff.soon() <= Duration::from_millis(100));
    }

    #[test]
    fn no_two_nodes_pause_alike() {
        let pauses: std::collections::BTreeSet<_> =
            (0..64).map(|_| Backoff::new((BOUNDS.1, BOUNDS.1)).pause()).collect();
        assert!(pauses.len() > 32, "{pauses:?}");
    }
}
