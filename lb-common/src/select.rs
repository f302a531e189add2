//! From a service to one of its backends.

use crate::{
    abi::{Answer, Backend, BackendState, Line, Scope, Service, SizeClass},
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

/// What the choice depends on.
#[derive(Clone, Copy, Debug)]
pub enum Pick {
    /// The same hash gets the same backend as long as the set lasts.
    Hash(u64),
    /// Any.
    Random(u32),
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

/// The backend in the slot that `pick` names, if segment and backend are still the service's.
#[inline(always)]
fn look_up<W: World>(
    world: &W,
    service_id: u32,
    answer: Answer,
    pick: Pick,
) -> Option<(u32, &Backend)> {
    let head = world.line(answer.line())?;
    if head.service() != service_id || head.generation() != answer.generation() {
        return None;
    }
    let slot = match pick {
        Pick::Hash(hash) => hash::scale(hash, head.slots()),
        Pick::Random(random) => hash::scale(u64::from(random) << 32, head.slots()),
    };
    let (line, place) = Line::place(slot);
    let id = world.line(answer.line().wrapping_add(line))?.0[place % crate::abi::SLOTS_PER_LINE];
    let backend = world.backend(id)?;
    let is_ours = backend.service() == service_id
        && !matches!(backend.state(), BackendState::Free | BackendState::Gone);
    is_ours.then_some((id, backend))
}
