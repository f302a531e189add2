//! `cargo xtask test`: four levels, each a part of the same test binaries, then the demo and
//! the quick faults.

mod listing;

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::{
    chaos, demo, process,
    setup::{self, Scope},
    sudo,
    timing::Timings,
};

/// What a test touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Level {
    /// Rules about packets and Services: values in, values out
    Rules,
    /// The kernel's programs on single packets (BPF_PROG_TEST_RUN)
    Packet,
    /// Real sockets across network namespaces
    Netns,
    /// The agent against an API server
    Kube,
}

/// Fewer tests than this at a level is an error: they went missing.
const MINIMUM: &[(Level, usize)] =
    &[(Level::Rules, 60), (Level::Packet, 60), (Level::Netns, 25), (Level::Kube, 12)];

impl Level {
    /// All, cheapest first.
    pub(crate) const ALL: &[Self] = &[Self::Rules, Self::Packet, Self::Netns, Self::Kube];

    /// What nextest calls these tests. Rules are whatever the others are not, so that no test is
    /// left out.
    pub(crate) fn filter(self) -> String {
        match self {
            Self::Rules => {
                let others = [Self::Packet, Self::Netns, Self::Kube].map(Self::filter);
                format!("not ({})", others.join(" or "))
            }
            Self::Packet | Self::Netns | Self::Kube => {
                format!("(binary(it) and test(/^{}::/))", self.name())
            }
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Packet => "packet",
            Self::Netns => "netns",
            Self::Kube => "kube",
        }
    }

    /// Why its tests need root, if they do.
    const fn why_root(self) -> Option<&'static str> {
        match self {
            Self::Rules | Self::Kube => None,
            Self::Packet => Some("packet tests load BPF programs"),
            Self::Netns => Some("netns tests make network namespaces"),
        }
    }

    fn minimum(self) -> usize {
        MINIMUM.iter().find(|(level, _)| *level == self).map_or(1, |(_, minimum)| *minimum)
    }
}

/// Runs the levels (none named: all, the demo and the quick faults) and ends with a table.
pub(crate) fn run(levels: &[Level], timings: &mut Timings) -> Result<()> {
    let result = run_parts(levels, timings);
    timings.print("test");
    let passed = result?;
    println!("{passed} passed, 0 failed");
    Ok(())
}

fn run_parts(levels: &[Level], timings: &mut Timings) -> Result<usize> {
    timings.part("setup", || setup::ensure(Scope::Test))?;
    // Integration tests bring the binaries along, the demo's too.
    timings.part("build", || process::run(nextest("run").arg("--no-run")))?;
    let mut chosen = if levels.is_empty() { Level::ALL.to_vec() } else { levels.to_vec() };
    chosen.sort_unstable();
    chosen.dedup();

    let mut passed = 0;
    let mut failed = Vec::new();
    for level in chosen {
        let tests = count(level)?;
        let outcome =
            timings.counted(level.name(), Some(tests), || process::run(&mut tests_of(level)?));
        match outcome.and_then(|()| enough(level, tests)) {
            Ok(()) => passed += tests,
            Err(error) => failed.push(format!("{}: {error}", level.name())),
        }
    }
    if levels.is_empty() {
        for (name, run) in [
            ("demo --fast", demo::run_fast as fn() -> Result<()>),
            ("chaos --fast", chaos::run_fast),
        ] {
            if let Err(error) = timings.part(name, run) {
                failed.push(format!("{name}: {error}"));
            }
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(passed)
}

/// The command that runs the tests of a level: as root where they need it.
pub(crate) fn tests_of(level: Level) -> Result<Command> {
    let mut command = nextest("run");
    command.args(["--filterset", &level.filter(), "--no-tests=fail"]);
    if let Some(why) = level.why_root()
        && let Some(runner) = sudo::runner(why)?
    {
        command.env(runner_variable()?, runner);
    }
    Ok(command)
}

/// The command that runs lb-common's own tests, which compile in seconds and need nobody's leave.
pub(crate) fn tests_of_the_rules_alone() -> Command {
    process::cargo(["nextest", "run", "-p", "lb-common", "--features", "model", "--no-tests=fail"])
}

/// The number of tests at a level; one that is ignored is an error.
fn count(level: Level) -> Result<usize> {
    let printed = process::output(nextest("list").args([
        "--message-format",
        "json",
        "--run-ignored",
        "all",
        "--filterset",
        &level.filter(),
    ]))?;
    let listing = listing::parse(&printed).context("nextest's list of tests")?;
    if !listing.ignored.is_empty() {
        bail!("ignored tests prove nothing: {}", listing.ignored.join(", "));
    }
    Ok(listing.tests)
}

fn enough(level: Level, tests: usize) -> Result<()> {
    let minimum = level.minimum();
    if tests < minimum {
        bail!("{tests} tests, where at least {minimum} are expected: some went missing");
    }
    Ok(())
}

fn nextest(verb: &str) -> Command {
    process::cargo([
        "nextest",
        verb,
        "-p",
        "lb-common",
        "-p",
        "lb-userspace",
        "--features",
        "lb-userspace/lab",
    ])
}

/// Cargo's variable for a program that starts test binaries on this host.
fn runner_variable() -> Result<String> {
    let printed = process::output(Command::new("rustc").arg("-vV"))?;
    let host = printed.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("`rustc -vV` tells no host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace(['-', '.'], "_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_belongs_to_exactly_one_level() {
        let others = "(binary(it) and test(/^packet::/)) or (binary(it) and test(/^netns::/)) \
                      or (binary(it) and test(/^kube::/))";
        assert_eq!(Level::Rules.filter(), format!("not ({others})"));
        for level in &Level::ALL[1..] {
            assert!(others.contains(&level.filter()), "{level:?}");
        }
    }

    #[test]
    fn a_level_that_lost_tests_fails() {
        assert!(enough(Level::Kube, 12).is_ok());
        let error = enough(Level::Kube, 11).unwrap_err();
        assert_eq!(
            error.to_string(),
            "11 tests, where at least 12 are expected: some went missing"
        );
    }

    #[test]
    fn every_level_has_a_minimum() {
        for level in Level::ALL {
            assert!(MINIMUM.iter().any(|(of, least)| of == level && *least > 1), "{level:?}");
        }
    }
}
