use std::vec::Vec;

use super::{Tables, TestWorld};
use crate::{
    abi::{
        Answer, Backend, Frontend, FrontendKey, Kind, Line, NodeSlot, SLOTS_PER_LINE, Scope,
        Service,
    },
    addr::{Addr, V4, V6},
};

/// A family whose tables a [`TestWorld`] has.
pub trait Modelled: Addr + Ord {
    /// The tables to read.
    fn tables(world: &TestWorld) -> &Tables<Self>;
    /// The tables to write.
    fn tables_mut(world: &mut TestWorld) -> &mut Tables<Self>;
}

impl Modelled for V4 {
    fn tables(world: &TestWorld) -> &Tables<Self> {
        &world.v4
    }

    fn tables_mut(world: &mut TestWorld) -> &mut Tables<Self> {
        &mut world.v4
    }
}

impl Modelled for V6 {
    fn tables(world: &TestWorld) -> &Tables<Self> {
        &world.v6
    }

    fn tables_mut(world: &mut TestWorld) -> &mut Tables<Self> {
        &mut world.v6
    }
}

impl TestWorld {
    /// A frontend of `service`.
    pub fn add_frontend<A: Modelled>(
        &mut self,
        address: A,
        port: u16,
        protocol: u8,
        service: u32,
        kind: Kind,
    ) {
        let key = FrontendKey::new(address, port.to_be_bytes(), protocol);
        A::tables_mut(self).frontends.insert(key, Frontend::new(service, kind));
    }

    /// An address that is something by itself.
    pub fn add_address<A: Modelled>(&mut self, address: A, kind: Kind) {
        let key = FrontendKey::of_address(address);
        A::tables_mut(self).frontends.insert(key, Frontend::new(0, kind));
    }

    /// A backend; one on this node is known to egress too.
    pub fn add_backend<A: Modelled>(&mut self, id: u32, backend: Backend) {
        if backend.is_local() {
            let address = A::from_slot(backend.address());
            let key = FrontendKey::new(address, backend.port(), backend.protocol());
            A::tables_mut(self).locals.insert(key);
        }
        self.backends.insert(id, backend);
    }

    /// Changes a service where it stands; one that is not there starts empty.
    pub fn change_service(&mut self, id: u32, change: impl FnOnce(Service) -> Service) {
        let service = self.services.entry(id).or_insert(Service::new(1, 0));
        *service = change(*service);
    }

    /// Changes a backend where it stands.
    ///
    /// # Panics
    /// If there is no such backend.
    pub fn change_backend(&mut self, id: u32, change: impl FnOnce(Backend) -> Backend) {
        let backend = self.backends.get_mut(&id).expect("a backend of this world");
        *backend = change(*backend);
    }

    /// Writes a new segment to the end of the arena; returns its first line.
    pub fn add_segment(&mut self, service: u32, generation: u32, slots: &[u32]) -> u32 {
        let first = self.lines.len() as u32;
        let head = [service, generation, slots.len() as u32, 0];
        let words: Vec<u32> = head.iter().chain(slots).copied().collect();
        self.lines.extend(words.chunks(SLOTS_PER_LINE).map(|words| {
            let mut line = Line::default();
            line.0[..words.len()].copy_from_slice(words);
            line
        }));
        first
    }

    /// Publishes a list and a smallest ring of `backends` as a service's answers.
    /// See [`TestWorld::set_nothing`] for none. The ring just takes turns.
    pub fn set_backends(&mut self, service: u32, scope: Scope, backends: &[u32]) {
        let generation = self.lines.len() as u32 + 1;
        let list = Answer::list(self.add_segment(service, generation, backends), generation);
        let turns: Vec<u32> =
            backends.iter().copied().cycle().take(Answer::RINGS[0] as usize).collect();
        let ring = Answer::ring(self.add_segment(service, generation, &turns), generation, 0);
        self.change_service(service, |service| {
            service.with_answer(scope, false, list).with_answer(scope, true, ring)
        });
    }

    /// Spreads a service over nodes: the slots of its ring, the smallest there is, take turns by these;
    /// `changed` is when it last did otherwise.
    pub fn set_nodes(&mut self, service: u32, slots: &[NodeSlot], changed: u32) {
        let generation = self.lines.len() as u32 + 1;
        let turns = slots.iter().map(|slot| slot.to_word()).cycle();
        let words: Vec<u32> = turns.take(Answer::RINGS[0] as usize).collect();
        let line = self.add_segment(service, generation, &words);
        self.lines[line as usize].0[3] = changed;
        let answer = Answer::ring(line, generation, 0);
        self.change_service(service, |service| service.with_answer(Scope::Nodes, true, answer));
    }

    /// Publishes an answer without backends, [`Answer::REJECT`] or [`Answer::DROP`].
    pub fn set_nothing(&mut self, service: u32, scope: Scope, answer: Answer) {
        self.change_service(service, |service| {
            service.with_answer(scope, false, answer).with_answer(scope, true, answer)
        });
    }
}
