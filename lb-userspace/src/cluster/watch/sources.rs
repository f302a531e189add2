//! How the watches are doing, for `status`, metrics and readiness.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Kind;

/// The state of every watch.
#[derive(Clone, Debug, Default)]
pub struct Sources(BTreeMap<Kind, SourceStatus>);

/// The state of one kind's watch.
#[derive(Clone, Debug, Default)]
pub struct SourceStatus {
    /// When the server last said anything about this kind, were it only a bookmark.
    pub last_contact: Option<Instant>,
    /// Complete listings so far.
    pub listings: u64,
    /// Sessions that ended, for whatever reason, and were begun anew.
    pub restarts: u64,
    /// The resource version at which the next session would resume.
    pub version: Option<String>,
    /// Whether the server has refused streaming lists.
    pub plain_lists: bool,
    /// What is wrong now, in words; `None` while all is well.
    pub problem: Option<String>,
}

impl Sources {
    /// The watch of one kind; one not begun yet is all zeros.
    pub fn get(&self, kind: Kind) -> SourceStatus {
        self.0.get(&kind).cloned().unwrap_or_default()
    }

    /// Every watch that has begun.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &SourceStatus)> {
        self.0.iter().map(|(kind, status)| (*kind, status))
    }

    /// The time since the watch that has been silent for longest said something; `None` before
    /// every watch has been heard. Kinds that the server lacks do not count.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        let ages = self.0.iter().filter(|(kind, _)| !kind.may_be_absent()).map(|(_, status)| {
            status.last_contact.map(|contact| now.saturating_duration_since(contact))
        });
        ages.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    pub(super) fn entry(&mut self, kind: Kind) -> &mut SourceStatus {
        self.0.entry(kind).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_watch_that_was_silent_for_longest() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut sources = Sources::default();
        sources.entry(Kind::Service).last_contact = Some(after(5));
        sources.entry(Kind::Node);
        assert_eq!(sources.age(after(9)), None);
        sources.entry(Kind::Node).last_contact = Some(after(2));
        sources.entry(Kind::ServiceCidr).last_contact = None;
        assert_eq!(sources.age(after(9)), Some(Duration::from_secs(7)));
    }
}
