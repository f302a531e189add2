//! The sieve before the tables, kept by the agent: bits are set before their entry is written, and
//! cleared when there is time.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use aya::maps::MapError;
use lb_common::{
    abi::{Frontend, FrontendKey, WORDS_V4, WORDS_V6},
    addr::{Addr, V4, V6},
    gate::{Plane, place},
    table::Role,
};

use super::{crash, maps::Maps};

impl Maps {
    /// Lets packets to `key` through to the frontends.
    pub(super) fn let_in<A: Addr>(&self, key: &FrontendKey<A>, frontend: Frontend) {
        for plane in planes_of(key, frontend) {
            self.set_bits(plane, key);
        }
    }

    /// Lets packets from `key` through to the local backends.
    pub(super) fn let_out<A: Addr>(&self, key: &FrontendKey<A>) {
        self.set_bits(Plane::Local, key);
    }

    fn set_bits<A: Addr>(&self, plane: Plane, key: &FrontendKey<A>) {
        let (word, bits) = place(plane, key.address(), key.port(), key.protocol());
        crash::point();
        self.gate.words()[word as usize].fetch_or(bits, Release);
    }

    /// Clears the bits of entries that are gone, if there are any; those of flows stay, which may
    /// outlive their frontend. The agent is the maps' only writer, and a flow needs a frontend to
    /// begin: no bit is needed meanwhile that is not known here.
    ///
    /// # Errors
    /// If the entries cannot be listed; then all bits stay.
    pub fn tighten_gate(&mut self) -> Result<(), MapError> {
        if !self.gate_is_loose {
            return Ok(());
        }
        let mut bits = vec![0; self.gate.words().len()];
        for entry in &self.frontends_v4 {
            let (key, frontend) = entry?;
            note(&mut bits, planes_of(&key, frontend), &key);
        }
        for entry in &self.frontends_v6 {
            let (key, frontend) = entry?;
            note(&mut bits, planes_of(&key, frontend), &key);
        }
        for key in self.locals_v4.keys() {
            note(&mut bits, [Plane::Local], &key?);
        }
        for key in self.locals_v6.keys() {
            note(&mut bits, [Plane::Local], &key?);
        }
        note_flows::<V4, WORDS_V4>(&mut bits, self.flows_v4.words());
        note_flows::<V6, WORDS_V6>(&mut bits, self.flows_v6.words());
        for (word, bits) in self.gate.words().iter().zip(bits) {
            if word.load(Acquire) != bits {
                crash::point();
                word.store(bits, Release);
            }
        }
        self.gate_is_loose = false;
        Ok(())
    }
}

/// Where the key of a frontend, or of an address, is entered: of a frontend, its address too.
fn planes_of<A: Addr>(
    key: &FrontendKey<A>,
    frontend: Frontend,
) -> impl IntoIterator<Item = Plane> + use<A> {
    let address = frontend.kind().map(Plane::of_address);
    address.into_iter().chain((key.protocol() != 0).then_some(Plane::Frontend))
}

fn note<A: Addr>(gate: &mut [u64], planes: impl IntoIterator<Item = Plane>, key: &FrontendKey<A>) {
    for plane in planes {
        let (word, bits) = place(plane, key.address(), key.port(), key.protocol());
        gate[word as usize] |= bits;
    }
}

/// What the clients of all flows dialled, expired or not: there are not many places to dial.
fn note_flows<A: Addr, const N: usize>(bits: &mut [u64], words: &[AtomicU64]) {
    for entry in words.as_chunks::<N>().0 {
        let meta = entry[0].load(Relaxed);
        let role = Role::from_number((meta >> 40) as u8);
        if meta == 0 || !matches!(role, Role::ToLocal | Role::ToRemote) {
            continue;
        }
        let (_, dst) = A::pair_from(|index| entry[1 + index].load(Relaxed));
        let ports = entry[1 + A::PAIR_WORDS].load(Relaxed);
        let port = ((ports >> 16) as u16).to_ne_bytes();
        let address = FrontendKey::of_address(dst);
        let (word, node) = place(Plane::Node, dst, [0; 2], 0);
        if bits[word as usize] & node != node {
            note(bits, [Plane::Address], &address);
        }
        note(bits, [Plane::Frontend], &FrontendKey::new(dst, port, (ports >> 32) as u8));
    }
}
