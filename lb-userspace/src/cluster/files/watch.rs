//! The files as they change: woken by the kernel, never by a clock.
//!
//! A file counts once its writer is done with it: closed it, or renamed it into place. Two
//! pauses exist, and neither delays a plain change: a file that disappears gets a moment to come
//! back (editors move the old one away first), and a writer that keeps a file open without
//! writing is taken to be done in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::Sender;

use super::{Batch, listing::Listing, news::News, report::Report, store::Store};

/// What wakes the watcher up.
pub(super) enum Wake {
    Event(Instant, notify::Result<Event>),
    Stop,
}

const COMES_BACK_WITHIN: Duration = Duration::from_millis(25);

/// One watch, run on a thread of its own because files are read synchronously.
pub(super) struct Watch {
    named: Vec<PathBuf>,
    watcher: RecommendedWatcher,
    wakes: Receiver<Wake>,
    /// Folders under watch by (device, inode).
    folders: BTreeMap<(u64, u64), PathBuf>,
    news: News,
}

/// The watch was told to stop, or nobody listens any more.
struct Stopped;

impl Watch {
    pub fn new(named: Vec<PathBuf>, watcher: RecommendedWatcher, wakes: Receiver<Wake>) -> Self {
        Self { named, watcher, wakes, folders: BTreeMap::new(), news: News::default() }
    }

    /// Sends a batch for the first state and one for each change, until told to stop or until
    /// nobody takes the batches.
    pub fn run(mut self, batches: &Sender<Batch>) {
        let mut store = Store::default();
        let mut seen = Ok(Instant::now());
        while let Ok(at) = seen {
            seen = self.look(&mut store, at, batches).and_then(|()| self.next_change());
        }
    }

    /// Compares the files with the store and sends what differs.
    fn look(
        &mut self,
        store: &mut Store,
        seen: Instant,
        to: &Sender<Batch>,
    ) -> Result<(), Stopped> {
        let deadline = Instant::now() + COMES_BACK_WITHIN;
        let mut listing = self.list();
        while store.misses_any_of(&listing) && Instant::now() < deadline {
            self.wait_until(Some(deadline))?;
            listing = self.list();
        }
        let (changes, fresh) = store.refresh(listing, &self.news.take_hints());
        if changes.is_empty() && fresh.is_empty() {
            return Ok(());
        }
        let reports = store.reports().to_vec();
        to.blocking_send(Batch { changes, seen, reports, fresh }).map_err(|_| Stopped)
    }

    /// Lists the files with every folder concerned under watch before it is listed, so that
    /// nothing happens unseen in between.
    fn list(&mut self) -> Listing {
        let mut fresh = BTreeSet::new();
        loop {
            let mut listing = Listing::of(&self.named);
            let mut added = false;
            self.folders.retain(|folder, path| {
                let still = listing.folders.contains_key(folder);
                if !still {
                    // Fails where the kernel was first: the folder is gone.
                    let _ = self.watcher.unwatch(path);
                }
                still
            });
            for (folder, path) in &listing.folders {
                if self.folders.contains_key(folder) {
                    continue;
                }
                match self.watcher.watch(path, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        self.folders.insert(*folder, path.clone());
                        fresh.insert(path.clone());
                        added = true;
                    }
                    Err(error) => {
                        let message = format!("changes cannot be watched: {error}");
                        listing.reports.push(Report::error(path, message));
                    }
                }
            }
            if !added {
                self.news.expect(&self.named, &listing);
                self.news.note_unwatched(&fresh, &listing);
                return listing;
            }
        }
    }

    /// Waits for something that may have changed the files: the time it was seen.
    fn next_change(&mut self) -> Result<Instant, Stopped> {
        loop {
            if let Some(seen) = self.wait_until(self.news.patience_ends())? {
                return Ok(seen);
            }
        }
    }

    /// Takes in the next event and all that are waiting behind it.
    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Option<Instant>, Stopped> {
        let first = match deadline {
            None => self.wakes.recv().map_err(|_| Stopped)?,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                match self.wakes.recv_timeout(left) {
                    Ok(wake) => wake,
                    Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
                    Err(RecvTimeoutError::Timeout) => {
                        return Ok(self.news.give_up_waiting(Instant::now()));
                    }
                }
            }
        };
        let mut seen = None;
        let mut next = Some(first);
        while let Some(wake) = next {
            let Wake::Event(at, event) = wake else { return Err(Stopped) };
            let matters = self.note(at, event);
            seen = seen.or(matters.then_some(at));
            next = self.wakes.try_recv().ok();
        }
        Ok(seen)
    }

    /// Whether an event may have changed the files.
    fn note(&mut self, at: Instant, event: notify::Result<Event>) -> bool {
        let Ok(event) = event else {
            self.news.note_loss();
            return true;
        };
        if event.kind.is_remove() || event.kind.is_modify() {
            // A watch does not outlive its folder, and a new folder can have the old one's inode.
            let watcher = &mut self.watcher;
            self.folders.retain(|_, path| {
                let moved = event.paths.contains(path);
                if moved {
                    let _ = watcher.unwatch(path);
                }
                !moved
            });
        }
        self.news.note(at, &event)
    }
}
