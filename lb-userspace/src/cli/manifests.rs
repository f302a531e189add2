//! What commands make of the manifests that `-f` names.

use std::path::{Path, PathBuf};

use super::{Exit, Failure};
use crate::{
    cluster::{
        files::{Batch, Report, STANDARD_INPUT, Severity, Source},
        index::Index,
    },
    config::{Config, Forwarding},
    host,
    model::{Ignored, Node},
    plan::Plan,
};

/// What a node would do with the manifests.
pub struct Manifests {
    pub node: Node,
    pub plan: Plan,
    /// What was left out, and why.
    pub ignored: Vec<Ignored>,
    /// How many faults the manifests have. They have been told.
    pub errors: usize,
}

/// Reads the manifests, says on standard error what is wrong with them, and plans.
///
/// # Errors
/// If one of the paths does not exist.
pub fn read(config: &Config) -> Result<Manifests, Failure> {
    let paths = config.files.iter().map(|path| standard_input(path)).collect();
    let batch = Source::new(paths).read_once();
    let errors = tell(&batch);
    if batch.changes.is_empty() {
        let what = "a named file or folder does not exist";
        return Err(Failure::new(Exit::Error, what, "name what exists with -f"));
    }
    let mut index = Index::default();
    let faulty: Vec<_> = batch.reports.iter().filter_map(Report::ignored).collect();
    for change in batch.changes {
        index.apply(change);
    }
    // Another node's plan has nothing to do with this host's interfaces.
    let here = config.node_name == host::name();
    let interfaces = if here { host::addresses().unwrap_or_default() } else { vec![] };
    let node = config.node(index.node(&config.node_name), index.service_cidrs(), &interfaces);
    let nodes = (config.forwarding == Forwarding::Dsr).then(|| index.cluster_nodes());
    let node = Node { nodes, ..node };
    let mut plan = Plan::default();
    plan.update(&mut index, &node);
    let ignored = index.ignored().into_iter().chain(faulty).collect();
    Ok(Manifests { node, plan, ignored, errors })
}

/// Says what is wrong with the manifests, and counts the errors.
fn tell(batch: &Batch) -> usize {
    for report in &batch.reports {
        match report.severity {
            Severity::Warning => eprintln!("warning: {report}"),
            Severity::Error => eprintln!("error: {report}"),
        }
    }
    batch.reports.iter().filter(|report| report.severity == Severity::Error).count()
}

fn standard_input(path: &Path) -> PathBuf {
    if path == Path::new("-") { STANDARD_INPUT.into() } else { path.into() }
}
