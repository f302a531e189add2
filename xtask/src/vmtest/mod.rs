//! `cargo xtask vmtest`: the tests on Debian's kernels, each in a virtual machine that needs no
//! hardware. QEMU computes every instruction there (TCG), so nothing in it measures speed.

mod guest;
mod image;
mod packages;
mod verified;

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

pub(crate) use self::image::test_binary;
use crate::{
    repo,
    setup::{self, Scope},
    timing::Timings,
};

/// A line of kernels that Debian keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 12: no TCX links
    #[value(name = "6.1")]
    Six1,
    /// Debian 13
    #[value(name = "6.12")]
    Six12,
    #[value(name = "6.18")]
    Six18,
    #[value(name = "7.3")]
    Seven3,
}

impl Kernel {
    const ALL: &[Self] = &[Self::Six1, Self::Six12, Self::Six18, Self::Seven3];

    /// As it is typed.
    const fn name(self) -> &'static str {
        match self {
            Self::Six1 => "6.1",
            Self::Six12 => "6.12",
            Self::Six18 => "6.18",
            Self::Seven3 => "7.3",
        }
    }
}

/// Which kernels, and what runs there.
#[derive(Args)]
pub(crate) struct Selection {
    /// None: all
    #[arg(value_enum)]
    kernels: Vec<Kernel>,
    /// Only tests whose names contain one of these; none: the packet tests, unless rows are named
    #[arg(long, value_name = "NAME")]
    tests: Vec<String>,
    /// Only these rows of faults; none: those that concern kernels, unless tests are named
    #[arg(long, value_name = "ROW")]
    rows: Vec<u32>,
    /// Write the counts of verified instructions down as those to hold later ones against
    #[arg(long)]
    record: bool,
}

impl Selection {
    /// These rows of faults in one kernel.
    pub(crate) fn rows(kernel: Kernel, rows: &[u32]) -> Self {
        Self { kernels: vec![kernel], tests: Vec::new(), rows: rows.to_vec(), record: false }
    }

    /// These tests in every kernel.
    pub(crate) fn tests(name: &str) -> Self {
        Self { kernels: Vec::new(), tests: vec![name.to_owned()], rows: Vec::new(), record: false }
    }
}

/// What runs in a guest unless something else is asked for: the packet tests but for some, and faults
/// that show whether the hooks of that kernel hold.
const TESTS: &[&str] = &["packet::"];
/// The packet tests that are left out unless they are named, because they take a guest longer than the rest together, and
/// what they tell is no affair of the kernel's age.
const LEFT_OUT: &[&str] = &[
    // What packets cost says nothing where every instruction is computed, and what maps take is another
    // number on each kernel.
    "packet::bench::",
    "packet::budgets::",
    // Loads the programs once for every write of a reconcile.
    "packet::crash::",
    // Loads all programs many times; the rules that explain are the ones that the other tests run.
    "packet::explain_",
    // Changes tables for seconds, in which little happens here.
    "packet::hammer::",
    // Load all programs for each of their tests; rows 1 and 7 do what they do.
    "packet::monitor::",
    "packet::moving::",
    "packet::tables_",
    // Waits for another CPU, which may be the same one.
    "packet::race::",
];
const ROWS: &[u32] = &[1, 2, 21, 22, 23, 24, 31, 36, 38, 39];

/// Runs the tests on every kernel chosen. A kernel that is not to be had is skipped, and said so: the
/// names of those.
pub(crate) fn run(selection: &Selection, timings: &mut Timings) -> Result<Vec<&'static str>> {
    let Selection { kernels, tests, rows, record } = selection;
    let all = rows.is_empty() && tests.is_empty();
    let rows = if all { ROWS } else { rows };
    let kernels = if kernels.is_empty() { Kernel::ALL } else { kernels };
    let tests = if all { filters(TESTS) } else { filters(tests) };
    timings.part("setup", || setup::ensure(Scope::Vm))?;
    let programs = timings.part("build", image::build)?;

    let (mut skipped, mut failed) = (Vec::new(), Vec::new());
    let mut counts = BTreeMap::new();
    for kernel in kernels {
        let name = kernel.name();
        let folder = folder(*kernel)?;
        let files = match packages::fetch(*kernel, &folder) {
            Ok(files) => files,
            Err(error) if error.is::<packages::Unreachable>() => {
                eprintln!("SKIPPED {name}: its packages are not to be had: {error:#}");
                skipped.push(name);
                continue;
            }
            Err(error) => {
                failed.push(format!("{name}: {error:#}"));
                continue;
            }
        };
        let outcome = timings.part(name, || {
            let initramfs = image::make(&files, &programs, &tests, rows, &folder)?;
            guest::boot(&files.kernel, &initramfs, &folder.join("serial.log"))
        });
        match outcome {
            Ok(seen) => {
                counts.insert(name, seen.verified);
                failed.extend(seen.failed.iter().map(|test| format!("{name}: {test}")));
            }
            Err(error) => failed.push(format!("{name}: {error:#}")),
        }
    }
    if *record {
        verified::record(&counts)?;
    } else {
        // Where any tests run, those that load every program do.
        failed.extend(verified::compare(&counts, !tests.is_empty())?);
    }
    timings.print("vmtest");
    let ran = kernels.len() - skipped.len();
    println!("{ran} kernels ran, {} skipped {}", skipped.len(), skipped.join(" "));
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(skipped)
}

/// Of the test binary: tests with one of these names, but not what is left out, unless it is named.
fn filters(names: &[impl AsRef<str>]) -> Vec<&str> {
    let mut filters: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    let left_out = |name: &&str| !names.iter().any(|named| named.as_ref().starts_with(*name));
    if !names.is_empty() {
        let skipped = LEFT_OUT.iter().copied().filter(left_out);
        filters.extend(skipped.flat_map(|name| ["--skip", name]));
    }
    filters
}

/// Where a kernel's packages, image and log are kept.
fn folder(kernel: Kernel) -> Result<PathBuf> {
    let folder = repo::target().join("vmtest").join(kernel.name());
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_runs_when_it_is_named() {
        let all = filters(TESTS);
        assert_eq!(all[..3], ["packet::", "--skip", LEFT_OUT[0]]);
        assert_eq!(all.len(), 1 + 2 * LEFT_OUT.len());
        let one = filters(&["packet::crash::"]);
        assert!(!one[1..].contains(&"packet::crash::"), "{one:?}");
        let none: [&str; 0] = [];
        assert_eq!(filters(&none), none, "no tests at all");
    }
}
