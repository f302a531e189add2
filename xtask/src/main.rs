//! What a developer types: `cargo xtask <verb>`. Each verb first sets up what it needs.

mod build;
mod chaos;
mod demo;
mod fuzz;
mod image;
mod lint;
mod mutants;
mod process;
mod repo;
mod session;
mod setup;
mod sudo;
mod test;
mod timing;
mod vmtest;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{mutants::Selection, setup::Scope, test::Level, timing::Timings};

/// Builds, tests, checks and shows the load balancer.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what a verb needs (default: what all of them need)
    Setup {
        #[arg(value_enum, default_value_t = Scope::All)]
        scope: Scope,
    },
    /// Build the `lb` binary with the eBPF object inside
    Build {
        /// Optimised, as released
        #[arg(long)]
        release: bool,
    },
    /// Run the tests of the named levels; without a name all of them, the demo and
    /// the quick faults
    Test {
        #[arg(value_enum)]
        levels: Vec<Level>,
    },
    /// Show the load balancer at work in network namespaces
    Demo {
        /// Passed on (`--fast`, `--keep`, `--help`)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Break things while connections look on, and print what they noticed
    Chaos {
        /// Passed on: numbers of rows, `--fast`, `--list`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Ask an operator's questions in a real terminal and browser, and write docs/operators.md
    Session,
    /// Feed random inputs to the programs and the rules, for longer than `test` does
    Fuzz {
        #[arg(value_enum)]
        target: fuzz::Target,
        /// How many
        #[arg(long, default_value_t = 10_000_000)]
        inputs: u64,
        /// Repeats a run
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Make a container image of one static binary, and its bill of materials
    Image,
    /// Formatting, clippy for host and BPF, the invariants, links, licences
    Lint,
    /// Plant faults in a copy of the tree; the tests must notice each of them
    Mutants(Selection),
    /// Run the tests on Debian's kernels, in virtual machines
    Vmtest(vmtest::Selection),
    /// What CI runs: lint, then test
    Ci,
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        // Not by returning it: with RUST_BACKTRACE set that would bury it under a backtrace.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    let mut timings = Timings::start();
    match verb {
        Verb::Setup { scope } => setup::announce(scope),
        Verb::Build { release } => build::all(release),
        Verb::Test { levels } => test::run(&levels, &mut timings),
        Verb::Demo { args } => demo::exec(&args),
        Verb::Chaos { args } => chaos::run(&args, &mut timings),
        Verb::Session => session::run(),
        Verb::Fuzz { target, inputs, seed } => fuzz::run(target, inputs, seed),
        Verb::Image => image::run(&mut timings),
        Verb::Lint => lint::run(&mut timings).map(|()| timings.print("lint")),
        Verb::Mutants(selection) => mutants::run(&selection),
        Verb::Vmtest(selection) => vmtest::run(&selection, &mut timings).map(drop),
        Verb::Ci => {
            lint::run(&mut timings)?;
            test::run(&[], &mut timings)
        }
    }
}
