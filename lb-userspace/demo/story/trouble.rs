//! A pod that dies, and a rollout that should not have been.

use anyhow::{Context as _, Result};

use super::Story;
use crate::{endpoints, screen, traffic::Change};

impl Story<'_> {
    /// Nobody is asked: the process is gone, and the kubelet finds out.
    pub(super) fn a_pod_dies_and_respawns(&mut self) -> Result<()> {
        self.heading("A pod dies and respawns with a new address");
        let before = self.cluster.endpoints();
        let victim = before.last().context("an endpoint")?.clone();
        screen::typed(&format!("kill -9 …        # the process of {victim}"));
        self.cluster.pod(&victim)?.crash()?;
        self.cluster.pod(&victim)?.ready = false;
        let at = self.cluster.publish()?;
        let after = self.cluster.endpoints();
        self.judge("a pod died", &Change { at, before: &before, after: &after, gap: true });

        let before = after;
        let name = self.cluster.start_ready("web", 1)?.concat();
        let at = self.cluster.publish()?;
        let after = self.cluster.endpoints();
        screen::say(&format!("{name} takes its place, with an address of its own"));
        self.judge("it respawned", &Change { at, before: &before, after: &after, gap: false });
        self.cluster.remove(&[victim])?;
        endpoints::backends(&self.agents[0], &self.cluster, "web")
    }

    /// The new version never becomes ready; one old pod has already been taken down for it.
    pub(super) fn a_rollout_goes_bad(&mut self) -> Result<()> {
        self.heading("A bad rollout, and its rollback");
        screen::typed("kubectl set image deployment/web http=demo/http:v2");
        let before = self.cluster.endpoints();
        let old = before.last().context("an endpoint")?.clone();
        let broken = [self.cluster.start_pod("web", "v2")?, self.cluster.start_pod("web", "v2")?];
        self.cluster.terminate(std::slice::from_ref(&old))?;
        let at = self.cluster.publish()?;
        let after = self.cluster.endpoints();
        endpoints::pods(&self.cluster, "web");
        screen::say("v2 runs and answers, but is not ready: no connection may reach it");
        self.judge("bad rollout", &Change { at, before: &before, after: &after, gap: false });
        self.cluster.remove(&[old])?;

        screen::typed("kubectl rollout undo deployment/web");
        let before = after;
        self.cluster.start_ready("web", 1)?;
        self.cluster.terminate(&broken)?;
        let at = self.cluster.publish()?;
        let after = self.cluster.endpoints();
        self.judge("rolled back", &Change { at, before: &before, after: &after, gap: false });
        self.cluster.remove(&broken)?;
        endpoints::pods(&self.cluster, "web");
        Ok(())
    }
}
