//! Session affinity: a client's new connections go where its last one went, for a while.
//!
//! Each service port remembers its clients, whichever of its frontends they dial. What is remembered
//! holds only while the backend may get new connections from the set in use: one that left, or that
//! the traffic policy does not allow, is forgotten by choosing anew.

use crate::{
    abi::{AffinityEntry, AffinityKey, Answer, BackendState, Scope, Service, Settings},
    hash,
    select::{self, Choice, Pick},
    verdict::Reason,
    world::World,
};

/// Chooses a backend for a new connection of a client. Changes nothing: see [`note`].
///
/// # Errors
/// As [`select::choose`].
#[inline(always)]
pub fn choose<'a, W: World>(
    world: &'a W,
    key: &AffinityKey,
    service: &Service,
    scope: Scope,
    pick: Pick,
) -> Result<Choice<'a>, Reason> {
    let mut pick = pick;
    if service.affinity_seconds() != 0 && !key.is_nobody() {
        if let Some(choice) = kept(world, key, scope, service) {
            return Ok(choice);
        }
        pick = of_client(world, key, pick);
    }
    select::choose(world, key.service(), scope, pick)
}

/// Takes note of a new connection: the client is remembered, and the next turn is another backend's.
#[inline(always)]
pub fn note<W: World>(world: &W, key: &AffinityKey, backend: u32, generation: u32) {
    let Some(service) = world.service(key.service()) else { return };
    if service.takes_turns() {
        world.next_turn(key.service());
    }
    if service.affinity_seconds() != 0 && !key.is_nobody() {
        let (last, epoch) = (world.now(), service.affinity_epoch());
        world.keep_client(key, &AffinityEntry { backend, generation, last, epoch });
    }
}

/// The remembered backend, if it still counts. A function of its own, for the sake of BPF's stack.
#[inline(never)]
fn kept<'a, W: World>(
    world: &'a W,
    key: &AffinityKey,
    scope: Scope,
    service: &Service,
) -> Option<Choice<'a>> {
    // Asked first, so that less has to be kept on the stack over the calls.
    let now = world.now();
    let entry = world.affinity(key)?;
    let idle = now.wrapping_sub(entry.last);
    if entry.epoch != service.affinity_epoch() || idle >= ticks(service.affinity_seconds()) {
        return None;
    }
    let backend = world.backend(entry.backend)?;
    let counts = backend.generation() == entry.generation
        && backend.service() == key.service()
        && matches!(backend.state(), BackendState::Active)
        && backend.is_in(scope);
    counts.then_some(Choice { id: entry.backend, backend, answer: Answer::UNSET })
}

/// With affinity a ring is entered by the client alone, so that nodes that share a client agree
/// on its backend without a word.
#[inline(always)]
fn of_client<W: World>(world: &W, key: &AffinityKey, pick: Pick) -> Pick {
    match (pick, world.settings()) {
        (Pick::Hash(_), Some(settings)) => Pick::Hash(hash_of(settings.seed, key)),
        _ => pick,
    }
}

/// The hash of a client, whatever it dials.
#[inline(always)]
pub fn hash_of(seed: u64, key: &AffinityKey) -> u64 {
    let [low, high] = key.client_words();
    hash::finish(hash::mix(hash::mix(seed, low), high))
}

/// Seconds as ticks of the programs' clock.
#[inline(always)]
const fn ticks(seconds: u32) -> u32 {
    ((seconds as u64 * 1_000_000_000) >> Settings::TICK_SHIFT) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_67_ms_and_the_longest_affinity_fits() {
        assert_eq!([ticks(1), ticks(10_800), ticks(86_400)], [14, 160_932, 1_287_460]);
    }
}
