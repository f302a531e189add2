//! A draft becomes writes: what comes first goes out here, what goes waits until nothing leads there.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use lb_common::abi::{Answer, BackendState, Scope, Service, SizeClass, Words};

use super::{
    Tables,
    answers::lines,
    draft::{Draft, Member, Next},
    names::PortKey,
    nodes::Ring,
    op::{Op, RULES_WORD},
    record::{ANSWERS, BackendRecord, Content, NameMark, ServiceRecord, claims},
    retire::{After, Limbo},
};
use crate::{model::ObjectName, plan::ServicePlan};

impl Tables {
    /// Writes the drafts of a Service. What must wait until the frontends are settled goes to
    /// `after`.
    pub(super) fn publish(
        &mut self,
        plan: &ServicePlan,
        drafts: Vec<Draft>,
        ops: &mut Vec<Op>,
        after: &mut Vec<After>,
    ) {
        let kept: BTreeSet<u32> = drafts.iter().map(|draft| draft.id).collect();
        for draft in drafts {
            self.publish_port(draft, ops, after);
        }
        let gone = self.ids_of(&plan.name).into_iter().filter(|id| !kept.contains(id));
        gone.for_each(|id| self.close(id, after));
    }

    /// Ids of all ports of a Service.
    pub(super) fn ids_of(&self, name: &ObjectName) -> Vec<u32> {
        let from = self.by_key.range(PortKey::first_of(name)..);
        from.take_while(|(key, _)| key.service == *name).map(|(_, id)| *id).collect()
    }

    fn publish_port(&mut self, draft: Draft, ops: &mut Vec<Op>, after: &mut Vec<After>) {
        let Draft { id, key, rules, members, answers, changed, frontends, ranges } = draft;
        if self.services.get(id).is_none() {
            ops.push(Op::NameService { id, name: key.to_string() });
            let key = Arc::new(key);
            self.by_key.insert(Arc::clone(&key), id);
            self.services.insert(id, ServiceRecord::new(key, rules.generation()));
        }
        let present: BTreeSet<u64> = members.keys().copied().collect();
        for (identity, member) in members {
            self.publish_member(id, identity, member, ops, after);
        }
        let Some(record) = self.services.get(id) else { return };
        let gone = record.backends.iter().filter(|(identity, _)| !present.contains(identity));
        after.extend(gone.map(|(_, id)| After::Left(*id)));
        self.publish_ranges(id, ranges, ops, after);
        self.publish_answers(id, rules, (answers, changed), ops, after);
        let Some(record) = self.services.get_mut(id) else { return };
        self.closed.remove(&id);
        let old = std::mem::replace(&mut record.frontends, frontends);
        let new: Vec<_> = claims(&record.frontends).collect();
        new.iter().for_each(|(place, kind)| self.claims.add(*place, *kind, id));
        for (place, kind) in claims(&old).filter(|claim| !new.contains(claim)) {
            self.claims.remove(place, kind, id);
        }
    }

    /// A backend that may get flows is written at once; one that may not, when no answer names it.
    fn publish_member(
        &mut self,
        service: u32,
        identity: u64,
        member: Member,
        ops: &mut Vec<Op>,
        after: &mut Vec<After>,
    ) {
        let Member { id, place, row, name } = member;
        let mark = NameMark::of(&name);
        let Some(record) = self.backends.get_mut(id) else {
            self.publish_new(service, identity, Member { id, place, row, name }, ops);
            after.push(After::Came(id));
            return;
        };
        if record.name != mark {
            ops.push(Op::NameBackend { id, name: name.to_string() });
            record.name = mark;
        }
        if self.left.remove(&id).is_some() {
            after.push(After::Came(id));
        }
        if record.row == row {
            return;
        }
        let (was, active) = (record.row.state(), row.state() == BackendState::Active);
        record.row = row;
        self.watch(id, ops);
        if active || was != BackendState::Active {
            ops.push(Op::Backend { id, row });
        } else {
            after.push(After::Row(id));
        }
    }

    fn publish_new(&mut self, service: u32, identity: u64, member: Member, ops: &mut Vec<Op>) {
        let Member { id, place, row, name } = member;
        let record = BackendRecord { row, name: NameMark::of(&name), watched: false };
        self.backends.insert(id, record);
        self.by_place.insert((place, id));
        if let Some(record) = self.services.get_mut(service) {
            record.backends.insert(identity, id);
        }
        ops.push(Op::NameBackend { id, name: name.to_string() });
        self.watch(id, ops);
        ops.push(Op::Backend { id, row });
    }

    /// Has the replies of a backend on this node looked at.
    fn watch(&mut self, id: u32, ops: &mut Vec<Op>) {
        let Some(record) = self.backends.get_mut(id) else { return };
        if !record.row.is_local() || std::mem::replace(&mut record.watched, true) {
            return;
        }
        let place = record.place();
        let count = self.locals.entry(place).or_default();
        if *count == 0 {
            ops.push(Op::PutLocal(place));
        }
        *count += 1;
    }

    /// New ranges come before the flag that asks for them, old ones go after it.
    fn publish_ranges(
        &mut self,
        service: u32,
        ranges: BTreeSet<IpNet>,
        ops: &mut Vec<Op>,
        after: &mut Vec<After>,
    ) {
        let Some(record) = self.services.get_mut(service) else { return };
        for network in ranges.difference(&record.ranges) {
            self.ranges[usize::from(network.addr().is_ipv6())] += 1;
            ops.push(Op::PutSource { service, network: *network });
        }
        for network in record.ranges.difference(&ranges) {
            after.push(After::Range(service, *network));
        }
        record.ranges = ranges;
    }

    /// Segments, then the answers that lead there, then the rules that ask for them, then what is
    /// not asked for any more.
    fn publish_answers(
        &mut self,
        id: u32,
        rules: Service,
        (answers, changed): ([Next; ANSWERS.len()], u32),
        ops: &mut Vec<Op>,
        after: &mut Vec<After>,
    ) {
        let mut next = [None; ANSWERS.len()];
        for (index, answer) in answers.into_iter().enumerate() {
            next[index] = match answer {
                Next::Keep => None,
                Next::Fixed(answer) => Some((answer, None)),
                Next::Write { segment, step, slots, fingerprint } => {
                    let generation = self.generation();
                    let over_nodes = ANSWERS[index].0 == Scope::Nodes;
                    let changed = if over_nodes { changed } else { 0 };
                    let head = Answer::list(0, generation).generation();
                    let lines = lines(id, head, changed, &slots);
                    ops.push(Op::Segment { first: segment.first, lines });
                    let answer = match step {
                        None => Answer::list(segment.first, generation),
                        Some(step) => Answer::ring(segment.first, generation, step),
                    };
                    if let Some(record) = self.services.get_mut(id) {
                        record.steps[index] = step.unwrap_or(record.steps[index]);
                        if over_nodes {
                            record.nodes = Some(Ring { slots: slots.into(), changed });
                        }
                    }
                    Some((answer, Some(Content { segment, fingerprint })))
                }
            };
        }
        let Some(record) = self.services.get_mut(id) else { return };
        let old = record.row;
        let mut row = rules;
        for (index, (scope, ring)) in ANSWERS.into_iter().enumerate() {
            let answer = next[index].map_or(old.answer(scope, ring), |(answer, _)| answer);
            row = row.with_answer(scope, ring, answer);
            if let Some((_, content)) = next[index] {
                let content = std::mem::replace(&mut record.contents[index], content);
                let segment = content.map(|content| Limbo::Segment(content.segment));
                self.limbo.extend(segment.map(|segment| (None, segment)));
            }
        }
        record.row = row;
        if is_unset(&old) {
            ops.push(Op::Service { id, row });
            return;
        }
        let differs = |index: usize| {
            let (scope, ring) = ANSWERS[index];
            let answer = row.answer(scope, ring);
            let op = Op::Answer { service: id, scope, ring, answer };
            (answer != old.answer(scope, ring)).then_some((answer, op))
        };
        let (unset, set): (Vec<_>, Vec<_>) = (0..ANSWERS.len())
            .filter_map(differs)
            .partition(|(answer, _)| *answer == Answer::UNSET);
        ops.extend(set.into_iter().map(|(_, op)| op));
        if row.to_words()[RULES_WORD] != old.to_words()[RULES_WORD] {
            ops.push(Op::Rules { id, row });
        }
        after.extend(unset.into_iter().map(|(_, op)| After::Unset(op)));
    }
}

/// Whether a row answers nothing: a port that is closed, or not yet open.
pub(super) fn is_unset(row: &Service) -> bool {
    ANSWERS.iter().all(|(scope, ring)| row.answer(*scope, *ring).class() == SizeClass::Unset)
}
