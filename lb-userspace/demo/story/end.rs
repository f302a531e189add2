//! The agents die and come back; then the reckoning.

use std::{path::Path, time::Instant};

use anyhow::Result;

use super::Story;
use crate::{
    screen,
    traffic::Change,
    world::{NODE_PORT, WEB_V4, node_address},
};

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

    /// What to type now, and how to get rid of it.
    pub(super) fn explain_the_playground(&self, lb: &Path) {
        screen::say("");
        screen::say("The playground stays. Try (as root):");
        let inside = |host: &lb_userspace::lab::Host| {
            format!("nsenter --net={}", host.namespace().display())
        };
        let agent = &self.agents[0];
        let outside = node_address(1, false);
        let cgroup = agent.node().cgroup().join("cgroup.procs");
        screen::say("• a client outside:");
        screen::typed(&format!("{} curl {outside}:{NODE_PORT}", inside(&self.world.client)));
        screen::say("• a pod on n1 (first join n1's cgroup: its socket hooks act by cgroup):");
        screen::typed(&format!("echo $$ > {}", cgroup.display()));
        screen::typed(&format!("{} curl {WEB_V4}", inside(&self.shells[0])));
        screen::say("• n1's agent:");
        screen::typed(&format!("export LB_SOCKET={}", agent.socket().display()));
        screen::typed(&format!("{} get backends", lb.display()));
        screen::say("• change the cluster: edit a file, and look again:");
        screen::typed(&format!("ls {}", self.cluster.manifests.folder().display()));
        screen::say("Remove it all:");
        screen::typed("cargo xtask demo --clean");
    }
}
