//! More pods, fewer pods.

use anyhow::Result;

use super::Story;
use crate::{endpoints, screen, traffic::Change};

impl Story<'_> {
    pub(super) fn it_is_scaled_up(&mut self) -> Result<()> {
        self.heading("Scaled from 3 to 5");
        screen::typed("kubectl scale deployment web --replicas=5");
        let before = self.cluster.endpoints();
        self.cluster.start_ready("web", 2)?;
        let at = self.cluster.publish()?;
        let after = self.cluster.endpoints();
        self.judge("scaled 3 → 5", &Change { at, before: &before, after: &after, gap: false });
        endpoints::backends(&self.agents[1], &self.cluster, "web")
    }

    pub(super) fn it_is_scaled_down(&mut self) -> Result<()> {
        self.heading("Scaled from 5 to 2");
        screen::typed("kubectl scale deployment web --replicas=2");
        let before = self.cluster.endpoints();
        let all: Vec<_> = self.cluster.selected("web").map(|pod| pod.name.clone()).collect();
        let (_, leaving) = all.split_at(2);
        self.cluster.terminate(leaving)?;
        let at = self.cluster.publish()?;
        let after = self.cluster.endpoints();
        endpoints::pods(&self.cluster, "web");
        self.judge("scaled 5 → 2", &Change { at, before: &before, after: &after, gap: false });
        self.cluster.remove(leaving)?;
        screen::say("their grace is over: the processes are gone");
        endpoints::backends(&self.agents[1], &self.cluster, "web")
    }
}
