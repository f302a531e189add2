//! Counts per CPU: by reason, by service, by backend.

use lb_common::{
    abi::{Count, EventHook, Service},
    path::{Notes, Outcome},
    verdict::{Reason, Verdict},
};

use crate::{
    events,
    maps::{self, add},
};

/// Counts a packet of `bytes` bytes.
#[inline(always)]
pub fn packet(verdict: Verdict, notes: &Notes, bytes: usize, hook: EventHook) {
    let outcome = &notes.outcome;
    let refused = matches!(verdict, Verdict::Reject | Verdict::Drop);
    let count = Count { packets: 1, bytes: bytes as u64, ..Count::default() };
    // Two cases, because nearly all packets have nothing to add to the rest.
    if !refused && !outcome.opened {
        add_to_all(outcome, &count);
    } else {
        let connections = u64::from(outcome.opened);
        add_to_all(outcome, &Count { connections, refused: u64::from(refused), ..count });
    }
    if outcome.opened && outcome.backend != Outcome::NOBODY && counts_connections(outcome.service) {
        maps::load(outcome.backend, 0, 1);
    }
    if refused || events::are_watched() {
        events::packet(notes, refused, bytes, hook);
    }
}

#[inline(always)]
fn add_to_all(outcome: &Outcome, count: &Count) {
    add(&maps::REASONS, outcome.reason as u32, count);
    if outcome.service != Outcome::NOBODY {
        add(&maps::SERVICE_COUNTS, outcome.service, count);
    }
    if outcome.backend != Outcome::NOBODY {
        add(&maps::BACKEND_COUNTS, outcome.backend, count);
    }
}

/// Whether a service chooses by how many connections are open.
#[inline(always)]
pub fn counts_connections(service: u32) -> bool {
    maps::SERVICES.get(service).is_some_and(Service::counts_connections)
}

/// Counts a socket that was translated.
#[inline(always)]
pub fn socket(service: u32, backend: u32) {
    let count = Count { connections: 1, ..Count::default() };
    add(&maps::SERVICE_COUNTS, service, &count);
    add(&maps::BACKEND_COUNTS, backend, &count);
}

/// Counts a socket that was refused.
#[inline(always)]
pub fn refusal(service: u32, reason: Reason) {
    let count = Count { refused: 1, ..Count::default() };
    add(&maps::REASONS, reason as u32, &count);
    if service != Outcome::NOBODY {
        add(&maps::SERVICE_COUNTS, service, &count);
    }
}
