//! Lists: of pods by label, and of endpoints as the agent's maps have them.

use anyhow::{Context as _, Result};
use lb_userspace::lab::Agent;
use serde_json::Value;

use crate::{cluster::Cluster, kubelet::Pod, screen};

/// `kubectl get pods -l app=web`, and one pod that the label does not find.
pub(crate) fn pods(cluster: &Cluster<'_>, app: &str) {
    screen::typed(&format!("kubectl get pods -l app={app} -L app,version -o wide"));
    let row = |pod: &Pod| {
        let [v4, v6] = &pod.addresses;
        let state = if pod.terminating { "terminating" } else { "Running" };
        let ready = if pod.ready { "True" } else { "False" };
        [&pod.name, state, ready, pod.app, pod.version, &pod.node, v4, v6].map(str::to_owned).into()
    };
    let header = ["NAME", "STATUS", "READY", "APP", "VERSION", "NODE", "IPV4", "IPV6"];
    screen::table(&header, cluster.selected(app).map(row));
}

/// `lb get backends demo/NAME`: what the kernel has, with the names of the pods beside it.
pub(crate) fn backends(agent: &Agent, cluster: &Cluster<'_>, service: &str) -> Result<()> {
    let node = agent.node().name();
    screen::typed(&format!("lb get backends demo/{service}        # on {node}, from the maps"));
    let listed = agent.json(["get", "backends", &format!("demo/{service}")])?;
    let items = listed["items"].as_array().context("a list of backends")?;
    let row = |item: &Value| {
        let text = |field: &str| item[field].as_str().unwrap_or("-").to_owned();
        let address = text("address");
        let whose = |pod: &&Pod| pod.addresses.contains(&address);
        let pod = cluster.pods.iter().find(whose).map_or("(no pod)", |pod| pod.name.as_str());
        let port = item["port"].to_string();
        vec![pod.to_owned(), address, port, text("node"), text("state")]
    };
    screen::table(&["POD", "ADDRESS", "#PORT", "NODE", "STATE"], items.iter().map(row));
    Ok(())
}
