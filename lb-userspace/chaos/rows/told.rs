//! Rows that are told by tests: the same ones as `cargo xtask test` runs, with what they count.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::Outcome;
use crate::Scale;

/// Before a number that a test tells, and what it is of.
const COUNTED: &str = "counted: ";

/// Runs the tests whose names contain one of these.
pub(super) fn run(scale: &Scale, names: &[&str], outcome: &mut Outcome) -> Result<()> {
    let tests = scale.tests.as_deref();
    let tests = tests.context("no test binary: `cargo xtask chaos` names it, as does --tests")?;
    let output = command(scale, tests, names).output().context("start the tests")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let passed = passed(&printed);
    outcome.must(format!("{passed} tests passed"), passed > 0);
    for name in names.iter().filter(|name| !is_run(&printed, name)) {
        outcome.must(format!("no test is called {name}"), false);
    }
    for (what, count) in counted(&printed) {
        outcome.note(format!("{count} {what}"));
    }
    for name in failed(&printed) {
        outcome.must(format!("{name} failed"), false);
    }
    outcome.must(format!("tests end with {:?}", output.status.code()), output.status.success());
    if !output.status.success() {
        eprintln!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// One after another: each of them is told how much by what it prints.
fn command(scale: &Scale, tests: &Path, names: &[&str]) -> Command {
    let mut command = Command::new(tests);
    command.args(["--nocapture", "--test-threads", "1"]).args(names);
    if !scale.fast {
        command.env("LB_FULL_SIZE", "1");
    }
    command
}

/// Whether there was a test with that in its name.
fn is_run(printed: &str, name: &str) -> bool {
    let begun = printed.lines().filter_map(|line| line.strip_prefix("test ")?.split_once(" ... "));
    begun.map(|(test, _)| test).any(|test| test.contains(name))
}

/// How many tests a test binary says have passed.
pub(super) fn passed(printed: &str) -> usize {
    let result = printed.lines().find_map(|line| line.strip_prefix("test result: "));
    let passed = result.and_then(|result| result.split_once(" passed")?.0.rsplit(' ').next());
    passed.and_then(|passed| passed.parse().ok()).unwrap_or(0)
}

/// What the tests counted, added up by what it is of.
fn counted(printed: &str) -> BTreeMap<&str, u64> {
    let mut sums = BTreeMap::new();
    // The first line of a test stands behind its name.
    for (_, told) in printed.lines().filter_map(|line| line.split_once(COUNTED)) {
        if let Some((number, what)) = told.split_once(' ')
            && let Ok(number) = number.parse::<u64>()
        {
            *sums.entry(what).or_default() += number;
        }
    }
    sums
}

fn failed(printed: &str) -> Vec<&str> {
    let end = printed.rsplit_once("failures:\n").map_or("", |(_, names)| names);
    end.lines().map(str::trim).take_while(|line| line.contains("::")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_added_up_and_failures_named() {
        let printed = "running 2 tests\n\
                       test packet::a ... counted: 7 packets alike\ncounted: 1 lost\nok\n\
                       test packet::b ... counted: 3 packets alike\nFAILED\n\n\
                       failures:\n\nfailures:\n    packet::b\n\n\
                       test result: FAILED. 1 passed; 1 failed; 0 ignored\n";
        assert_eq!(passed(printed), 1);
        assert_eq!(counted(printed), [("lost", 1), ("packets alike", 10)].into());
        assert_eq!(failed(printed), ["packet::b"]);
        assert!(is_run(printed, "packet::a") && !is_run(printed, "packet::c"));
    }
}
