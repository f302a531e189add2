//! The flow table: two entries a flow, one for each direction, in sets of an array map.
//!
//! An IPv4 entry is one cache line (8 words), an IPv6 entry two (16 words):
//!
//! | word | IPv4 | IPv6 |
//! |---|---|---|
//! | stamp, state, role, sequence | 0 | 0 |
//! | key: addresses | 1 | 1–4 |
//! | key: ports, protocol | 2 | 5 |
//! | new addresses | 3 | 6–9 |
//! | new ports, backend | 4 | 10 |
//! | generation of the backend | 5 | 11 |
//! | of the first entry: the set's lock | 7 | 15 |
//!
//! Readers take no lock: they compare the key, copy what they need, and look at word 0 again; its
//! sequence has changed if the entry was given to another flow meanwhile. Writers hold the set's
//! lock, so that a key is in a set once. Which flow ages how is in [`crate::tracking`]; an expired
//! entry is free for the next flow: nobody has to sweep.
//!
//! A flow belongs to the set that its hash names; when that is full, to a second one. The lock word
//! remembers for ever that a set overflowed, so a look-up that misses costs one set as a rule.

use core::sync::atomic::{
    Ordering::{Acquire, Release},
    compiler_fence,
};

use crate::{
    abi::{FlowSet, FlowWords, Timeouts, Word},
    addr::Addr,
    flow::Tuple,
    hash,
    limits::{FLOW_WAYS, LOCK_TRIES},
    tracking::{State, timeout},
    world::Store,
};

/// Which direction an entry is for, and where its packets go.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Client to a backend on this node.
    #[default]
    ToLocal = 0,
    /// Client to a backend elsewhere.
    ToRemote = 1,
    /// Backend on this node to the client.
    ReplyLocal = 2,
    /// Backend elsewhere to the client.
    ReplyRemote = 3,
}

impl Role {
    #[inline(always)]
    const fn from_number(number: u8) -> Self {
        match number & 3 {
            0 => Self::ToLocal,
            1 => Self::ToRemote,
            2 => Self::ReplyLocal,
            _ => Self::ReplyRemote,
        }
    }
}

/// What an entry says about a packet of its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry<A> {
    pub state: State,
    pub role: Role,
    /// Addresses and ports that the packet leaves with.
    pub to: Tuple<A>,
    pub backend: u32,
    pub generation: u32,
}

/// An entry as it was found, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found<A> {
    pub entry: Entry<A>,
    /// Tick of the last refresh.
    pub stamp: u32,
    set: u32,
    way: u32,
    meta: u64,
}

/// What became of an entry to be inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    Done,
    /// The key has a live entry that says something else.
    Exists,
    /// Both of the flow's sets are full.
    Full,
    /// Another CPU held the lock for too long.
    Contended,
}

const LOCKED: u64 = 1;
const OVERFLOWED: u64 = 2;

/// Word 0.
#[inline(always)]
const fn meta(stamp: u32, state: State, role: Role, sequence: u16) -> u64 {
    stamp as u64 | (state as u64) << 32 | (role as u64) << 40 | (sequence as u64) << 48
}

#[inline(always)]
const fn state_of(meta: u64) -> State {
    State::from_number((meta >> 32) as u8)
}

/// The two sets that a flow may be in.
#[inline(always)]
fn sets<A: Addr>(seed: u64, mask: u32, key: &Tuple<A>) -> (u32, u32) {
    let hash = hash::tuple(seed, key);
    let first = hash as u32 & mask;
    (first, (first ^ ((hash >> 32) as u32 | 1)) & mask)
}

/// Looks for the live entry of a flow and copies it to `found`.
#[inline(never)]
pub fn find<A: Addr, S: Store<A>>(store: &S, key: &Tuple<A>, found: &mut Found<A>) -> bool {
    let Some(settings) = store.settings() else { return false };
    let (first, second) = sets(settings.seed, settings.flow_mask::<A>(), key);
    let now = store.now();
    let Some(set) = store.flow_set(first) else { return false };
    if find_in(set, first, key, now, &settings.timeouts, found) {
        return true;
    }
    if set.lock_word().get() & OVERFLOWED == 0 {
        return false;
    }
    let Some(set) = store.flow_set(second) else { return false };
    find_in(set, second, key, now, &settings.timeouts, found)
}

#[inline(always)]
fn find_in<A: Addr>(
    set: &FlowSet<A>,
    index: u32,
    key: &Tuple<A>,
    now: u32,
    timeouts: &Timeouts,
    found: &mut Found<A>,
) -> bool {
    let mut way = 0;
    while way < FLOW_WAYS {
        let words = &set.ways[way];
        let before = words.word(0).get();
        if has_key::<A>(words, key) && is_live(before, key.protocol, now, timeouts) {
            compiler_fence(Acquire);
            read::<A>(words, before, key.protocol, &mut found.entry);
            found.stamp = before as u32;
            found.set = index;
            found.way = way as u32;
            found.meta = before;
            compiler_fence(Acquire);
            // The sequence tells whether the entry is still this flow's.
            if words.word(0).get() >> 48 == before >> 48 {
                return true;
            }
        }
        way += 1;
    }
    false
}

/// Gives a flow an entry. A live entry of the same key stays and is copied to `existing`
/// ([`Insert::Exists`]), unless it already says the same: then it is renewed.
#[inline(never)]
pub fn insert<A: Addr, S: Store<A>>(
    store: &S,
    key: &Tuple<A>,
    entry: &Entry<A>,
    existing: &mut Found<A>,
) -> Insert {
    let Some(settings) = store.settings() else { return Insert::Full };
    let (first, second) = sets(settings.seed, settings.flow_mask::<A>(), key);
    let now = store.now();
    let Some(set) = store.flow_set(first) else { return Insert::Full };
    if set.lock_word().get() & OVERFLOWED != 0 {
        let Some(other) = store.flow_set(second) else { return Insert::Full };
        if find_in(other, second, key, now, &settings.timeouts, existing) {
            if existing.entry.to != entry.to {
                return Insert::Exists;
            }
            refresh(store, existing, entry.state);
            return Insert::Done;
        }
    }
    match insert_in(set, key, entry, now, &settings.timeouts, existing) {
        Insert::Full => {}
        result => return result,
    }
    let Some(other) = store.flow_set(second) else { return Insert::Full };
    insert_in(other, key, entry, now, &settings.timeouts, existing)
}

#[inline(always)]
fn insert_in<A: Addr>(
    set: &FlowSet<A>,
    key: &Tuple<A>,
    entry: &Entry<A>,
    now: u32,
    timeouts: &Timeouts,
    existing: &mut Found<A>,
) -> Insert {
    if !set.lock() {
        return Insert::Contended;
    }
    let mut victim = FLOW_WAYS;
    let mut result = Insert::Done;
    let mut way = 0;
    while way < FLOW_WAYS {
        let words = &set.ways[way];
        let before = words.word(0).get();
        if has_key::<A>(words, key) && state_of(before) as u8 > State::Busy as u8 {
            read::<A>(words, before, key.protocol, &mut existing.entry);
            if is_live(before, key.protocol, now, timeouts) && existing.entry.to != entry.to {
                result = Insert::Exists;
            }
            victim = way;
            break;
        }
        // Of another flow: its own protocol decides how long it lives.
        let protocol = (words.word(ports_at::<A>()).get() >> 32) as u8;
        if victim == FLOW_WAYS && !is_live(before, protocol, now, timeouts) {
            victim = way;
        }
        way += 1;
    }
    let mut mark = 0;
    match (result, victim < FLOW_WAYS) {
        (Insert::Done, true) => write::<A>(&set.ways[victim % FLOW_WAYS], key, entry, now),
        (Insert::Done, false) => {
            mark = OVERFLOWED;
            result = Insert::Full;
        }
        _ => {}
    }
    set.unlock(mark);
    result
}

/// Renews a flow's stamp and sets its state; lost without harm if the entry has changed meanwhile.
#[inline(always)]
pub fn refresh<A: Addr, S: Store<A>>(store: &S, found: &Found<A>, state: State) {
    let Some(set) = store.flow_set(found.set) else { return };
    let new = meta(store.now(), state, found.entry.role, (found.meta >> 48) as u16);
    set.ways[found.way as usize % FLOW_WAYS].word(0).replace_if(found.meta, new);
}

/// Forgets a flow's entry; lost without harm if the entry has changed meanwhile.
#[inline(always)]
pub fn release<A: Addr, S: Store<A>>(store: &S, found: &Found<A>) {
    refresh(store, found, State::Empty);
}

impl<A: Addr> FlowSet<A> {
    const LOCK: usize = if A::IS_V4 { 7 } else { 15 };

    #[inline(always)]
    fn lock_word(&self) -> &Word {
        self.ways[0].word(Self::LOCK)
    }

    /// `false` if another CPU kept the lock all along.
    #[inline(always)]
    fn lock(&self) -> bool {
        let word = self.lock_word();
        let mut tries = 0;
        while tries < LOCK_TRIES {
            let now = word.get() & !LOCKED;
            if word.replace_if(now, now | LOCKED) {
                return true;
            }
            tries += 1;
        }
        false
    }

    #[inline(always)]
    fn unlock(&self, mark: u64) {
        let word = self.lock_word();
        compiler_fence(Release);
        word.set((word.get() & !LOCKED) | mark);
    }
}

#[inline(always)]
fn is_live(meta: u64, protocol: u8, now: u32, timeouts: &Timeouts) -> bool {
    let state = state_of(meta);
    state as u8 > State::Busy as u8
        && now.wrapping_sub(meta as u32) <= timeout(state, protocol, timeouts)
}

#[inline(always)]
const fn ports_at<A: Addr>() -> usize {
    1 + A::PAIR_WORDS
}

#[inline(always)]
fn has_key<A: Addr>(words: &A::Words, key: &Tuple<A>) -> bool {
    let mut index = 0;
    while index < A::PAIR_WORDS {
        if words.word(1 + index).get() != A::pair_word(key.src, key.dst, index) {
            return false;
        }
        index += 1;
    }
    words.word(ports_at::<A>()).get() == hash::ports_word(key)
}

#[inline(always)]
fn read<A: Addr>(words: &A::Words, meta: u64, protocol: u8, entry: &mut Entry<A>) {
    let at = ports_at::<A>() + 1;
    let (src, dst) = A::pair_from(|index| words.word(at + index).get());
    let ports = words.word(at + A::PAIR_WORDS).get();
    entry.state = state_of(meta);
    entry.role = Role::from_number((meta >> 40) as u8);
    entry.to.src = src;
    entry.to.dst = dst;
    entry.to.sport = (ports as u16).to_ne_bytes();
    entry.to.dport = ((ports >> 16) as u16).to_ne_bytes();
    entry.to.protocol = protocol;
    entry.backend = (ports >> 32) as u32;
    entry.generation = words.word(at + A::PAIR_WORDS + 1).get() as u32;
}

/// The set's lock is held. The entry counts again once word 0 is written.
#[inline(always)]
fn write<A: Addr>(words: &A::Words, key: &Tuple<A>, entry: &Entry<A>, now: u32) {
    let sequence = ((words.word(0).get() >> 48) as u16).wrapping_add(1);
    words.word(0).set(meta(now, State::Busy, entry.role, sequence));
    compiler_fence(Release);
    let at = ports_at::<A>() + 1;
    let mut index = 0;
    while index < A::PAIR_WORDS {
        words.word(1 + index).set(A::pair_word(key.src, key.dst, index));
        let new = A::pair_word(entry.to.src, entry.to.dst, index);
        words.word(at + index).set(new);
        index += 1;
    }
    words.word(ports_at::<A>()).set(hash::ports_word(key));
    let ports = u64::from(u16::from_ne_bytes(entry.to.sport))
        | u64::from(u16::from_ne_bytes(entry.to.dport)) << 16
        | u64::from(entry.backend) << 32;
    words.word(at + A::PAIR_WORDS).set(ports);
    words.word(at + A::PAIR_WORDS + 1).set(u64::from(entry.generation));
    compiler_fence(Release);
    words.word(0).set(meta(now, entry.state, entry.role, sequence));
}
