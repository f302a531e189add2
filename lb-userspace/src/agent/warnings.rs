//! What people are told about Services that do not fit: in the log each time the reason is another, as
//! an Event once for each Service and kind of reason.

use std::{collections::BTreeMap, mem::discriminant};

use tokio::sync::mpsc;

use crate::{cluster::events::Warning, model::ObjectName, plan::tables::Refusal};

/// Who tells them.
#[derive(Debug)]
pub struct Teller {
    events: mpsc::Sender<Warning>,
    /// What the queue of Events has had no room for yet.
    waiting: BTreeMap<ObjectName, Refusal>,
}

impl Teller {
    pub const fn new(events: mpsc::Sender<Warning>) -> Self {
        Self { events, waiting: BTreeMap::new() }
    }

    /// Tells of the Services that are refused now; `known` are those that were before. As long as there
    /// are any this is called again and again, and goes on where the queue was full.
    pub fn tell(
        &mut self,
        known: &BTreeMap<ObjectName, Refusal>,
        refused: &BTreeMap<ObjectName, Refusal>,
    ) {
        self.waiting.retain(|name, _| refused.contains_key(name));
        for (name, refusal) in refused {
            let before = known.get(name);
            if before != Some(refusal) {
                tracing::error!("Service {name}: {refusal}; it stays as it was");
            }
            let is_told = before.is_some_and(|before| is_alike(before, refusal));
            if !is_told || self.waiting.contains_key(name) {
                self.waiting.insert(name.clone(), refusal.clone());
            }
        }
        // A quarter of the queue is for what others have to say.
        while self.events.capacity() > self.events.max_capacity() / 4
            && let Some((name, refusal)) = self.waiting.pop_first()
        {
            // Where nobody listens there is nobody to be told.
            _ = self.events.try_send(warning(&name, &refusal));
        }
    }
}

/// Whether people would do the same about both: how full a map is changes with every Service.
fn is_alike(one: &Refusal, other: &Refusal) -> bool {
    match (one, other) {
        (Refusal::Full { map: one, .. }, Refusal::Full { map: other, .. }) => one == other,
        (one, other) => discriminant(one) == discriminant(other),
    }
}

fn warning(name: &ObjectName, refusal: &Refusal) -> Warning {
    Warning {
        service: Some(name.clone()),
        reason: match refusal {
            Refusal::Full { .. } => "NoRoomInTable",
            Refusal::NameTooLong | Refusal::SamePortTwice => "CannotBeProgrammed",
        },
        message: format!("not in this node's kernel as it is now: {refusal}; it stays as it was"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(map: &'static str, used: usize) -> Refusal {
        Refusal::Full { map, used, capacity: 4, needed: 2 }
    }

    fn shop(name: &str) -> ObjectName {
        ObjectName::new("shop", name)
    }

    fn queued(events: &mut mpsc::Receiver<Warning>) -> Vec<Warning> {
        std::iter::from_fn(|| events.try_recv().ok()).collect()
    }

    fn told(known: Option<Refusal>, now: Refusal) -> Vec<Warning> {
        let known = known.map(|refusal| (shop("web"), refusal)).into_iter().collect();
        let (events, mut said) = mpsc::channel(4);
        Teller::new(events).tell(&known, &[(shop("web"), now)].into());
        queued(&mut said)
    }

    #[test]
    fn a_service_that_does_not_fit_is_told_with_the_map_and_what_is_missing() {
        let warnings = told(None, full("SERVICES", 3));
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert_eq!(warning.service, Some(shop("web")));
        assert_eq!(warning.reason, "NoRoomInTable");
        let what = "map SERVICES is full: 3 of 4 in use, 2 more needed; it stays as it was";
        assert!(warning.message.ends_with(what), "{}", warning.message);
    }

    #[test]
    fn the_same_again_is_told_once_however_full_the_map_is_meanwhile() {
        assert_eq!(told(Some(full("SERVICES", 3)), full("SERVICES", 4)), []);
        assert_eq!(told(Some(full("SERVICES", 3)), full("ARENA", 3)).len(), 1);
        assert_eq!(told(Some(Refusal::SamePortTwice), Refusal::NameTooLong).len(), 1);
    }

    #[test]
    fn of_a_hundred_at_once_each_is_told_once_however_slowly_that_goes() {
        let refused: BTreeMap<_, _> =
            (0..100).map(|at| (shop(&format!("web-{at}")), full("SERVICES", 4))).collect();
        let (events, mut said) = mpsc::channel(64);
        let (mut teller, mut known, mut names) = (Teller::new(events), BTreeMap::new(), Vec::new());
        for most in [48, 48, 4, 0] {
            teller.tell(&known, &refused);
            known.clone_from(&refused);
            let warnings = queued(&mut said);
            assert_eq!(warnings.len(), most, "the rest of the queue is for others");
            names.extend(warnings.into_iter().filter_map(|warning| warning.service));
        }
        assert!(names.iter().is_sorted() && names.iter().eq(refused.keys()), "{names:?}");
    }

    #[test]
    fn what_fits_before_it_was_told_is_not_told() {
        let refused: BTreeMap<_, _> =
            (0..9).map(|at| (shop(&format!("web-{at}")), Refusal::NameTooLong)).collect();
        let (events, mut said) = mpsc::channel(4);
        let mut teller = Teller::new(events);
        teller.tell(&BTreeMap::new(), &refused);
        assert_eq!(queued(&mut said).len(), 3);
        teller.tell(&refused, &BTreeMap::new());
        assert_eq!(queued(&mut said), []);
    }

    #[test]
    fn who_does_not_listen_holds_nobody_up() {
        let (events, said) = mpsc::channel(4);
        drop(said);
        let mut teller = Teller::new(events);
        let refused = (0..9).map(|at| (shop(&format!("web-{at}")), Refusal::NameTooLong)).collect();
        teller.tell(&BTreeMap::new(), &refused);
        assert_eq!(teller.waiting, BTreeMap::new());
    }
}
