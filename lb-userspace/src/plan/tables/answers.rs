//! What a service answers: for each scope a list and, where it is asked for, a ring.

use lb_common::abi::{Answer, Line, Scope};

use crate::{
    model::Algorithm,
    plan::{self, BackendSet, FrontendKind, PortPlan, WhenEmpty, maglev},
};

/// Slots that a list with weights has at most.
const WEIGHTED_SLOTS: u64 = 1024;

/// What a slot of a service should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One of the answers that lead nowhere.
    Fixed(Answer),
    /// Backend ids; or the [`lb_common::abi::NodeSlot`]s of a ring over nodes, whose size is its own.
    List(Vec<u32>),
    /// Step on the ladder, and slots.
    Ring(u8, Vec<u32>),
}

/// How a port chooses: whether rings are asked for inside, and outside.
pub(super) fn choice(plan: &PortPlan) -> (bool, bool) {
    match plan.algorithm {
        Some(Algorithm::Random | Algorithm::RoundRobin | Algorithm::LeastConnections) => {
            (false, false)
        }
        Some(Algorithm::Maglev) => (true, true),
        None => (false, true),
    }
}

pub(super) const fn scope(scope: plan::Scope) -> Scope {
    match scope {
        plan::Scope::Cluster => Scope::Cluster,
        plan::Scope::Local => Scope::Local,
    }
}

/// Whether packets may come that ask for this answer: sources inside get the whole cluster at
/// external frontends, whatever the policy.
pub(super) fn is_asked_for(plan: &PortPlan, of: Scope, ring: bool) -> bool {
    let external = plan.frontends.iter().any(|f| f.kind != FrontendKind::ClusterIp);
    let spread = external && plan.spread.is_some();
    if matches!(of, Scope::Nodes | Scope::Rest) {
        return spread;
    }
    let inside = scope(plan.internal) == of || (external && of == Scope::Cluster);
    // What is spread asks for the backends here; where it finds none, any of the list will do.
    let asks = if spread { Scope::Local } else { scope(plan.external) };
    let outside = external && asks == of;
    let (ring_inside, ring_outside) = choice(plan);
    if ring { (inside && ring_inside) || (outside && ring_outside) } else { inside || outside }
}

/// The answer for a set whose backends have the ids that `id` says; `least` is the step that its
/// ring has had.
pub(super) fn wanted(
    set: &BackendSet,
    ring: bool,
    least: u8,
    seed: u64,
    id: impl Fn(&plan::Backend) -> u32,
) -> Wanted {
    if set.backends.is_empty() {
        return Wanted::Fixed(match set.when_empty {
            WhenEmpty::Reject => Answer::REJECT,
            WhenEmpty::Drop => Answer::DROP,
        });
    }
    let ids: Vec<u32> = set.backends.iter().map(id).collect();
    if !ring {
        let weights: Vec<u64> = set.backends.iter().map(|b| u64::from(b.weight)).collect();
        return Wanted::List(weighted(&ids, &weights));
    }
    let members: Vec<maglev::Member> = set
        .backends
        .iter()
        .map(|b| maglev::Member { who: b.address, weight: u32::from(b.weight) })
        .collect();
    let step = maglev::step(members.len(), least);
    let slots = maglev::ring(seed, &members, Answer::RINGS[usize::from(step)]);
    Wanted::Ring(step, slots.into_iter().map(|member| ids[member as usize]).collect())
}

/// Each id as often as its weight says, in lowest terms.
fn weighted(ids: &[u32], weights: &[u64]) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, gcd);
    let total: u64 = weights.iter().sum();
    let copies = |weight: u64| match () {
        () if divisor == 0 => 1,
        () if total / divisor <= WEIGHTED_SLOTS.max(ids.len() as u64) => weight / divisor,
        () if weight == 0 => 0,
        () => (weight * WEIGHTED_SLOTS / total).max(1),
    };
    let repeat = |(id, weight): (&u32, &u64)| std::iter::repeat_n(*id, copies(*weight) as usize);
    ids.iter().zip(weights).flat_map(repeat).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The lines of a segment; `changed` is of rings over nodes.
pub(super) fn lines(service: u32, generation: u32, changed: u32, slots: &[u32]) -> Vec<Line> {
    let mut lines = vec![Line::default(); Line::lines_for(slots.len() as u32) as usize];
    lines[0].0[..4].copy_from_slice(&[service, generation, slots.len() as u32, changed]);
    for (slot, id) in (0..).zip(slots) {
        let (line, place) = Line::place(slot);
        lines[line as usize].0[place] = *id;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_repeats_backends_by_weight_in_lowest_terms() {
        assert_eq!(weighted(&[7, 8], &[5, 5]), [7, 8]);
        assert_eq!(weighted(&[7, 8, 9], &[10, 20, 0]), [7, 8, 8]);
        assert_eq!(weighted(&[7, 8], &[0, 0]), [7, 8], "all at zero count alike");
    }

    #[test]
    fn a_list_with_large_weights_stays_short() {
        let list = weighted(&[7, 8], &[65_535, 1]);
        assert!(list.len() as u64 <= WEIGHTED_SLOTS + 1, "{}", list.len());
        assert_eq!(list.iter().filter(|id| **id == 8).count(), 1);
    }

    #[test]
    fn slots_lie_behind_the_head_and_run_on_in_the_next_line() {
        let slots: Vec<u32> = (100..130).collect();
        let lines = lines(5, 9, 0, &slots);
        assert_eq!(lines.len(), 3);
        assert_eq!((lines[0].service(), lines[0].generation(), lines[0].slots()), (5, 9, 30));
        assert_eq!(
            (lines[0].0[4], lines[0].0[15], lines[1].0[0], lines[2].0[1]),
            (100, 111, 112, 129)
        );
    }
}
