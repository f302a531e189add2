//! The large steps of the rules as global functions, which the verifier walks once each (kernel
//! 5.13). Their arguments are pointers to memory of the type's size, perhaps null: what BTF says of
//! a function is all that the verifier knows inside it.

use lb_common::{
    abi::{NextHop, PortPool},
    addr::{V4, V6},
    crc32c,
    flow::Tuple,
    hops,
    limits::SNAT_PORTS,
    path::{
        Course, Draft, Outcome, Trace,
        dsr::{self, Lead},
        fragment, look_up, steps,
    },
    ports,
    table::{self, Entry, Found, Insert},
    tracking::Side,
};

use crate::tables::Kernel;

const LIVE: Kernel<true> = Kernel;
const READING: Kernel<false> = Kernel;

/// What an argument points to.
#[inline(always)]
fn given<'a, T>(argument: *const T) -> Option<&'a T> {
    // SAFETY: an argument of a global function is null, or points to memory of the type's size: the
    // verifier sees to it at every call. All callers are in `tables`, and pass references.
    unsafe { argument.as_ref() }
}

/// As [`given`], to change it.
#[inline(always)]
fn given_mut<'a, T>(argument: *mut T) -> Option<&'a mut T> {
    // SAFETY: as in `given`; the callers' references are unique.
    unsafe { argument.as_mut() }
}

/// `Side` as a number.
const SERVER: u32 = Side::Server as u32;

/// [`hops::remember`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn remember(hop: *const NextHop) -> u64 {
    given(hop).map_or(0, |hop| hops::remember(&LIVE, hop))
}

/// [`PortPool::take`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_port(pool: *const PortPool, count: u32, from: u32) -> u32 {
    let Some(pool) = given(pool) else { return SNAT_PORTS };
    pool.take(count, from)
}

/// [`crc32c::change`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn crc_change(difference: u32, length: u32) -> u32 {
    crc32c::change(difference, length as u16)
}

macro_rules! steps {
    (
        $family:ty, $find:ident, $insert:ident, $look_up:ident, $decide:ident, $record:ident,
        $track:ident, $reclaim:ident, $lease:ident, $note:ident, $recall:ident,
        $lead:ident
    ) => {
        /// [`table::find`]; non-zero if there is one.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $find(key: *const Tuple<$family>, found: *mut Found<$family>) -> u32 {
            let (Some(key), Some(found)) = (given(key), given_mut(found)) else {
                return 0;
            };
            u32::from(table::find(&READING, key, found))
        }

        /// [`table::insert`]; an [`Insert`] as a number.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $insert(
            key: *const Tuple<$family>,
            entry: *const Entry<$family>,
            existing: *mut Found<$family>,
        ) -> u32 {
            let (Some(key), Some(entry), Some(existing)) =
                (given(key), given(entry), given_mut(existing))
            else {
                return Insert::Full as u32;
            };
            table::insert(&LIVE, key, entry, existing) as u32
        }

        /// [`look_up::look_up`]; a [`Course`] as a number.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $look_up(
            draft: *mut Draft<$family>,
            outcome: *mut Outcome,
            trace: *mut Trace,
        ) -> u32 {
            let (Some(draft), Some(outcome), Some(trace)) =
                (given_mut(draft), given_mut(outcome), given_mut(trace))
            else {
                return Course::Ends as u32;
            };
            look_up::look_up(&READING, draft, outcome, trace) as u32
        }

        /// [`dsr::lead`]; a [`Lead`] as a number.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $lead(
            draft: *mut Draft<$family>,
            outcome: *mut Outcome,
            trace: *mut Trace,
        ) -> u32 {
            let (Some(draft), Some(outcome), Some(trace)) =
                (given_mut(draft), given_mut(outcome), given_mut(trace))
            else {
                return Lead::Ends as u32;
            };
            dsr::lead(&READING, draft, outcome, trace) as u32
        }

        /// [`steps::decide`]; non-zero if there is a choice.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $decide(
            draft: *mut Draft<$family>,
            outcome: *mut Outcome,
            trace: *mut Trace,
        ) -> u32 {
            let (Some(draft), Some(outcome), Some(trace)) =
                (given_mut(draft), given_mut(outcome), given_mut(trace))
            else {
                return 0;
            };
            u32::from(steps::decide(&READING, draft, outcome, trace))
        }

        /// [`steps::record`]; non-zero if the flow has its entries.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $record(draft: *mut Draft<$family>, outcome: *mut Outcome) -> u32 {
            let (Some(draft), Some(outcome)) = (given_mut(draft), given_mut(outcome)) else {
                return 0;
            };
            u32::from(steps::record(&LIVE, draft, outcome))
        }

        /// [`steps::track`]; always zero, because the verifier wants a number.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $track(draft: *mut Draft<$family>, side: u32) -> u32 {
            let Some(draft) = given_mut(draft) else { return 0 };
            let side = if side == SERVER { Side::Server } else { Side::Client };
            steps::track(&LIVE, draft, side);
            0
        }

        /// [`ports::reclaim`]; always zero, because the verifier wants a number.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $reclaim(draft: *mut Draft<$family>) -> u32 {
            let Some(draft) = given_mut(draft) else { return 0 };
            ports::reclaim(&LIVE, draft);
            0
        }

        /// [`fragment::note`]; non-zero if the fragment may go on.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $note(draft: *const Draft<$family>) -> u32 {
            let Some(draft) = given(draft) else { return 0 };
            u32::from(fragment::note(&LIVE, draft))
        }

        /// [`fragment::recall`]; non-zero if the first fragment was seen.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $recall(draft: *mut Draft<$family>) -> u32 {
            let Some(draft) = given_mut(draft) else { return 0 };
            u32::from(fragment::recall(&READING, draft))
        }

        /// [`steps::lease`]; a [`ports::Lease`] as a number.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $lease(
            draft: *mut Draft<$family>,
            outcome: *mut Outcome,
            tries: u32,
        ) -> u32 {
            let (Some(draft), Some(outcome)) = (given_mut(draft), given_mut(outcome)) else {
                return 0;
            };
            steps::lease(&LIVE, draft, outcome, tries) as u32
        }
    };
}

steps!(
    V4, find_v4, insert_v4, look_up_v4, decide_v4, record_v4, track_v4, reclaim_v4, lease_v4,
    note_v4, recall_v4, lead_v4
);
steps!(
    V6, find_v6, insert_v6, look_up_v6, decide_v6, record_v6, track_v6, reclaim_v6, lease_v6,
    note_v6, recall_v6, lead_v6
);
