//! The cluster as its users see it: a Deployment of pods, and the files that say so.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context as _, Result};
use lb_userspace::lab::Lab;

use crate::{kubelet::Pod, manifests::Manifests, world::World};

/// Names of backends.
pub(crate) type Names = BTreeSet<String>;

/// Pods and manifests.
pub(crate) struct Cluster<'a> {
    lab: &'a Lab,
    world: &'a World,
    pub(crate) manifests: Manifests,
    pub(crate) pods: Vec<Pod>,
    /// How many pods there have ever been: the next one's number and address.
    count: u8,
}

impl<'a> Cluster<'a> {
    pub(crate) fn create(lab: &'a Lab, world: &'a World) -> Result<Self> {
        let manifests = Manifests::create(&lab.folder())?;
        Ok(Self { lab, world, manifests, pods: Vec::new(), count: 0 })
    }

    /// Starts a pod on the next node in turn; its process answers, and nobody knows yet.
    pub(crate) fn start_pod(&mut self, app: &'static str, version: &'static str) -> Result<String> {
        self.count += 1;
        let node = &self.world.nodes[usize::from(self.count + 1) % 2];
        let name = format!("{app}-{}", self.count);
        let network = Pod::network(self.lab, node, 10 + self.count, &name)?;
        let mut pod = Pod::new((name.clone(), app, version), node, network);
        pod.run()?;
        self.pods.push(pod);
        Ok(name)
    }

    /// Starts some pods and finds them ready.
    pub(crate) fn start_ready(&mut self, app: &'static str, count: usize) -> Result<Vec<String>> {
        let start = |_| {
            let name = self.start_pod(app, "v1")?;
            self.pod(&name)?.ready = true;
            Ok(name)
        };
        (0..count).map(start).collect()
    }

    pub(crate) fn pod(&mut self, name: &str) -> Result<&mut Pod> {
        let mut pods = self.pods.iter_mut();
        pods.find(|pod| pod.name == name).with_context(|| format!("there is no pod {name}"))
    }

    /// Writes what the cluster now knows of its pods; the moment from which it can be read.
    pub(crate) fn publish(&self) -> Result<Instant> {
        let documents: Vec<_> = self.pods.iter().map(Pod::manifest).collect();
        self.manifests.put("pods.yaml", &documents.join("---\n"))
    }

    /// Marks pods as on their way out; they go on answering.
    pub(crate) fn terminate(&mut self, names: &[String]) -> Result<()> {
        names.iter().try_for_each(|name| {
            self.pod(name)?.terminating = true;
            Ok(())
        })
    }

    /// The end of their grace: they leave the files, then their processes end.
    pub(crate) fn remove(&mut self, names: &[String]) -> Result<()> {
        let (gone, stay) = std::mem::take(&mut self.pods)
            .into_iter()
            .partition::<Vec<_>, _>(|pod| names.contains(&pod.name));
        self.pods = stay;
        self.publish()?;
        drop(gone);
        Ok(())
    }

    /// The pods that carry the label `app`, in the order of their start.
    pub(crate) fn selected(&self, app: &str) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| pod.app == app)
    }

    /// Who may get new connections to the Service.
    pub(crate) fn endpoints(&self) -> Names {
        let ready = self.selected("web").filter(|pod| pod.is_endpoint());
        ready.map(|pod| pod.name.clone()).collect()
    }

    /// Whose processes run.
    pub(crate) fn alive(&self) -> Names {
        let alive = self.pods.iter().filter(|pod| pod.is_alive());
        alive.map(|pod| pod.name.clone()).collect()
    }
}
