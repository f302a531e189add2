//! From what a program reports to what is said about it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use lb_common::{
    abi::{Answer, Line, Report, SizeClass},
    path::Outcome,
    verdict::{self, Reason},
};

use super::Asked;
use crate::{
    api::{Explanation, Verdict, Via},
    datapath::{adopt::ReadError, maps::Maps, rows::place_of},
    plan::tables::PortKey,
};

/// Reads what reports refer to, each thing once.
pub(super) struct Reader<'a> {
    maps: &'a Maps,
    names: BTreeMap<u32, Option<String>>,
    candidates: BTreeMap<u64, Rc<[Candidate]>>,
}

/// A backend that could have been chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    address: SocketAddr,
    local: bool,
}

/// What a report says by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finding {
    pub report: Report,
    pub reason: Reason,
}

impl Finding {
    /// What a program reported; `None` if it is no report.
    pub fn new(report: Report) -> Option<Self> {
        let reason = *Reason::ALL.get(u32::from_ne_bytes(report.reason) as usize)?;
        Some(Self { report, reason })
    }

    pub const fn verdict(&self) -> Verdict {
        match self.reason.verdict() {
            verdict::Verdict::Pass => Verdict::Pass,
            verdict::Verdict::Deliver | verdict::Verdict::Forward => Verdict::Forward,
            // Nobody asks about an echo: questions are about what has ports.
            verdict::Verdict::Answer | verdict::Verdict::Reject => Verdict::Reject,
            verdict::Verdict::Drop => Verdict::Drop,
        }
    }

    fn service(&self) -> Option<u32> {
        let service = u32::from_ne_bytes(self.report.service);
        (service != Outcome::NOBODY).then_some(service)
    }

    /// Whether the packet goes on as one of a flow that is known: nothing was chosen for it.
    pub fn is_of_known_flow(&self) -> bool {
        self.verdict() == Verdict::Forward
            && self.reason != Reason::ToNode
            && self.service().is_some()
            && !self.names_candidates()
    }

    /// Whether a backend was chosen from a set.
    pub fn names_candidates(&self) -> bool {
        !matches!(self.report.answer().class(), SizeClass::Unset)
    }
}

impl<'a> Reader<'a> {
    pub fn new(maps: &'a Maps) -> Self {
        Self { maps, names: BTreeMap::new(), candidates: BTreeMap::new() }
    }

    /// Puts the answer together. `choice` is what a new connection to the same place would meet.
    pub fn explanation(
        &mut self,
        found: &Finding,
        choice: &Finding,
        via: Via,
        asked: &Asked,
    ) -> Result<Explanation, ReadError> {
        let verdict = found.verdict();
        let mut explanation = Explanation {
            verdict,
            reason: found.reason.label().to_owned(),
            frontend: found.service().map(|id| self.frontend(id)).transpose()?.flatten(),
            backend: None,
            source: None,
            candidates: Vec::new(),
            masquerade: false,
            via: Some(via),
            node: None,
            steps: Vec::new(),
        };
        let chosen = u32::from_ne_bytes(found.report.backend);
        if found.reason == Reason::ToNode {
            explanation.node = self.maps.node_name(chosen)?.map(|key| key.name);
        } else if verdict == Verdict::Forward {
            explanation.backend = self.backend(chosen);
            explanation.source = source(&found.report, asked.dst.is_ipv4());
            let candidates = self.candidates(choice.report.answer());
            // Who may meet itself is masqueraded then: the answer is about all that may come of it.
            let may_meet_itself = |it: &Candidate| it.local && it.address.ip() == asked.src;
            explanation.masquerade =
                choice.report.masquerade != 0 || candidates.iter().any(may_meet_itself);
            explanation.candidates = candidates.iter().map(|it| it.address).collect();
        }
        Ok(explanation)
    }

    /// `namespace/name:port` of a service, or `namespace/name` where its port has no name.
    fn frontend(&mut self, id: u32) -> Result<Option<String>, ReadError> {
        if let Some(known) = self.names.get(&id) {
            return Ok(known.clone());
        }
        let key = self.maps.service_name(id)?.and_then(|name| PortKey::parse(&name));
        let name = key.map(|PortKey { service, port_name, .. }| match port_name.as_str() {
            "" => service.to_string(),
            _ => format!("{service}:{port_name}"),
        });
        Ok(self.names.entry(id).or_insert(name).clone())
    }

    fn backend(&self, id: u32) -> Option<SocketAddr> {
        let known = (id != Outcome::NOBODY).then(|| self.maps.backends.get(id))?;
        known.map(|row| place_of(&row))
    }

    /// The distinct backends of the segment that an answer leads to, sorted.
    fn candidates(&mut self, answer: Answer) -> Rc<[Candidate]> {
        if let Some(known) = self.candidates.get(&answer.word()) {
            return Rc::clone(known);
        }
        let slots = match answer.class() {
            SizeClass::Unset | SizeClass::Reject | SizeClass::Drop => 0,
            SizeClass::List => self.maps.arena.get(answer.line()).map_or(0, |head| head.slots()),
            SizeClass::Ring(slots) => slots,
        };
        let lines = (0..Line::lines_for(slots))
            .map_while(|line| Some(self.maps.arena.get(answer.line().checked_add(line)?)?.0));
        let slots = lines.flatten().skip(Line::HEAD).take(slots as usize);
        let mut ids: Vec<u32> = slots.collect();
        ids.sort_unstable();
        ids.dedup();
        let candidate = |id| {
            let row = self.maps.backends.get(id)?;
            Some(Candidate { address: place_of(&row), local: row.is_local() })
        };
        let mut found: Vec<_> = ids.into_iter().filter_map(candidate).collect();
        found.sort_unstable();
        found.dedup();
        Rc::clone(self.candidates.entry(answer.word()).or_insert_with(|| found.into()))
    }
}

/// The source address in a report, if there is one.
fn source(report: &Report, ipv4: bool) -> Option<IpAddr> {
    let [a, b, c, d, ..] = report.source;
    let address = if ipv4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(report.source) };
    (!address.is_unspecified()).then_some(address)
}
