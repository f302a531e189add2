//! What goes, and when what it held may be used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;
use lb_common::abi::{BackendState, Service};

use super::{
    GRACE, Tables,
    op::{Op, Place},
    publish::is_unset,
    record::{ANSWERS, claims},
};
use crate::{model::ObjectName, plan::arena::Segment};

/// What waits until the frontends are settled.
#[derive(Debug)]
pub(super) enum After {
    /// An answer that nothing asks for.
    Unset(Op),
    Range(u32, IpNet),
    Closed(u32),
    /// A backend's row as the record has it.
    Row(u32),
    /// A backend is not in its service's slices.
    Left(u32),
    /// A backend may get flows: who was at its place before it is gone.
    Came(u32),
}

impl After {
    /// Answers go before the backends that they lead to.
    const fn stage(&self) -> u8 {
        match self {
            Self::Unset(_) | Self::Range(..) | Self::Closed(_) => 0,
            Self::Row(_) | Self::Left(_) => 1,
            Self::Came(_) => 2,
        }
    }
}

/// What is free once nobody can be reading it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limbo {
    Segment(Segment),
    Service(u32),
    Backend(u32),
    Node(u32),
}

impl Tables {
    /// Closes all ports of a Service.
    pub(super) fn close_all(&mut self, name: &ObjectName, after: &mut Vec<After>) {
        self.ids_of(name).into_iter().for_each(|id| self.close(id, after));
    }

    /// Gives up a port's frontends; the rest waits.
    pub(super) fn close(&mut self, id: u32, after: &mut Vec<After>) {
        let Some(record) = self.services.get_mut(id) else { return };
        self.closed.entry(id).or_default();
        let frontends = std::mem::take(&mut record.frontends);
        claims(&frontends).for_each(|(place, kind)| self.claims.remove(place, kind, id));
        after.extend(std::mem::take(&mut record.ranges).into_iter().map(|r| After::Range(id, r)));
        after.push(After::Closed(id));
        after.extend(record.backends.values().map(|backend| After::Left(*backend)));
    }

    pub(super) fn retire(&mut self, mut after: Vec<After>, ops: &mut Vec<Op>) {
        after.sort_by_key(After::stage);
        for step in &after {
            if let After::Left(id) = step {
                self.left.entry(*id).or_default();
            }
        }
        for step in after {
            match step {
                After::Unset(op) => ops.push(op),
                After::Range(service, network) => {
                    self.ranges[usize::from(network.addr().is_ipv6())] -= 1;
                    ops.push(Op::RemoveSource { service, network });
                }
                After::Closed(id) => self.clear(id, ops),
                After::Row(id) => {
                    let row = self.backends.get(id).map(|record| record.row);
                    ops.extend(row.map(|row| Op::Backend { id, row }));
                }
                After::Left(id) => self.leave(id, ops),
                After::Came(id) => self.succeed(id, ops),
            }
        }
    }

    /// Takes a closed port's answers away.
    fn clear(&mut self, id: u32, ops: &mut Vec<Op>) {
        let Some(record) = self.services.get_mut(id) else { return };
        let contents = record.contents.iter_mut().filter_map(Option::take);
        self.limbo.extend(contents.map(|content| (None, Limbo::Segment(content.segment))));
        record.steps = [0; ANSWERS.len()];
        record.nodes = None;
        if !is_unset(&record.row) {
            let (generation, epoch) = (record.row.generation(), record.row.affinity_epoch());
            record.row = Service::new(generation, 0).with_affinity_epoch(epoch);
            ops.push(Op::Service { id, row: record.row });
        }
    }

    /// A backend is not in the slices any more. It keeps its TCP flows, unless it is known to be gone
    /// for good: it was terminating, or somebody else has its address.
    fn leave(&mut self, id: u32, ops: &mut Vec<Op>) {
        let Some(record) = self.backends.get(id) else { return };
        let name = record.name;
        let is_other = |id| self.backends.get(id).is_some_and(|it| it.name.is_other_than(&name));
        let gone = record.row.state() == BackendState::Gone
            || name.terminating
            || self.at(&record.place()).any(|id| !self.left.contains_key(&id) && is_other(id));
        let state = if gone { BackendState::Gone } else { BackendState::Retired };
        let Some(record) = self.backends.get_mut(id) else { return };
        let row = record.row.with_state(state, false);
        if row != record.row {
            record.row = row;
            ops.push(Op::Backend { id, row });
        }
    }

    /// Who left the place of a backend that came is gone for good.
    fn succeed(&mut self, id: u32, ops: &mut Vec<Op>) {
        let Some(record) = self.backends.get(id) else { return };
        let name = record.name;
        let gone: Vec<u32> = self
            .at(&record.place())
            .filter(|other| self.left.contains_key(other))
            .filter(|other| {
                let other = self.backends.get(*other);
                other.is_some_and(|other| {
                    other.row.state() != BackendState::Gone && other.name.is_other_than(&name)
                })
            })
            .collect();
        for id in gone {
            let Some(record) = self.backends.get_mut(id) else { continue };
            record.row = record.row.with_state(BackendState::Gone, false);
            ops.push(Op::Backend { id, row: record.row });
        }
    }

    /// Ids of the backends that are, or were, at a place.
    fn at(&self, place: &Place) -> impl Iterator<Item = u32> + use<'_> {
        self.by_place.range((*place, 0)..=(*place, u32::MAX)).map(|(_, id)| *id)
    }

    /// Frees backends that left and closed ports that have none, at the earliest [`GRACE`] after the
    /// call that first saw them so.
    ///
    /// `referenced` are the backends that a live flow refers to, as a scan of the flow tables that
    /// began at `scanned` (monotonic time) has found.
    pub fn reclaim(&mut self, scanned: Duration, referenced: &BTreeSet<u32>) -> Vec<Op> {
        self.thaw(scanned);
        let mut ops = Vec::new();
        for id in overdue(&mut self.left, scanned) {
            if !referenced.contains(&id) {
                self.free_backend(id, &mut ops);
            }
        }
        for id in overdue(&mut self.closed, scanned) {
            if self.services.get(id).is_some_and(|record| record.backends.is_empty()) {
                self.free_service(id, &mut ops);
            }
        }
        self.reclaim_nodes(&mut ops);
        ops
    }

    fn free_service(&mut self, id: u32, ops: &mut Vec<Op>) {
        let Some(record) = self.services.remove(id) else { return };
        self.by_key.remove(&record.key);
        self.closed.remove(&id);
        ops.push(Op::ForgetService(id));
        self.limbo.push((None, Limbo::Service(id)));
    }

    fn free_backend(&mut self, id: u32, ops: &mut Vec<Op>) {
        let Some(record) = self.backends.remove(id) else { return };
        self.left.remove(&id);
        let place = record.place();
        self.by_place.remove(&(place, id));
        if let Some(service) = self.services.get_mut(record.row.service()) {
            service.backends.remove(&record.row.identity());
        }
        ops.push(Op::Backend { id, row: record.row.with_state(BackendState::Free, false) });
        if record.watched
            && let Some(count) = self.locals.get_mut(&place)
        {
            *count -= 1;
            if *count == 0 {
                self.locals.remove(&place);
                ops.push(Op::RemoveLocal(place));
            }
        }
        ops.push(Op::ForgetBackend(id));
        self.limbo.push((None, Limbo::Backend(id)));
    }

    /// Takes back what nobody can be reading any more: cheap, for about once a second. `now` is
    /// monotonic time.
    pub fn thaw(&mut self, now: Duration) {
        for (seen, what) in std::mem::take(&mut self.limbo) {
            if seen.is_none_or(|seen| seen + GRACE > now) {
                self.limbo.push((seen.or(Some(now)), what));
                continue;
            }
            match what {
                Limbo::Segment(segment) => self.arena.give_back(segment),
                Limbo::Service(id) => self.service_ids.give_back(id),
                Limbo::Backend(id) => self.backend_ids.give_back(id),
                Limbo::Node(id) => self.nodes.give_back(id),
            }
        }
    }
}

/// Ids that were seen [`GRACE`] ago; those never seen before are seen now.
fn overdue(since: &mut BTreeMap<u32, Option<Duration>>, now: Duration) -> Vec<u32> {
    let is_over = |seen: &mut Option<Duration>| *seen.get_or_insert(now) + GRACE <= now;
    since.iter_mut().filter_map(|(id, seen)| is_over(seen).then_some(*id)).collect()
}
