//! Objects from manifests: the source that needs no Kubernetes.
//!
//! Paths name files or folders. Every manifest is read as `kubectl` would read it: many
//! documents, Lists, YAML or JSON. A file that is wrong is reported with its place, and what it
//! said when it was last right stays in force; other files do not notice.

mod document;
mod header;
mod kinds;
mod listing;
mod locate;
mod news;
mod object;
mod report;
mod seeds;
mod split;
mod store;
#[cfg(test)]
mod tests;
mod watch;

use std::{path::PathBuf, sync::mpsc, time::Instant};

use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

pub use self::report::{Report, Severity, Subject};
use self::{
    listing::Listing,
    store::{Hints, Store},
    watch::{Wake, Watch},
};
use super::Change;

/// Names the manifests that somebody pipes in.
pub const STANDARD_INPUT: &str = "/dev/stdin";

/// What changed in the files at one moment.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The first batch that has changes resets every kind; later ones apply and delete.
    pub changes: Vec<Change>,
    /// When the kernel told of the change.
    pub seen: Instant,
    /// Everything that is wrong with the files now.
    pub reports: Vec<Report>,
    /// Those of `reports` that the batch before did not have.
    pub fresh: Vec<Report>,
}

/// Manifests by path.
#[derive(Clone, Debug)]
pub struct Source {
    paths: Vec<PathBuf>,
}

impl Source {
    /// Where an object is in two files, the later path wins; in a folder, the later name.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths }
    }

    /// The files as they are now.
    ///
    /// There are no changes while a named path does not exist: what cannot be read yet must not
    /// look as if it had been removed.
    pub fn read_once(&self) -> Batch {
        let mut store = Store::default();
        let seen = Instant::now();
        let (changes, fresh) = store.refresh(Listing::of(&self.paths), &Hints::default());
        Batch { changes, seen, reports: store.reports().to_vec(), fresh }
    }

    /// Sends the files as they are now and then every change, until cancelled or until the
    /// receiver is dropped. While the receiver is busy, changes gather into one batch.
    pub async fn watch(self, to: Sender<Batch>, cancel: CancellationToken) -> notify::Result<()> {
        let (wake, wakes) = mpsc::channel();
        let events = wake.clone();
        let watcher = notify::recommended_watcher(move |event| {
            // The receiver is gone when the watch ends, and so is the interest.
            let _ = events.send(Wake::Event(Instant::now(), event));
        })?;
        let watch = Watch::new(self.paths, watcher, wakes);
        let mut thread = tokio::task::spawn_blocking(move || watch.run(&to));
        tokio::select! {
            _ = &mut thread => {}
            () = cancel.cancelled() => {
                let _ = wake.send(Wake::Stop);
            }
        }
        Ok(())
    }
}
