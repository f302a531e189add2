//! `lb bench`

use std::io::IsTerminal as _;

use super::{
    Datapath, Exit, Failure,
    output::{FormatArg, show},
};
use crate::bench::{CASES, Wanted};

/// Measure what packets, changes and restarts cost on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = cases())]
pub struct Args {
    /// Measure this case only (repeat for more)
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Less than a minute: shorter rounds
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    format: FormatArg,
}

fn cases() -> String {
    let line = |(name, what): &(&str, &str)| format!("\n  {name:<20} {what}");
    format!("Cases:{}", CASES.iter().map(line).collect::<String>())
}

pub(super) fn run(args: Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    let Args { cases, quick, format } = args;
    let known = |case: &&String| !CASES.iter().any(|(name, _)| case.starts_with(name));
    if let Some(case) = cases.iter().find(known) {
        let what = format!("--case {case}: there is no such case");
        return Err(Failure::new(Exit::Usage, what, "`lb bench --help` lists the cases"));
    }
    let bar = if std::io::stderr().is_terminal() {
        indicatif::ProgressBar::new_spinner()
    } else {
        indicatif::ProgressBar::hidden()
    };
    let report = datapath.bench(&Wanted { cases, quick }, &|step| {
        bar.set_message(step.to_owned());
        bar.tick();
    })?;
    bar.finish_and_clear();
    show(&report, format.output)?;
    Ok(Exit::Fine)
}
