//! What is done once in a while, whether or not anything has changed.

use std::time::Instant;

use super::{setup, state::State};

impl State {
    /// Takes back what no program can be reading any more.
    pub fn thaw(&mut self) {
        self.mend();
        if self.hooks.failed {
            self.hook_up();
        }
        self.ask_again();
        self.guard(self.plan.bars_sources() || self.hooks.unguarded.is_some());
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
        // Flows that are not here yet refer to backends, and need their bits in the gate.
        if self.moving.is_some() {
            return;
        }
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

#[cfg(all(test, feature = "lab"))]
mod tests {
    use std::time::Duration;

    use lb_common::abi::{Backend, BackendState};
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        agent::{lock, state},
        config::{Config, Options},
        datapath::{
            layout,
            maps::{Birth, Maps},
        },
        lab::Lab,
        net::Snapshot,
        plan::tables::Op,
    };

    /// Those of the old maps need not be here yet.
    #[test]
    fn a_backend_that_nobody_lists_keeps_its_id_until_all_flows_have_been_moved() {
        let lab = Lab::new("upkeep").unwrap();
        let bpffs = lab.bpffs("node").unwrap();
        let options = Options { bpffs: Some(bpffs.clone()), ..Options::default() };
        let config = Config::from_options(options, "n1").unwrap();
        let (mut object, _) = state::load(&config, false).unwrap();
        let mut maps = Maps::from_object(&mut object).unwrap();
        maps.born(Birth { table_key: setup::draw(), tick: setup::ticks() }).unwrap();
        let row = Backend::new(3, 9, [10; 16], [0, 80], 6, false, [0; 16], 1);
        maps.apply(&[Op::Backend { id: 7, row }]).unwrap();
        // Another version's, then.
        layout::disown(&bpffs.join("maps")).unwrap();

        let lock = lock::take(&bpffs).unwrap();
        let loaded = state::load(&config, false).unwrap();
        let (warnings, _told) = mpsc::channel(1);
        let mut state = State::start(config, lock, loaded, Snapshot::default(), warnings).unwrap();
        assert!(state.waits());
        for _ in 0..3 {
            state.reclaim();
            state.began -= Duration::from_secs(30);
        }
        assert_eq!(state.maps.backends.get(7).unwrap().state(), BackendState::Active);
    }
}
