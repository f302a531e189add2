//! How an entry lies in memory. An IPv4 entry is one cache line (8 words), an IPv6 entry two (16):
//!
//! | word | IPv4 | IPv6 |
//! |---|---|---|
//! | expiry, state, role, first place, sequence | 0 | 0 |
//! | key: addresses | 1 | 1–4 |
//! | key: ports, protocol | 2 | 5 |
//! | new addresses | 3 | 6–9 |
//! | new ports, backend | 4 | 10 |
//! | generation of the backend | 5 | 11 |
//! | the way out ([`crate::hops`]) | 6 | 12 |
//! | lock and places of the flows that this place comes first for | 7 | 15 |

use super::{Entry, Role};
#[cfg(feature = "user")]
use crate::abi::Field;
use crate::{
    abi::{FlowSet, FlowWords, Settings},
    addr::Addr,
    flow::Tuple,
    hash,
    limits::FLOW_WAYS,
    tracking::State,
};

/// Bits of the lock word.
pub(super) const LOCKED: u64 = 1;
pub(super) const OVERFLOWED: u64 = 2;
/// It is an agent's lock.
pub(super) const OF_AGENT: u64 = 4;
/// Where others have the expiry, an agent that writes to a place has this.
pub(super) const BY_AGENT: u32 = 1;
/// From here on a bit for each place of the set, from the first on: there may be a flow of these.
pub(super) const PLACES: u32 = 16;

/// Word 0; `first` is the place that comes first for the flow.
#[inline(always)]
pub(super) const fn meta(
    expiry: u32,
    state: State,
    role: Role,
    first: usize,
    sequence: u16,
) -> u64 {
    let rest = (role as u64) << 40 | (first as u64) << 44 | (sequence as u64) << 48;
    expiry as u64 | (state as u64) << 32 | rest
}

/// The same with another expiry and state.
#[inline(always)]
pub(super) const fn in_state(meta: u64, expiry: u32, state: State) -> u64 {
    meta >> 40 << 40 | (state as u64) << 32 | expiry as u64
}

/// Whether an entry with this word 0 may still be the flow of somebody for whom `first` comes first.
/// One that has just expired may: somebody who found it alive may be about to say that it is.
#[inline(always)]
pub(super) const fn may_be_of(first: usize, meta: u64, now: u32) -> bool {
    (meta >> 44) as usize % FLOW_WAYS == first && is_alive(meta, now.wrapping_sub(Settings::SECOND))
}

/// The tick at which an entry with this word 0 expires.
#[inline(always)]
pub(super) const fn expired(meta: u64) -> u32 {
    meta as u32
}

#[inline(always)]
pub(super) const fn state_of(meta: u64) -> State {
    State::from_number((meta >> 32) as u8)
}

/// Whether the entry is a flow's, and has not expired.
#[inline(always)]
pub(super) const fn is_alive(meta: u64, now: u32) -> bool {
    let used = (meta >> 32) as u8 >= State::HalfOpen as u8;
    used && expired(meta).wrapping_sub(now) as i32 > 0
}

/// Whether another flow may have the place: not while somebody writes to it.
#[inline(always)]
pub(super) const fn is_free(meta: u64, now: u32) -> bool {
    (meta >> 32) as u8 != State::Busy as u8 && !is_alive(meta, now)
}

#[inline(always)]
const fn ports_at<A: Addr>() -> usize {
    1 + A::PAIR_WORDS
}

#[inline(always)]
const fn to_at<A: Addr>() -> usize {
    2 + A::PAIR_WORDS
}

#[inline(always)]
const fn generation_at<A: Addr>() -> usize {
    to_at::<A>() + A::PAIR_WORDS + if cfg!(feature = "layout-b") { 2 } else { 1 }
}

#[inline(always)]
pub(super) const fn way_at<A: Addr>() -> usize {
    to_at::<A>() + A::PAIR_WORDS + if cfg!(feature = "layout-b") { 1 } else { 2 }
}

#[inline(always)]
pub(super) const fn lock_at<A: Addr>() -> usize {
    if A::IS_V4 { 7 } else { 15 }
}

/// Whether the entry is of this key.
#[inline(always)]
pub(super) fn is_key<A: Addr>(words: &A::Words, key: &Tuple<A>) -> bool {
    let mut difference = words.word(ports_at::<A>()).get() ^ hash::ports_word(key);
    let mut index = 0;
    while index < A::PAIR_WORDS {
        difference |= words.word(1 + index).get() ^ A::pair_word(key.src, key.dst, index);
        index += 1;
    }
    difference == 0
}

#[inline(always)]
pub(super) fn read<A: Addr>(words: &A::Words, meta: u64, protocol: u8, entry: &mut Entry<A>) {
    let at = to_at::<A>();
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
    entry.generation = words.word(generation_at::<A>()).get() as u32;
    entry.way = words.word(way_at::<A>()).get();
}

/// All but word 0, which says that somebody is writing.
#[inline(always)]
pub(super) fn write<A: Addr>(words: &A::Words, key: &Tuple<A>, entry: &Entry<A>) {
    let at = to_at::<A>();
    let mut index = 0;
    while index < A::PAIR_WORDS {
        words.word(1 + index).set(A::pair_word(key.src, key.dst, index));
        words.word(at + index).set(A::pair_word(entry.to.src, entry.to.dst, index));
        index += 1;
    }
    words.word(ports_at::<A>()).set(hash::ports_word(key));
    let ports = u64::from(u16::from_ne_bytes(entry.to.sport))
        | u64::from(u16::from_ne_bytes(entry.to.dport)) << 16
        | u64::from(entry.backend) << 32;
    words.word(at + A::PAIR_WORDS).set(ports);
    words.word(generation_at::<A>()).set(u64::from(entry.generation));
    words.word(way_at::<A>()).set(entry.way);
}

impl<A: Addr> FlowSet<A> {
    /// What is in the set, expired or not: key, entry and the tick at which it expires. For tables
    /// and tests; a flow that changes meanwhile may be told wrongly.
    pub fn entries(&self) -> impl Iterator<Item = (Tuple<A>, Entry<A>, u32)> {
        self.ways.iter().filter_map(entry::<A>)
    }
}

/// Key, entry and the tick at which it expires; `None` if nothing is there.
pub fn entry<A: Addr>(words: &A::Words) -> Option<(Tuple<A>, Entry<A>, u32)> {
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
    (state_of(meta) as u8 > State::Busy as u8).then_some((key, entry, expired(meta)))
}

/// Where everything is that outlives a change of the layout. An IPv4 address takes the lower half of
/// its first word.
#[cfg(feature = "user")]
pub const fn fields<A: Addr>() -> [Field; 18] {
    let to = to_at::<A>();
    let ports = to + A::PAIR_WORDS;
    let of_ports = ports_at::<A>();
    let [src, dst, to_src, to_dst] = if A::IS_V4 {
        [(1, 0), (1, 32), (to, 0), (to, 32)]
    } else {
        [(1, 0), (3, 0), (to, 0), (to + 2, 0)]
    };
    let bits = if A::IS_V4 { 32 } else { 64 };
    // Of IPv4 the second halves are empty.
    let (more, rest) = if A::IS_V4 { (0, 0) } else { (1, 64) };
    [
        Field::in_word("expiry", 0, 0, 32),
        Field::in_word("state", 0, 32, 8),
        Field::in_word("role", 0, 40, 4),
        Field::in_word("src.0", src.0, src.1, bits),
        Field::in_word("src.1", src.0 + more, 0, rest),
        Field::in_word("dst.0", dst.0, dst.1, bits),
        Field::in_word("dst.1", dst.0 + more, 0, rest),
        Field::in_word("sport", of_ports, 0, 16),
        Field::in_word("dport", of_ports, 16, 16),
        Field::in_word("protocol", of_ports, 32, 8),
        Field::in_word("to.src.0", to_src.0, to_src.1, bits),
        Field::in_word("to.src.1", to_src.0 + more, 0, rest),
        Field::in_word("to.dst.0", to_dst.0, to_dst.1, bits),
        Field::in_word("to.dst.1", to_dst.0 + more, 0, rest),
        Field::in_word("to.sport", ports, 0, 16),
        Field::in_word("to.dport", ports, 16, 16),
        Field::in_word("backend", ports, 32, 32),
        Field::in_word("generation", generation_at::<A>(), 0, 32),
    ]
}
