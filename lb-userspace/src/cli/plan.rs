//! `lb plan`

use std::path::{Path, PathBuf};

use super::{
    Exit, Failure,
    output::{self, FormatArg},
    plan_table::PlanTable,
};
use crate::{
    api::{AskError, Request, Response, ask},
    cluster::{
        files::{Batch, Report, STANDARD_INPUT, Severity, Source},
        index::Index,
    },
    config::{Config, Options},
    host,
    plan::{Plan, output::document},
};

/// Show what a node would do, without a kernel and without privileges
///
/// With -f from manifests, such as `kubectl get svc,endpointslices,endpoints,nodes,pods -A -o yaml`
/// writes them (`-f -` reads standard input); else from the running agent.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    let config = Config::load(args.options, &host::name())?;
    if config.files.is_empty() {
        let Response::Plan(document) = ask(&config.socket, &Request::Plan)? else {
            return Err(AskError::Answer("it is no plan".into()).into());
        };
        output::show(&PlanTable::new(document)?, args.format.output)?;
        return Ok(Exit::Fine);
    }
    let batch =
        Source::new(config.files.iter().map(|path| standard_input(path)).collect()).read_once();
    let errors = tell(&batch);
    if batch.changes.is_empty() {
        let what = "a named file or folder does not exist";
        return Err(Failure::new(Exit::Error, what, "name what exists with -f"));
    }
    output::show(&PlanTable::new(planned(&config, batch)?)?, args.format.output)?;
    if errors == 0 {
        return Ok(Exit::Fine);
    }
    let what =
        format_args!("{errors} fault(s) in the manifests: the plan is without what they concern");
    Err(Failure::new(Exit::Error, what, "correct the lines named above"))
}

/// The plan of what was read, as the document that it is for everyone else.
fn planned(config: &Config, batch: Batch) -> Result<serde_json::Value, Failure> {
    let mut index = Index::default();
    let faulty = batch.reports.iter().filter_map(Report::ignored);
    let faulty: Vec<_> = faulty.collect();
    for change in batch.changes {
        index.apply(change);
    }
    // Another node's plan has nothing to do with this host's interfaces.
    let here = config.node_name == host::name();
    let interfaces = if here { host::addresses().unwrap_or_default() } else { vec![] };
    let node = config.node(index.node(&config.node_name), index.service_cidrs(), &interfaces);
    let mut plan = Plan::default();
    plan.update(&mut index, &node);
    let ignored = index.ignored().into_iter().chain(faulty).collect();
    serde_json::to_value(document(&plan, &node, ignored))
        .map_err(|error| Failure::new(Exit::Error, error, "report this: a plan that is no JSON"))
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
