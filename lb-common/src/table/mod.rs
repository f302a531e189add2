//! The flow table: two entries a flow, one for each direction, in sets of an array map.
//!
//! A flow belongs to the set that its hash names, and in it first to the place that its hash names:
//! one cache line for most look-ups of IPv4. When that place is taken it takes the next, and when
//! the whole set is, a place in a second set. How an entry lies in memory is in [`words`].
//!
//! Readers take no lock: they compare the key, copy what they need, and look at word 0 again; its
//! sequence has changed if the entry was given to another flow meanwhile. Writers of one key hold
//! the lock of its first place, so that a key is in the table once, and take a place by compare and
//! exchange. Which flow ages how is in [`crate::tracking`]; an expired entry is free for the next
//! flow: nobody has to sweep.
//!
//! The lock word has a bit for each place of the set where one of its flows may be, and remembers for
//! ever that one had no room there: a look-up that misses costs one line as a rule. Bits of flows that
//! are over go when somebody inserts.

mod mend;
mod words;

use core::sync::atomic::{
    Ordering::{Acquire, Release},
    compiler_fence,
};

#[cfg(feature = "model")]
pub use self::mend::abandon;
pub use self::mend::mend;
pub use self::words::entry;
#[cfg(feature = "user")]
pub use self::words::fields;
use self::words::{
    BY_AGENT, LOCKED, OF_AGENT, OVERFLOWED, PLACES, expired, in_state, is_alive, is_free, is_key,
    may_be_of, meta, read, write,
};
use crate::{
    abi::{FlowSet, FlowWords, Settings, Word},
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
    /// Client to a backend on this node, or a pod on this node to any: the source stays.
    #[default]
    ToLocal = 0,
    /// Client to a backend elsewhere, or a pod to itself: the source is this node's.
    ToRemote = 1,
    /// The way back of `ToLocal`: the source becomes what the client dialled.
    ReplyLocal = 2,
    /// The way back of `ToRemote`.
    ReplyRemote = 3,
}

impl Role {
    /// The reverse of `as u8`; higher bits do not count.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
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
    /// Where the packet leaves, as [`crate::hops`] remembers it; zero for not known.
    pub way: u64,
}

/// An entry as it was found, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found<A> {
    pub entry: Entry<A>,
    set: u32,
    place: u32,
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

/// Every place of a set.
const ANYWHERE: u64 = (1 << FLOW_WAYS) - 1;

/// The two sets that a flow may be in, and its first place in either.
struct Home {
    sets: [u32; 2],
    first: usize,
}

impl Home {
    #[inline(always)]
    fn of<A: Addr>(table_key: u64, mask: u32, key: &Tuple<A>) -> Self {
        let hash = hash::tuple(table_key, key);
        let set = hash as u32 & mask;
        let second = (set ^ ((hash >> 32) as u32 | 1)) & mask;
        Self { sets: [set, second], first: (hash >> 60) as usize % FLOW_WAYS }
    }

    /// The place to try after `tries` others.
    #[inline(always)]
    const fn place(&self, tries: usize) -> usize {
        (self.first + tries) % FLOW_WAYS
    }
}

/// Looks for the live entry of a flow and copies it to `found`.
#[inline(always)]
pub fn find<A: Addr, S: Store<A>>(store: &S, key: &Tuple<A>, found: &mut Found<A>) -> bool {
    let Some(settings) = store.settings() else { return false };
    let home = Home::of(settings.table_key, settings.flow_mask::<A>(), key);
    let now = store.now();
    let Some(set) = store.flow_set(home.sets[0]) else { return false };
    let lock = lock_of(set, &home).get();
    if find_in(set, home.sets[0], &home, lock >> PLACES, key, now, found) {
        return true;
    }
    if lock & OVERFLOWED == 0 {
        return false;
    }
    let Some(set) = store.flow_set(home.sets[1]) else { return false };
    find_in(set, home.sets[1], &home, ANYWHERE, key, now, found)
}

/// As [`find`], but only in the first of the flow's sets, where nearly all flows are.
#[inline(always)]
pub fn find_at_home<A: Addr, S: Store<A>>(
    store: &S,
    settings: &Settings,
    key: &Tuple<A>,
    now: u32,
    found: &mut Found<A>,
) -> bool {
    let home = Home::of(settings.table_key, settings.flow_mask::<A>(), key);
    let Some(set) = store.flow_set(home.sets[0]) else { return false };
    let places = lock_of(set, &home).get() >> PLACES;
    find_in(set, home.sets[0], &home, places, key, now, found)
}

/// Looks in the `places` of a set that have a bit, from the flow's first on.
#[inline(always)]
fn find_in<A: Addr>(
    set: &FlowSet<A>,
    index: u32,
    home: &Home,
    mut places: u64,
    key: &Tuple<A>,
    now: u32,
    found: &mut Found<A>,
) -> bool {
    let mut tries = 0;
    while tries < FLOW_WAYS && places != 0 {
        if places & 1 == 0 {
            places >>= 1;
            tries += 1;
            continue;
        }
        let place = home.place(tries);
        let words = &set.ways[place];
        let before = words.word(0).get();
        compiler_fence(Acquire);
        if is_key::<A>(words, key) && is_alive(before, now) {
            read::<A>(words, before, key.protocol, &mut found.entry);
            found.set = index;
            found.place = place as u32;
            found.meta = before;
            compiler_fence(Acquire);
            // The sequence tells whether the entry is still this flow's.
            return words.word(0).get() >> 48 == before >> 48;
        }
        places >>= 1;
        tries += 1;
    }
    false
}

/// Of the places that have a bit those where one of the lock's flows may still be.
#[inline(always)]
fn kept<A: Addr>(set: &FlowSet<A>, home: &Home, places: u64, now: u32) -> u64 {
    let mut kept = 0;
    let mut tries = 0;
    while tries < FLOW_WAYS {
        let bit = 1 << tries;
        if places & bit != 0
            && may_be_of(home.first, set.ways[home.place(tries)].word(0).get(), now)
        {
            kept |= bit;
        }
        tries += 1;
    }
    kept
}

/// Gives a flow an entry. A live entry of the same key stays and is copied to `existing`
/// ([`Insert::Exists`]), unless it already says the same: then it is renewed.
#[inline(always)]
pub fn insert<A: Addr, S: Store<A>>(
    store: &S,
    key: &Tuple<A>,
    entry: &Entry<A>,
    existing: &mut Found<A>,
) -> Insert {
    let Some(settings) = store.settings() else { return Insert::Full };
    let home = Home::of(settings.table_key, settings.flow_mask::<A>(), key);
    let [first, second] = home.sets;
    let (Some(set), Some(spare)) = (store.flow_set(first), store.flow_set(second)) else {
        return Insert::Full;
    };
    let now = store.now();
    let expiry = now.wrapping_add(timeout(entry.state, key.protocol, &settings.timeouts));
    let lock = lock_of(set, &home);
    let held = if S::IS_AGENT { LOCKED | OF_AGENT } else { LOCKED };
    if !acquire(lock, held) {
        return Insert::Contended;
    }
    let word = lock.get();
    let known = find_in(set, first, &home, word >> PLACES, key, now, existing)
        || (word & OVERFLOWED != 0 && find_in(spare, second, &home, ANYWHERE, key, now, existing));
    let result = if known && existing.entry.to != entry.to {
        Insert::Exists
    } else if known {
        let set = if existing.set == first { set } else { spare };
        let words = &set.ways[existing.place as usize % FLOW_WAYS];
        renew::<A, S>(words, existing.meta, &home, key, entry, expiry)
    } else {
        let places = kept(set, &home, word >> PLACES, now);
        lock.set(word & (OVERFLOWED | held) | places << PLACES);
        // Readers must look there before the entry is there.
        let note = |tries: u32| lock.set(lock.get() | 1_u64 << (PLACES + tries));
        if claim::<A, S>(set, &home, key, entry, now, expiry, note) {
            Insert::Done
        } else {
            lock.set(lock.get() | OVERFLOWED);
            let done = claim::<A, S>(spare, &home, key, entry, now, expiry, |_| ());
            if done { Insert::Done } else { Insert::Full }
        }
    };
    compiler_fence(Release);
    lock.set(lock.get() & !held);
    result
}

/// Writes an entry to the first free place of a set, which is noted before; `false` if there is none.
#[inline(always)]
fn claim<A: Addr, S: Store<A>>(
    set: &FlowSet<A>,
    home: &Home,
    key: &Tuple<A>,
    entry: &Entry<A>,
    now: u32,
    expiry: u32,
    note: impl Fn(u32),
) -> bool {
    let mut tries = 0;
    while tries < FLOW_WAYS {
        let words = &set.ways[home.place(tries)];
        let old = words.word(0).get();
        if is_free(old, now) {
            note(tries as u32);
            if matches!(renew::<A, S>(words, old, home, key, entry, expiry), Insert::Done) {
                return true;
            }
        }
        tries += 1;
    }
    false
}

/// Takes a place whose word 0 is `old` and writes an entry to it.
#[inline(always)]
fn renew<A: Addr, S: Store<A>>(
    words: &A::Words,
    old: u64,
    home: &Home,
    key: &Tuple<A>,
    entry: &Entry<A>,
    expiry: u32,
) -> Insert {
    let sequence = ((old >> 48) as u16).wrapping_add(1);
    let writer = if S::IS_AGENT { BY_AGENT } else { 0 };
    let busy = meta(writer, State::Busy, entry.role, home.first, sequence);
    if !words.word(0).replace_if(old, busy) {
        return Insert::Contended;
    }
    write::<A>(words, key, entry);
    // A full barrier: the entry counts again once its state does.
    words.word(0).replace_if(busy, in_state(busy, expiry, entry.state));
    Insert::Done
}

/// Renews a flow's time to live and sets its state; lost without harm if the entry has changed
/// meanwhile.
#[inline(always)]
pub fn refresh<A: Addr, S: Store<A>>(store: &S, found: &Found<A>, state: State) {
    let Some(settings) = store.settings() else { return };
    let protocol = found.entry.to.protocol;
    let expiry = store.now().wrapping_add(timeout(state, protocol, &settings.timeouts));
    replace(store, found, 0, found.meta, in_state(found.meta, expiry, state));
}

/// Forgets a flow's entry; lost without harm if the entry has changed meanwhile.
#[inline(always)]
pub fn release<A: Addr, S: Store<A>>(store: &S, found: &Found<A>) {
    replace(store, found, 0, found.meta, in_state(found.meta, 0, State::Empty));
}

/// Remembers the way that a flow's packets leave; lost without harm if it has changed meanwhile.
#[inline(always)]
pub fn set_way<A: Addr, S: Store<A>>(store: &S, found: &Found<A>, way: u64) {
    replace(store, found, words::way_at::<A>(), found.entry.way, way);
}

#[inline(always)]
fn replace<A: Addr, S: Store<A>>(store: &S, found: &Found<A>, word: usize, old: u64, new: u64) {
    if let Some(set) = store.flow_set(found.set) {
        set.ways[found.place as usize % FLOW_WAYS].word(word).replace_if(old, new);
    }
}

impl<A> Found<A> {
    /// The tick at which the entry expires.
    #[inline(always)]
    pub const fn expiry(&self) -> u32 {
        expired(self.meta)
    }
}

/// The lock of all keys with this home.
#[inline(always)]
fn lock_of<'a, A: Addr>(set: &'a FlowSet<A>, home: &Home) -> &'a Word {
    set.ways[home.place(0)].word(words::lock_at::<A>())
}

/// `false` if another CPU kept the lock all along.
#[inline(always)]
fn acquire(lock: &Word, held: u64) -> bool {
    let mut tries = 0;
    while tries < LOCK_TRIES {
        let now = lock.get() & !LOCKED;
        if lock.replace_if(now, now | held) {
            return true;
        }
        tries += 1;
    }
    false
}
