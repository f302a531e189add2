//! `lb uninstall`

use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Datapath, Exit, Failure,
    output::{Document, Format, FormatArg, structured, write},
};
use crate::{
    cluster::rollout::{self, Progress},
    config::{BPFFS, Period},
    model::ObjectName,
};

/// Remove everything from this node's kernel: links, programs and maps
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the pins are
    #[arg(long, env = "LB_BPFFS", value_name = "PATH", default_value = BPFFS)]
    bpffs: PathBuf,
    /// Do it on every node of the agents' DaemonSet, and wait until all are done; its pods then stay
    /// without an agent
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_name)]
    daemonset: Option<ObjectName>,
    /// How long all nodes together may take
    #[arg(long, value_name = "DURATION", default_value = "5m", requires = "daemonset")]
    timeout: Period,
    /// How to reach the API server [default: in-cluster, else the usual places]
    #[arg(long, env = "LB_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Then wait for SIGTERM: for a DaemonSet's pods, which would be started again
    #[arg(long, conflicts_with = "daemonset")]
    stay: bool,
    #[command(flatten)]
    format: FormatArg,
}

fn object_name(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err("it is NAMESPACE/NAME".to_owned()),
    }
}

#[derive(Serialize)]
struct Removed {
    removed: Vec<String>,
}

/// Removes everything, and says what.
pub(super) fn remove(bpffs: &Path, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    write(&lines(datapath.uninstall(bpffs)?)).map(|_| Exit::Fine)
}

fn lines(removed: Vec<String>) -> String {
    match removed.is_empty() {
        true => "nothing was installed\n".into(),
        false => removed.into_iter().map(|name| format!("removed {name}\n")).collect(),
    }
}

pub(super) fn run(args: &Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    if let Some(name) = &args.daemonset {
        return everywhere(args, name);
    }
    let removed = datapath.uninstall(&args.bpffs)?;
    let text = match args.format.output {
        format @ (Format::Json | Format::Yaml) => {
            structured(&Document::new("Uninstall", Removed { removed }), format)?
        }
        Format::Name => removed.into_iter().map(|name| name + "\n").collect(),
        Format::Table | Format::Wide => lines(removed),
    };
    write(&text)?;
    if args.stay {
        runtime()?.block_on(until_told())?;
    }
    Ok(Exit::Fine)
}

fn everywhere(args: &Args, name: &ObjectName) -> Result<Exit, Failure> {
    let tell = |Progress { done, nodes }| eprintln!("{done} of {nodes} nodes have uninstalled");
    let patience = args.timeout.0;
    let work = rollout::uninstall_with(args.kubeconfig.as_deref(), name, patience, tell);
    let Progress { nodes, .. } = runtime()?.block_on(work).map_err(|error| {
        Failure::new(
            Exit::Error,
            error,
            format!(
                "`kubectl -n {} describe daemonset {}` and its pods say what is in the way",
                name.namespace, name.name
            ),
        )
    })?;
    let what = format!("nothing is left on {nodes} nodes; DaemonSet {name} can be deleted\n");
    write(&what).map(|_| Exit::Fine)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Error, error, "free some threads or memory"))
}

async fn until_told() -> Result<(), Failure> {
    let listen = |kind| {
        signal(kind)
            .map_err(|error| Failure::new(Exit::Error, error, "the kernel refuses signal handlers"))
    };
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
