//! `cargo xtask lint`: all that can be said about the code without running it.

mod invariants;
mod links;
mod matches;
mod source;
mod uses;

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    process, repo,
    setup::{self, Scope},
    timing::Timings,
};

/// Runs every check; the first that fails ends it.
pub(crate) fn run(timings: &mut Timings) -> Result<()> {
    timings.part("setup for lint", || setup::ensure(Scope::Lint))?;
    timings.part("fmt", || process::run(&mut process::cargo(["fmt", "--all", "--check"])))?;
    timings.part("invariants", check_invariants)?;
    timings.part("links", check_links)?;
    timings.part("clippy", || process::run(&mut clippy_host()))?;
    timings.part("clippy for BPF", || process::run(&mut clippy_bpf()))?;
    timings.part("xtask's own tests", || {
        process::run(&mut process::cargo(["test", "--quiet", "-p", "xtask"]))
    })?;
    timings.part("licences, bans, sources", || {
        process::run(&mut deny(&["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))
    })?;
    timings.part("advisories", check_advisories)
}

fn clippy_host() -> Command {
    process::cargo([
        "clippy",
        "--quiet",
        "--workspace",
        "--exclude=lb-ebpf",
        "--all-targets",
        "--all-features",
        "--",
        "-Dwarnings",
    ])
}

fn clippy_bpf() -> Command {
    let mut clippy = process::cargo(["clippy", "--quiet", "--package=lb-ebpf", "--release"]);
    clippy.args(["-Zbuild-std=core", "--target=bpfel-unknown-none", "--target-dir"]);
    clippy.arg(repo::target().join("clippy-bpf")).args(["--", "-Dwarnings"]);
    clippy.env("RUSTC_BOOTSTRAP", "1");
    clippy
}

fn deny(args: &[&str]) -> Command {
    process::cargo(
        ["deny", "--all-features", "--workspace"].into_iter().chain(args.iter().copied()),
    )
}

/// The list of advisories is fetched from the network; without one this says so and goes on.
fn check_advisories() -> Result<()> {
    let fetch = deny(&["fetch", "db"]);
    let mut fetch_in_time = Command::new("timeout");
    fetch_in_time.arg("60").arg(fetch.get_program()).args(fetch.get_args());
    if !process::succeeds(fetch_in_time.current_dir(repo::root())) {
        println!("SKIPPED: advisories: their database cannot be reached from here");
        return Ok(());
    }
    process::run(&mut deny(&["check", "--disable-fetch", "advisories"]))
}

fn check_invariants() -> Result<()> {
    let sources = source::read_all(repo::root())?;
    let mut broken = invariants::check(&sources);
    broken.sort();
    for line in &broken {
        eprintln!("{line}");
    }
    match broken.len() {
        0 => Ok(()),
        number => bail!("invariants of ARCHITECTURE.md broken: {number}"),
    }
}

fn check_links() -> Result<()> {
    let broken = links::check(repo::root())?;
    for line in &broken {
        eprintln!("{line}");
    }
    match broken.len() {
        0 => Ok(()),
        number => bail!("links that lead nowhere: {number}"),
    }
}
