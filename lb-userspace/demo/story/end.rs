//! The agents die and come back; then the reckoning.

use std::time::Instant;

use anyhow::Result;

use super::Story;
use crate::{screen, traffic::Change};

impl Story<'_> {
    /// Traffic does not need the agents; changes do.
    pub(super) fn the_agents_are_killed(&mut self) -> Result<()> {
        self.heading("The agents are killed under traffic, and started again");
        screen::typed("kill -9 …        # both agents");
        let at = Instant::now();
        for agent in &mut self.agents {
            agent.kill()?;
        }
        let before = self.cluster.endpoints();
        let nothing = Change { at, before: &before, after: &before, gap: false };
        self.judge("agents dead", &nothing);

        screen::typed("lb agent …       # both again: they adopt what is pinned");
        let at = Instant::now();
        for agent in &mut self.agents {
            agent.restart()?;
        }
        screen::say(&format!("ready again after {}", screen::milliseconds(at.elapsed())));
        let nothing = Change { at, before: &before, after: &before, gap: false };
        self.judge("agents back", &nothing);

        screen::typed("kubectl scale deployment web --replicas=3");
        self.cluster.start_ready("web", 1)?;
        let at = self.cluster.publish()?;
        let after = self.cluster.endpoints();
        self.judge("scaled 2 → 3", &Change { at, before: &before, after: &after, gap: false });
        Ok(())
    }

    /// All changes in one table; whether all went well.
    pub(super) fn sum_up(&mut self) -> bool {
        self.heading("What was seen");
        let header = ["CHANGE", "#NEW SET AFTER", "#SENT", "#FAILED", "#TOO EARLY", "RESULT"];
        screen::table(&header, std::mem::take(&mut self.summary));
        screen::say("new set after: from the moment the file could be read to the first packet");
        screen::say("that reached the new set, at the slowest client.");
        screen::say("too early: failed before the kernel could know (a dead pod, a new Service).");
        if self.problems == 0 {
            screen::good("no request failed that should not have, none went astray,");
            screen::good("and no connection to a living pod was disturbed");
        } else {
            screen::bad(&format!("{} things went wrong: see above", self.problems));
        }
        self.problems == 0
    }
}
