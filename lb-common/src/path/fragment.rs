//! Fragments: the first one names the ports, and goes the way of any packet; it leaves a note, by
//! which those behind it follow. What comes before it, or without it, cannot be followed.

use super::Draft;
use crate::{
    abi::{FragmentKey, FragmentPorts, Settings},
    addr::Addr,
    world::Store,
};

/// How long the parts of a packet may be apart: as long as Linux waits for them.
const PATIENCE: u32 = 30 * Settings::SECOND;

#[inline(always)]
fn key<A: Addr>(draft: &Draft<A>) -> FragmentKey {
    let tuple = &draft.segment.tuple;
    FragmentKey::new(tuple.src, tuple.dst, draft.segment.id, tuple.protocol)
}

/// Notes the ports of a packet whose first fragment this is. `false` if a first fragment was there
/// with others: two of them do not make one packet.
#[inline(always)]
pub fn note<A: Addr, S: Store<A>>(store: &S, draft: &Draft<A>) -> bool {
    let (key, now) = (key(draft), store.now());
    let (sport, dport) = (draft.segment.tuple.sport, draft.segment.tuple.dport);
    if let Some(known) = store.fragment(&key)
        && known.expiry.wrapping_sub(now) as i32 > 0
    {
        return (known.sport, known.dport) == (sport, dport);
    }
    let expiry = now.wrapping_add(PATIENCE);
    store.note_fragment(&key, &FragmentPorts { sport, dport, expiry });
    true
}

/// Gives a later fragment the ports that the first one named. `false` if none is known.
#[inline(always)]
pub fn recall<A: Addr, S: Store<A>>(store: &S, draft: &mut Draft<A>) -> bool {
    let Some(known) = store.fragment(&key(draft)) else { return false };
    if known.expiry.wrapping_sub(store.now()) as i32 <= 0 {
        return false;
    }
    draft.segment.tuple.sport = known.sport;
    draft.segment.tuple.dport = known.dport;
    true
}
