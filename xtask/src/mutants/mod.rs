//! `cargo xtask mutants`: faults planted one at a time in a copy of the tree. A fault that no test
//! notices shows a rule that nothing guards.

mod faults;
mod tree;

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::{
    faults::{FAULTS, Fault},
    tree::Tree,
};
use crate::{
    process, repo,
    setup::{self, Scope},
    test::{self, Level},
};

/// Which faults to plant.
#[derive(Args)]
pub(crate) struct Selection {
    /// By name; none: all
    names: Vec<String>,
    /// That many, drawn at random
    #[arg(long, value_name = "N", conflicts_with = "names")]
    random: Option<usize>,
    /// Print the table of faults and check that each still has its place in the code
    #[arg(long)]
    list: bool,
}

/// How a run of the tests ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// This test noticed.
    Red(String),
    /// Nobody noticed.
    Green,
    /// It did not even compile, or the tests could not run: that proves nothing.
    Broken,
}

/// Plants the selected faults; an error if one is not noticed.
pub(crate) fn run(selection: &Selection) -> Result<()> {
    let chosen = choose(selection, FAULTS)?;
    for fault in FAULTS {
        tree::planted(repo::root(), fault)?;
    }
    if selection.list {
        chosen.iter().for_each(|fault| {
            println!("{:<38} {:<7} {}", fault.name, fault.level.name(), fault.file);
        });
        return Ok(());
    }
    setup::ensure(Scope::Test)?;
    let tree = Tree::copy(repo::root(), &repo::target().join("mutants"))?;
    for level in chosen.iter().map(|fault| fault.level).collect::<BTreeSet<_>>() {
        eprintln!("── without a fault: {}", level.name());
        if outcome(&tree, level)? != Outcome::Green {
            bail!("the {} tests fail without any fault: mend that first", level.name());
        }
    }
    let mut rows = Vec::new();
    for fault in &chosen {
        eprintln!("── {}: {} must notice", fault.name, fault.level.name());
        let begun = Instant::now();
        let planted = tree.plant(fault)?;
        rows.push((*fault, noticed(&tree, fault)?, begun.elapsed()));
        planted.remove()?;
    }
    println!("\n{:<42} {:<7} {:<8} {:>7}  by", "fault", "level", "outcome", "time");
    for (Fault { name, level, .. }, outcome, took) in &rows {
        let (word, by) = told(outcome);
        println!("{name:<42} {:<7} {word:<8} {:>6.1}s  {by}", level.name(), took.as_secs_f64());
    }
    let noticed = |outcome: &Outcome| matches!(outcome, Outcome::Red(_));
    let missed = rows.iter().filter(|(_, outcome, _)| !noticed(outcome)).count();
    println!("{} passed, {missed} failed", rows.len() - missed);
    if missed > 0 {
        bail!("{missed} of {} faults were not noticed by a test", rows.len());
    }
    Ok(())
}

fn told(outcome: &Outcome) -> (&'static str, &str) {
    match outcome {
        Outcome::Red(test) => ("noticed", test),
        Outcome::Green => ("MISSED", ""),
        Outcome::Broken => ("BROKEN", ""),
    }
}

/// What the tests say to a fault. One in lb-common's rules is first shown to its own tests: what they
/// notice need not be shown to the others of that level.
fn noticed(tree: &Tree, fault: &Fault) -> Result<Outcome> {
    let in_rules = fault.level == Level::Rules && fault.file.starts_with("lb-common/");
    if in_rules && let noticed @ Outcome::Red(_) = ends(tree, test::tests_of_the_rules_alone())? {
        return Ok(noticed);
    }
    outcome(tree, fault.level)
}

/// Runs a level in the copy, as far as the first test that fails.
fn outcome(tree: &Tree, level: Level) -> Result<Outcome> {
    ends(tree, test::tests_of(level)?)
}

fn ends(tree: &Tree, mut tests: Command) -> Result<Outcome> {
    tests.arg("--max-fail=1").current_dir(&tree.root).env("CARGO_TARGET_DIR", &tree.target);
    let shown = process::show(&tests);
    let spawned = tests.stderr(Stdio::piped()).spawn();
    let mut child = spawned.with_context(|| format!("cannot start `{shown}`"))?;
    let mut failed = None;
    for line in BufReader::new(child.stderr.take().context("a pipe")?).lines() {
        let line = line?;
        eprintln!("{line}");
        failed = failed.or_else(|| failing(&line));
    }
    Ok(judge(child.wait()?.code(), failed))
}

/// nextest's exit codes: 100 is a test that failed; others are trouble of its own.
fn judge(code: Option<i32>, failed: Option<String>) -> Outcome {
    match (code, failed) {
        (Some(0), _) => Outcome::Green,
        (Some(100), Some(test)) => Outcome::Red(test),
        _ => Outcome::Broken,
    }
}

/// The test that a line of nextest's says has failed: how, how long, its number of all, its binary
/// and its name.
fn failing(line: &str) -> Option<String> {
    let line = line.trim_start();
    let ends = ["FAIL [", "TIMEOUT [", "SIGABRT [", "SIGSEGV ["];
    let is_end = ends.iter().any(|end| line.starts_with(end));
    is_end.then(|| line.rsplit(' ').next().unwrap_or_default().to_owned())
}

fn choose<'a>(selection: &Selection, faults: &'a [Fault]) -> Result<Vec<&'a Fault>> {
    if let Some(number) = selection.random {
        return Ok(draw(faults, number, seed()));
    }
    if selection.names.is_empty() {
        return Ok(faults.iter().collect());
    }
    let by_name = |name: &String| {
        let found = faults.iter().find(|fault| fault.name == name);
        found.with_context(|| format!("no fault is called {name}; `--list` shows them"))
    };
    selection.names.iter().map(by_name).collect()
}

fn draw(faults: &[Fault], number: usize, mut seed: u64) -> Vec<&Fault> {
    let mut left: Vec<_> = faults.iter().collect();
    let mut drawn = Vec::new();
    while drawn.len() < number && !left.is_empty() {
        // xorshift64: fair enough for picking a few of some dozens.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let index = usize::try_from(seed % left.len() as u64).unwrap_or(0);
        drawn.push(left.swap_remove(index));
    }
    drawn
}

fn seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |time| u64::from(time.subsec_nanos()) | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn fault(name: &'static str) -> Fault {
        Fault { name, file: "a.rs", find: "a", replace: "b", level: Level::Rules }
    }

    #[test]
    fn code_that_does_not_compile_is_no_proof() {
        let line = "        FAIL [   1.090s] (214/215) lb-userspace::it packet::odd::a_flood";
        let failed = failing(line);
        assert_eq!(judge(Some(100), failed), Outcome::Red("packet::odd::a_flood".to_owned()));
        assert_eq!(failing("        PASS [   1.0s] (1/2) lb-userspace::it packet::odd::a"), None);
        assert_eq!(judge(Some(100), None), Outcome::Broken);
        assert_eq!(judge(Some(0), None), Outcome::Green);
        assert_eq!(judge(Some(101), None), Outcome::Broken);
        assert_eq!(judge(None, None), Outcome::Broken);
    }

    #[test]
    fn faults_are_drawn_without_repetition() {
        let faults = [fault("a"), fault("b"), fault("c")];
        let mut names: Vec<_> = draw(&faults, 9, 7).iter().map(|fault| fault.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(draw(&faults, 2, 7).len(), 2);
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let selection = Selection { names: vec!["x".to_owned()], random: None, list: false };
        let error = choose(&selection, &[fault("a")]).unwrap_err();
        assert_eq!(error.to_string(), "no fault is called x; `--list` shows them");
    }

    #[test]
    fn every_fault_has_its_place_in_the_code_and_a_name_of_its_own() {
        let mut names = BTreeSet::new();
        for fault in FAULTS {
            tree::planted(repo::root(), fault).unwrap();
            assert!(names.insert(fault.name), "{} twice", fault.name);
        }
    }
}
