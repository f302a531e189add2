//! How fast things are counted: the difference of two samples.

use std::{
    collections::VecDeque,
    io,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use lb_common::{abi::Count, verdict::Reason};

use super::{batch, maps::Maps};
use crate::api::Rate;

/// How long rates are averaged over.
const SPAN: Duration = Duration::from_secs(2);
/// How long refusals are remembered.
const MINUTE: Duration = Duration::from_secs(60);

/// Every count at one time, by id.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub reasons: Vec<Count>,
    pub services: Vec<Count>,
    pub backends: Vec<Count>,
}

/// The last two samples, and what was refused within a minute.
#[derive(Debug, Default)]
pub struct Rates {
    before: Option<(Instant, Sample)>,
    last: Option<(Instant, Sample)>,
    refused: VecDeque<(Instant, u64)>,
    /// When each backend's counts last grew, by id.
    seen: Vec<Option<Instant>>,
}

impl Maps {
    /// Reads the counts of all reasons, and of services and backends with ids below these.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn sample(&self, services: u32, backends: u32) -> io::Result<Sample> {
        let [reasons, of_services, of_backends] = &self.count_maps;
        Ok(Sample {
            reasons: batch::counts(reasons.as_fd(), Reason::COUNT as u32)?,
            services: batch::counts(of_services.as_fd(), services)?,
            backends: batch::counts(of_backends.as_fd(), backends)?,
        })
    }
}

impl Rates {
    /// Whether it is time for another sample.
    pub fn is_due(&self, now: Instant) -> bool {
        self.last.as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= SPAN)
    }

    /// Takes a sample in.
    pub fn put(&mut self, now: Instant, sample: Sample) {
        let refused = sample.reasons.iter().map(|count| count.refused).sum();
        self.refused.push_back((now, refused));
        // One that is older than a minute stays: the difference is to it.
        while self.refused.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= MINUTE) {
            self.refused.pop_front();
        }
        if let Some((_, last)) = &self.last {
            self.seen.resize(sample.backends.len(), None);
            for (id, seen) in self.seen.iter_mut().enumerate() {
                let (new, old) = (&sample.backends[id], last.backends.get(id));
                if new.connections == 0 {
                    // Nobody's, or another's who has not got anything yet.
                    *seen = None;
                } else if old.is_none_or(|old| has_grown(old, new)) {
                    *seen = Some(now);
                }
            }
        }
        self.before = self.last.replace((now, sample));
    }

    /// What was refused in the last minute, or since the agent started.
    pub fn refused_lately(&self) -> u64 {
        match (self.refused.front(), self.refused.back()) {
            (Some((_, first)), Some((_, last))) => last.saturating_sub(*first),
            _ => 0,
        }
    }

    /// Seconds since a backend was last given anything, if anybody looked on.
    pub fn seen(&self, id: u32) -> Option<u64> {
        let seen = (*self.seen.get(id as usize)?)?;
        Some(seen.elapsed().as_secs())
    }

    pub fn reason(&self, reason: Reason) -> Option<Rate> {
        self.rate(|sample| sample.reasons.get(reason as usize))
    }

    pub fn service(&self, id: u32) -> Option<Rate> {
        self.rate(|sample| sample.services.get(id as usize))
    }

    pub fn backend(&self, id: u32) -> Option<Rate> {
        self.rate(|sample| sample.backends.get(id as usize))
    }

    fn rate<'a>(&'a self, of: impl Fn(&'a Sample) -> Option<&'a Count>) -> Option<Rate> {
        let ((then, before), (now, last)) = (self.before.as_ref()?, self.last.as_ref()?);
        let seconds = now.duration_since(*then).as_secs_f64();
        let before = of(before).copied().unwrap_or_default();
        let last = of(last)?;
        // A slot that was given to another begins anew.
        let per = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        Some(Rate {
            connections_per_second: per(last.connections, before.connections),
            packets_per_second: per(last.packets, before.packets),
            bytes_per_second: per(last.bytes, before.bytes),
            drops_per_second: per(last.refused, before.refused),
        })
    }
}

/// Whether packets or connections were counted.
const fn has_grown(old: &Count, new: &Count) -> bool {
    new.packets > old.packets || new.connections > old.connections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(packets: u64, refused: u64) -> Sample {
        let count = Count { packets, bytes: packets * 100, connections: packets / 10, refused };
        Sample { reasons: vec![count], services: vec![count], backends: vec![] }
    }

    #[test]
    fn a_rate_is_what_two_samples_differ_by_each_second() {
        let mut rates = Rates::default();
        let start = Instant::now();
        rates.put(start, sample(100, 0));
        assert_eq!(rates.service(0), None, "one sample is no rate");
        assert!(!rates.is_due(start + Duration::from_millis(1900)));
        assert!(rates.is_due(start + SPAN));
        rates.put(start + Duration::from_secs(2), sample(300, 4));
        let wanted = Rate {
            connections_per_second: 10.0,
            packets_per_second: 100.0,
            bytes_per_second: 10_000.0,
            drops_per_second: 2.0,
        };
        assert_eq!(rates.service(0), Some(wanted));
        assert_eq!((rates.service(1), rates.backend(0)), (None, None));
    }

    #[test]
    fn a_backend_was_seen_when_its_counts_last_grew_and_its_successor_was_not() {
        let mut rates = Rates::default();
        let start = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let of = |packets, connections| {
            let count = Count { packets, bytes: 0, connections, refused: 0 };
            Sample { backends: vec![Count::default(), count], ..Sample::default() }
        };
        rates.put(start, of(5, 1));
        assert_eq!(rates.seen(1), None, "before this agent looked, or since");
        rates.put(start + Duration::from_secs(2), of(6, 1));
        rates.put(start + Duration::from_secs(4), of(6, 1));
        assert!(rates.seen(1).is_some_and(|seconds| seconds >= 58));
        assert_eq!((rates.seen(0), rates.seen(2)), (None, None));
        rates.put(start + Duration::from_secs(6), of(0, 0));
        assert_eq!(rates.seen(1), None);
    }

    #[test]
    fn refusals_are_forgotten_after_a_minute() {
        let mut rates = Rates::default();
        let start = Instant::now();
        for (second, refused) in [(0, 5), (30, 9), (61, 9), (91, 9)] {
            rates.put(start + Duration::from_secs(second), sample(0, refused));
        }
        assert_eq!(rates.refused_lately(), 0);
        rates.put(start + Duration::from_secs(92), sample(0, 12));
        assert_eq!(rates.refused_lately(), 3);
    }
}
