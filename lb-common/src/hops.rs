//! Next hops, remembered: a routing look-up costs more than all the rest of a known flow's packet.
//!
//! Each flow entry has a word for its way: where in a small table the hop is, a part of the hop's
//! check, and when the kernel's routing was last asked for this flow. A way is good for a second,
//! so that a route or a neighbour that changes is followed in that time with no agent alive. The
//! table is by content: many flows share a hop, and a place that was given to another hop no longer
//! has the check that its flows remember. It is a cache, and empty whenever programs are loaded.

use crate::{
    abi::{NextHop, Settings, Words as _},
    limits::HOPS,
    world::World,
};

/// Places that a hop may be in.
const PROBES: u32 = 4;

/// What a flow remembers of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing, or nothing that is still good.
    Unknown,
    /// Only the stack can send it.
    Stack,
    Hop(NextHop),
}

/// Word of a flow's way: place in the table (bits 0–15), part of the check (16–31), tick (32–63).
const STACK: u64 = 0xffff;

/// The way that `word` remembers.
#[inline(always)]
pub fn recall<W: World>(world: &W, word: u64) -> Way {
    let asked = (word >> 32) as u32;
    if word == 0 || world.now().wrapping_sub(asked) > Settings::SECOND {
        return Way::Unknown;
    }
    let place = word as u32 & 0xffff;
    if place == STACK as u32 {
        return Way::Stack;
    }
    let Some(slot) = world.hop(place % HOPS) else { return Way::Unknown };
    let (words, check) = slot.read();
    if check != check_of(&words) || check & 0xffff != word >> 16 & 0xffff {
        return Way::Unknown;
    }
    Way::Hop(NextHop::from_words(&words))
}

/// The word that remembers a hop; zero if there is no room for it.
#[inline(always)]
pub fn remember<W: World>(world: &W, hop: &NextHop) -> u64 {
    let words = hop.to_words();
    let check = check_of(&words);
    let home = (check >> 32) as u32;
    let mut probe = 0;
    while probe < PROBES {
        let place = home.wrapping_add(probe) % HOPS;
        let Some(slot) = world.hop(place) else { return 0 };
        let (there, sealed) = slot.read();
        // The last place is taken from whoever has it.
        if sealed == 0 || probe == PROBES - 1 {
            slot.write(&words, check);
            return at(place, check, world.now());
        }
        if sealed == check && there == words {
            return at(place, check, world.now());
        }
        probe += 1;
    }
    0
}

/// The word of a way that only the stack can go.
#[inline(always)]
pub fn by_stack<W: World>(world: &W) -> u64 {
    STACK | u64::from(world.now()) << 32
}

#[inline(always)]
const fn at(place: u32, check: u64, now: u32) -> u64 {
    place as u64 | (check & 0xffff) << 16 | (now as u64) << 32
}

/// Never zero, which marks an empty place.
#[inline(always)]
const fn check_of(words: &[u64; 3]) -> u64 {
    let mixed = words[0]
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(words[1].wrapping_mul(0xff51_afd7_ed55_8ccd))
        .wrapping_add(words[2].wrapping_mul(0xc4ce_b9fe_1a85_ec53));
    (mixed ^ mixed >> 29) | 1 << 63
}
