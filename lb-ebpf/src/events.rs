//! Single packets and calls as they happened: an example of whatever is refused, and what
//! `lb monitor` shows while somebody watches.

use lb_common::{
    abi::{Event, EventHook, Watch},
    addr::Addr,
    flow::Tuple,
    path::{Notes, Outcome},
    verdict::Reason,
};

use crate::{helpers, maps};

/// Whether somebody may be watching: one load for every packet.
#[inline(always)]
pub fn are_watched() -> bool {
    maps::WATCH.get(0).is_some_and(|watch| watch.until != 0)
}

/// Writes a packet down.
#[inline(never)]
pub fn packet(notes: &Notes, refused: bool, bytes: usize, hook: EventHook) {
    let now = helpers::coarse_time();
    let watched = is_told(now, refused);
    if !refused && !watched {
        return;
    }
    let Some(event) = maps::example(notes.outcome.reason) else { return };
    notes.tell(event);
    event.time = now;
    event.hook = hook as u8;
    event.bytes = bytes as u32;
    if watched {
        // No room: whoever watches is too slow, and packets do not wait.
        let _ = maps::EVENTS.output::<Event>(&*event, 0);
    }
}

/// Writes a socket's call down that was refused. Its source is not known yet.
#[inline(always)]
pub fn refusal<A: Addr>(address: A, port: [u8; 2], protocol: u8, service: u32, reason: Reason) {
    let Some(event) = maps::example(reason) else { return };
    let nobody = A::from_slot(&[0; 16]);
    event.set_tuple(&Tuple { src: nobody, dst: address, sport: [0; 2], dport: port, protocol });
    event.reason = reason as u32;
    event.service = service;
    event.backend = Outcome::NOBODY;
    event.time = helpers::coarse_time();
    event.hook = EventHook::Socket as u8;
    (event.opened, event.bytes) = (0, 0);
    if is_told(event.time, true) {
        let _ = maps::EVENTS.output::<Event>(&*event, 0);
    }
}

/// Whether somebody watches who wants this.
#[inline(always)]
fn is_told(now: u64, refused: bool) -> bool {
    let Some(Watch { until, skip, refused_only }) = maps::WATCH.get(0) else { return false };
    now < *until && (refused || (*refused_only == 0 && helpers::random() & *skip == 0))
}
