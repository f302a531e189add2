//! `cargo xtask chaos`: the `lb-chaos` binary as root, and guests for the rows that need one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    build, process, repo,
    setup::{self, Scope},
    sudo,
    timing::Timings,
    vmtest::{self, Kernel, Selection},
};

/// The row that needs a program whose maps lie otherwise.
const LAYOUTS: u32 = 3;
/// What tells how the verifier of every kernel takes the programs.
const VERIFIER: &str = "packet::loads::every_program_loads";

/// The rows that were asked for, by where they run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rows {
    here: Vec<u32>,
    guest: Vec<u32>,
    /// Whether every kernel is asked.
    kernels: bool,
}

/// Sets up, builds, and runs the rows; none named: all of them, at full size.
pub(crate) fn run(args: &[String], timings: &mut Timings) -> Result<()> {
    setup::ensure(Scope::Demo)?;
    build::all(false)?;
    if args.iter().any(|arg| arg == "--list" || arg == "--help") {
        return process::run(&mut command(args)?);
    }
    let list = process::output(&mut command(&[args, &["--list".to_owned()]].concat())?)?;
    let rows = parse(&list);
    let fast = args.iter().any(|arg| arg == "--fast");
    let mut failed = Vec::new();
    let mut keep = |what: &str, result: Result<()>| {
        failed.extend(result.err().map(|error| format!("{what}: {error:#}")));
    };
    if !rows.here.is_empty() {
        keep("here", here(args, &rows.here));
    }
    let named = args.iter().any(|arg| !arg.starts_with('-'));
    if (named || !fast) && !rows.guest.is_empty() {
        keep("in a guest", vmtest::run(&Selection::rows(Kernel::Six18, &rows.guest), timings));
    }
    if (named || !fast) && rows.kernels {
        println!(" 40  every kernel's verifier");
        keep("row 40", vmtest::run(&Selection::tests(VERIFIER), timings));
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(())
}

/// The rows of this kernel, with what they need to be built.
fn here(args: &[String], rows: &[u32]) -> Result<()> {
    let other = rows.contains(&LAYOUTS).then(other_layout).transpose()?;
    build::all(false)?;
    let tests = vmtest::test_binary()?;
    let flags = args.iter().filter(|arg| arg.starts_with('-')).cloned();
    let numbers = rows.iter().map(u32::to_string);
    let mut command = command(&flags.chain(numbers).collect::<Vec<_>>())?;
    // Through sudo, which keeps no variables.
    command.arg(flag("tests", &tests)).args(other.map(|path| flag("other", &path)));
    process::run(&mut command)
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// Lines of `lb-chaos --list`: number, place, name.
fn parse(list: &str) -> Rows {
    let mut rows = Rows::default();
    for line in list.lines() {
        let mut words = line.split_whitespace();
        let number = words.next().and_then(|number| number.parse().ok());
        match (number, words.next()) {
            (Some(number), Some("here")) => rows.here.push(number),
            (Some(number), Some("guest")) => rows.guest.push(number),
            (Some(number), Some("both")) => {
                rows.here.push(number);
                rows.guest.push(number);
            }
            (Some(_), Some("kernels")) => rows.kernels = true,
            _ => {}
        }
    }
    rows
}

/// Builds a program whose maps lie otherwise, beside the one that everything else is done with.
fn other_layout() -> Result<PathBuf> {
    let mut cargo = process::cargo(["build", "-p", "lb-userspace", "--bin", "lb"]);
    process::run(cargo.args(["--features", "lab,layout-b"]))?;
    let debug = repo::target().join("debug");
    let other = debug.join("lb-layout-b");
    fs::copy(debug.join("lb"), &other)?;
    Ok(other)
}

/// The quick rows, already built.
pub(crate) fn run_fast() -> Result<()> {
    process::run(&mut command(&["--fast".to_owned()])?)
}

fn command(args: &[String]) -> Result<Command> {
    let binary = repo::target().join("debug/lb-chaos");
    let mut command = sudo::command(binary, "faults need network namespaces and BPF")?;
    command.args(args).current_dir(repo::root());
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_apart_by_where_they_run() {
        let list = "  1  here     kill -9\n 21  guest    VLANs\n 24  both     envelopes\n \
                    40  kernels  every verifier\n";
        let rows = Rows { here: vec![1, 24], guest: vec![21, 24], kernels: true };
        assert_eq!(parse(list), rows);
    }
}
