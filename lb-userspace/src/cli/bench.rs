//! `lb bench`

use std::{fs, io::IsTerminal as _, path::PathBuf, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    Datapath, Exit, Failure,
    output::{FormatArg, show},
};
use crate::bench::{self, CASES, Size, Step, Wanted, compare, html};

/// Measure what packets, changes and restarts cost on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = cases())]
pub struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Measure this case only (repeat for more)
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Say how each figure differs from that of an older run (`-o json`)
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Write a page with charts
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Shorter rounds
    #[arg(long)]
    quick: bool,
    /// As many flows as there are in the largest cases; with fewer, a machine needs less memory
    #[arg(long, value_name = "N", default_value_t = bench::MANY,
        value_parser = clap::value_parser!(u32).range(i64::from(bench::FEWEST)..=i64::from(bench::MANY)))]
    flows: u32,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Measure the way from objects to the kernel, for a cluster of this size
    ///
    /// With --kubeconfig the objects go through the API server that it names: a namespace of its own
    /// gets that many Services and is deleted at the end. Every proxy of that cluster serves them
    /// meanwhile, so it had better be a test cluster.
    Sync {
        #[arg(long, default_value_t = 10_000)]
        services: u32,
        /// Of each Service
        #[arg(long, default_value_t = 10)]
        endpoints: u32,
        /// Start once, not three times
        #[arg(long)]
        quick: bool,
        /// Through this API server
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        #[command(flatten)]
        format: FormatArg,
    },
}

fn cases() -> String {
    let line = |(name, what): &(&str, &str)| format!("\n  {name:<20} {what}");
    format!("Cases:{}", CASES.iter().map(line).collect::<String>())
}

pub(super) fn run(args: Args, datapath: &dyn Datapath) -> Result<Exit, Failure> {
    let Args { part, cases, compare, html, quick, flows, format } = args;
    let old = compare.as_deref().map(compare::read).transpose()?;
    let (wanted, format) = match part {
        Some(Part::Sync { services, endpoints, quick, kubeconfig, format }) => {
            let sync = Some(Size { services: services.max(1), endpoints: endpoints.max(1) });
            (Wanted { quick, sync, kubeconfig, ..Wanted::default() }, format)
        }
        None => (Wanted { cases: checked(cases)?, quick, flows, ..Wanted::default() }, format),
    };
    let bar = bar();
    let measured = datapath.bench(&wanted, &|step| show_step(&bar, step));
    bar.finish_and_clear();
    let mut report = measured?;
    if let Some(old) = &old {
        compare::against(&mut report, old);
    }
    if let Some(path) = &html {
        fs::write(path, html::page(&report)).map_err(|error| {
            let what = format!("--html {}: {error}", path.display());
            Failure::new(Exit::Error, what, "name a file that can be written")
        })?;
    }
    show(&report, format.output)?;
    Ok(Exit::Fine)
}

/// Thousandths of each part of a run.
const FINE: u64 = 1000;

/// On a terminal; nothing otherwise.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(FINE);
    let look = ProgressStyle::with_template("{bar:32} {percent:>3} %  {elapsed}  {wide_msg}");
    bar.set_style(look.unwrap_or_else(|_| ProgressStyle::default_bar()));
    // Some steps take long.
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn show_step(bar: &ProgressBar, step: &Step<'_>) {
    let (at, of) = step.part;
    let over = at as u64 * FINE;
    bar.set_length(of as u64 * FINE);
    let within = step.done.map(|done| (done * FINE as f64) as u64);
    bar.set_position(within.map_or(bar.position().max(over), |within| over + within));
    let part = if of > 1 { format!("{} of {of}: ", at + 1) } else { String::new() };
    bar.set_message(format!("{part}{}", step.what));
}

fn checked(cases: Vec<String>) -> Result<Vec<String>, Failure> {
    let unknown = |case: &&String| !CASES.iter().any(|(name, _)| case.starts_with(name));
    match cases.iter().find(unknown) {
        Some(case) => {
            let what = format!("--case {case}: there is no such case");
            Err(Failure::new(Exit::Usage, what, "`lb bench --help` lists the cases"))
        }
        None => Ok(cases),
    }
}
