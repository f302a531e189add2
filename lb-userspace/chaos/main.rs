//! `lb-chaos`: faults, one after another, and what connections notice of them.
//!
//! A load balancer with two legs stands between a client and some backends, all of them network
//! namespaces; the agent is the real one. Each row breaks something while connections exchange data,
//! and prints what it counted. Ends with 0 only if every row held.

mod flood;
mod manifests;
mod rig;
mod rows;
mod servers;
mod streams;
mod udp;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use crate::rows::{Place, ROWS, Row};

/// Break things while connections look on
#[derive(Debug, Parser)]
#[command(name = "lb-chaos", max_term_width = 100)]
struct Args {
    /// Numbers of rows; none: all
    rows: Vec<u32>,
    /// Fewer connections, and only the rows that are quick
    #[arg(long)]
    fast: bool,
    /// Also the rows that change the machine's clock: for guests
    #[arg(long)]
    in_guest: bool,
    /// Print the rows, and where each runs, and do nothing
    #[arg(long)]
    list: bool,
    /// The `lb` binary
    #[arg(long, value_name = "PATH", env = "LB_CHAOS_BINARY")]
    lb: Option<PathBuf>,
    /// An `lb` binary whose maps lie otherwise [feature layout-b]
    #[arg(long, value_name = "PATH", env = "LB_CHAOS_OTHER")]
    other: Option<PathBuf>,
    /// Be the servers of the backend with this number
    #[arg(long, hide = true)]
    serve: Option<u8>,
    /// The test binary `it`, for rows that tests show
    #[arg(long, value_name = "PATH", env = "LB_CHAOS_TESTS")]
    tests: Option<PathBuf>,
}

/// How much of everything a run has.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    pub(crate) fast: bool,
    pub(crate) in_guest: bool,
    /// Connections that are held while things break.
    pub(crate) connections: usize,
    /// Connections that are opened while no agent runs.
    pub(crate) new: usize,
    /// How often something is done that is done again and again.
    pub(crate) repeats: usize,
    /// Of what is done once for each of many places, how many are passed over, and one.
    pub(crate) stride: usize,
    /// Packets of a flood.
    pub(crate) flood: usize,
    pub(crate) lb: PathBuf,
    /// One with another layout of the maps.
    pub(crate) other: Option<PathBuf>,
    /// Where the tests are.
    pub(crate) tests: Option<PathBuf>,
}

impl Scale {
    fn of(args: Args) -> Result<Self> {
        let Args { fast, in_guest, lb, other, tests, .. } = args;
        let lb = lb.map_or_else(beside, Ok)?;
        let [connections, new, repeats, stride, flood] = match fast {
            true => [200, 100, 5, 250, 20_000],
            false => [10_000, 5_000, 100, 50, 1_000_000],
        };
        Ok(Self { fast, in_guest, connections, new, repeats, stride, flood, lb, other, tests })
    }
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    lb_userspace::lab::allow_many_files()?;
    if let Some(id) = args.serve {
        return servers::serve(id);
    }
    let chosen = choose(&args)?;
    if args.list {
        for Row { number, name, place, .. } in &chosen {
            println!("{number:>3}  {:<7}  {name}", place.name());
        }
        return Ok(());
    }
    let scale = Scale::of(args)?;
    let failed = in_turn(&chosen, &scale);
    println!("{} rows, {} broken", chosen.len(), failed.len());
    if !failed.is_empty() {
        bail!("broken: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs the rows one after another; the numbers of those that did not hold.
fn in_turn(rows: &[&Row], scale: &Scale) -> Vec<String> {
    let mut failed = Vec::new();
    for row in rows {
        let Row { number, name, .. } = row;
        let begun = Instant::now();
        let outcome = row.run(scale);
        let seconds = begun.elapsed().as_secs_f64();
        let (numbers, held) = match outcome {
            Ok(outcome) => (outcome.numbers.join(", "), outcome.broken.is_empty()),
            Err(error) => (format!("{error:#}"), false),
        };
        let verdict = if held { "ok" } else { "BROKEN" };
        println!("{number:>3}  {name}: {numbers}  [{seconds:.1} s]  {verdict}");
        if !held {
            failed.push(number.to_string());
        }
    }
    failed
}

/// The rows that are named, or else all that run here.
fn choose(Args { rows, fast, in_guest, list, .. }: &Args) -> Result<Vec<&'static Row>> {
    if rows.is_empty() {
        let fits = |row: &&Row| match row.place {
            Place::Fast => true,
            Place::Slow | Place::Both => !fast,
            Place::Guest | Place::Kernels => *list,
        };
        return Ok(ROWS.iter().filter(fits).collect());
    }
    let find = |number: &u32| {
        let row = ROWS.iter().find(|row| row.number == *number);
        let row = row.with_context(|| format!("there is no row {number}: see --list"))?;
        let fits = *list
            || match row.place {
                Place::Fast | Place::Slow | Place::Both => true,
                Place::Guest => *in_guest,
                Place::Kernels => false,
            };
        if !fits {
            bail!("row {number} needs a guest: `cargo xtask chaos {number}` boots one");
        }
        Ok(row)
    };
    rows.iter().map(find).collect()
}

/// The `lb` that was built with this.
fn beside() -> Result<PathBuf> {
    let lb = std::env::current_exe()?.with_file_name("lb");
    lb.exists()
        .then_some(lb)
        .context("there is no `lb` beside this binary\nbuild it, or name it with --lb")
}
