//! What a host does not say in files: its kernel, its agent and its API server are asked.

use std::{net::TcpListener, path::Path, time::Duration};

use crate::{
    api::{AskError, Level, Request, Response, StatusLine, ask},
    cluster::watch,
    config::{Config, SourceKind},
    datapath::tc::Tc,
    net,
};

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Why the agent does not answer.
    pub agent_problem: Option<String>,
    /// How the agent holds tc programs, if it answers.
    pub tc: Option<Tc>,
    /// What the agent says of itself that is not well.
    pub agent_unwell: Vec<(String, Level, String)>,
    /// Interfaces with an XDP program of somebody else.
    pub foreign_xdp: Vec<String>,
    /// Keys whose address cannot be listened on, and why.
    pub taken: Vec<(&'static str, String)>,
    /// Why the API server cannot be asked.
    pub api_problem: Option<String>,
}

/// Asks them. Addresses and the API server are the agent's to have and to ask, where one answers.
pub fn look(config: &Config) -> Live {
    let (agent_problem, said) = match agent(&config.socket) {
        Ok(said) => (None, said),
        Err(problem) => (Some(problem), Vec::new()),
    };
    let tc = said.iter().find(|line| line.key == "Kernel").map(|line| Tc::told_by(&line.detail));
    let unwell = said.into_iter().filter(|line| line.level > Level::Ok);
    let agent_unwell = unwell.map(|line| (line.key, line.level, line.detail)).collect();
    let is_alone = agent_problem.is_none();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (foreign_xdp, api_problem) = match runtime {
        Ok(runtime) => runtime.block_on(async {
            let asks = !is_alone && config.source == SourceKind::Kubernetes;
            let api = if asks { api_problem(config).await } else { None };
            (foreign_xdp(&config.bpffs.join("links")).await, api)
        }),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let taken = if is_alone { Vec::new() } else { taken(config) };
    Live { agent_problem, tc, agent_unwell, foreign_xdp, taken, api_problem }
}

/// The agent's status, or why there is none.
fn agent(socket: &Path) -> Result<Vec<StatusLine>, String> {
    match ask(socket, &Request::Status) {
        Ok(Response::Status(report)) => Ok(report.lines),
        Ok(_) => Err("its answer is about something else".to_owned()),
        Err(AskError::Unreachable { error, .. }) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// A program is ours if its link is pinned.
async fn foreign_xdp(links: &Path) -> Vec<String> {
    let found = net::xdp_programs().await.unwrap_or_default();
    let foreign = found.into_iter().filter(|it| !links.join(format!("xdp@{}", it.index)).exists());
    foreign.map(|it| it.interface).collect()
}

fn taken(config: &Config) -> Vec<(&'static str, String)> {
    let addresses = [
        ("metricsAddress", config.metrics_address),
        ("healthAddress", config.health_address),
        ("pageAddress", config.page_address),
    ];
    let problem = |(key, listen): (&'static str, crate::config::Listen)| {
        let address = listen.0?;
        let error = TcpListener::bind(address).err()?;
        Some((key, format!("{address}: {error}")))
    };
    addresses.into_iter().filter_map(problem).collect()
}

async fn api_problem(config: &Config) -> Option<String> {
    let asked = watch::reach(config.kubeconfig.as_deref());
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(())) => None,
        Ok(Err(problem)) => Some(problem),
        Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
