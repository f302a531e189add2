//! The flow table: two entries a flow, one for each direction, in sets of an array map.
//!
//! An IPv4 entry is one cache line (8 words), an IPv6 entry two (16 words):
//!
//! | word | IPv4 | IPv6 |
//! |---|---|---|
//! | expiry, state, role, sequence | 0 | 0 |
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
    abi::{FlowSet, FlowWords, Word},
    addr::Addr,
    branchless::{any, first_zero, negative},
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
    set: u32,
    way: u32,
    meta: u64,
}

/// What became of an entry to be inserted.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    Done = 0,
    /// The key has a live entry that says something else.
    Exists = 1,
    /// Both of the flow's sets are full.
    Full = 2,
    /// Another CPU held the lock for too long.
    Contended = 3,
}

impl Insert {
    /// The reverse of `as u32`.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Done,
            1 => Self::Exists,
            2 => Self::Full,
            _ => Self::Contended,
        }
    }
}

const LOCKED: u64 = 1;
const OVERFLOWED: u64 = 2;

/// Word 0.
#[inline(always)]
const fn meta(expiry: u32, state: State, role: Role, sequence: u16) -> u64 {
    expiry as u64 | (state as u64) << 32 | (role as u64) << 40 | (sequence as u64) << 48
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
    if find_in(set, first, key, now, found) {
        return true;
    }
    if set.lock_word().get() & OVERFLOWED == 0 {
        return false;
    }
    let Some(set) = store.flow_set(second) else { return false };
    find_in(set, second, key, now, found)
}

#[inline(always)]
fn find_in<A: Addr>(
    set: &FlowSet<A>,
    index: u32,
    key: &Tuple<A>,
    now: u32,
    found: &mut Found<A>,
) -> bool {
    let way = way_of(set, key);
    if way >= FLOW_WAYS {
        return false;
    }
    let words = &set.ways[way];
    let before = words.word(0).get();
    compiler_fence(Acquire);
    // The key once more: the place may have changed hands before word 0 was read.
    if is_dead(before, now) | differs::<A>(words, key) != 0 {
        return false;
    }
    read::<A>(words, before, key.protocol, &mut found.entry);
    found.set = index;
    found.way = way as u32;
    found.meta = before;
    compiler_fence(Acquire);
    // The sequence tells whether the entry is still this flow's.
    words.word(0).get() >> 48 == before >> 48
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
    let overflowed =
        store.flow_set(first).is_some_and(|set| set.lock_word().get() & OVERFLOWED != 0);
    let at = if overflowed && find(store, key, existing) { existing.set } else { first };
    match insert_in(store, at, key, entry, existing) {
        Insert::Full => insert_in(store, second, key, entry, existing),
        result => result,
    }
}

#[inline(never)]
fn insert_in<A: Addr, S: Store<A>>(
    store: &S,
    index: u32,
    key: &Tuple<A>,
    entry: &Entry<A>,
    existing: &mut Found<A>,
) -> Insert {
    let (Some(settings), Some(set)) = (store.settings(), store.flow_set(index)) else {
        return Insert::Full;
    };
    let now = store.now();
    let expiry = now.wrapping_add(timeout(entry.state, key.protocol, &settings.timeouts));
    if !set.lock() {
        return Insert::Contended;
    }
    let result = insert_locked(set, key, entry, now, expiry, existing);
    set.unlock(if matches!(result, Insert::Full) { OVERFLOWED } else { 0 });
    result
}

#[inline(always)]
fn insert_locked<A: Addr>(
    set: &FlowSet<A>,
    key: &Tuple<A>,
    entry: &Entry<A>,
    now: u32,
    expiry: u32,
    existing: &mut Found<A>,
) -> Insert {
    let mut way = way_of(set, key);
    if way < FLOW_WAYS {
        let words = &set.ways[way];
        let before = words.word(0).get();
        read::<A>(words, before, key.protocol, &mut existing.entry);
        if is_dead(before, now) == 0 && existing.entry.to != entry.to {
            return Insert::Exists;
        }
    } else {
        let lives = |way: usize| is_dead(set.ways[way].word(0).get(), now) ^ 1;
        way = first_zero([lives(0), lives(1), lives(2), lives(3)]);
    }
    if way >= FLOW_WAYS {
        return Insert::Full;
    }
    write::<A>(&set.ways[way], key, entry, expiry);
    Insert::Done
}

/// Renews a flow's time to live and sets its state; lost without harm if the entry has changed
/// meanwhile.
#[inline(always)]
pub fn refresh<A: Addr, S: Store<A>>(store: &S, found: &Found<A>, state: State) {
    let Some(settings) = store.settings() else { return };
    let protocol = found.entry.to.protocol;
    let expiry = store.now().wrapping_add(timeout(state, protocol, &settings.timeouts));
    replace(store, found, meta(expiry, state, found.entry.role, (found.meta >> 48) as u16));
}

/// Forgets a flow's entry; lost without harm if the entry has changed meanwhile.
#[inline(always)]
pub fn release<A: Addr, S: Store<A>>(store: &S, found: &Found<A>) {
    replace(store, found, meta(0, State::Empty, found.entry.role, (found.meta >> 48) as u16));
}

#[inline(always)]
fn replace<A: Addr, S: Store<A>>(store: &S, found: &Found<A>, new: u64) {
    if let Some(set) = store.flow_set(found.set) {
        set.ways[found.way as usize % FLOW_WAYS].word(0).replace_if(found.meta, new);
    }
}

impl<A> Found<A> {
    /// The tick at which the entry expires.
    #[inline(always)]
    pub const fn expiry(&self) -> u32 {
        self.meta as u32
    }
}

impl<A: Addr> FlowSet<A> {
    /// What is in the set, expired or not: key, entry and the tick at which it expires. For tables
    /// and tests; a flow that changes meanwhile may be told wrongly.
    pub fn entries(&self) -> impl Iterator<Item = (Tuple<A>, Entry<A>, u32)> {
        self.ways.iter().filter_map(|words| {
            let meta = words.word(0).get();
            let ports = words.word(ports_at::<A>()).get();
            let (src, dst) = A::pair_from(|index| words.word(1 + index).get());
            let key = Tuple {
                src,
                dst,
                sport: (ports as u16).to_ne_bytes(),
                dport: ((ports >> 16) as u16).to_ne_bytes(),
                protocol: (ports >> 32) as u8,
            };
            let mut entry = Entry::default();
            read::<A>(words, meta, key.protocol, &mut entry);
            (state_of(meta) as u8 > State::Busy as u8).then_some((key, entry, meta as u32))
        })
    }

    const LOCK: usize = if A::IS_V4 { 7 } else { 15 };

    #[inline(always)]
    fn lock_word(&self) -> &Word {
        self.ways[0].word(Self::LOCK)
    }

    /// `false` if another CPU kept the lock all along.
    #[inline(never)]
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

/// 1 if the entry holds no flow, or one that has expired; else 0.
#[inline(always)]
fn is_dead(meta: u64, now: u32) -> u64 {
    let unused = negative(i32::from((meta >> 32) as u8) - State::HalfOpen as i32);
    let expired = negative((meta as u32).wrapping_sub(now).wrapping_sub(1) as i32);
    unused | expired
}

/// The entry of `set` that has the key, or [`FLOW_WAYS`].
#[inline(always)]
fn way_of<A: Addr>(set: &FlowSet<A>, key: &Tuple<A>) -> usize {
    let differs = |way: usize| differs::<A>(&set.ways[way], key);
    first_zero([differs(0), differs(1), differs(2), differs(3)])
}

/// 0 if the entry is of this key, else 1.
#[inline(always)]
fn differs<A: Addr>(words: &A::Words, key: &Tuple<A>) -> u64 {
    let mut difference = words.word(ports_at::<A>()).get() ^ hash::ports_word(key);
    let mut index = 0;
    while index < A::PAIR_WORDS {
        difference |= words.word(1 + index).get() ^ A::pair_word(key.src, key.dst, index);
        index += 1;
    }
    any(difference)
}

#[inline(always)]
const fn ports_at<A: Addr>() -> usize {
    1 + A::PAIR_WORDS
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
fn write<A: Addr>(words: &A::Words, key: &Tuple<A>, entry: &Entry<A>, expiry: u32) {
    let sequence = ((words.word(0).get() >> 48) as u16).wrapping_add(1);
    words.word(0).set(meta(0, State::Busy, entry.role, sequence));
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
    words.word(0).set(meta(expiry, entry.state, entry.role, sequence));
}
