//! How many flows are half-open: those to one backend, and those of a flow table.

use crate::{
    abi::{Settings, Word},
    addr::Addr,
    limits::FLOW_WAYS,
    world::Store,
};

/// Flows that opened and were not answered yet, of the last one to two windows: counted up when a
/// flow opens and down when it is answered, and forgotten with its window.
///
/// Bits 0–23: this window; 24–47: the one before; 48–63: which window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauge(u64);

impl Gauge {
    const COUNT: u64 = (1 << 24) - 1;

    /// The gauge in `window`.
    #[inline(always)]
    const fn at(self, window: u16) -> Self {
        let (this, last) = (self.0 & Self::COUNT, self.0 >> 24 & Self::COUNT);
        let age = window.wrapping_sub((self.0 >> 48) as u16);
        // Another CPU's clock may be a tick ahead.
        if age == u16::MAX {
            return self;
        }
        let (this, last) = match age {
            0 => (this, last),
            1 => (0, this),
            _ => (0, 0),
        };
        Self(this | last << 24 | (window as u64) << 48)
    }

    #[inline(always)]
    const fn count(self) -> u32 {
        ((self.0 & Self::COUNT) + (self.0 >> 24 & Self::COUNT)) as u32
    }

    #[inline(always)]
    pub const fn opened(self) -> Self {
        Self(if self.0 & Self::COUNT == Self::COUNT { self.0 } else { self.0 + 1 })
    }

    #[inline(always)]
    pub const fn answered(self) -> Self {
        Self(if self.0 & Self::COUNT != 0 {
            self.0 - 1
        } else if self.0 >> 24 & Self::COUNT != 0 {
            self.0 - (1 << 24)
        } else {
            self.0
        })
    }
}

/// The gauge in `word` at `now`; windows are as long as half-open flows live.
#[inline(always)]
fn read(word: &Word, settings: &Settings, now: u32) -> Gauge {
    let length = if settings.timeouts.half_open == 0 { 1 } else { settings.timeouts.half_open };
    Gauge(word.get()).at((now / length) as u16)
}

/// How many flows are half-open by the gauge in `word`.
#[inline(always)]
pub fn count(word: &Word, settings: &Settings, now: u32) -> u32 {
    read(word, settings, now).count()
}

/// A change that another CPU's overtakes is tried again, then lost: a gauge is a limit, no account.
#[inline(always)]
pub fn change(word: &Word, settings: &Settings, now: u32, change: impl Fn(Gauge) -> Gauge) {
    let mut tries = 0;
    while tries < 4 {
        let old = word.get();
        if word.replace_if(old, change(read(word, settings, now)).0) {
            return;
        }
        tries += 1;
    }
}

/// Whether half of the flows that the table has room for are half-open: then no more are opened, which
/// is asked before anything else is spent on one.
#[inline(always)]
pub fn is_full<A: Addr, S: Store<A>>(store: &S, settings: &Settings) -> bool {
    // Two entries a flow.
    let room = settings.flow_mask::<A>().saturating_add(1).saturating_mul(FLOW_WAYS as u32 / 4);
    store.opening().is_some_and(|word| count(word, settings, store.now()) >= room)
}

/// A flow was entered in the table, half-open.
#[inline(always)]
pub fn opened<A: Addr, S: Store<A>>(store: &S) {
    if let (Some(word), Some(settings)) = (store.opening(), store.settings()) {
        change(word, settings, store.now(), Gauge::opened);
    }
}

/// One is half-open no more.
#[inline(always)]
pub fn answered<A: Addr, S: Store<A>>(store: &S, settings: &Settings) {
    if let Some(word) = store.opening() {
        change(word, settings, store.now(), Gauge::answered);
    }
}
