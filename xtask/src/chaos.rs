//! `cargo xtask chaos`: the `lb-chaos` binary, as root.

use std::process::Command;

use anyhow::Result;

use crate::{
    build, process, repo,
    setup::{self, Scope},
    sudo,
};

/// Sets up, builds, and runs the rows; none named: all of them, at full size.
pub(crate) fn run(args: &[String]) -> Result<()> {
    setup::ensure(Scope::Demo)?;
    build::all(false)?;
    process::run(&mut command(args)?)
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
