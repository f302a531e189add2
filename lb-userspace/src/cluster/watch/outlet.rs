//! Where a reflector's news and state go.

use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{
    Batch, Kind,
    sources::{SourceStatus, Sources},
};
use crate::cluster::Change;

/// One kind's way out.
pub(super) struct Outlet {
    kind: Kind,
    tx: mpsc::Sender<Batch>,
    sources: watch::Sender<Sources>,
}

impl Outlet {
    pub(super) fn new(
        kind: Kind,
        tx: mpsc::Sender<Batch>,
        sources: watch::Sender<Sources>,
    ) -> Self {
        sources.send_modify(|sources| _ = sources.entry(kind));
        Self { kind, tx, sources }
    }

    /// Whether Services have been listed.
    pub(super) fn has_services(&self) -> bool {
        self.sources.borrow().get(Kind::Service).listings > 0
    }

    /// Hands news on, waiting for room. Nobody left to receive is not this side's problem: the
    /// reflectors are stopped from outside.
    pub(super) async fn send(&self, changes: Vec<Change>, received: Instant) {
        if !changes.is_empty() {
            _ = self.tx.send(Batch { changes, received }).await;
        }
    }

    /// Notes that the server spoke, what of it could not be read, and what else that changes.
    pub(super) fn heard(
        &self,
        received: Instant,
        unread: Option<&str>,
        note: impl FnOnce(&mut SourceStatus),
    ) {
        self.sources.send_modify(|sources| {
            let status = sources.entry(self.kind);
            status.last_contact = Some(received);
            match (status.problem.as_deref(), unread) {
                (Some(_), None) => info!(resource = %self.kind, "the watch is well again"),
                (before, Some(unread)) if before != Some(unread) => {
                    warn!(resource = %self.kind, "{unread}");
                }
                _ => {}
            }
            status.problem = unread.map(str::to_owned);
            note(status);
        });
    }

    /// Notes what is wrong; the log hears of it once, not at every attempt.
    pub(super) fn problem(&self, problem: String) {
        self.sources.send_modify(|sources| {
            let status = sources.entry(self.kind);
            if status.problem.as_ref() != Some(&problem) {
                warn!(resource = %self.kind, "{problem}");
                status.problem = Some(problem);
            }
        });
    }

    /// Notes a change of state that is not contact.
    pub(super) fn note(&self, note: impl FnOnce(&mut SourceStatus)) {
        self.sources.send_modify(|sources| note(sources.entry(self.kind)));
    }
}
