//! What is done once in a while, whether or not anything has changed.

use std::time::Instant;

use super::{setup, state::State};

impl State {
    /// Takes back what no program can be reading any more.
    pub fn thaw(&mut self) {
        self.mend();
        self.guard(self.plan.bars_sources());
        self.tables.thaw(self.began.elapsed());
        self.count_connections();
        self.count();
        if let Err(error) = self.maps.forget_watchers(setup::nanoseconds()) {
            tracing::debug!(%error, "map WATCH cannot be used");
        }
        if !self.in_step || !self.refused.is_empty() {
            self.sync(Instant::now());
        }
    }

    /// Pins again what somebody has unpinned: the next agent has to find it.
    fn mend(&mut self) {
        // Whatever the first finds wrong, the second is looked at too.
        let problem =
            [self.hooks.mend(), self.pins.mend()].into_iter().find_map(|mended| match mended {
                Ok(names) => {
                    names.iter().for_each(|pin| tracing::warn!(pin, "was deleted; pinned again"));
                    None
                }
                Err(error) => Some(format!("pins: {error}")),
            });
        // The folder may be a new one by now.
        let problem = problem.or_else(|| self.lock.renew().err().map(|failure| failure.what));
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.unpinned) {
            tracing::error!("{problem}");
        }
        self.unpinned = problem;
    }

    /// Frees backends that left and that no flow refers to.
    pub fn reclaim(&mut self) {
        if let Err(error) = self.maps.tighten_gate() {
            tracing::warn!("frontends cannot be listed: {error}");
        }
        let scanned = self.began.elapsed();
        let flows = self.maps.flows(setup::ticks());
        let ops = self.tables.reclaim(scanned, &flows.referenced());
        self.write(&ops);
        super::drain::forget_replaced(self);
        // An empty plan bars nobody: it may not have been made yet.
        let is_planned = self.unlisted().is_empty();
        if is_planned
            && self.hooks.guards
            && !self.maps.has_stranded_sockets()
            && !self.plan.bars_sources()
        {
            self.hooks.end_guard();
        }
    }
}
