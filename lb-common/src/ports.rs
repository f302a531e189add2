//! Source ports towards backends on other nodes: each backend has the whole range for itself.
//!
//! A pool has a bit for each port. It only says which ports are worth a try: whether a port is free
//! the flow table says, where the reply entry of a live flow bars it. So a lost or a late bit costs a
//! try, never a reply that goes to the wrong client, and nobody needs a lock.
//!
//! Flows end without a word: they expire. Their bits come back when somebody looks: once seven
//! eighths are taken, each new flow looks through a strip of ports for dead ones; when none is left,
//! through a few strips. After a whole round without a dead one the pool rests for a second, so that
//! refusing costs no look at the flow table at all.

use crate::{
    abi::{PoolKey, PortPool, Settings},
    addr::Addr,
    flow::Tuple,
    gauge::{self, Gauge},
    hash,
    limits::SNAT_PORTS,
    path::{Draft, Outcome},
    table::Role,
    tracking::State,
    verdict::Reason,
    world::Store,
};

/// Ports that are looked through at a time.
const STRIP: u32 = 16;
/// How often a port is looked for: more than once only where other CPUs are faster.
const LOOKS: u32 = 8;

impl PortPool {
    /// What [`PortPool::take`] says when it is worth another look.
    pub const AGAIN: u32 = SNAT_PORTS + 1;

    /// Whether as many flows are half-open as may be.
    #[inline(always)]
    fn is_flooded(&self, settings: &Settings, now: u32) -> bool {
        gauge::count(&self.opening, settings, now) >= count(settings).div_ceil(2)
    }

    /// Looks for a port that nobody has, from word `from` on, and takes it; [`SNAT_PORTS`] if there is
    /// none, [`PortPool::AGAIN`] if another CPU was faster.
    #[inline(always)]
    pub fn take(&self, count: u32, from: u32) -> u32 {
        let word = self.open_word(count, from);
        let Some(taken) = self.taken.get(word as usize) else { return SNAT_PORTS };
        let old = taken.get();
        let free = !old & below(count - word * 64);
        let bit = free & free.wrapping_neg();
        if free == bit {
            // The last one, or none. Lost without harm: whoever comes next finds none either.
            self.set_full(word, true);
        }
        if free == 0 || !taken.replace_if(old, old | bit) {
            return Self::AGAIN;
        }
        self.used.add(1);
        word * 64 + place(bit)
    }

    /// The first word from `from` on that is not known to be full; [`SNAT_PORTS`] if all are.
    #[inline(always)]
    fn open_word(&self, count: u32, from: u32) -> u32 {
        let words = count.div_ceil(64);
        let mut group = from / 64;
        let mut mask = u64::MAX << (from % 64);
        let mut looks = 0;
        // The first group comes twice: its beginning last.
        while looks <= Self::GROUPS {
            let Some(full) = self.full.get(group as usize) else { return SNAT_PORTS };
            let open = !full.get() & mask & below(words - group * 64);
            if open != 0 {
                return group * 64 + place(open & open.wrapping_neg());
            }
            mask = u64::MAX;
            group += 1;
            if group * 64 >= words {
                group = 0;
            }
            looks += 1;
        }
        SNAT_PORTS
    }

    #[inline(always)]
    fn set_full(&self, word: u32, is_full: bool) {
        let Some(full) = self.full.get(word as usize / 64) else { return };
        let (old, bit) = (full.get(), 1 << (word % 64));
        full.replace_if(old, if is_full { old | bit } else { old & !bit });
    }

    #[inline(always)]
    fn is_taken(&self, port: u32) -> bool {
        let word = self.taken.get(port as usize / 64);
        word.is_some_and(|word| word.get() >> (port % 64) & 1 != 0)
    }

    #[inline(always)]
    fn give_back(&self, port: u32) {
        let Some(taken) = self.taken.get(port as usize / 64) else { return };
        let (old, bit) = (taken.get(), 1 << (port % 64));
        if old & bit != 0 && taken.replace_if(old, old & !bit) {
            self.used.add(1_u64.wrapping_neg());
            self.set_full(port / 64, false);
        }
    }

    #[inline(always)]
    fn rests(&self, now: u32) -> bool {
        ((self.barren.get() >> 32) as u32).wrapping_sub(now) as i32 > 0
    }

    /// After a strip was looked through.
    #[inline(always)]
    fn looked(&self, count: u32, now: u32, found: bool) {
        let barren = self.barren.get() as u32 + 1;
        let round = barren >= count.div_ceil(STRIP);
        self.barren.set(match (found, round) {
            (true, _) => 0,
            (false, false) => u64::from(barren),
            (false, true) => u64::from(now.wrapping_add(Settings::SECOND)) << 32,
        });
    }
}

/// The lowest `count` bits.
#[inline(always)]
const fn below(count: u32) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// Which bit this is.
#[inline(always)]
fn place(bit: u64) -> u32 {
    // LLVM would make a table of it, were it to see where the bit comes from.
    core::hint::black_box(bit).wrapping_sub(1).count_ones()
}

/// How many ports there are.
#[inline(always)]
fn count(settings: &Settings) -> u32 {
    (u32::from(settings.snat_last) - u32::from(settings.snat_first) + 1).min(SNAT_PORTS)
}

/// What came of a try to get a port.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// There is none; the reason is in the outcome.
    Refused = 0,
    /// `draft.to` has one, and `draft.reply` is the key of its reply entry.
    Done = 1,
    /// Some are to be looked through first ([`reclaim`]).
    Look = 2,
}

impl Lease {
    /// How many tries there are.
    pub const TRIES: u32 = 8;

    /// The reverse of `as u32`.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Done,
            2 => Self::Look,
            _ => Self::Refused,
        }
    }
}

/// Whether so many flows to a backend are half-open that no more are opened: asked before anything else
/// is spent on one. A function of its own, for the sake of BPF's stack.
#[inline(never)]
pub fn is_flooded<A: Addr, S: Store<A>>(store: &S, settings: &Settings, to: &Tuple<A>) -> bool {
    let pool = store.port_pool(&PoolKey::of(to));
    pool.is_some_and(|pool| pool.is_flooded(settings, store.now()))
}

/// Tries for the `tries`-th time (from zero) to give `draft.to` a source port that no live flow to
/// the same backend has.
#[inline(always)]
pub fn lease<A: Addr, S: Store<A>>(
    store: &S,
    settings: &Settings,
    draft: &mut Draft<A>,
    outcome: &mut Outcome,
    tries: u32,
) -> Lease {
    outcome.end(Reason::SnatPortsFull);
    let Some(pool) = store.port_pool(&PoolKey::of(&draft.to)) else { return Lease::Refused };
    let (now, ports) = (store.now(), count(settings));
    let scarce = pool.used.get() >= u64::from(ports - ports / 8);
    if tries == 0 && scarce && !pool.rests(now) {
        return Lease::Look;
    }
    let hash = hash::tuple(settings.seed, &draft.segment.tuple).rotate_left(17);
    let from = hash::scale(hash, ports.div_ceil(64));
    // Here and not in `take`: the verifier walks every look, each with all ways through it, unless it
    // is a call of a global function.
    let mut port = PortPool::AGAIN;
    let mut looks = 0;
    while port == PortPool::AGAIN && looks < LOOKS {
        port = store.take_port(pool, ports, from);
        looks += 1;
    }
    if port >= ports {
        return if pool.rests(now) { Lease::Refused } else { Lease::Look };
    }
    draft.to.sport = number(settings, port);
    draft.reply = draft.to.reply();
    if store.find_flow(&draft.reply, &mut draft.other) && draft.other.entry.to != draft.entry.to {
        // That of a flow which the pool did not know.
        return Lease::Look;
    }
    gauge::change(&pool.opening, settings, now, Gauge::opened);
    Lease::Done
}

/// Port `place` of the range, big-endian.
#[inline(always)]
fn number(settings: &Settings, place: u32) -> [u8; 2] {
    (settings.snat_first.wrapping_add(place as u16)).to_be_bytes()
}

/// Looks through the next strip of ports towards `draft.to` for those whose flow is over; changes
/// `draft.reply` and `draft.other`.
#[inline(always)]
pub fn reclaim<A: Addr, S: Store<A>>(store: &S, draft: &mut Draft<A>) {
    let Some(settings) = store.settings() else { return };
    let Some(pool) = store.port_pool(&PoolKey::of(&draft.to)) else { return };
    draft.reply = draft.to.reply();
    let ports = count(settings);
    // Never zero, which nothing may be divided by.
    let strips = ports.div_ceil(STRIP).max(1);
    let first = (pool.hand.add(1) % u64::from(strips)) as u32 * STRIP;
    let mut found = false;
    let mut at = 0;
    while at < STRIP {
        let port = first + at;
        if pool.is_taken(port) {
            draft.reply.dport = number(settings, port);
            if !store.find_flow(&draft.reply, &mut draft.other) {
                pool.give_back(port);
                found = true;
            }
        }
        at += 1;
    }
    pool.looked(ports, store.now(), found);
}

/// A flow is half-open no more: `draft.found` was its entry.
#[inline(always)]
pub fn answered<A: Addr, S: Store<A>>(
    store: &S,
    settings: &Settings,
    draft: &Draft<A>,
    new: State,
) {
    let entry = &draft.found.entry;
    if !matches!(entry.state, State::HalfOpen) || matches!(new, State::HalfOpen) {
        return;
    }
    gauge::answered(store, settings);
    let backend = match entry.role {
        Role::ToRemote => entry.to,
        Role::ReplyRemote => draft.segment.tuple.reply(),
        Role::ToLocal | Role::ReplyLocal => return,
    };
    if let Some(pool) = store.port_pool(&PoolKey::of(&backend)) {
        gauge::change(&pool.opening, settings, store.now(), Gauge::answered);
    }
}
