//! Packets as they come, out of a ring buffer that programs write to while somebody watches.

use std::{io, os::fd::AsFd as _, path::Path};

use aya::maps::{Map, MapData, MapError, RingBuf};
use lb_common::{
    abi::{Event, Watch, Words as _},
    path::Outcome,
    verdict::{Reason, Verdict},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    maps::Maps,
    object::maps_folder,
    rows::{RowsError, place_of},
};
use crate::{api::SeenPacket, cli::Sampling};

/// How long programs go on telling when the watcher says no more: it may have died.
const PATIENCE: u64 = 3_000_000_000;

/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error("map EVENTS cannot be read")]
    Events(#[source] MapError),
    #[error("map WATCH cannot be written")]
    Watch(#[source] MapError),
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error("the ring buffer cannot be waited for")]
    Wait(#[source] io::Error),
}

/// A watcher. One at a time: two share the packets between them.
pub struct Monitor {
    maps: Maps,
    events: RingBuf<MapData>,
}

impl Maps {
    /// Tells programs that nobody watches any more, once the last watcher's time is up.
    ///
    /// # Errors
    /// If the map cannot be used.
    pub fn forget_watchers(&mut self, now: u64) -> Result<(), MapError> {
        let Watch { until, .. } = self.watch.get(&0, 0)?;
        if until == 0 || now < until {
            return Ok(());
        }
        self.watch.set(0, Watch::default(), 0)
    }
}

impl Monitor {
    /// Watches by the maps pinned under `bpffs`.
    ///
    /// # Errors
    /// If the ring buffer cannot be opened.
    pub fn new(maps: Maps, bpffs: &Path) -> Result<Self, MonitorError> {
        let events =
            MapData::from_pin(maps_folder(bpffs).join("EVENTS")).and_then(Map::from_map_data);
        let events = events.and_then(RingBuf::try_from).map_err(MonitorError::Events)?;
        Ok(Self { maps, events })
    }

    /// Waits up to a second, and returns what came.
    ///
    /// # Errors
    /// If the maps cannot be used.
    pub fn next(
        &mut self,
        what: Sampling,
        now: impl Fn() -> u64,
    ) -> Result<Vec<SeenPacket>, MonitorError> {
        let watch = Watch {
            until: now() + PATIENCE,
            skip: what.one_of - 1,
            refused_only: u32::from(what.refused_only),
        };
        self.maps.watch.set(0, watch, 0).map_err(MonitorError::Watch)?;
        let mut wait = [PollFd::new(self.events.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wait, PollTimeout::from(1000_u16)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(MonitorError::Wait(error.into())),
        }
        let mut seen = Vec::new();
        while let Some(item) = self.events.next() {
            seen.extend(event(&item));
        }
        seen.iter().filter_map(|event| self.maps.seen(event, now()).transpose()).collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // What fails here ends by itself when its time is up.
        let _ = self.maps.watch.set(0, Watch::default(), 0);
    }
}

impl Maps {
    /// An event in words; `None` if it is of another version's reasons.
    fn seen(&self, event: &Event, now: u64) -> Result<Option<SeenPacket>, MonitorError> {
        let Some(reason) = Reason::ALL.get(event.reason as usize) else { return Ok(None) };
        let backend = (event.backend != Outcome::NOBODY).then(|| self.backends.get(event.backend));
        Ok(Some(SeenPacket {
            verdict: word(reason.verdict()).to_owned(),
            reason: reason.label().to_owned(),
            packet: self.example(event, now)?,
            backend: backend.flatten().map(|row| place_of(&row)),
            bytes: event.bytes,
            opened: event.opened != 0,
        }))
    }
}

/// An event as the programs wrote it.
fn event(bytes: &[u8]) -> Option<Event> {
    let (words, _) = bytes.as_chunks::<8>();
    let words: &[[u8; 8]; 8] = words.first_chunk()?;
    Some(Event::from_words(&words.map(u64::from_ne_bytes)))
}

/// A verdict's name.
pub const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Deliver => "deliver",
        Verdict::Forward => "forward",
        Verdict::Answer => "answer",
        Verdict::Reject => "reject",
        Verdict::Drop => "drop",
    }
}
