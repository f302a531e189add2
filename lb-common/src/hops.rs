//! Next hops, remembered: a routing look-up costs more than all the rest of a known flow's packet.
//!
//! Each flow entry has a word for its way: where in a small table the hop is, a part of the hop's
//! seal, and when the kernel's routing was last asked for this flow. After a second a flow asks
//! again, so that a route or a neighbour that changes is followed in that time with no agent alive.
//!
//! Where more than [`HOP_CHECKS`] flows over one hop would ask in a tick, the others go on as they
//! are: with a million flows each packet would ask otherwise. As soon as one of those that did ask
//! got another way, all flows over its old hop ask at their next packet. So what many flows share (a
//! neighbour's address, the default route) is followed at once however many there are, and what
//! concerns a single one of very many flows (a route to that client alone) when its turn comes.
//!
//! The table is by content: many flows share a hop, and a place that was given to another hop no
//! longer has the check that its flows remember. It is a cache, and empty whenever programs are
//! loaded.

use crate::{
    abi::{HopSlot, NextHop, Settings, Words as _},
    limits::{HOP_CHECKS, HOPS},
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

/// The way that `word` remembers, unless it is time to ask again. Who then asks says so by
/// [`asks`].
#[inline(always)]
pub fn recall<W: World>(world: &W, word: u64, now: u32) -> Way {
    let asked = (word >> 32) as u32;
    let old = now.wrapping_sub(asked) > Settings::SECOND;
    if word as u32 & 0xffff == STACK as u32 {
        return if old { Way::Unknown } else { Way::Stack };
    }
    let Some((slot, words)) = place_of(world, word) else { return Way::Unknown };
    if slot.is_doubted_since(asked) || (old && slot.asked_in(now) < HOP_CHECKS) {
        return Way::Unknown;
    }
    Way::Hop(NextHop::from_words(&words))
}

/// A flow that went the way of `word` asks for it anew.
#[inline(always)]
pub fn asks<W: World>(world: &W, word: u64) {
    if let Some((slot, _)) = place_of(world, word)
        && W::LIVE
    {
        slot.ask(world.now());
    }
}

/// A flow that went the way of `word` goes that of `new`: if that is another, the flows that it
/// shared the old one with shall ask too.
#[inline(always)]
pub fn changed<W: World>(world: &W, word: u64, new: u64) {
    if word as u32 != new as u32
        && let Some((slot, _)) = place_of(world, word)
        && W::LIVE
    {
        slot.doubt(world.now());
    }
}

/// The place of a hop that is still there, and its words.
#[inline(always)]
fn place_of<W: World>(world: &W, word: u64) -> Option<(&HopSlot, [u64; 3])> {
    let place = word as u32 & 0xffff;
    if word == 0 || place == STACK as u32 {
        return None;
    }
    let slot = world.hop(place % HOPS)?;
    let seal = slot.seal();
    if seal & 0xffff != word >> 16 & 0xffff {
        return None;
    }
    Some((slot, slot.read(seal)?))
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
        let sealed = slot.seal();
        // By words: a comparison of arrays would be a call.
        let same = |there: [u64; 3]| {
            (there[0] ^ words[0]) | (there[1] ^ words[1]) | (there[2] ^ words[2]) == 0
        };
        if sealed == check && slot.read(sealed).is_some_and(same) {
            return at(place, check, world.now());
        }
        // The last place is taken from whoever has it.
        if sealed == 0 || probe == PROBES - 1 {
            let written = slot.write(sealed, &words, check);
            return if written { at(place, check, world.now()) } else { 0 };
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

/// Neither zero nor another small number, which a seal may be that is none.
#[inline(always)]
const fn check_of(words: &[u64; 3]) -> u64 {
    let mixed = words[0]
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(words[1].wrapping_mul(0xff51_afd7_ed55_8ccd))
        .wrapping_add(words[2].wrapping_mul(0xc4ce_b9fe_1a85_ec53));
    (mixed ^ mixed >> 29) | 1 << 63
}
