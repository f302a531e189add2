//! What an agent leaves that dies in the middle of an insert.

use super::words::{BY_AGENT, LOCKED, OF_AGENT, expired, in_state, lock_at, state_of};
use crate::{
    abi::{FlowSet, FlowWords as _},
    addr::Addr,
    tracking::State,
};

/// Takes back what an agent left in a set when it died in the middle of an insert: its locks, and
/// places that it was writing to. Programs may go on meanwhile, but no agent may be inserting.
pub fn mend<A: Addr>(set: &FlowSet<A>) {
    for words in &set.ways {
        let old = words.word(0).get();
        if matches!(state_of(old), State::Busy) && expired(old) == BY_AGENT {
            words.word(0).replace_if(old, in_state(old, 0, State::Empty));
        }
        let lock = words.word(lock_at::<A>());
        let held = lock.get();
        if held & OF_AGENT != 0 {
            // Nobody else writes to it while it is held.
            lock.set(held & !(LOCKED | OF_AGENT));
        }
    }
}

/// Makes a set as agents would leave it, each of which died in the middle of an insert to another of
/// its places.
#[cfg(feature = "model")]
pub fn abandon<A: Addr>(set: &FlowSet<A>) {
    for words in &set.ways {
        let old = words.word(0).get();
        words.word(0).set(in_state(old, BY_AGENT, State::Busy));
        let lock = words.word(lock_at::<A>());
        lock.set(lock.get() | LOCKED | OF_AGENT);
    }
}
