//! From a service to one of its backends.

use crate::{
    abi::{Answer, Backend, BackendState, Line, NodeSlot, Scope, Service, SizeClass},
    hash,
    verdict::Reason,
    world::World,
};

/// A backend that was chosen.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    pub id: u32,
    pub backend: &'a Backend,
    /// Where it was chosen from.
    pub answer: Answer,
}

/// What the choice depends on: a way to choose, and bits that it takes.
///
/// All of them carry a whole word: the compiler may look at it before it knows which it is, and the
/// verifier wants what is looked at to have been written.
#[derive(Clone, Copy, Debug)]
pub enum Pick {
    /// The same hash gets the same backend as long as the set lasts.
    Hash(u64),
    /// Any; as a hash, but never by a ring.
    Random(u64),
    /// The next after that of the last connection.
    Turn(u64),
    /// The less loaded of two that these bits name.
    Better(u64),
}

impl Pick {
    /// How a service chooses where a ring is asked for, or is not; `hash` is all the chance there is.
    #[inline(always)]
    pub fn of<W: World>(world: &W, id: u32, service: &Service, ring: bool, hash: u64) -> Self {
        // Other bits than those that name a ring's slot or a flow's set.
        let chance = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if service.takes_turns() {
            Self::Turn(world.turn(id))
        } else if service.counts_connections() {
            Self::Better(chance)
        } else if ring {
            Self::Hash(hash)
        } else {
            Self::Random(chance)
        }
    }
}

/// The answer of a service for a scope: from its ring for hashes where there is one, else its list.
#[inline(always)]
fn answer(service: &Service, scope: Scope, pick: Pick) -> Answer {
    if let Pick::Hash(_) = pick {
        let ring = service.answer(scope, true);
        if !matches!(ring.class(), SizeClass::Unset) {
            return ring;
        }
    }
    service.answer(scope, false)
}

/// Chooses a backend. A look-up that a change of the tables overtakes is made once more.
///
/// # Errors
/// `NoEndpoints` or `NoLocalEndpoints` as the set's answer says, `StaleAnswer` if the tables changed
/// twice.
#[inline(never)]
pub fn choose<W: World>(
    world: &W,
    service_id: u32,
    scope: Scope,
    pick: Pick,
) -> Result<Choice<'_>, Reason> {
    let mut tries = 0;
    while tries < 2 {
        let service = world.service(service_id).ok_or(Reason::StaleAnswer)?;
        let answer = answer(service, scope, pick);
        match answer.class() {
            SizeClass::Reject => return Err(Reason::NoEndpoints),
            SizeClass::Drop => return Err(Reason::NoLocalEndpoints),
            SizeClass::Unset => {}
            SizeClass::List | SizeClass::Ring(_) => {
                if let Some((id, backend)) = look_up(world, service_id, answer, pick) {
                    return Ok(Choice { id, backend, answer });
                }
            }
        }
        tries += 1;
    }
    Err(Reason::StaleAnswer)
}

/// The head of the segment that an answer leads to, if it is still the service's.
#[inline(always)]
fn head_of<W: World>(world: &W, service_id: u32, answer: Answer) -> Option<&Line> {
    let head = world.line(answer.line())?;
    if head.service() != service_id || head.generation() != answer.generation() {
        return None;
    }
    Some(head)
}

/// The backend in the slot that `pick` names, if segment and backend are still the service's.
#[inline(always)]
fn look_up<W: World>(
    world: &W,
    service_id: u32,
    answer: Answer,
    pick: Pick,
) -> Option<(u32, &Backend)> {
    let slots = head_of(world, service_id, answer)?.slots();
    let slot = match pick {
        Pick::Hash(hash) | Pick::Random(hash) => hash::scale(hash, slots),
        Pick::Turn(turn) => turn.checked_rem(u64::from(slots))? as u32,
        Pick::Better(random) => return better(world, service_id, answer, slots, random),
    };
    in_slot(world, service_id, answer, slot)
}

/// What a ring over nodes says.
#[derive(Clone, Copy, Debug)]
pub struct Led {
    pub slot: NodeSlot,
    /// The tick in which some slot of the ring last led somewhere else.
    pub changed: u32,
}

/// Where a flow with this hash is led by the ring over nodes (DSR). As [`choose`] it looks again, once.
///
/// # Errors
/// As those of [`choose`].
#[inline(always)]
pub fn node<W: World>(world: &W, service_id: u32, hash: u64) -> Result<Led, Reason> {
    let mut tries = 0;
    while tries < 2 {
        let service = world.service(service_id).ok_or(Reason::StaleAnswer)?;
        let answer = service.answer(Scope::Nodes, true);
        if matches!(answer.class(), SizeClass::Reject) {
            return Err(Reason::NoEndpoints);
        }
        if let Some(led) = node_in(world, service_id, answer, hash) {
            return Ok(led);
        }
        tries += 1;
    }
    Err(Reason::StaleAnswer)
}

#[inline(always)]
fn node_in<W: World>(world: &W, service_id: u32, answer: Answer, hash: u64) -> Option<Led> {
    let head = head_of(world, service_id, answer)?;
    let (line, place) = Line::place(hash::scale(hash, head.slots()));
    let line = world.line(answer.line().wrapping_add(line))?;
    let word = line.0[place % crate::abi::SLOTS_PER_LINE];
    Some(Led { slot: NodeSlot::from_word(word), changed: head.changed() })
}

/// The backend in a slot, if it is the service's own.
#[inline(always)]
fn in_slot<W: World>(
    world: &W,
    service_id: u32,
    answer: Answer,
    slot: u32,
) -> Option<(u32, &Backend)> {
    let (line, place) = Line::place(slot);
    let id = world.line(answer.line().wrapping_add(line))?.0[place % crate::abi::SLOTS_PER_LINE];
    let backend = world.backend(id)?;
    let is_ours = backend.service() == service_id
        && !matches!(backend.state(), BackendState::Free | BackendState::Gone);
    is_ours.then_some((id, backend))
}

/// The one of two different slots whose backend has fewer connections for its weight. Lists repeat
/// a backend by its weight, so that among equals the weight decides as well.
#[inline(always)]
fn better<W: World>(
    world: &W,
    service_id: u32,
    answer: Answer,
    slots: u32,
    random: u64,
) -> Option<(u32, &Backend)> {
    let slot = hash::scale(random, slots);
    // The low half names one of the others.
    let step = 1 + hash::scale(random << 32, slots.wrapping_sub(1));
    let other = (slot + step).checked_rem(slots)?;
    let first = in_slot(world, service_id, answer, slot)?;
    let second = in_slot(world, service_id, answer, other)?;
    // Loads compared without a division: a/w(a) against b/w(b).
    let load = |of: (u32, &Backend), against: &Backend| {
        u64::from(world.load(of.0)) * u64::from(against.weight())
    };
    Some(if load(second, first.1) < load(first, second.1) { second } else { first })
}
