//! `cargo xtask chaos`: the `lb-chaos` binary, as root.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    build, process, repo,
    setup::{self, Scope},
    sudo,
};

/// The row that needs a program whose maps lie otherwise.
const LAYOUTS: &str = "3";

/// Sets up, builds, and runs the rows; none named: all of them, at full size.
pub(crate) fn run(args: &[String]) -> Result<()> {
    setup::ensure(Scope::Demo)?;
    let named = args.iter().any(|arg| !arg.starts_with('-'));
    let other = (!named || args.iter().any(|arg| arg == LAYOUTS)).then(other_layout).transpose()?;
    build::all(false)?;
    let mut command = command(args)?;
    // Through sudo, which keeps no variables.
    command.args(other.map(|path| format!("--other={}", path.display())));
    process::run(&mut command)
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
