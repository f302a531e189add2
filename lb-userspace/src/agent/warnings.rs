//! What people are told about Services that do not fit: in the log each time the reason is another, as
//! an Event once for each Service and kind of reason.

use std::{collections::BTreeMap, mem::discriminant};

use tokio::sync::mpsc;

use crate::{cluster::events::Warning, model::ObjectName, plan::tables::Refusal};

/// Tells of the Services that were refused now; `known` are those that were before.
pub fn tell(
    known: &BTreeMap<ObjectName, Refusal>,
    refused: &[(ObjectName, Refusal)],
    to: &mpsc::Sender<Warning>,
) {
    for (name, refusal) in refused {
        let before = known.get(name);
        if before != Some(refusal) {
            tracing::error!("Service {name}: {refusal}; it stays as it was");
        }
        if !before.is_some_and(|before| is_alike(before, refusal)) {
            // A full queue means that people are being told enough.
            _ = to.try_send(warning(name, refusal));
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

    fn told(known: Option<Refusal>, now: Refusal) -> Vec<Warning> {
        let web = ObjectName::new("shop", "web");
        let known = known.map(|refusal| (web.clone(), refusal)).into_iter().collect();
        let (to, mut warnings) = mpsc::channel(4);
        tell(&known, &[(web, now)], &to);
        drop(to);
        std::iter::from_fn(|| warnings.try_recv().ok()).collect()
    }

    #[test]
    fn a_service_that_does_not_fit_is_told_with_the_map_and_what_is_missing() {
        let warnings = told(None, full("SERVICES", 3));
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert_eq!(warning.service, Some(ObjectName::new("shop", "web")));
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
    fn who_does_not_listen_holds_nobody_up() {
        let refused: Vec<_> = (0..100)
            .map(|at| (ObjectName::new("shop", format!("web-{at}")), Refusal::NameTooLong))
            .collect();
        let (to, mut warnings) = mpsc::channel(4);
        tell(&BTreeMap::new(), &refused, &to);
        assert_eq!(std::iter::from_fn(|| warnings.try_recv().ok()).count(), 4);
    }
}
