use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use lb_common::abi::{
    Answer, Backend, BackendState, Frontend, Line, Node, Service, Settings, SizeClass, Words,
};

use super::op::{Op, Place, RULES_WORD};

/// What the maps hold: read from the kernel's, or made by running operations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub settings: Option<Settings>,
    /// Rows that are not all zeros.
    pub services: BTreeMap<u32, Service>,
    pub service_names: BTreeMap<u32, String>,
    /// Rows that are not all zeros.
    pub backends: BTreeMap<u32, Backend>,
    pub backend_names: BTreeMap<u32, String>,
    /// Rows that are not all zeros.
    pub nodes: BTreeMap<u32, Node>,
    pub node_names: BTreeMap<u32, String>,
    /// At least those that answers lead to.
    pub arena: BTreeMap<u32, Line>,
    pub frontends: BTreeMap<Place, Frontend>,
    pub locals: BTreeSet<Place>,
    /// By service.
    pub sources: BTreeSet<(u32, IpNet)>,
}

impl Image {
    /// Executes an operation as the kernel's maps would.
    pub fn run(&mut self, op: &Op) {
        match op {
            Op::Settings(settings) => self.settings = Some(**settings),
            Op::NameService { id, name } => {
                self.service_names.insert(*id, name.clone());
            }
            Op::ForgetService(id) => {
                self.service_names.remove(id);
            }
            Op::Service { id, row } => {
                self.services.insert(*id, *row);
            }
            Op::Rules { id, row } => {
                self.store(*id, RULES_WORD, row.to_words()[RULES_WORD]);
            }
            Op::Answer { service, scope, ring, answer } => {
                self.store(*service, Service::answer_word(*scope, *ring), answer.word());
            }
            Op::NameBackend { id, name } => {
                self.backend_names.insert(*id, name.clone());
            }
            Op::ForgetBackend(id) => {
                self.backend_names.remove(id);
            }
            Op::Backend { id, row } => {
                self.backends.insert(*id, *row);
            }
            Op::NameNode { id, name } => {
                self.node_names.insert(*id, name.clone());
            }
            Op::ForgetNode(id) => {
                self.node_names.remove(id);
            }
            Op::Node { id, row } if *row == Node::default() => {
                self.nodes.remove(id);
            }
            Op::Node { id, row } => {
                self.nodes.insert(*id, *row);
            }
            Op::Segment { first, lines } => {
                self.arena.extend((*first..).zip(lines.iter().copied()));
            }
            Op::PutFrontend { at, frontend } => {
                self.frontends.insert(*at, *frontend);
            }
            Op::RemoveFrontend(at) => {
                self.frontends.remove(at);
            }
            Op::PutLocal(at) => {
                self.locals.insert(*at);
            }
            Op::RemoveLocal(at) => {
                self.locals.remove(at);
            }
            Op::PutSource { service, network } => {
                self.sources.insert((*service, *network));
            }
            Op::RemoveSource { service, network } => {
                self.sources.remove(&(*service, *network));
            }
        }
    }

    fn store(&mut self, service: u32, word: usize, value: u64) {
        let row = self.services.entry(service).or_default();
        let mut words = row.to_words();
        words[word] = value;
        *row = Service::from_words(&words);
    }

    /// The backend ids that an answer leads to, if its segment is whole and `service`'s.
    pub fn slots(&self, service: u32, answer: Answer) -> Option<Vec<u32>> {
        let head = self.arena.get(&answer.line())?;
        let expected = match answer.class() {
            SizeClass::Unset | SizeClass::Reject | SizeClass::Drop => return None,
            SizeClass::List => head.slots(),
            SizeClass::Ring(slots) => slots,
        };
        let is_ours = head.service() == service
            && head.generation() == answer.generation()
            && head.slots() == expected;
        let slot = |slot| {
            let (line, place) = Line::place(slot);
            self.arena.get(&(answer.line() + line)).map(|line| line.0[place])
        };
        if is_ours { (0..expected).map(slot).collect() } else { None }
    }

    /// Backends that are somebody's.
    pub fn live_backends(&self) -> impl Iterator<Item = (u32, &Backend)> {
        let live = self.backends.iter().filter(|(_, row)| row.state() != BackendState::Free);
        live.map(|(id, row)| (*id, row))
    }
}
