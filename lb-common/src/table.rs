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

use core::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed, compiler_fence};

use crate::{
    abi::{FlowSet, FlowWords, Timeouts},
    addr::Addr,
    flow::Tuple,
    hash,
    limits::{FLOW_WAYS, LOCK_TRIES},
    tracking::{State, timeout},
    verdict::Reason,
    world::Store,
};

/// Which direction an entry is for, and where its packets go.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Client to a backend on this node.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<A> {
    pub state: State,
    pub role: Role,
    /// Addresses and ports that the packet leaves with.
    pub to: Tuple<A>,
    pub backend: u32,
    pub generation: u32,
}

/// An entry as it was found, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<A> {
    pub entry: Entry<A>,
    /// Tick of the last refresh.
    pub stamp: u32,
    set: u32,
    way: usize,
    meta: u64,
}

/// Why an entry was not inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused<A> {
    /// The key has a live entry: this one.
    Exists(Entry<A>),
    Full,
    Contended,
}

impl<A> Refused<A> {
    /// The reason that a packet is dropped for.
    #[inline(always)]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Contended => Reason::Contended,
            Self::Full | Self::Exists(_) => Reason::FlowTableFull,
        }
    }
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

/// The live entry of a flow.
#[inline(always)]
pub fn find<A: Addr, S: Store<A>>(store: &S, key: &Tuple<A>) -> Option<Found<A>> {
    let settings = store.settings()?;
    let (first, second) = sets(settings.seed, settings.flow_mask::<A>(), key);
    let now = store.now();
    let set = store.flow_set(first)?;
    if let Some(found) = find_in(set, first, key, now, &settings.timeouts) {
        return Some(found);
    }
    if set.lock_word().load(Relaxed) & OVERFLOWED == 0 {
        return None;
    }
    find_in(store.flow_set(second)?, second, key, now, &settings.timeouts)
}

#[inline(always)]
fn find_in<A: Addr>(
    set: &FlowSet<A>,
    index: u32,
    key: &Tuple<A>,
    now: u32,
    timeouts: &Timeouts,
) -> Option<Found<A>> {
    let mut way = 0;
    while way < FLOW_WAYS {
        let words = &set.ways[way];
        let before = words.word(0).load(Relaxed);
        if has_key::<A>(words, key) && is_live(before, key.protocol, now, timeouts) {
            compiler_fence(Acquire);
            let entry = read::<A>(words, before, key.protocol);
            compiler_fence(Acquire);
            // The sequence tells whether the entry is still this flow's.
            if words.word(0).load(Relaxed) >> 48 == before >> 48 {
                return Some(Found { entry, stamp: before as u32, set: index, way, meta: before });
            }
        }
        way += 1;
    }
    None
}

/// Gives a flow an entry. A live entry of the same key stays and is returned as
/// [`Refused::Exists`], unless it already says the same: then it is renewed.
#[inline(always)]
pub fn insert<A: Addr, S: Store<A>>(
    store: &S,
    key: &Tuple<A>,
    entry: &Entry<A>,
) -> Result<(), Refused<A>> {
    let settings = store.settings().ok_or(Refused::Full)?;
    let (first, second) = sets(settings.seed, settings.flow_mask::<A>(), key);
    let now = store.now();
    let set = store.flow_set(first).ok_or(Refused::Full)?;
    if set.lock_word().load(Relaxed) & OVERFLOWED != 0 {
        let other = store.flow_set(second).ok_or(Refused::Full)?;
        if let Some(found) = find_in(other, second, key, now, &settings.timeouts) {
            if found.entry.to == entry.to {
                refresh(store, &found, entry.state);
                return Ok(());
            }
            return Err(Refused::Exists(found.entry));
        }
    }
    match insert_in(set, key, entry, now, &settings.timeouts, OVERFLOWED) {
        Err(Refused::Full) => {
            let other = store.flow_set(second).ok_or(Refused::Full)?;
            insert_in(other, key, entry, now, &settings.timeouts, 0)
        }
        result => result,
    }
}

/// `on_full` is set in the lock word when there is no room.
#[inline(always)]
fn insert_in<A: Addr>(
    set: &FlowSet<A>,
    key: &Tuple<A>,
    entry: &Entry<A>,
    now: u32,
    timeouts: &Timeouts,
    on_full: u64,
) -> Result<(), Refused<A>> {
    if !set.lock() {
        return Err(Refused::Contended);
    }
    let mut victim = FLOW_WAYS;
    let mut result = Ok(());
    let mut way = 0;
    while way < FLOW_WAYS {
        let words = &set.ways[way];
        let before = words.word(0).load(Relaxed);
        if has_key::<A>(words, key) && state_of(before) as u8 > State::Busy as u8 {
            let existing = read::<A>(words, before, key.protocol);
            if is_live(before, key.protocol, now, timeouts) && existing.to != entry.to {
                result = Err(Refused::Exists(existing));
            }
            victim = way;
            break;
        }
        // Of another flow: word 2 (IPv4) or 5 (IPv6) has its protocol.
        let protocol = (words.word(ports_at::<A>()).load(Relaxed) >> 32) as u8;
        if victim == FLOW_WAYS && !is_live(before, protocol, now, timeouts) {
            victim = way;
        }
        way += 1;
    }
    let mut mark = 0;
    if result.is_ok() {
        if victim < FLOW_WAYS {
            write::<A>(&set.ways[victim % FLOW_WAYS], key, entry, now);
        } else {
            mark = on_full;
            result = Err(Refused::Full);
        }
    }
    set.unlock(mark);
    result
}

/// Renews a flow's stamp and sets its state; lost without harm if the entry has changed meanwhile.
#[inline(always)]
pub fn refresh<A: Addr, S: Store<A>>(store: &S, found: &Found<A>, state: State) {
    let Some(set) = store.flow_set(found.set) else { return };
    let new = meta(store.now(), state, found.entry.role, (found.meta >> 48) as u16);
    let _ =
        set.ways[found.way % FLOW_WAYS].word(0).compare_exchange(found.meta, new, SeqCst, SeqCst);
}

/// Forgets a flow's entry; lost without harm if the entry has changed meanwhile.
#[inline(always)]
pub fn release<A: Addr, S: Store<A>>(store: &S, found: &Found<A>) {
    refresh(store, found, State::Empty);
}

impl<A: Addr> FlowSet<A> {
    const LOCK: usize = if A::IS_V4 { 7 } else { 15 };

    #[inline(always)]
    fn lock_word(&self) -> &AtomicU64 {
        self.ways[0].word(Self::LOCK)
    }

    /// `false` if another CPU kept the lock all along.
    #[inline(always)]
    fn lock(&self) -> bool {
        let word = self.lock_word();
        let mut tries = 0;
        while tries < LOCK_TRIES {
            let now = word.load(Relaxed) & !LOCKED;
            if word.compare_exchange(now, now | LOCKED, SeqCst, SeqCst).is_ok() {
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
        word.store((word.load(Relaxed) & !LOCKED) | mark, Relaxed);
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
        if words.word(1 + index).load(Relaxed) != A::pair_word(key.src, key.dst, index) {
            return false;
        }
        index += 1;
    }
    words.word(ports_at::<A>()).load(Relaxed) == hash::ports_word(key)
}

#[inline(always)]
fn read<A: Addr>(words: &A::Words, meta: u64, protocol: u8) -> Entry<A> {
    let at = ports_at::<A>() + 1;
    let (src, dst) = A::pair_from(|index| words.word(at + index).load(Relaxed));
    let ports = words.word(at + A::PAIR_WORDS).load(Relaxed);
    Entry {
        state: state_of(meta),
        role: Role::from_number((meta >> 40) as u8),
        to: Tuple {
            src,
            dst,
            sport: (ports as u16).to_ne_bytes(),
            dport: ((ports >> 16) as u16).to_ne_bytes(),
            protocol,
        },
        backend: (ports >> 32) as u32,
        generation: words.word(at + A::PAIR_WORDS + 1).load(Relaxed) as u32,
    }
}

/// The set's lock is held. The entry counts again once word 0 is written.
#[inline(always)]
fn write<A: Addr>(words: &A::Words, key: &Tuple<A>, entry: &Entry<A>, now: u32) {
    let sequence = ((words.word(0).load(Relaxed) >> 48) as u16).wrapping_add(1);
    words.word(0).store(meta(now, State::Busy, entry.role, sequence), Relaxed);
    compiler_fence(Release);
    let at = ports_at::<A>() + 1;
    let mut index = 0;
    while index < A::PAIR_WORDS {
        words.word(1 + index).store(A::pair_word(key.src, key.dst, index), Relaxed);
        let new = A::pair_word(entry.to.src, entry.to.dst, index);
        words.word(at + index).store(new, Relaxed);
        index += 1;
    }
    words.word(ports_at::<A>()).store(hash::ports_word(key), Relaxed);
    let ports = u64::from(u16::from_ne_bytes(entry.to.sport))
        | u64::from(u16::from_ne_bytes(entry.to.dport)) << 16
        | u64::from(entry.backend) << 32;
    words.word(at + A::PAIR_WORDS).store(ports, Relaxed);
    words.word(at + A::PAIR_WORDS + 1).store(u64::from(entry.generation), Relaxed);
    compiler_fence(Release);
    words.word(0).store(meta(now, entry.state, entry.role, sequence), Relaxed);
}
