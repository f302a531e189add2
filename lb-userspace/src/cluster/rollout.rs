//! Turns the pods of an agents' DaemonSet into ones that take back what agents put into the kernel of
//! their node, on every node, and waits until all have.
//!
//! Deleting the DaemonSet stops agents and leaves their nodes as they are, which is what an agent's end
//! should do and what the end of an installation should not. A pod of the changed DaemonSet begins with
//! a container that uninstalls; only when that has succeeded the pod is ready.

use std::time::Duration;

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetUpdateStrategy, RollingUpdateDaemonSet},
        core::v1::{Container, PodSpec},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{Instant, interval, timeout_at};

use super::watch;
use crate::model::ObjectName;

/// How often the API server is asked.
const PACE: Duration = Duration::from_secs(1);
/// The container that runs the agent.
const AGENT: &str = "lb";

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Nodes that have uninstalled.
    pub done: i32,
    /// Nodes that the DaemonSet covers.
    pub nodes: i32,
}

/// Why not every node has uninstalled.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    #[error("{0}")]
    Client(#[from] watch::ClientError),
    #[error("DaemonSet {name}: {source}")]
    Api { name: ObjectName, source: Box<kube::Error> },
    #[error("DaemonSet {name}: spec.template.spec.containers: none is called `{AGENT}`")]
    NoAgent { name: ObjectName },
    #[error("DaemonSet {name}: {} of {} nodes have uninstalled{}", .progress.done, .progress.nodes, said(.last.as_deref()))]
    Late { name: ObjectName, progress: Progress, last: Option<Box<kube::Error>> },
}

fn said(last: Option<&kube::Error>) -> String {
    last.map(|error| format!("; the last answer: {error}")).unwrap_or_default()
}

/// As [`uninstall`], with the client that a kubeconfig, or the pod we run in, gives.
///
/// # Errors
/// As for [`uninstall`].
pub async fn uninstall_with(
    kubeconfig: Option<&std::path::Path>,
    name: &ObjectName,
    patience: Duration,
    tell: impl FnMut(Progress),
) -> Result<Progress, RolloutError> {
    uninstall(watch::client(kubeconfig).await?, name, patience, tell).await
}

/// Makes every node of that DaemonSet uninstall; `tell` hears of each step.
///
/// # Errors
/// If there is no such DaemonSet, it may not be changed, or not every node is done in time.
pub async fn uninstall(
    client: Client,
    name: &ObjectName,
    patience: Duration,
    mut tell: impl FnMut(Progress),
) -> Result<Progress, RolloutError> {
    let until = Instant::now() + patience;
    let api = Api::<DaemonSet>::namespaced(client, &name.namespace);
    let failed = |source| RolloutError::Api { name: name.clone(), source: Box::new(source) };
    let current = api.get(&name.name).await.map_err(failed)?;
    let patch = patch(&current).ok_or_else(|| RolloutError::NoAgent { name: name.clone() })?;
    let params = PatchParams::default();
    let changed = api.patch(&name.name, &params, &Patch::Merge(patch)).await.map_err(failed)?;
    let generation = changed.metadata.generation;

    let (mut progress, mut last) = (Progress { done: 0, nodes: 0 }, None);
    let mut ticks = interval(PACE);
    loop {
        let asked = async {
            ticks.tick().await;
            api.get(&name.name).await
        };
        match timeout_at(until, asked).await {
            Ok(Ok(now)) => {
                let (seen, done) = look(&now, generation);
                if seen != progress {
                    tell(seen);
                }
                (progress, last) = (seen, None);
                if done {
                    return Ok(progress);
                }
            }
            // Services may have stopped here, the API server's among them: another node may answer.
            Ok(Err(error)) => last = Some(Box::new(error)),
            Err(_) => return Err(RolloutError::Late { name: name.clone(), progress, last }),
        }
    }
}

/// What is to change: pods uninstall before they are ready, and then stay, for one that ends would be
/// started again. All nodes at once.
fn patch(current: &DaemonSet) -> Option<serde_json::Value> {
    let pod: &PodSpec = current.spec.as_ref()?.template.spec.as_ref()?;
    let agent = pod.containers.iter().find(|container| container.name == AGENT)?;
    let without_probes = Container {
        startup_probe: None,
        liveness_probe: None,
        readiness_probe: None,
        lifecycle: None,
        ports: None,
        ..agent.clone()
    };
    let with = |name: &str, args: &[&str]| Container {
        name: name.to_owned(),
        args: Some(args.iter().map(|&arg| arg.to_owned()).collect()),
        ..without_probes.clone()
    };
    let strategy = DaemonSetUpdateStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDaemonSet {
            max_unavailable: Some(IntOrString::String("100%".to_owned())),
            max_surge: Some(IntOrString::Int(0)),
        }),
    };
    Some(json!({"spec": {
        "updateStrategy": strategy,
        "template": {"spec": {
            "initContainers": [with("uninstall", &["uninstall"])],
            "containers": [with(AGENT, &["uninstall", "--stay"])],
        }},
    }}))
}

/// How far it is, and whether that is all.
fn look(now: &DaemonSet, generation: Option<i64>) -> (Progress, bool) {
    let Some(status) = &now.status else { return (Progress { done: 0, nodes: 0 }, false) };
    let nodes = status.desired_number_scheduled;
    let updated = status.updated_number_scheduled.unwrap_or(0);
    let done = updated.min(status.number_available.unwrap_or(0));
    // What the controller says of an older one is nothing about this.
    if status.observed_generation < generation {
        return (Progress { done: 0, nodes }, false);
    }
    (Progress { done, nodes }, done >= nodes && status.current_number_scheduled <= updated)
}
