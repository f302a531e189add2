//! An API server in this process: objects with a history, listed, watched and written.

mod serve;
mod store;
mod watcher;

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

pub(super) use self::serve::router;
use self::store::Store;

/// The server's inside, for what no client could make a server do.
#[derive(Clone, Default)]
pub struct Double {
    store: Arc<Mutex<Store>>,
    tick: Arc<watch::Sender<Tick>>,
}

/// What watchers wake up for.
#[derive(Clone, Copy, Debug, Default)]
struct Tick {
    version: u64,
    bookmarks: u64,
    held: bool,
    order: Order,
}

/// How watchers tell the events that have gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    AsItHappened,
    /// The last first.
    Reversed,
    /// Each one twice in a row.
    Stuttered,
    /// All of them, and then all of them again.
    Repeated,
}

impl Double {
    /// Keeps events from every watcher until [`release`](Self::release).
    pub fn hold(&self) {
        self.tick.send_modify(|tick| tick.held = true);
    }

    /// Lets the events that gathered go, in this order.
    pub fn release(&self, order: Order) {
        self.tick.send_modify(|tick| {
            tick.held = false;
            tick.order = order;
        });
    }

    /// Sends every watcher a bookmark.
    pub fn bookmark(&self) {
        self.tick.send_modify(|tick| tick.bookmarks += 1);
    }

    /// Forgets the history so far: a watch can no longer start in it.
    pub fn compact(&self) {
        self.store().compact();
    }

    /// The resource version that is current.
    pub fn version(&self) -> u64 {
        self.store().version()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Writes, and wakes the watchers up.
    fn write<T>(&self, write: impl FnOnce(&mut Store) -> T) -> T {
        let (result, version) = {
            let mut store = self.store();
            let result = write(&mut store);
            (result, store.version())
        };
        self.tick.send_modify(|tick| tick.version = version);
        result
    }
}
