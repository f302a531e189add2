//! `lb plan`

use super::{
    Exit, Failure,
    manifests::{self, Manifests},
    output::{self, FormatArg},
    plan_table::PlanTable,
};
use crate::{
    api::{AskError, Request, Response, ask},
    config::{Config, Options},
    host,
    plan::output::document,
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
    let Manifests { node, plan, ignored, errors } = manifests::read(&config)?;
    let document = serde_json::to_value(document(&plan, &node, ignored))
        .map_err(|error| Failure::new(Exit::Error, error, "report this: a plan that is no JSON"))?;
    output::show(&PlanTable::new(document)?, args.format.output)?;
    if errors == 0 {
        return Ok(Exit::Fine);
    }
    let what =
        format_args!("{errors} fault(s) in the manifests: the plan is without what they concern");
    Err(Failure::new(Exit::Error, what, "correct the lines named above"))
}
