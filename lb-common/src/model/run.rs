use std::{vec, vec::Vec};

use super::TestWorld;
use crate::{
    abi::{
        AffinityEntry, AffinityKey, Backend, FlowSet, FragmentKey, FragmentPorts, Frontend,
        FrontendKey, HopSlot, Line, Node, PoolKey, PortPool, Service, Settings, Word,
    },
    addr::Addr,
    packet::Frame,
    path::{Notes, Outcome, Trace, arrive, leave},
    verdict::{Reason, Verdict},
    world::{Store, World},
};

/// What came of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What the hook does: a rejection without an answer is a drop.
    pub verdict: Verdict,
    pub reason: Reason,
    pub outcome: Outcome,
    /// The frame afterwards.
    pub bytes: Vec<u8>,
}

impl Run {
    /// Bytes behind a frame that it may grow into.
    const ROOM: usize = 128;

    fn of(
        frame: &[u8],
        notes: &mut Notes,
        rules: impl Fn(&mut Frame<'_>, &mut Notes) -> Verdict,
    ) -> Self {
        let mut buffer = vec![0; frame.len() + Self::ROOM];
        buffer[..frame.len()].copy_from_slice(frame);
        let mut packet = Frame::new(&mut buffer, frame.len());
        let verdict = rules(&mut packet, notes);
        let outcome = notes.outcome;
        Self { verdict, reason: outcome.reason, outcome, bytes: packet.bytes().to_vec() }
    }
}

impl TestWorld {
    /// A frame comes in on an uplink.
    pub fn arrive(&self, frame: &[u8]) -> Run {
        Run::of(frame, &mut self.notes.borrow_mut(), |packet, notes| {
            arrive(packet, self, self, notes)
        })
    }

    /// A frame leaves on an uplink.
    pub fn leave(&self, frame: &[u8]) -> Run {
        Run::of(frame, &mut self.notes.borrow_mut(), |packet, notes| {
            leave(packet, self, self, notes)
        })
    }

    /// What would come of a frame that comes in, and why; nothing in this world changes but its
    /// randomness.
    pub fn explain(&self, frame: &[u8]) -> (Run, Trace) {
        let mut notes = Notes::default();
        let run = Run::of(frame, &mut notes, |packet, notes| {
            arrive(packet, &Explaining(self), self, notes)
        });
        (run, notes.trace)
    }
}

/// A world that is only read.
pub struct Explaining<'a>(pub &'a TestWorld);

impl World for Explaining<'_> {
    const LIVE: bool = false;

    fn settings(&self) -> Option<&Settings> {
        self.0.settings()
    }

    fn service(&self, id: u32) -> Option<&Service> {
        self.0.service(id)
    }

    fn line(&self, index: u32) -> Option<&Line> {
        self.0.line(index)
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.0.backend(id)
    }

    fn hop(&self, place: u32) -> Option<&HopSlot> {
        self.0.hop(place)
    }

    fn node(&self, id: u32) -> Option<&Node> {
        self.0.node(id)
    }

    fn way_to_node(&self, id: u32) -> Option<&[Word; 2]> {
        self.0.way_to_node(id)
    }

    fn gate(&self, index: u32) -> u64 {
        self.0.gate(index)
    }

    fn now(&self) -> u32 {
        self.0.now()
    }

    fn random(&self) -> u32 {
        self.0.random()
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry> {
        self.0.affinity(key)
    }

    fn turn(&self, service: u32) -> u64 {
        self.0.turn(service)
    }

    fn load(&self, backend: u32) -> u32 {
        self.0.load(backend)
    }
}

impl<A: Addr> Store<A> for Explaining<'_>
where
    TestWorld: Store<A>,
{
    fn frontend(&self, key: &FrontendKey<A>) -> Option<Frontend> {
        self.0.frontend(key)
    }

    fn is_local_backend(&self, key: &FrontendKey<A>) -> bool {
        self.0.is_local_backend(key)
    }

    fn allows_source(&self, service: u32, source: A) -> bool {
        self.0.allows_source(service, source)
    }

    fn flow_set(&self, index: u32) -> Option<&FlowSet<A>> {
        self.0.flow_set(index)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        <TestWorld as Store<A>>::fragment(self.0, key)
    }

    fn note_fragment(&self, _key: &FragmentKey, _ports: &FragmentPorts) {}

    fn opening(&self) -> Option<&Word> {
        <TestWorld as Store<A>>::opening(self.0)
    }

    fn port_pool(&self, key: &PoolKey) -> Option<&PortPool> {
        <TestWorld as Store<A>>::port_pool(self.0, key)
    }
}
