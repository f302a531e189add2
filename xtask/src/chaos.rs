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
/// The row that every kernel runs.
const VERIFIERS: u32 = 40;
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
        let selection = Selection::rows(Kernel::Six18, &rows.guest);
        keep("in a guest", in_guests(&selection, &rows.guest, timings));
    }
    if (named || !fast) && rows.kernels {
        println!(" 40  every kernel's verifier");
        keep("every kernel", in_guests(&Selection::tests(VERIFIER), &[VERIFIERS], timings));
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(())
}

/// Runs rows in guests. What `cargo xtask vmtest` only says of a kernel that is not to be had is an
/// error here: nobody has seen the rows hold.
fn in_guests(selection: &Selection, rows: &[u32], timings: &mut Timings) -> Result<()> {
    match not_run(rows, &vmtest::run(selection, timings)?) {
        Some(named) => bail!("{named}"),
        None => Ok(()),
    }
}

/// Names the rows that skipped kernels would have run.
fn not_run(rows: &[u32], skipped: &[&str]) -> Option<String> {
    let rows: Vec<_> = rows.iter().map(u32::to_string).collect();
    let (rows, kernels) = (rows.join(", "), skipped.join(", "));
    (!skipped.is_empty()).then(|| format!("rows not run: {rows}, for want of kernels: {kernels}"))
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

    #[test]
    fn rows_whose_kernel_was_skipped_are_named() {
        assert_eq!(not_run(&[21, 31], &[]), None);
        let named = "rows not run: 21, 31, for want of kernels: 6.18";
        assert_eq!(not_run(&[21, 31], &["6.18"]).as_deref(), Some(named));
    }
}
